//! Which files of an output folder are collected, and which are refused.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Command;

use tempfile::TempDir;

use super::*;
use crate::KEY_VALUES_FILE;

const LIMITS: OutputLimits = OutputLimits { files_max: 3, bytes_max: 10 };

/// Makes a run's folder whose output has these files, of as many bytes.
fn run(files: &[(&str, usize)]) -> TempDir {
    let run = tempfile::tempdir().unwrap();
    fs::create_dir(run.path().join("output")).unwrap();
    for (path, bytes) in files {
        let path = run.path().join("output").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x".repeat(*bytes)).unwrap();
    }
    run
}

fn collect(run: &TempDir, more: &[(&str, PathBuf)]) -> Result<Output, OutputError> {
    let more: Vec<_> =
        more.iter().map(|(path, place)| (FilePath::parse(path).unwrap(), place.clone())).collect();
    Output::collect(0, "output", &run.path().join("output"), KEY_VALUES_FILE, &more, LIMITS)
}

fn paths(output: &Output) -> Vec<(&str, u64, &str)> {
    output.files.iter().map(|file| (file.path.as_str(), file.size, file.mimetype.as_str())).collect()
}

#[test]
fn files_come_in_the_order_of_their_paths_with_what_is_known_of_them() {
    let run = run(&[("b/c.json", 2), ("a.txt", 1), (".hidden", 0)]);
    fs::write(run.path().join("output/kvp.csv"), "do_processing,False\n").unwrap();
    fs::create_dir_all(run.path().join("output/empty/folders")).unwrap();
    let output = collect(&run, &[]).unwrap();
    let expected = [
        (".hidden", 0, "application/octet-stream"),
        ("a.txt", 1, "text/plain"),
        ("b/c.json", 2, "application/json"),
    ];
    assert_eq!(paths(&output), expected);
    assert_eq!((output.place, output.name.as_str(), output.bytes()), (0, "output", 3));
    assert_eq!(output.key_values.len(), 1);
    assert_eq!(output.files[1].place, run.path().join("output/a.txt"));
    assert_eq!(output.files[1].modified, fs::metadata(&output.files[1].place).unwrap().modified().unwrap());
}

/// The metadata service accepts ten top-level types only, and failed a whole upload of crystals at its last step, after
/// all files were archived.
#[test]
fn a_media_type_that_metadata_does_not_take_is_bytes() {
    for (name, expected) in [
        ("a.cif", "application/octet-stream"),
        ("a.xyz", "application/octet-stream"),
        ("a.cml", "application/octet-stream"),
        ("a.wrl", "application/octet-stream"),
        ("a.ice", "application/octet-stream"),
        ("a.py", "text/x-python"),
        ("a.mp4", "video/mp4"),
        ("a.tiff", "image/tiff"),
    ] {
        assert_eq!(mimetype(&FilePath::parse(name).unwrap()), expected, "{name}");
    }
}

#[test]
fn what_lies_elsewhere_is_added_unless_the_program_made_it() {
    let run = run(&[("x.stdout.log", 1), ("x.stderr.log/is a folder", 1), ("y", 8)]);
    let log = run.path().join("log");
    fs::write(&log, "a log beyond the limits").unwrap();
    let more = ["x.stdout.log", "x.stderr.log", "z.log"].map(|path| (path, log.clone()));
    let output = collect(&run, &more).unwrap();
    let found: Vec<_> = output.files.iter().map(|file| (file.path.as_str(), file.size)).collect();
    assert_eq!(found, [("x.stderr.log/is a folder", 1), ("x.stdout.log", 1), ("y", 8), ("z.log", 23)]);
}

#[test]
fn limits_are_named() {
    let run = run(&[("a", 5), ("b", 5), ("c", 0)]);
    assert_eq!(collect(&run, &[]).unwrap().files.len(), 3);
    fs::write(run.path().join("output/d"), "").unwrap();
    let error = collect(&run, &[]).unwrap_err().to_string();
    assert_eq!(error, "output `output` holds more than 3 files (`output_files_max`)");
    fs::remove_file(run.path().join("output/d")).unwrap();
    fs::write(run.path().join("output/c"), "x").unwrap();
    let error = collect(&run, &[]).unwrap_err().to_string();
    assert!(error.contains("more than 10 bytes (`output_bytes_max`)"), "{error}");
}

#[test]
fn what_is_no_file_is_refused_by_its_path() {
    type Make = fn(&Path);
    let kinds: [(&str, Make); 4] = [
        ("a link", |path| symlink("/etc/passwd", path).unwrap()),
        ("a link", |path| symlink("/", path).unwrap()),
        ("a pipe", |path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success())),
        ("a socket", |path| drop(UnixListener::bind(path).unwrap())),
    ];
    for name in ["b/bad", KEY_VALUES_FILE] {
        for (kind, make) in kinds {
            let run = run(&[("b/good", 1)]);
            let path = run.path().join("output").join(name);
            make(&path);
            let error = collect(&run, &[]).unwrap_err().to_string();
            assert!(error.contains(&format!("{} is {kind}", path.display())), "{error}");
        }
    }
    let run = run(&[("kvp.csv/file", 1)]);
    let error = collect(&run, &[]).unwrap_err().to_string();
    assert!(error.contains("kvp.csv is a folder"), "{error}");
}

#[test]
fn a_name_that_is_no_text_is_refused() {
    let run = run(&[]);
    fs::write(run.path().join("output").join(std::ffi::OsStr::from_bytes(b"\xff.txt")), "").unwrap();
    let error = collect(&run, &[]).unwrap_err().to_string();
    assert!(error.contains("cannot be uploaded: it is not UTF-8"), "{error}");
}

/// A native program can do this to its own run's folder: without the check of the folders above, the whole disk would
/// be its output.
#[test]
fn an_output_that_was_put_elsewhere_is_refused() {
    let (run, elsewhere) = (run(&[]), tempfile::tempdir().unwrap());
    fs::create_dir(elsewhere.path().join("inner")).unwrap();
    fs::write(elsewhere.path().join("inner/secret"), "").unwrap();
    let output = run.path().join("output");
    fs::remove_dir(&output).unwrap();
    let collect = |name: &str| Output::collect(0, name, &run.path().join(name), KEY_VALUES_FILE, &[], LIMITS);
    assert!(matches!(collect("output"), Err(OutputError::Read { path, .. }) if path == output));
    symlink(elsewhere.path(), &output).unwrap();
    for name in ["output", "output/inner"] {
        let error = collect(name).unwrap_err();
        assert!(matches!(&error, OutputError::Kind { path, kind: "a link" } if *path == output), "{error}");
    }
}

#[test]
fn key_values_that_are_none_are_an_error() {
    let run = run(&[]);
    fs::write(run.path().join("output/kvp.csv"), "a,1\nb\n").unwrap();
    let error = collect(&run, &[]).unwrap_err().to_string();
    assert!(error.contains("output/kvp.csv holds no key-values: line 2"), "{error}");
}
