//! The vault: it has the master key, seals and opens.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{KeyFileError, KeyId, OpenError, Sealed, Secret};
use waypost_domain::secret::{NONCE_BYTES, Parts};
use waypost_runtime::durable;
use waypost_runtime::random;

/// The name of the key's file in the data folder, unless the operator names another.
pub const FILE_NAME: &str = "master.key";
/// How many bytes a key has.
const KEY_BYTES: usize = 32;

/// What a secret is for: the field that holds it, and whose it is. Sealed for one label, a secret does not open for
/// another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    field: &'static str,
    owner: Uuid,
}

impl Label {
    /// Names the field of something with an id, such as a subscription. The name is part of what is stored: it never
    /// changes.
    pub const fn new(field: &'static str, owner: Uuid) -> Self {
        Self { field, owner }
    }

    /// Names a secret of the service itself.
    pub const fn of_service(field: &'static str) -> Self {
        Self { field, owner: Uuid::nil() }
    }

    /// Returns what the tag covers besides the secret.
    fn bytes(&self) -> Vec<u8> {
        [b"waypost secret\0", self.field.as_bytes(), b"\0", self.owner.as_bytes()].concat()
    }
}

/// A master key.
struct Key {
    id: KeyId,
    bytes: Zeroizing<[u8; KEY_BYTES]>,
}

impl Key {
    fn new(bytes: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        let hash = Sha256::new().chain_update(b"waypost master key\0").chain_update(*bytes).finalize();
        let (id, _) = hash.split_first_chunk().expect("a hash is longer than an id");
        Self { id: KeyId::from_bytes(*id), bytes }
    }

    fn random() -> Self {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        random::fill(&mut *bytes);
        Self::new(bytes)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.bytes).into())
    }
}

/// Where the master key lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyFile {
    /// In a file that the operator has made.
    At(PathBuf),
    /// In [`FILE_NAME`] of this folder, where Waypost makes one.
    In(PathBuf),
}

impl KeyFile {
    /// Returns its path.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::At(path) => path.clone(),
            Self::In(folder) => folder.join(FILE_NAME),
        }
    }
}

/// The master key and older ones: seals secrets with the first, and opens those that any of them has sealed.
pub struct Vault {
    path: Option<PathBuf>,
    keys: Vec<Key>,
}

impl Vault {
    /// Makes a vault with a new key that lies nowhere: what it seals can be opened as long as it lives.
    pub fn unkept() -> Self {
        Self { path: None, keys: vec![Key::random()] }
    }

