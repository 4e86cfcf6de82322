//! Standard Webhooks (<https://www.standardwebhooks.com>): the signatures of what is sent, and the secrets that make them.
//!
//! A signature covers the delivery's id, the time of the attempt and the bytes of the body. `v1` is HMAC-SHA256 with a
//! secret of the subscription ([`WebhookSecret`]), `v1a` is Ed25519 with the key of this service ([`ServiceKey`]). This
//! room has no I/O but the file of the service's key; [`crate::delivery`] puts the headers into requests.

mod secret;
mod service_key;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

pub use secret::{SecretError, WebhookSecret};
pub use service_key::ServiceKey;

/// Returns the `v1` signature of a message: HMAC-SHA256 of `id.timestamp.body`.
pub fn sign(secret: &WebhookSecret, id: &str, timestamp: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.key()).expect("a key may have any length");
    mac.update(head(id, timestamp).as_bytes());
    mac.update(body);
    format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
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
    }

    #[test]
    fn the_specifications_library_accepts_a_signature() {
        let secret = WebhookSecret::generate();
        let now = crate::clock::now().as_second();
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
