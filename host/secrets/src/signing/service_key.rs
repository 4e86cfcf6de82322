//! The Ed25519 key of this service, with which it signs for every subscription that asks for it.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::file::SIGNING_KEY;
use crate::{SealedFileError, Secret, Vault};
use waypost_runtime::random;

/// How many bytes the private part has.
const SEED_BYTES: usize = 32;

/// The key pair. What it signs comes from this Waypost, for whichever of its users.
pub struct ServiceKey(Ed25519KeyPair);

/// The public part of a key.
pub struct PublicKey {
    /// Its id, the thumbprint of RFC 7638.
    pub kid: String,
    /// The key in base64url.
    pub x: String,
}

impl ServiceKey {
    /// Reads the key of a data folder, where it lies sealed, and makes one where there is none.
    ///
    /// # Errors
    /// When the file cannot be read, opened or written.
    pub fn load(folder: &Path, vault: &Vault) -> Result<Self, SealedFileError> {
        let seed = match SIGNING_KEY.read(folder, vault)? {
            Some(seed) => seed,
            None => {
                let seed = Self::generate();
                SIGNING_KEY.write(folder, vault, &seed)?;
                seed
            }
        };
        let malformed = || SealedFileError::Malformed { path: SIGNING_KEY.path(folder) };
        Self::from_seed(seed.expose()).ok_or_else(malformed)
    }

    /// Makes the private part of a new key.
    fn generate() -> Secret {
        let mut seed = Zeroizing::new(vec![0; SEED_BYTES]);
        random::fill(&mut seed);
        Secret::from(seed)
    }

    /// Makes a key of its private part; `None` when that has another length.
    fn from_seed(seed: &[u8]) -> Option<Self> {
        Ed25519KeyPair::from_seed_unchecked(seed).ok().map(Self)
    }

    /// Returns the `v1a` signature of a message: Ed25519 of `id.timestamp.body`.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let message = [super::head(id, timestamp).as_bytes(), body].concat();
        format!("v1a,{}", BASE64_STANDARD.encode(self.0.sign(&message)))
    }

    /// Returns the public part as Standard Webhooks has it.
    pub fn public_text(&self) -> String {
        format!("whpk_{}", BASE64_STANDARD.encode(self.public()))
    }

    /// Returns the public part as a JSON Web Key (RFC 8037 §2) has it.
    pub fn public_key(&self) -> PublicKey {
        let x = BASE64_URL_SAFE_NO_PAD.encode(self.public());
        // The thumbprint of RFC 7638.
        let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
        PublicKey { kid: BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(members)), x }
    }

    fn public(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceKey({})", self.public_text())
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    /// The first test of RFC 8032 §7.1, which is the key of RFC 8037's appendix A, too.
    fn known() -> ServiceKey {
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        ServiceKey::from_seed(&data_encoding::HEXLOWER.decode(seed.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn the_public_key_is_that_of_the_rfc() {
        let key = known().public_key();
        assert_eq!(key.x, "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!(key.kid, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        assert_eq!(known().public_text(), "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
    }

    #[test]
    fn a_signature_covers_id_time_and_body() {
        let key = ServiceKey::from_seed(ServiceKey::generate().expose()).unwrap();
        let signature = key.sign("5f0c", 7, b"{}");
        let bytes = BASE64_STANDARD.decode(signature.strip_prefix("v1a,").unwrap()).unwrap();
        let public = UnparsedPublicKey::new(&ED25519, key.public());
        public.verify(b"5f0c.7.{}", &bytes).unwrap();
        for other in [b"5f0c.8.{}", b"5f0d.7.{}", b"5f0c.7.[]"] {
            public.verify(other, &bytes).unwrap_err();
        }
        assert!(ServiceKey::from_seed(&[0; 31]).is_none());
    }

    #[test]
    fn a_key_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::unkept();
        let made = ServiceKey::load(folder.path(), &vault).unwrap().public_text();
        assert_eq!(ServiceKey::load(folder.path(), &vault).unwrap().public_text(), made);
        SIGNING_KEY.write(folder.path(), &vault, &Secret::from(vec![7; 31])).unwrap();
        let error = ServiceKey::load(folder.path(), &vault).unwrap_err();
        assert!(matches!(error, SealedFileError::Malformed { .. }), "{error}");
    }
}
