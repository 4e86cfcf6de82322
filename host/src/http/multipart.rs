//! A subscription and its module in one request: `multipart/form-data` with the parts `subscription` and `plugin`.

use axum::body::Body;
use axum::extract::multipart::{Field, Multipart, MultipartError};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use serde_json::{Map, Value};

use super::error::ApiError;
use super::{Limits, body};

/// The parts of a request.
pub(super) struct Parts {
    /// The subscription's JSON.
    pub(super) subscription: Map<String, Value>,
    /// The module's bytes.
    pub(super) plugin: Option<Bytes>,
}

/// Tells whether a request has parts.
pub(super) fn is_multipart(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| value.trim_start().to_ascii_lowercase().starts_with("multipart/"))
}

/// Reads all parts, in any order.
pub(super) async fn read(headers: &HeaderMap, body: Body, limits: Limits) -> Result<Parts, ApiError> {
    let timeout = limits.plugin.timeout;
    match tokio::time::timeout(timeout, parts(headers, body, limits)).await {
        Ok(read) => read,
        Err(_) => Err(ApiError::too_slow(timeout.as_millis())),
    }
}

async fn parts(headers: &HeaderMap, body: Body, limits: Limits) -> Result<Parts, ApiError> {
    let mut request = Request::new(body);
    request.headers_mut().clone_from(headers);
    let unsupported = |what: String| ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, what);
    let multipart = Multipart::from_request(request, &()).await;
    let mut multipart = multipart.map_err(|rejection| {
        unsupported(format!("`multipart/form-data` with a boundary is read here: {}", rejection.body_text()))
    })?;
    let (mut subscription, mut plugin) = (None, None);
    while let Some(field) = multipart.next_field().await.map_err(broken)? {
        let name = field.name().unwrap_or_default().to_owned();
        let (place, limit) = match name.as_str() {
            "subscription" => (&mut subscription, limits.subscription),
            "plugin" => (&mut plugin, limits.plugin),
            _ => {
                let detail = format!(
                    "there is no part `{name}`: the parts are `subscription` (JSON) and `plugin` (.wasm)"
                );
                return Err(ApiError::bad_request(detail));
            }
        };
        if place.is_some() {
            return Err(ApiError::bad_request(format!("the part `{name}` stands there more than once")));
        }
        *place = Some(part(field, limit).await?);
    }
    let missing = || ApiError::bad_request("the part `subscription` is missing");
    let subscription = subscription.ok_or_else(missing)?;
    Ok(Parts { subscription: body::object(&HeaderMap::new(), &subscription)?, plugin })
}

async fn part(mut field: Field<'_>, limit: body::Limit) -> Result<Bytes, ApiError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(broken)? {
        if bytes.len() + chunk.len() > limit.bytes {
            return Err(ApiError::too_large(limit.what, limit.bytes, limit.key));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.into())
}

fn broken(error: MultipartError) -> ApiError {
    ApiError::bad_request(format!("the parts of the body cannot be read: {}", error.body_text()))
}
