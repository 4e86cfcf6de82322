//! What `waypost db` does with the file of a server that does not run: looks at its schema, and creates or migrates it.

use std::path::Path;

use redb::DatabaseError;

use super::handle::{FILE_NAME, Handle, builder, database, schema_of};
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
}

/// Reads the schema version of the store in `folder`, without changing anything.
///
/// # Errors
/// When there is no file, when it is in use, or when it is not Waypost's.
pub fn check(folder: &Path) -> Result<CheckReport, OpenError> {
    let path = folder.join(FILE_NAME);
    if !path.exists() {
        return Err(OpenError::Missing { path });
    }
    let found = match builder().open_read_only(&path) {
        Ok(database) => schema_of(&path, &database)?,
        // A file that was not closed properly is repaired when it is opened for writing.
        Err(DatabaseError::RepairAborted) => schema_of(&path, &database(&path)?)?,
        Err(error) => return Err(open_error(&path, error)),
    };
    Ok(CheckReport { found, current: SCHEMA_VERSION })
}

/// Creates the store in `folder`, or migrates it to the current schema; returns what was there before.
///
/// # Errors
/// As for opening.
pub fn sync(folder: &Path, key: &KeyFile) -> Result<CheckReport, OpenError> {
    let before = match check(folder) {
        Ok(checked) => checked,
        Err(OpenError::Missing { .. }) => CheckReport { found: None, current: SCHEMA_VERSION },
        Err(error) => return Err(error),
    };
    drop(Handle::open(folder, key)?);
    Ok(before)
}
