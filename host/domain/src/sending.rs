//! What a subscription adds to its requests besides the event: headers, signatures, TLS, a handshake.
//!
//! Secrets are sealed; only an attempt opens them.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Sealed, TargetUrl};

/// The most old signing secrets that are still in use.
pub const OLD_SECRETS_MAX: usize = 4;

/// What a subscription adds to its requests. Most add nothing, and have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sending {
    /// Headers of its own, by their names in lower case.
    pub headers: BTreeMap<String, HeaderText>,
    /// How its requests are signed.
    pub signing: Signing,
    /// Its certificate and key, where its target asks for one.
    pub client_certificate: Option<ClientIdentity>,
    /// What vouches for its target in the place of the system's certificates, as PEM.
    pub target_ca: Option<String>,
    /// Whether its target is asked before it gets events.
    pub handshake: Handshake,
}

/// The value of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderText {
    /// One that may be shown.
    Plain(String),
    /// One whose header has a secret's name.
    Secret(Sealed),
}

/// With what requests are signed: nothing, either or both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signing {
    /// HMAC-SHA256, with a secret of the subscription.
    pub hmac: Option<HmacSecrets>,
    /// Ed25519, with the key of this service; since when.
    pub ed25519: Option<Timestamp>,
}

/// The secrets of HMAC signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HmacSecrets {
    /// The present one.
    pub secret: Sealed,
    /// Since when it is the present one.
    pub since: Timestamp,
    /// Earlier ones, the latest first; at most [`OLD_SECRETS_MAX`].
    pub old: Vec<OldSecret>,
}

/// A secret that was replaced, and that signs for a while yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldSecret {
    /// The secret.
    pub secret: Sealed,
    /// Until when it signs.
    pub until: Timestamp,
}

/// A client certificate with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The PEM of both.
    pub pem: Sealed,
    /// SHA-256 of the certificate, in hexadecimal digits: what people know it by.
    pub fingerprint: String,
    /// SHA-256 of all of it, in hexadecimal digits: subscriptions with the same one share connections.
    pub digest: String,
}

/// Whether a target is asked before it gets events (CloudEvents HTTP 1.1 web hooks §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Handshake {
    /// It is not asked.
    #[default]
    Skip,
    /// It is asked, and gets events whatever it says.
    Try,
    /// It gets events if it consents.
    Require,
}

/// Credentials for a token (RFC 6749 §4.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuth2 {
    /// Where tokens are.
    pub token_url: TargetUrl,
    /// Who asks.
    pub client_id: String,
    /// Its secret.
    pub client_secret: Sealed,
    /// Where in the request these two stand.
    pub client_auth: ClientAuth,
    /// The scope that is asked for.
    pub scope: Option<String>,
    /// The audience that is asked for, which some servers need.
    pub audience: Option<String>,
}

/// How a client authenticates with a token server (RFC 6749 §2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// `Authorization: Basic …`.
    #[default]
    Basic,
    /// Members of the body.
    Post,
}

/// The names of secrets, see [`crate::Subscription::secrets`]. They are never changed: they are part of what a tag
/// covers.
pub mod field {
    /// The client secret of `oauth2`.
    pub const CLIENT_SECRET: &str = "subscription.client_secret";
    /// The value of a header.
    pub const HEADER: &str = "subscription.header";
    /// A signing secret, present or old.
    pub const SIGNING_SECRET: &str = "subscription.signing_secret";
    /// The client certificate with its key.
    pub const CLIENT_CERTIFICATE: &str = "subscription.client_certificate";
}

impl Sending {
    /// Tells whether its requests need a client of their own.
    pub fn has_tls(&self) -> bool {
        self.client_certificate.is_some() || self.target_ca.is_some()
    }

    /// Returns its secrets, each with its name.
    pub fn secrets(&self) -> Vec<(&'static str, &Sealed)> {
        let headers = self.headers.values().filter_map(|text| match text {
            HeaderText::Plain(_) => None,
            HeaderText::Secret(sealed) => Some((field::HEADER, sealed)),
        });
        let hmac = self.signing.hmac.iter().flat_map(|hmac| {
            let old = hmac.old.iter().map(|old| &old.secret);
            std::iter::once(&hmac.secret).chain(old).map(|sealed| (field::SIGNING_SECRET, sealed))
        });
        let certificate = self.client_certificate.iter().map(|of| (field::CLIENT_CERTIFICATE, &of.pem));
        headers.chain(hmac).chain(certificate).collect()
    }

