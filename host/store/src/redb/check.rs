//! What `waypost db` does with the file of a server that does not run: examines it, looks at its schema, and creates or
//! migrates it.

use std::fs::File;
use std::panic::catch_unwind;
use std::path::Path;

use redb::DatabaseError;

use super::examine::{Condition, Overlay, examine};
use super::handle::{FILE_NAME, Handle, builder, schema_of};
use super::open_error::{OpenError, open_error};
use super::schema::SCHEMA_VERSION;
use waypost_secrets::KeyFile;

/// What `waypost db check` finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckReport {
    /// The schema version of the file; `None` for a file without any.
    pub found: Option<u64>,
    /// The version that this Waypost writes.
    pub current: u64,
    /// Whether the last commit was not whole, so that the next start goes back to the one before it.
    pub is_last_commit_torn: bool,
}

/// Reads all pages of the store in `folder`, and its schema version, without changing anything.
///
/// # Errors
/// When there is no file, when it is in use, damaged, or not Waypost's.
pub fn check(folder: &Path) -> Result<CheckReport, OpenError> {
    let path = folder.join(FILE_NAME);
    if !path.exists() {
        return Err(OpenError::Missing { path });
    }
    // The database itself is not looked at: a damaged one may let the storage engine panic. While it is open, no server starts.
    let locked = catch_unwind(|| builder().open_read_only(&path));
    if let Ok(Err(DatabaseError::DatabaseAlreadyOpen)) = locked {
        return Err(OpenError::InUse { path });
    }
    let open = || File::open(&path).map_err(|source| OpenError::Create { path: path.clone(), source });
    let file = Overlay::of(open()?).map_err(|error| open_error(&path, error))?;
    let examined = examine(file, |database| schema_of(&path, database));
    let (found, condition) =
        examined.map_err(|error| OpenError::Open { path: path.clone(), source: Box::new(error) })?;
    let is_last_commit_torn = match condition {
        Condition::Damaged { reason } => return Err(OpenError::Damaged { path, reason }),
        Condition::LastCommitTorn => true,
        Condition::Whole => false,
    };
    let found = found.transpose()?.flatten();
    Ok(CheckReport { found, current: SCHEMA_VERSION, is_last_commit_torn })
}

/// Creates the store in `folder`, or migrates it to the current schema; returns what was there before.
///
/// # Errors
/// As for opening.
pub fn sync(folder: &Path, key: &KeyFile) -> Result<CheckReport, OpenError> {
    let before = match check(folder) {
        Ok(checked) => checked,
        Err(OpenError::Missing { .. }) => {
            CheckReport { found: None, current: SCHEMA_VERSION, is_last_commit_torn: false }
        }
        Err(error) => return Err(error),
    };
    drop(Handle::open(folder, key)?);
    Ok(before)
}
