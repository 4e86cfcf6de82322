//! A subscription and its module in one request: `multipart/form-data` with the parts `subscription` and `plugin`.

use axum::body::Body;
use axum::extract::multipart::{Field, Multipart, MultipartError};
use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use serde_json::{Map, Value};

use super::coding::Codings;
use super::error::ApiError;
use super::room::{Room, RoomPermit};
use super::{Limits, body};

/// The most bytes between and around the parts: their headers, and the boundaries.
const AROUND_BYTES_MAX: usize = 64 * 1024;

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

/// Reads all parts, in any order. Their memory counts until the returned permit is dropped.
pub(super) async fn read<'a>(
    headers: &HeaderMap,
    body: Body,
    limits: &'a Limits,
) -> Result<(Parts, RoomPermit<&'a Room>), ApiError> {
    // This bounds the whole request; each part has its own limit.
    let most = limits.subscription.bytes.saturating_add(limits.plugin.bytes).saturating_add(AROUND_BYTES_MAX);
    let whole = body::Limit { bytes: most, ..limits.plugin.clone() };
    let (body, _packed) = if Codings::of(headers).is_ok_and(|codings| codings.is_none()) {
        (body, None)
    } else {
        let (bytes, taken) = body::read(headers, body, &whole).await?;
        (Body::from(bytes), Some(taken))
    };
    let timeout = limits.plugin.timeout;
    match tokio::time::timeout(timeout, parts(headers, body, most, limits)).await {
        Ok(read) => read,
        Err(_) => Err(ApiError::too_slow(timeout.as_millis())),
    }
}

async fn parts<'a>(
    headers: &HeaderMap,
    body: Body,
    most: usize,
    limits: &'a Limits,
) -> Result<(Parts, RoomPermit<&'a Room>), ApiError> {
    let mut request = Request::new(body);
    request.headers_mut().clone_from(headers);
    // Without this limit, axum would apply its own of 2 MB.
    DefaultBodyLimit::max(most).apply(&mut request);
    let unsupported = |what: String| ApiError::unsupported(what);
    let multipart = Multipart::from_request(request, &()).await;
    let mut multipart = multipart.map_err(|rejection| {
        unsupported(format!("expected `multipart/form-data` with a boundary: {}", rejection.body_text()))
    })?;
    let (mut subscription, mut plugin, mut taken) = (None, None, RoomPermit::of(&*limits.plugin.room));
    while let Some(field) = multipart.next_field().await.map_err(|error| broken(&error, &limits.plugin))? {
        let name = field.name().unwrap_or_default().to_owned();
        let (place, limit) = match name.as_str() {
            "subscription" => (&mut subscription, &limits.subscription),
            "plugin" => (&mut plugin, &limits.plugin),
            _ => {
                let detail = format!(
                    "there is no part `{name}`: the parts are `subscription` (JSON) and `plugin` (.wasm)"
                );
                return Err(ApiError::bad_request(detail));
            }
        };
        if place.is_some() {
            return Err(ApiError::bad_request(format!("the part `{name}` appears more than once")));
        }
        *place = Some(part(field, limit, &mut taken).await?);
    }
    let missing = || ApiError::bad_request("the part `subscription` is missing");
    let subscription = subscription.ok_or_else(missing)?;
    Ok((Parts { subscription: body::object(&HeaderMap::new(), &subscription)?, plugin }, taken))
}

async fn part(
    mut field: Field<'_>,
    limit: &body::Limit,
    taken: &mut RoomPermit<&Room>,
) -> Result<Bytes, ApiError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(|error| broken(&error, limit))? {
        if bytes.len() + chunk.len() > limit.bytes {
            return Err(ApiError::too_large(limit.what, limit.bytes, limit.key));
        }
        taken.add(chunk.len())?;
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.into())
}

/// `limit` is that of the part that is read, or that of the module while the part is not known.
fn broken(error: &MultipartError, limit: &body::Limit) -> ApiError {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return ApiError::too_large(limit.what, limit.bytes, limit.key);
    }
    ApiError::bad_request(format!("the parts of the body cannot be read: {}", error.body_text()))
}
