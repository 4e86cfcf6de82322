//! Files from a local folder. Blocks on the disk.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::copy::{Copier, CopyError};
use super::plan::Wanted;
use super::{Error, LocalError};

/// Copies files from below `folder`, each at its own path.
pub(super) fn copy(folder: &Path, wanted: &[Wanted], copier: &mut Copier) -> Result<(), Error> {
    let unusable = |source| LocalError::Folder { folder: folder.to_owned(), source };
    let root = folder.canonicalize().map_err(unusable)?;
    wanted.iter().try_for_each(|wanted| copy_one(&root, wanted, copier))
}

fn copy_one(root: &Path, wanted: &Wanted, copier: &mut Copier) -> Result<(), Error> {
    let (path, folder) = (wanted.path.clone(), root.to_owned());
    let (file, size) = open(root, wanted)?;
    copier.copy(wanted, size, file).map_err(|error| match error {
        CopyError::Read(source) => LocalError::Read { path, folder, source }.into(),
        CopyError::Length => LocalError::Changed { path, folder }.into(),
        CopyError::Other(error) => error,
    })
}

/// Opens a file after checking that its real path is below the folder, and returns its size.
fn open(root: &Path, wanted: &Wanted) -> Result<(File, u64), LocalError> {
    let (path, folder) = (&wanted.path, root.to_owned());
    let unreadable = |source| LocalError::Read { path: path.clone(), folder: root.to_owned(), source };
    let place = path.below(root).canonicalize().map_err(unreadable)?;
    if !place.starts_with(root) {
        return Err(LocalError::Outside { path: path.clone(), folder, place });
    }
    // The kind is checked before opening: opening a named pipe blocks until a process writes to it.
    let found = fs::metadata(&place).map_err(unreadable)?;
    if !found.is_file() {
        return Err(LocalError::NotRegular { path: path.clone(), folder });
    }
    let file = File::open(&place).map_err(unreadable)?;
    let opened = file.metadata().map_err(unreadable)?;
    if (opened.dev(), opened.ino()) != (found.dev(), found.ino()) {
        return Err(LocalError::Changed { path: path.clone(), folder });
    }
    Ok((file, opened.len()))
}
