//! Reading bodies: bounded in size and time, and JSON objects out of them.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Map, Value};

use super::error::ApiError;
use crate::domain::json;

/// A limit for bodies, with the names that its errors use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    /// What is limited, for people.
    pub(super) what: &'static str,
    /// The setting.
    pub(super) key: &'static str,
    /// The most bytes.
    pub(super) bytes: usize,
    /// The longest time.
    pub(super) timeout: Duration,
}

/// The most bytes of a refused body that are read away, and for how long: most clients send all of it before they
/// look for an answer, and see a broken connection instead of one when nobody reads.
const DRAINED_BYTES_MAX: usize = 16 * 1024 * 1024;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Reads a whole body.
pub(super) async fn read(mut body: Body, limit: Limit) -> Result<Bytes, ApiError> {
    let too_large = || ApiError::too_large(limit.what, limit.bytes, limit.key);
    if usize::try_from(body.size_hint().lower()).is_ok_and(|announced| announced > limit.bytes) {
        drain(body).await;
        return Err(too_large());
    }
    let collected = tokio::time::timeout(limit.timeout, Limited::new(&mut body, limit.bytes).collect()).await;
    match collected {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => {
            drain(body).await;
            Err(too_large())
        }
        Ok(Err(_)) => Err(ApiError::bad_request("the body broke off")),
        Err(_) => Err(ApiError::too_slow(limit.timeout.as_millis())),
    }
}

/// Reads a body away that is refused for another reason than what is in it.
pub(super) async fn drain(body: Body) {
    let mut body = Limited::new(body, DRAINED_BYTES_MAX);
    let drained = async { while let Some(Ok(_)) = body.frame().await {} };
    let _drained_or_not = tokio::time::timeout(DRAIN_TIMEOUT, drained).await;
}

/// Reads a JSON object from a body that may say that it is JSON in any of the usual ways, or nothing.
pub(super) fn object(headers: &HeaderMap, body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if !(essence.is_empty()
        || essence == "text/plain"
        || essence == "application/json"
        || essence.ends_with("+json"))
    {
        let detail =
            format!("`{essence}` is not read here: send the header `Content-Type: application/json`");
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    match json::read(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(ApiError::bad_request("the body must be a JSON object")),
        Err(error) => Err(ApiError::bad_request(format!("the body is not JSON: {error}"))),
    }
}