    /// Reads the keys of a file: one on each line, in base64; the first one seals. Lines that begin with `#` do not count.
    ///
    /// # Errors
    /// When the file is not there, cannot be read, or holds something else.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let path = path.to_owned();
        let text = match std::fs::read(&path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(KeyFileError::Missing { path });
            }
            Err(source) => return Err(KeyFileError::Read { path, source }),
        };
        let mut keys = Vec::<Key>::new();
        for (line, text) in (1..).zip(text.split(|byte| *byte == b'\n')) {
            let text = text.trim_ascii();
            if text.is_empty() || text.starts_with(b"#") {
                continue;
            }
            let key = parse(text).ok_or_else(|| KeyFileError::Malformed { path: path.clone(), line })?;
            if keys.iter().all(|known| known.id != key.id) {
                keys.push(key);
            }
        }
        if keys.is_empty() {
            return Err(KeyFileError::Empty { path });
        }
        warn_of_readers(&path);
        Ok(Self { path: Some(path), keys })
    }

    /// Makes a vault with a new key, and keeps it in a file that only its owner may read. When this returns, the file is
    /// on disk.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn create(path: &Path) -> Result<Self, KeyFileError> {
        let vault = Self { path: Some(path.to_owned()), keys: vec![Key::random()] };
        vault.save()?;
        Ok(vault)
    }

    /// Makes the first key of a file the one that seals, or a new one, and keeps it in this vault's file beside those that
    /// are there. Where there are several already, an earlier change was not completed: then the first one stays.
    ///
    /// # Errors
    /// When the other file cannot be used, or this vault's cannot be written; then it has not changed.
    pub fn with_new_key(mut self, from: Option<&Path>) -> Result<Self, KeyFileError> {
        let new = match from {
            Some(from) => Self::load(from)?.keys.swap_remove(0),
            None if self.keys.len() > 1 => return Ok(self),
            None => Key::random(),
        };
        self.keys.retain(|known| known.id != new.id);
        self.keys.insert(0, new);
        self.save()?;
        Ok(self)
    }

    /// Keeps only the key that seals.
    ///
    /// # Errors
    /// When the file cannot be written; then it has not changed.
    pub fn forget_old_keys(&mut self) -> Result<(), KeyFileError> {
        self.keys.truncate(1);
        self.save()
    }

    /// Writes the keys into their file.
    fn save(&self) -> Result<(), KeyFileError> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut text = Zeroizing::new(String::with_capacity(64 * self.keys.len()));
        for key in &self.keys {
            BASE64_STANDARD.encode_string(*key.bytes, &mut text);
            text.push('\n');
        }
        let written = durable::write(path, &[text.as_bytes()]);
        written.map_err(|source| KeyFileError::Write { path: path.clone(), source })
    }

    /// Returns the id of the key that seals.
    pub fn key(&self) -> KeyId {
        self.keys[0].id
    }

    /// Tells whether it has a key.
    pub fn has(&self, key: KeyId) -> bool {
        self.find(key).is_some()
    }

    fn find(&self, id: KeyId) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// Seals a secret.
    pub fn seal(&self, label: Label, secret: &Secret) -> Sealed {
        let mut nonce = [0; NONCE_BYTES];
        random::fill(&mut nonce);
        let key = &self.keys[0];
        let payload = Payload { msg: secret.expose(), aad: &label.bytes() };
        let ciphertext = key.cipher().encrypt(&XNonce::from(nonce), payload);
        Sealed::new(key.id, nonce, &ciphertext.expect("a secret has less than 256 GiB"))
    }

    /// Opens a secret that was sealed for this label. It takes about two microseconds.
    ///
    /// # Errors
    /// When it is sealed with another key or for another label, or is damaged.
    pub fn open(&self, label: Label, sealed: &Sealed) -> Result<Secret, OpenError> {
        let Parts { key, nonce, ciphertext } = match sealed.parts() {
            Ok(parts) => parts,
            Err(plain) => return Ok(Secret::from(plain.expose().to_vec())),
        };
        let key = self.find(key).ok_or_else(|| self.other_key(key))?;
        let payload = Payload { msg: ciphertext, aad: &label.bytes() };
        let opened = key.cipher().decrypt(&XNonce::from(nonce), payload);
        opened.map(Secret::from).map_err(|_| OpenError::Damaged(label.field))
    }

    /// Returns the error about a secret that is sealed with a key that it does not have.
    pub fn other_key(&self, sealed_with: KeyId) -> OpenError {
        let known: Vec<_> = self.keys.iter().map(|key| key.id.to_string()).collect();
        let file =
            self.path.as_ref().map_or_else(|| "the memory".to_owned(), |path| path.display().to_string());
        OpenError::OtherKey { sealed_with, known: known.join(" and "), file }
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.keys.iter().map(|key| key.id).collect();
        f.debug_struct("Vault").field("path", &self.path).field("keys", &ids).finish()
    }
}

/// Reads a key in base64.
fn parse(text: &[u8]) -> Option<Key> {
    let decoded = Zeroizing::new(BASE64_STANDARD.decode(text).ok()?);
    let bytes = <[u8; KEY_BYTES]>::try_from(&decoded[..]).ok()?;
    Some(Key::new(Zeroizing::new(bytes)))
}

