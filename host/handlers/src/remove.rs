//! Removes what a program has left. That may be hostile: folders nested too deep for a path or a recursive walk, and
//! folders without write permission.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// The permissions that an owner needs to empty a folder.
const OWNERS: u32 = 0o700;

/// Removes a folder with all that is in it. Blocks on the disk.
///
/// A nested folder is moved up to the top before it is emptied. So paths stay short however deep the nesting was, and
/// nothing here is recursive.
///
/// # Errors
/// When something could not be removed.
pub(super) fn remove(top: &Path) -> io::Result<()> {
    let mut folders = Vec::new();
    // If that is not permitted, the next step reports it.
    drop(fs::set_permissions(top, Permissions::from_mode(OWNERS)));
    let mut stays = empty(top, top, &mut folders).err();
    while let Some(folder) = folders.pop() {
        let removed = empty(&folder, top, &mut folders).and_then(|()| fs::remove_dir(&folder));
        stays = stays.or(forgive_absence(removed).err());
    }
    match stays {
        None => forgive_absence(fs::remove_dir(top)),
        Some(error) => forgive_absence(Err(error)),
    }
}

/// Ignores that a file is gone already: another task may be removing it too.
pub(super) fn forgive_absence(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Removes the files of a folder, and lists its folders, moved to the top.
fn empty(folder: &Path, top: &Path, folders: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut all = Ok(());
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let done = if entry.file_type()?.is_dir() {
            take_up(&entry, path, folder == top, top).map(|place| folders.push(place))
        } else {
            fs::remove_file(&path)
        };
        all = all.and(forgive_absence(done));
    }
    all
}

/// Makes a folder accessible to its owner again, moves it to the top and returns its new path.
fn take_up(entry: &fs::DirEntry, path: PathBuf, is_there: bool, top: &Path) -> io::Result<PathBuf> {
    let mode = entry.metadata()?.permissions().mode();
    if mode & OWNERS != OWNERS {
        fs::set_permissions(&path, Permissions::from_mode(OWNERS))?;
    }
    if is_there {
        return Ok(path);
    }
    let place = top.join(Uuid::new_v4().to_string());
    fs::rename(path, &place)?;
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The standard library's removal is recursive. A program that nested some ten thousand folders overflowed the
    /// stack and ended the whole service, again after each start.
    #[test]
    fn folders_nested_deeper_than_a_stack_or_a_path_can_be_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (top, next) = (folder.path().join("top"), folder.path().join("next"));
        fs::create_dir(&top).unwrap();
        fs::write(top.join("file"), "x").unwrap();
        // Built from the innermost folder outwards: in the other direction, paths would soon be too long.
        for _ in 0..15_000 {
            fs::create_dir(&next).unwrap();
            fs::rename(&top, next.join("d")).unwrap();
            fs::rename(&next, &top).unwrap();
        }
        remove(&top).unwrap();
        assert!(!top.exists());
        remove(&top).unwrap();
    }

    #[test]
    fn a_folder_without_permissions_is_removed_and_what_a_link_leads_to_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (top, outside) = (folder.path().join("top"), folder.path().join("outside"));
        let inner = top.join("a/b/c");
        fs::create_dir_all(&inner).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        fs::write(inner.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, inner.join("link")).unwrap();
        for place in [&inner, &top.join("a/b"), &top.join("a")] {
            fs::set_permissions(place, Permissions::from_mode(0o000)).unwrap();
        }
        remove(&top).unwrap();
        assert!(!top.exists() && outside.join("kept").exists());
    }
}
