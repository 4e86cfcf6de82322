//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): a repeated POST makes nothing twice.
//!
//! The id of what is made follows from the user and the key. So a repetition finds it after a restart, too, and nothing
//! else has to be stored.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use utoipa::IntoParams;
use uuid::Uuid;

use super::Api;
use super::error::ApiError;

const NAME: HeaderName = HeaderName::from_static("idempotency-key");
/// What senders of webhooks name a request by (Standard Webhooks).
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
/// The most characters of a key.
const CHARS_MAX: usize = 255;
/// The name space of ids that follow from keys.
const NAMESPACE: Uuid = Uuid::from_u128(0x6a3c_5b1e_9f04_4d57_8e21_b0c7_d48a_16f3);

/// The key of a request, if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IdempotencyKey(Option<String>);

/// The header of [`IdempotencyKey`], for OpenAPI.
#[derive(IntoParams)]
#[into_params(parameter_in = Header, names("Idempotency-Key"))]
#[expect(dead_code, reason = "only its description is used")]
pub(super) struct KeyHeader(
    /// Any text of at most 255 visible characters, another one for each thing that you make: a request that is repeated
    /// with it makes nothing a second time.
    Option<String>,
);

/// The headers of a producer's key, for OpenAPI.
#[derive(IntoParams)]
#[into_params(parameter_in = Header, names("webhook-id", "Idempotency-Key"))]
#[expect(dead_code, reason = "only its description is used")]
pub(super) struct ProducerKeyHeaders(
    /// A text of 1 to 255 visible ASCII characters, the same each time that this request is sent: within `dedup_window`, the
    /// service answers a sender's second request with it with the ids of the first, and logs nothing again.
    Option<String>,
    /// The same for producers that have no `webhook-id`, which counts where both are there.
    Option<String>,
);

impl IdempotencyKey {
    /// Returns the key by which a producer knows a request: its `webhook-id`, or else its `Idempotency-Key`.
    pub(super) fn of_producer(headers: &HeaderMap) -> Result<Self, ApiError> {
        let key = match key(headers, &WEBHOOK_ID)? {
            None => key(headers, &NAME)?,
            key => key,
        };
        Ok(Self(key))
    }

    /// Returns the id of what the request makes; `kind` keeps the keys of different paths apart.
    pub(super) fn id(&self, kind: &str, user: &str) -> Option<Uuid> {
        let key = self.0.as_ref()?;
        // The length keeps `user` and `key` apart.
        Some(Uuid::new_v5(&NAMESPACE, format!("{kind}/{}/{user}/{key}", user.len()).as_bytes()))
    }
}

impl FromRequestParts<Arc<Api>> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, ApiError> {
        key(&parts.headers, &NAME).map(Self)
    }
}

/// Returns the key in a header, if it is there.
fn key(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    // The draft has a string in quotes (RFC 8941 §3.3.3), and many clients leave them out.
    let key = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    if key.is_empty() || key.len() > CHARS_MAX || values.next().is_some() {
        let name = if *name == NAME { "Idempotency-Key" } else { name.as_str() };
        let detail = format!("`{name}` must be one text of 1 to {CHARS_MAX} visible ASCII characters");
        return Err(ApiError::bad_request(detail));
    }
    Ok(Some(key.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_follows_from_the_user_and_the_key() {
        let id =
            |user: &str, key: &str| IdempotencyKey(Some(key.to_owned())).id("subscription", user).unwrap();
        assert_eq!(id("ann", "k"), id("ann", "k"));
        assert_ne!(id("ann", "k"), id("bob", "k"));
        assert_ne!(id("a", "b/k"), id("a/b", "k"));
        assert_eq!(IdempotencyKey(None).id("subscription", "ann"), None);
    }
    #[test]
    fn a_producers_key_is_its_webhook_id_or_its_idempotency_key() {
        let of = |headers: &[(&HeaderName, &str)]| {
            let headers = headers.iter().map(|(name, value)| ((*name).clone(), value.parse().unwrap()));
            let key = IdempotencyKey::of_producer(&headers.collect());
            key.map(|IdempotencyKey(key)| key)
        };
        assert_eq!(of(&[]).unwrap(), None);
        assert_eq!(of(&[(&NAME, "\"k\""), (&WEBHOOK_ID, "msg_1")]).unwrap().unwrap(), "msg_1");
        assert_eq!(of(&[(&NAME, "\"k\"")]).unwrap().unwrap(), "k");
        for bad in ["", "ä", &"k".repeat(256)] {
            let error = format!("{:?}", of(&[(&WEBHOOK_ID, bad)]).unwrap_err());
            assert!(error.contains("`webhook-id` must be one text of 1 to 255"), "{error}");
        }
    }
}
