//! The secret of a subscription, `whsec_…`.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use waypost_runtime::random;

/// How the text of a secret begins.
const PREFIX: &str = "whsec_";
/// How many bytes a secret has, by the specification.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// How many bytes one has that is made here.
const MADE_BYTES: usize = 32;
/// The longest text that is decoded.
const TEXT_BYTES_MAX: usize = 128;
/// Padding may be left out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A shared secret for HMAC-SHA256. It is wiped when dropped, and `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Zeroizing<Vec<u8>>);

/// Why a text is no secret. The text is never repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// It has another beginning.
    #[error("must begin with `whsec_`")]
    Prefix,
    /// It is a private key.
    #[error("is an Ed25519 key: Waypost signs with a key of its own then, see `signing`")]
    Asymmetric,
    /// The rest is not Base64.
    #[error("must be `whsec_` and Base64")]
    Base64,
    /// It is too short or too long.
    #[error("must have 24 to 64 bytes, this has {0}")]
    Length(usize),
}

impl WebhookSecret {
    /// Makes a secret that nobody knows.
    pub fn generate() -> Self {
        let mut key = Zeroizing::new(vec![0; MADE_BYTES]);
        random::fill(&mut key);
        Self(key)
    }

    /// Returns its text.
    pub fn text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(TEXT_BYTES_MAX));
        text.push_str(PREFIX);
        BASE64_STANDARD.encode_string(&*self.0, &mut text);
        text
    }

    /// Returns the key of the HMAC.
    pub(super) fn key(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for WebhookSecret {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        if text.starts_with("whsk_") || text.starts_with("whpk_") {
            return Err(SecretError::Asymmetric);
        }
        let encoded = text.strip_prefix(PREFIX).ok_or(SecretError::Prefix)?;
        if encoded.len() > TEXT_BYTES_MAX {
            return Err(SecretError::Length(encoded.len() / 4 * 3));
        }
        let key = Zeroizing::new(BASE64.decode(encoded).map_err(|_| SecretError::Base64)?);
        if BYTES.contains(&key.len()) { Ok(Self(key)) } else { Err(SecretError::Length(key.len())) }
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_bytes(bytes: usize) -> String {
        format!("whsec_{}", BASE64_STANDARD.encode(vec![7; bytes]))
    }

    #[test]
    fn a_secret_has_24_to_64_bytes() {
        for bytes in [24, 25, 32, 64] {
            let secret: WebhookSecret = of_bytes(bytes).parse().unwrap();
            assert_eq!(secret.text().as_str(), of_bytes(bytes));
            assert_eq!(of_bytes(bytes).trim_end_matches('=').parse(), Ok(secret), "without padding");
        }
        for bytes in [0, 1, 23, 65] {
            assert_eq!(of_bytes(bytes).parse::<WebhookSecret>(), Err(SecretError::Length(bytes)));
        }
        assert!(matches!(of_bytes(1 << 20).parse::<WebhookSecret>(), Err(SecretError::Length(_))));
        for (text, error) in [
            ("", SecretError::Prefix),
            ("generate ", SecretError::Prefix),
            ("WHSEC_AAAA", SecretError::Prefix),
            ("whsec_!", SecretError::Base64),
            ("whsec_ AAAA", SecretError::Base64),
            ("whsk_AAAA", SecretError::Asymmetric),
            ("whpk_AAAA", SecretError::Asymmetric),
        ] {
            assert_eq!(text.parse::<WebhookSecret>(), Err(error), "{text}");
        }
    }

    #[test]
    fn one_that_is_made_is_new_and_is_not_printed() {
        let (one, other) = (WebhookSecret::generate(), WebhookSecret::generate());
        assert_ne!(one, other);
        assert_eq!(one.text().parse(), Ok(one.clone()));
        assert_eq!(format!("{one:?}"), "WebhookSecret(secret)");
    }
}