    /// Returns its secrets to be changed: the same ones as [`Self::secrets`].
    pub fn secrets_mut(&mut self) -> Vec<(&'static str, &mut Sealed)> {
        let headers = self.headers.values_mut().filter_map(|text| match text {
            HeaderText::Plain(_) => None,
            HeaderText::Secret(sealed) => Some((field::HEADER, sealed)),
        });
        let hmac = self.signing.hmac.iter_mut().flat_map(|hmac| {
            let old = hmac.old.iter_mut().map(|old| &mut old.secret);
            std::iter::once(&mut hmac.secret).chain(old).map(|sealed| (field::SIGNING_SECRET, sealed))
        });
        let certificate =
            self.client_certificate.iter_mut().map(|of| (field::CLIENT_CERTIFICATE, &mut of.pem));
        headers.chain(hmac).chain(certificate).collect()
    }
}

impl Signing {
    /// Tells whether nothing is signed.
    pub fn is_off(&self) -> bool {
        self.hmac.is_none() && self.ed25519.is_none()
    }
}

impl HmacSecrets {
    /// Puts a new secret in the place of the present one, which goes on to sign for `keep`, as earlier ones do at most.
    pub fn rotate(&mut self, secret: Sealed, keep: Duration, now: Timestamp) {
        let until = now.checked_add(keep).unwrap_or(Timestamp::MAX);
        let replaced = OldSecret { secret: std::mem::replace(&mut self.secret, secret), until };
        self.old.iter_mut().for_each(|old| old.until = old.until.min(until));
        self.old.insert(0, replaced);
        self.old.retain(|old| old.until > now);
        self.since = now;
    }

    /// Returns the secrets that sign at a time, the present one first.
    pub fn at(&self, now: Timestamp) -> impl Iterator<Item = &Sealed> {
        let old = self.old.iter().filter(move |old| old.until > now).map(|old| &old.secret);
        std::iter::once(&self.secret).chain(old)
    }

    /// Returns until when more than the present secret signs, if one does at a time.
    pub fn old_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.old.iter().map(|old| old.until).filter(|until| *until > now).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(byte: u8) -> Sealed {
        Sealed::from_bytes(vec![byte; 48].into()).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_replaced_secret_signs_for_a_while() {
        let mut hmac = HmacSecrets { secret: sealed(1), since: at(0), old: Vec::new() };
        hmac.rotate(sealed(2), Duration::from_secs(100), at(10));
        assert_eq!((hmac.since, hmac.old_until(at(10))), (at(10), Some(at(110))));
        assert!(hmac.at(at(109)).eq(&[sealed(2), sealed(1)]));
        assert!(hmac.at(at(110)).eq(&[sealed(2)]) && hmac.old_until(at(110)).is_none());
        hmac.rotate(sealed(3), Duration::from_secs(50), at(20));
        assert!(hmac.at(at(69)).eq(&[sealed(3), sealed(2), sealed(1)]), "the first one ends with it");
        assert!(hmac.at(at(70)).eq(&[sealed(3)]));
        hmac.rotate(sealed(4), Duration::ZERO, at(30));
        assert!(hmac.old.is_empty() && hmac.at(at(30)).eq(&[sealed(4)]));
    }

    #[test]
    fn no_secret_is_forgotten_when_all_are_sealed_again() {
        let mut sending = Sending {
            headers: BTreeMap::from([
                ("x-key".to_owned(), HeaderText::Secret(sealed(1))),
                ("x-team".to_owned(), HeaderText::Plain("optics".to_owned())),
            ]),
            signing: Signing {
                hmac: Some(HmacSecrets {
                    secret: sealed(2),
                    since: at(0),
                    old: vec![OldSecret { secret: sealed(3), until: at(1) }],
                }),
                ed25519: None,
            },
            client_certificate: Some(ClientIdentity {
                pem: sealed(4),
                fingerprint: String::new(),
                digest: String::new(),
            }),
            ..Sending::default()
        };
        let listed: Vec<_> =
            sending.secrets().into_iter().map(|(name, sealed)| (name, sealed.clone())).collect();
        let names: Vec<_> = listed.iter().map(|(name, _)| *name).collect();
        let certificate = field::CLIENT_CERTIFICATE;
        assert_eq!(names, [field::HEADER, field::SIGNING_SECRET, field::SIGNING_SECRET, certificate]);
        let changed: Vec<_> =
            sending.secrets_mut().into_iter().map(|(name, sealed)| (name, sealed.clone())).collect();
        assert_eq!(changed, listed);
    }
}
