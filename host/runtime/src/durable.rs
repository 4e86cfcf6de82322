//! Files that outlast a crash, and files and folders that are their owner's alone. Blocks on the disk.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

/// What the name of a file ends with that [`write()`] has not completed. A crash may leave one.
pub const UNFINISHED: &str = ".tmp";

/// Writes a file of these parts into a folder that is there. When this returns, the file is on disk; after a crash it
/// is whole, or what it was before. Only its owner may read it.
///
/// # Errors
/// When the system refuses; nothing has changed then.
pub fn write(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    // Two may write the same file at once: each has a temporary one of its own, which its drop removes.
    let mut file = tempfile::Builder::new().suffix(UNFINISHED).tempfile_in(folder)?;
    parts.iter().try_for_each(|part| file.write_all(part))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(folder)?.sync_all()
}

/// Creates a folder, and those above it, unless it is there; only its owner may enter a new one.
///
/// # Errors
/// When the system refuses.
pub fn create_folder(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Creates an empty file unless it is there; only its owner may read a new one.
///
/// # Errors
/// When the system refuses.
pub fn create_file(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    }

    #[test]
    fn only_the_owner_may_read_what_is_new() {
        let top = tempfile::tempdir().unwrap();
        let folder = top.path().join("a/b");
        let file = folder.join("file");
        create_folder(&folder).unwrap();
        create_file(&file).unwrap();
        std::fs::write(&file, "kept").unwrap();
        create_folder(&folder).unwrap();
        create_file(&file).unwrap();
        assert_eq!((mode(&folder), mode(&file)), (0o700, 0o600));
        assert_eq!(std::fs::read(&file).unwrap(), b"kept");
    }

    #[test]
    fn a_file_is_written_whole_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write(&path, &[b"one"]).unwrap();
        write(&path, &[b"an", b"other"]).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"another");
        assert_eq!(mode(&path), 0o600);
        write(&folder.path().join("absent/file"), &[b"x"]).unwrap_err();
        std::fs::create_dir(folder.path().join("taken")).unwrap();
        write(&folder.path().join("taken"), &[b"x"]).unwrap_err();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
