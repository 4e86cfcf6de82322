//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): a repeated POST makes nothing twice.
//!
//! The id of what is made follows from the user and the key. So a repetition finds it after a restart, too, and nothing
//! else has to be stored.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderName;
use axum::http::request::Parts;
use utoipa::IntoParams;
use uuid::Uuid;

use super::Api;
use super::error::ApiError;

const NAME: HeaderName = HeaderName::from_static("idempotency-key");
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

impl IdempotencyKey {
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
        let mut values = parts.headers.get_all(&NAME).iter();
        let Some(value) = values.next() else { return Ok(Self(None)) };
        let text = value.to_str().unwrap_or_default().trim();
        // The draft has a string in quotes (RFC 8941 §3.3.3), and many clients leave them out.
        let key = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        if key.is_empty() || key.len() > CHARS_MAX || values.next().is_some() {
            let detail =
                format!("`Idempotency-Key` must be one text of 1 to {CHARS_MAX} visible ASCII characters");
            return Err(ApiError::bad_request(detail));
        }
        Ok(Self(Some(key.to_owned())))
    }
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
}
