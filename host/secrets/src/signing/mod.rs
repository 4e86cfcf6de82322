//! Standard Webhooks (<https://www.standardwebhooks.com>): the signatures of what is sent, and the secrets that make them.
//!
//! A signature covers the delivery's id, the time of the attempt and the bytes of the body. `v1` is HMAC-SHA256 with a
//! secret of the subscription ([`WebhookSecret`]), `v1a` is Ed25519 with the key of this service ([`ServiceKey`]). This
//! room has no I/O but the file of the service's key; `waypost_engine::delivery` puts the headers into requests.

mod secret;
mod service_key;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

pub use secret::{SecretError, WebhookSecret};
pub use service_key::{PublicKey, ServiceKey};

/// How many signatures of one message are looked at.
const SIGNATURES_MAX: usize = 8;

/// Returns the `v1` signature of a message: HMAC-SHA256 of `id.timestamp.body`.
pub fn sign(secret: &WebhookSecret, id: &str, timestamp: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.key()).expect("a key may have any length");
    mac.update(head(id, timestamp).as_bytes());
    mac.update(body);
    format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

/// Tells whether one of a message's signatures (`webhook-signature`, several with a blank between them) is `v1` with this
/// secret. The comparison takes the same time whatever is wrong.
pub fn verify(secret: &WebhookSecret, id: &str, timestamp: i64, body: &[u8], signatures: &str) -> bool {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.key()).expect("a key may have any length");
    mac.update(head(id, timestamp).as_bytes());
    mac.update(body);
    let given = signatures.split(' ').filter_map(|signature| signature.strip_prefix("v1,"));
    given.take(SIGNATURES_MAX).any(|coded| {
        let decoded = BASE64_STANDARD.decode(coded);
        decoded.is_ok_and(|signature| mac.clone().verify_slice(&signature).is_ok())
    })
}

/// Returns what stands before the body in the signed text.
fn head(id: &str, timestamp: i64) -> String {
    format!("{id}.{timestamp}.")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    #[test]
    fn a_known_message_has_its_signature() {
        let secret: WebhookSecret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD".parse().unwrap();
        let body = br#"{"email":"test@example.com","username":"test_user"}"#;
        let signature = sign(&secret, "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1_649_367_553, body);
        assert_eq!(signature, "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
        let later = sign(&secret, "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1_649_367_554, body);
        assert_ne!(later, signature, "the time is signed, too");
        let fits = |id, time, body: &[u8], signatures: &str| verify(&secret, id, time, body, signatures);
        assert!(fits(
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            1_649_367_553,
            body,
            &format!("v1a,AAAA v1,AAAA {signature}")
        ));
        assert!(!fits("msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1_649_367_554, body, &signature));
        assert!(!fits("other", 1_649_367_553, body, &signature) && !fits("other", 1, b"", ""));
    }

    #[test]
    fn the_specifications_library_accepts_a_signature() {
        let secret = WebhookSecret::generate();
        let now = waypost_runtime::clock::now().as_second();
        let mut headers = http::HeaderMap::new();
        headers.insert("webhook-id", "5f0c".parse().unwrap());
        headers.insert("webhook-timestamp", now.to_string().parse().unwrap());
        let signature = sign(&secret, "5f0c", now, b"{}");
        headers.insert("webhook-signature", signature.parse().unwrap());
        let webhook = standardwebhooks::Webhook::new(&secret.text()).unwrap();
        webhook.verify(b"{}", &headers).unwrap();
        assert!(webhook.verify(b"{ }", &headers).is_err());
        let other = standardwebhooks::Webhook::new(&WebhookSecret::generate().text()).unwrap();
        assert!(other.verify(b"{}", &headers).is_err());
    }
}
