//! Writes the text of all files of a run in upper case, by Unicode's rules. The program around it is `main.rs`.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// How much of a file is read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// The example's key-values, and the one that keeps the default filter from matching the upload's own event.
const KEY_VALUES: &str =
    concat!("SoftwareName,uppercase\nSoftwareVersion,", env!("CARGO_PKG_VERSION"), "\ndo_processing,False\n");

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
    /// A file is not UTF-8 text.
    #[error("{} is no UTF-8 text: see its byte {at}, counted from 0", path.display())]
    NoText {
        /// Which file.
        path: PathBuf,
        /// The offset of the first byte that is not text.
        at: u64,
    },
    /// A file would replace the key-values.
    #[error("download/kvp.csv cannot be written: output/kvp.csv holds the key-values of the upload")]
    KeyValues,
}

/// Writes each file below `download/` of the run folder to the same place below `output/`, and `output/kvp.csv`.
///
/// Returns the paths that it skipped: those that are neither files nor folders.
///
/// # Errors
/// When something cannot be read or written, or is not text.
pub fn run(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let (download, output) = (folder.join("download"), folder.join("output"));
    if download.join("kvp.csv").exists() {
        return Err(Error::KeyValues);
    }
    let mut others = Vec::new();
    let mut folders = vec![(download, output.clone())];
    while let Some((from, to)) = folders.pop() {
        let failed = |source| Error::Read { path: from.clone(), source };
        for entry in fs::read_dir(&from).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            let target = to.join(entry.file_name());
            if kind.is_dir() {
                fs::create_dir(&target).map_err(|source| Error::Write { path: target.clone(), source })?;
                folders.push((entry.path(), target));
            } else if kind.is_file() {
                copy(&entry.path(), &target)?;
            } else {
                others.push(entry.path());
            }
        }
    }
    let key_values = output.join("kvp.csv");
    fs::write(&key_values, KEY_VALUES).map_err(|source| Error::Write { path: key_values, source })?;
    others.sort();
    Ok(others)
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let unread = |source| Error::Read { path: from.to_owned(), source };
    let unwritten = |source| Error::Write { path: to.to_owned(), source };
    let mut file = File::open(from).map_err(unread)?;
    let mut out = BufWriter::new(File::create(to).map_err(unwritten)?);
    let mut chunk = vec![0; CHUNK_BYTES];
    // The chunk begins with the incomplete character at the end of the last one.
    let (mut kept, mut done) = (0, 0_u64);
    loop {
        let read = match file.read(&mut chunk[kept..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(unread)?,
        };
        let filled = kept + read;
        let text = whole_text(&chunk[..filled], read == 0)
            .map_err(|at| Error::NoText { path: from.to_owned(), at: done + at as u64 })?;
        out.write_all(text.to_uppercase().as_bytes()).map_err(unwritten)?;
        if read == 0 {
            return out.flush().map_err(unwritten);
        }
        let whole = text.len();
        done += whole as u64;
        chunk.copy_within(whole..filled, 0);
        kept = filled - whole;
    }
}

/// Returns the text up to the last complete character. The error is the offset of the first byte that is not text.
fn whole_text(bytes: &[u8], at_end: bool) -> Result<&str, usize> {
    let whole = match str::from_utf8(bytes) {
        Ok(text) => return Ok(text),
        Err(error) if error.error_len().is_some() || at_end => return Err(error.valid_up_to()),
        Err(error) => error.valid_up_to(),
    };
    str::from_utf8(&bytes[..whole]).map_err(|error| error.valid_up_to())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

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
    fn every_file_is_written_in_upper_case_to_the_same_place() {
        let folder = run_folder(&[
            ("a.txt", b"Hello, world 1!\r\n"),
            ("b/c/d.txt", "straße, ǆ, ﬁ, Ελλάς, 日本".as_bytes()),
            ("empty", b""),
        ]);
        assert!(run(folder.path()).unwrap().is_empty());
        assert_eq!(output(&folder, "a.txt"), "HELLO, WORLD 1!\r\n");
        assert_eq!(output(&folder, "b/c/d.txt"), "STRASSE, Ǆ, FI, ΕΛΛΆΣ, 日本");
        assert_eq!(output(&folder, "empty"), "");
        assert_eq!(
            output(&folder, "kvp.csv"),
            "SoftwareName,uppercase\nSoftwareVersion,0.1.0\ndo_processing,False\n"
        );
    }

    #[test]
    fn characters_across_chunk_boundaries_stay_whole() {
        for character in ["ß", "ﬁ", "𐐨"] {
            for shift in 0..character.len() {
                let text = "x".repeat(shift) + &character.repeat(CHUNK_BYTES / 2);
                let folder = run_folder(&[("text", text.as_bytes())]);
                run(folder.path()).unwrap();
                assert!(output(&folder, "text") == text.to_uppercase(), "{character} shifted by {shift}");
            }
        }
    }

    #[test]
    fn a_file_that_is_not_text_is_named_with_the_offset() {
        let long = [vec![b'a'; 2 * CHUNK_BYTES + 7], vec![0xff]].concat();
        for (content, at) in
            [(&b"ab\xff"[..], 2), (b"\xc3", 0), (b"a\xe6\x97", 1), (&long, 2 * CHUNK_BYTES + 7)]
        {
            let folder = run_folder(&[("sub/image.png", content)]);
            let path = folder.path().join("download/sub/image.png");
            assert_eq!(
                run(folder.path()).unwrap_err().to_string(),
                format!("{} is no UTF-8 text: see its byte {at}, counted from 0", path.display())
            );
        }
    }

    #[test]
    fn a_file_that_would_replace_the_key_values_is_refused() {
        let folder = run_folder(&[("kvp.csv", b"do_processing,True\n")]);
        assert!(matches!(run(folder.path()), Err(Error::KeyValues)));
        let folder = run_folder(&[("sub/kvp.csv", b"a,b\n")]);
        run(folder.path()).unwrap();
        assert_eq!(output(&folder, "sub/kvp.csv"), "A,B\n");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_skipped_and_named() {
        let folder = run_folder(&[]);
        let link = folder.path().join("download/link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        assert_eq!(run(folder.path()).unwrap(), [link]);
        assert!(!folder.path().join("output/link").exists());
    }

    #[test]
    fn a_missing_folder_is_named() {
        let folder = TempDir::new().unwrap();
        let error = run(folder.path()).unwrap_err();
        assert_eq!(error.to_string(), format!("failed to read {}", folder.path().join("download").display()));
    }
}
