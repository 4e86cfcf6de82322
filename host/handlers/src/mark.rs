//! Small files that survive a crash: each is complete, or absent. Reading and writing block on the disk.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use waypost_runtime::durable;

/// Reads a file; `None` if it is absent, truncated or of another version.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(json) => Ok(serde_json::from_slice(&json).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a file into an existing folder; when this returns, it is on disk.
pub(super) fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    durable::write(path, &[&serde_json::to_vec(value)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mark.json");
        assert_eq!(read::<u32>(&path).unwrap(), None);
        for value in [7, 8] {
            write(&path, &value).unwrap();
            assert_eq!(read(&path).unwrap(), Some(value));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing beside it");
        fs::write(&path, "{\"cut").unwrap();
        assert_eq!(read::<u32>(&path).unwrap(), None);
        assert!(write(&folder.path().join("absent/mark.json"), &7).is_err());
    }
}
