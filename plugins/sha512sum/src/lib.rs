//! The SHA-512 sums of all files of a run, in the form that `sha512sum -c` reads. The program around it is `main.rs`.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha512};

/// How much of a file is read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Keeps the default filter from matching the upload's own event, which would start the handler again.
const KEY_VALUES: &str = "do_processing,False\n";

/// What failed, and where.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder of the event cannot be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An output file cannot be written.
    #[error("failed to write {}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Writes `output/sha512sums.txt` and `output/kvp.csv` for the files below `download/` of the run folder.
///
/// Returns the paths that it skipped: those that are neither files nor folders.
///
/// # Errors
/// When something cannot be read or written.
pub fn run(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let found = find(&folder.join("download"))?;
    let sums = folder.join("output/sha512sums.txt");
    let failed = |source| Error::Write { path: sums.clone(), source };
    let mut out = BufWriter::new(File::create(&sums).map_err(failed)?);
    for (name, path) in &found.files {
        out.write_all(&line(&digest(path)?, name)).map_err(failed)?;
    }
    out.flush().map_err(failed)?;
    let key_values = folder.join("output/kvp.csv");
    fs::write(&key_values, KEY_VALUES).map_err(|source| Error::Write { path: key_values, source })?;
    Ok(found.others)
}

#[derive(Default)]
struct Found {
    /// Each with the bytes of its path below the folder, sorted by these.
    files: Vec<(Vec<u8>, PathBuf)>,
    others: Vec<PathBuf>,
}

/// Finds the files below a folder; links are not followed.
fn find(folder: &Path) -> Result<Found, Error> {
    let mut found = Found::default();
    let mut folders = vec![(Vec::new(), folder.to_owned())];
    while let Some((below, folder)) = folders.pop() {
        let failed = |source| Error::Read { path: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            let name = [&below, entry.file_name().as_encoded_bytes()].concat();
            if kind.is_dir() {
                folders.push(([&name, &b"/"[..]].concat(), entry.path()));
            } else if kind.is_file() {
                found.files.push((name, entry.path()));
            } else {
                found.others.push(entry.path());
            }
        }
    }
    found.files.sort();
    found.others.sort();
    Ok(found)
}

fn digest(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let (mut hash, mut chunk) = (Sha512::new(), vec![0; CHUNK_BYTES]);
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            Ok(read) => hash.update(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Returns a file's line. As in coreutils, a leading backslash says that the name is escaped.
fn line(digest: &str, name: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b'\\' => escaped.extend(b"\\\\"),
            b'\n' => escaped.extend(b"\\n"),
            b'\r' => escaped.extend(b"\\r"),
            other => escaped.push(*other),
        }
    }
    let mark: &[u8] = if escaped.len() == name.len() { b"" } else { b"\\" };
    [mark, digest.as_bytes(), b"  ", &escaped, b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use tempfile::TempDir;

    use super::*;

    /// FIPS 180-4's example, the sum of `abc`.
    const ABC: &str = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
    const EMPTY: &str = "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e";

    fn run_folder(files: &[(&str, &[u8])]) -> TempDir {
        let folder = TempDir::new().unwrap();
        for made in ["download", "output"] {
            fs::create_dir(folder.path().join(made)).unwrap();
        }
        for (name, content) in files {
            let path = folder.path().join("download").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        folder
    }

    fn output(folder: &TempDir, name: &str) -> String {
        fs::read_to_string(folder.path().join("output").join(name)).unwrap()
    }

    #[test]
    fn each_file_has_its_line_in_the_order_of_the_paths() {
        let folder = run_folder(&[("b", b"abc"), ("a/b/c.txt", b""), ("a.txt", b"abc")]);
        assert!(run(folder.path()).unwrap().is_empty());
        let expected = format!("{ABC}  a.txt\n{EMPTY}  a/b/c.txt\n{ABC}  b\n");
        assert_eq!(output(&folder, "sha512sums.txt"), expected);
        assert_eq!(output(&folder, "kvp.csv"), "do_processing,False\n");
    }

    #[test]
    fn no_files_make_no_lines() {
        let folder = run_folder(&[]);
        run(folder.path()).unwrap();
        assert_eq!(output(&folder, "sha512sums.txt"), "");
    }

    #[test]
    fn coreutils_finds_every_file_in_order() {
        let large = vec![7; 3 * CHUNK_BYTES + 1];
        let names =
            ["plain", "a b", "new\nline", "back\\slash", "re\rturn", "\\n", " lead", "*star", "ünïcode/\\\n"];
        let files: Vec<_> = names.iter().map(|name| (*name, &large[..])).collect();
        let folder = run_folder(&files);
        run(folder.path()).unwrap();
        let mut check = Command::new("sha512sum");
        check
            .args(["--check", "--strict", "../output/sha512sums.txt"])
            .current_dir(folder.path().join("download"));
        let Ok(said) = check.output() else {
            eprintln!("not checked: sha512sum cannot be started here");
            return;
        };
        assert!(said.status.success(), "{said:?}");
        assert_eq!(String::from_utf8(said.stdout).unwrap().matches(": OK\n").count(), names.len());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_skipped_and_named() {
        let folder = run_folder(&[("file", b"abc")]);
        let link = folder.path().join("download/link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        assert_eq!(run(folder.path()).unwrap(), [link]);
        assert_eq!(output(&folder, "sha512sums.txt"), format!("{ABC}  file\n"));
    }

    #[test]
    fn a_missing_folder_is_named() {
        let folder = TempDir::new().unwrap();
        let error = run(folder.path()).unwrap_err();
        assert_eq!(error.to_string(), format!("failed to read {}", folder.path().join("download").display()));
        fs::create_dir(folder.path().join("download")).unwrap();
        assert!(matches!(run(folder.path()), Err(Error::Write { .. })));
    }
}