/// Warns if others than its owner may read a key.
fn warn_of_readers(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        const OTHERS: u32 = 0o077;
        if std::fs::metadata(path).is_ok_and(|file| file.mode() & OTHERS != 0) {
            tracing::warn!(path = %path.display(), "others than its owner may read or write the master key: chmod 600");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABEL: Label = Label::new("subscription.password", Uuid::from_u128(7));

    fn secret() -> Secret {
        Secret::from("hunter2".to_owned())
    }

    #[test]
    fn what_is_sealed_opens_for_the_same_label_only() {
        let vault = Vault::unkept();
        let sealed = vault.seal(LABEL, &secret());
        assert_eq!(vault.open(LABEL, &sealed).unwrap().expose(), b"hunter2");
        for other in [
            Label::new("subscription.passwor", Uuid::from_u128(7)),
            Label::new("subscription.password", Uuid::from_u128(8)),
            Label::of_service("subscription.password"),
        ] {
            let error = vault.open(other, &sealed).unwrap_err();
            assert_eq!(error, OpenError::Damaged(other.field));
        }
        assert_ne!(vault.seal(LABEL, &secret()), sealed, "it has another nonce");
        let nothing = vault.seal(LABEL, &Secret::from(Vec::new()));
        assert_eq!(vault.open(LABEL, &nothing).unwrap().expose(), b"");
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let vault = Vault::unkept();
        let sealed = vault.seal(LABEL, &secret());
        for place in 0..sealed.bytes().unwrap().len() {
            let mut bytes = sealed.bytes().unwrap().to_vec();
            bytes[place] ^= 1;
            let changed = Sealed::from_bytes(bytes.into()).unwrap();
            assert!(vault.open(LABEL, &changed).is_err(), "byte {place}");
        }
        let shorter =
            Sealed::from_bytes(sealed.bytes().unwrap()[..sealed.bytes().unwrap().len() - 1].to_vec().into())
                .unwrap();
        assert!(vault.open(LABEL, &shorter).is_err());
    }

    #[test]
    fn a_key_is_kept_in_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        let missing = Vault::load(&path).unwrap_err();
        assert!(matches!(missing, KeyFileError::Missing { .. }), "{missing}");
        let sealed = Vault::create(&path).unwrap().seal(LABEL, &secret());
        let vault = Vault::load(&path).unwrap();
        assert_eq!(vault.open(LABEL, &sealed).unwrap().expose(), b"hunter2");
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt as _;
            assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        }
        let key = std::fs::read_to_string(&path).unwrap();
        assert!(!format!("{vault:?}").contains(key.trim()));
    }

    #[test]
    fn a_file_of_several_keys_opens_what_the_old_ones_have_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let [old, new, both] = ["old", "new", "both"].map(|name| folder.path().join(name));
        let before = Vault::create(&old).unwrap();
        let sealed = before.seal(LABEL, &secret());
        let after = Vault::create(&new).unwrap();
        let texts = [&new, &old].map(|path| std::fs::read_to_string(path).unwrap());
        std::fs::write(&both, format!("# since today\n{}\n{}\r\n{}", texts[0], texts[1].trim(), texts[1]))
            .unwrap();
        let vault = Vault::load(&both).unwrap();
        assert_eq!((vault.keys.len(), vault.key()), (2, after.key()));
        assert_eq!(vault.open(LABEL, &sealed).unwrap().expose(), b"hunter2");
        assert_eq!(vault.seal(LABEL, &secret()).key(), Some(after.key()));
        let error = after.open(LABEL, &sealed).unwrap_err().to_string();
        assert!(!after.has(before.key()) && vault.has(before.key()));
        for part in [before.key().to_string(), after.key().to_string(), new.display().to_string()] {
            assert!(error.contains(&part), "{error}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_with_its_line_and_without_its_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        for (text, line) in [("hunter2", "line 1 "), ("# x\n\nAAAA\n", "line 3 ")] {
            std::fs::write(&path, text).unwrap();
            let error = Vault::load(&path).unwrap_err().to_string();
            assert!(error.contains(line) && error.contains("openssl rand"), "{error}");
            assert!(!error.contains("hunter2") && error.contains(path.to_str().unwrap()), "{error}");
        }
        std::fs::write(&path, "\n# nothing\n").unwrap();
        assert!(matches!(Vault::load(&path), Err(KeyFileError::Empty { .. })));
        assert!(matches!(Vault::load(folder.path()), Err(KeyFileError::Read { .. })));
        assert!(matches!(Vault::create(&path.join("x")), Err(KeyFileError::Write { .. })));
    }
}
