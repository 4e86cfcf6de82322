//! Secrets: in plain, which only a memory ever holds, and sealed, as everything else holds them.
//!
//! `waypost_secrets` seals and opens them.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

/// A secret in plain: a password, a token, a private key.
///
/// Its bytes are overwritten when it is dropped. It has no `Display`, no clone, and its `Debug` tells nothing: who wants
/// the bytes says so.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Returns the bytes. A copy of them has to be overwritten by those who make it.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Returns the secret as text.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub fn expose_str(&self) -> Result<&str, std::str::Utf8Error> {
        std::str::from_utf8(&self.0)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::from(text.into_bytes())
    }
}

impl From<Vec<u8>> for Secret {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl From<Zeroizing<Vec<u8>>> for Secret {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A text.
impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

/// Which key a secret is sealed with: the beginning of a hash of the key, which tells nothing about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyId(u64);

impl KeyId {
    /// How many bytes it has.
    pub const BYTES: usize = size_of::<u64>();

    /// Makes an id of its bytes.
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(u64::from_be_bytes(bytes))
    }

    /// Returns its bytes.
    pub const fn bytes(self) -> [u8; Self::BYTES] {
        self.0.to_be_bytes()
    }
}

/// 16 hexadecimal digits.
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A sealed secret: the id of the key, a nonce, and the ciphertext with its tag. Cheap to clone.
///
/// Only the `waypost_secrets::Vault` with that key opens it, and only for what it was sealed for. Two are equal if
/// they were sealed at once: the same secret, sealed twice, gives two different ones.
///
/// Records of schema versions before 4 hold secrets in plain. They are read as `Self::unsealed`, which is written as
/// it was; opening an older file, and every change over REST, seals them.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Form);

#[derive(Clone)]
enum Form {
    Sealed(Bytes),
    Unsealed(Arc<Secret>),
}

impl PartialEq for Form {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Sealed(one), Self::Sealed(other)) => one == other,
            (Self::Unsealed(one), Self::Unsealed(other)) => one.expose() == other.expose(),
            (Self::Sealed(_), Self::Unsealed(_)) | (Self::Unsealed(_), Self::Sealed(_)) => false,
        }
    }
}

impl Eq for Form {}

/// How many bytes a nonce of XChaCha20 has.
pub const NONCE_BYTES: usize = 24;
/// How many bytes a tag of Poly1305 has.
pub(crate) const TAG_BYTES: usize = 16;

/// Some bytes are no sealed secret: there are too few.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no sealed secret")]
pub struct SealedError;

impl Sealed {
    /// Puts a sealed secret together.
    pub fn new(key: KeyId, nonce: [u8; NONCE_BYTES], ciphertext: &[u8]) -> Self {
        Self(Form::Sealed([&key.bytes()[..], &nonce, ciphertext].concat().into()))
    }

    /// Reads what `Self::bytes` has returned.
    ///
    /// # Errors
    /// When there are too few bytes.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, SealedError> {
        let is_one = bytes.len() >= KeyId::BYTES + NONCE_BYTES + TAG_BYTES;
        if is_one { Ok(Self(Form::Sealed(bytes))) } else { Err(SealedError) }
    }

    /// Takes a secret from a record of an older version, where it is in plain.
    pub fn unsealed(secret: Secret) -> Self {
        Self(Form::Unsealed(Arc::new(secret)))
    }

    /// Returns its form on disk and on the wire of a journal: the id of the key, the nonce, the ciphertext.
    ///
    /// # Errors
    /// With the secret, when it is not sealed.
    pub fn bytes(&self) -> Result<&[u8], &Secret> {
        match &self.0 {
            Form::Sealed(bytes) => Ok(bytes),
            Form::Unsealed(secret) => Err(secret),
        }
    }

    /// Returns which key it is sealed with; `None` if it is not.
    pub fn key(&self) -> Option<KeyId> {
        self.parts().ok().map(|parts| parts.key)
    }

    /// Takes it apart.
    ///
    /// # Errors
    /// With the secret, when it is not sealed.
    pub fn parts(&self) -> Result<Parts<'_>, &Secret> {
        let bytes = self.bytes()?;
        let split = bytes.split_first_chunk().and_then(|(key, rest)| Some((key, rest.split_first_chunk()?)));
        let (key, (nonce, ciphertext)) = split.expect("a sealed secret has a key, a nonce and a tag");
        Ok(Parts { key: KeyId::from_bytes(*key), nonce: *nonce, ciphertext })
    }
}

/// What a sealed secret consists of.
#[derive(Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The master key that sealed it.
    pub key: KeyId,
    /// The nonce, of random bytes.
    pub nonce: [u8; NONCE_BYTES],
    /// The ciphertext, which ends with the tag.
    pub ciphertext: &'a [u8],
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Form::Sealed(_) => "Sealed",
            Form::Unsealed(_) => "Unsealed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_a_secret() {
        let secret = Secret::from("hunter2".to_owned());
        assert_eq!(format!("{secret:?} {:#?}", Some(&secret)), "Secret Some(\n    Secret,\n)");
        assert_eq!((secret.expose(), secret.expose_str()), (&b"hunter2"[..], Ok("hunter2")));
        assert!(Secret::from(vec![0xff]).expose_str().is_err());
        assert_eq!(serde_json::from_str::<Secret>("\"a\\nb\"").unwrap().expose(), b"a\nb");
    }

    #[test]
    fn a_sealed_secret_is_its_bytes() {
        let key = KeyId::from_bytes([1, 2, 3, 4, 5, 6, 7, 0xff]);
        let sealed = Sealed::new(key, [9; NONCE_BYTES], &[8; TAG_BYTES + 1]);
        assert_eq!(sealed.key().unwrap().to_string(), "01020304050607ff");
        let parts = Parts { key, nonce: [9; NONCE_BYTES], ciphertext: &[8; TAG_BYTES + 1] };
        assert_eq!(sealed.parts().unwrap(), parts);
        let bytes = Bytes::copy_from_slice(sealed.bytes().unwrap());
        assert_eq!(Sealed::from_bytes(bytes.clone()), Ok(sealed.clone()));
        assert!(Sealed::from_bytes(bytes.slice(..bytes.len() - 1)).is_ok(), "that of nothing");
        assert_eq!(Sealed::from_bytes(bytes.slice(..bytes.len() - 2)), Err(SealedError));
        assert_eq!(format!("{sealed:?}"), "Sealed");
    }

    #[test]
    fn an_unsealed_secret_has_no_key_and_shows_nothing() {
        let of = |text: &str| Sealed::unsealed(Secret::from(text.to_owned()));
        let unsealed = of("hunter2");
        assert_eq!((unsealed.key(), unsealed.bytes().unwrap_err().expose()), (None, &b"hunter2"[..]));
        assert_eq!(format!("{unsealed:?}"), "Unsealed");
        assert!(unsealed == of("hunter2") && unsealed != of("hunter3"));
    }
}
