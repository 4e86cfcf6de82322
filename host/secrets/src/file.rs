//! Secrets of the service itself, each in a file beside the data, sealed.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::{Label, OpenError, Sealed, Secret, Vault};
use waypost_runtime::durable;

/// A file of the data folder that holds one sealed secret, in Base64.
#[derive(Clone, Copy, Debug)]
pub struct SealedFile {
    name: &'static str,
    label: Label,
}

/// The key that signs deliveries.
pub const SIGNING_KEY: SealedFile = SealedFile::new("signing.key", "service.signing_key");
/// All of them: what seals the data with another key seals these, too.
pub const FILES: [SealedFile; 1] = [SIGNING_KEY];

/// Why such a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SealedFileError {
    /// It cannot be read or written.
    #[error("failed to read or write {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It cannot be opened.
    #[error("failed to open {path}: put the master key back that it is sealed with, or remove the file: a new secret is \
             made then, and whoever needs to know it has to be told", path = path.display())]
    Sealed {
        /// The file.
        path: PathBuf,
        /// Why.
        source: OpenError,
    },
    /// It holds something else.
    #[error("{path} holds no sealed secret: remove it, and a new one is made, of which whoever needs to know it has to be \
             told", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

impl SealedFile {
    const fn new(name: &'static str, field: &'static str) -> Self {
        Self { name, label: Label::of_service(field) }
    }

    /// Returns its path in a data folder.
    pub fn path(&self, folder: &Path) -> PathBuf {
        folder.join(self.name)
    }

    /// Returns the secret; `None` where there is no such file.
    ///
    /// # Errors
    /// When the file cannot be read or opened.
    pub fn read(&self, folder: &Path, vault: &Vault) -> Result<Option<Secret>, SealedFileError> {
        let path = self.path(folder);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(SealedFileError::Io { path, source }),
        };
        let bytes = BASE64_STANDARD.decode(text.trim_ascii()).ok();
        let Some(sealed) = bytes.and_then(|bytes| Sealed::from_bytes(bytes.into()).ok()) else {
            return Err(SealedFileError::Malformed { path });
        };
        vault.open(self.label, &sealed).map(Some).map_err(|source| SealedFileError::Sealed { path, source })
    }

    /// Writes the secret. When this returns, the file is on disk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, folder: &Path, vault: &Vault, secret: &Secret) -> Result<(), SealedFileError> {
        let path = self.path(folder);
        let sealed = vault.seal(self.label, secret);
        let bytes = sealed.bytes().expect("what a vault has sealed is sealed");
        let written = durable::write(&path, &[BASE64_STANDARD.encode(bytes).as_bytes(), b"\n"]);
        written.map_err(|source| SealedFileError::Io { path, source })
    }

    /// Seals the secret again, with the first key of a vault that has the old one, too. Where that one is lost and given
    /// up, the file is removed.
    ///
    /// # Errors
    /// When the file cannot be read, opened or written.
    pub fn reseal(&self, folder: &Path, vault: &Vault, gives_up_lost: bool) -> Result<(), SealedFileError> {
        match self.read(folder, vault) {
            Ok(None) => Ok(()),
            Ok(Some(secret)) => self.write(folder, vault, &secret),
            Err(SealedFileError::Sealed { path, source: OpenError::OtherKey { .. } }) if gives_up_lost => {
                std::fs::remove_file(&path).map_err(|source| SealedFileError::Io { path, source })
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_kept_sealed_in_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let (folder, vault) = (folder.path(), Vault::unkept());
        assert!(SIGNING_KEY.read(folder, &vault).unwrap().is_none());
        SIGNING_KEY.reseal(folder, &vault, false).unwrap();
        SIGNING_KEY.write(folder, &vault, &Secret::from("hunter2".to_owned())).unwrap();
        assert_eq!(SIGNING_KEY.read(folder, &vault).unwrap().unwrap().expose(), b"hunter2");
        let before = std::fs::read_to_string(SIGNING_KEY.path(folder)).unwrap();
        SIGNING_KEY.reseal(folder, &vault, false).unwrap();
        assert_ne!(std::fs::read_to_string(SIGNING_KEY.path(folder)).unwrap(), before);
        assert_eq!(SIGNING_KEY.read(folder, &vault).unwrap().unwrap().expose(), b"hunter2");
        let error = SIGNING_KEY.read(folder, &Vault::unkept()).unwrap_err();
        assert!(matches!(error, SealedFileError::Sealed { .. }), "{error}");
        SIGNING_KEY.reseal(folder, &Vault::unkept(), false).unwrap_err();
        SIGNING_KEY.reseal(folder, &Vault::unkept(), true).unwrap();
        assert!(SIGNING_KEY.read(folder, &vault).unwrap().is_none(), "it was given up");
        for wrong in ["", "!", "AAAA"] {
            std::fs::write(SIGNING_KEY.path(folder), wrong).unwrap();
            let error = SIGNING_KEY.read(folder, &vault).unwrap_err();
            assert!(matches!(error, SealedFileError::Malformed { .. }), "{wrong}: {error}");
        }
    }
}
