//! Reads bodies: decodes them, and bounds their size, their time, and the memory that all bodies share; parses JSON
//! objects from them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::{BodyExt, Limited};
use serde_json::{Map, Value};

use super::coding::Codings;
use super::error::ApiError;
use super::room::{Full, Room, RoomPermit};
use waypost_domain::json;

/// A limit for bodies, with the names that its errors use.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    /// What is limited, in words.
    pub(super) what: &'static str,
    /// The setting.
    pub(super) key: &'static str,
    /// The most bytes.
    pub(super) bytes: usize,
    /// The longest time.
    pub(super) timeout: Duration,
    /// The memory that all bodies share.
    pub(super) room: Arc<Room>,
}

/// How many bytes of a refused body are read and discarded, and for how long. Most clients send the whole body before
/// they read the response; if it were not read, they would see a reset connection instead.
const DRAINED_BYTES_MAX: usize = 16 * 1024 * 1024;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a body is not read to its end.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is larger than its limit.
    TooLarge,
    /// The memory for bodies is used up.
    Full(Full),
    /// It took too long.
    TooSlow,
    /// The connection ended.
    BrokeOff,
    /// It is not encoded as its `Content-Encoding` says.
    Undecodable {
        /// The coding.
        coding: &'static str,
        /// What is wrong.
        reason: String,
    },
}

impl From<Full> for Fault {
    fn from(full: Full) -> Self {
        Self::Full(full)
    }
}

impl Fault {
    fn error(self, limit: &Limit) -> ApiError {
        match self {
            Self::TooLarge => ApiError::too_large(limit.what, limit.bytes, limit.key),
            Self::Full(full) => full.into(),
            Self::TooSlow => ApiError::too_slow(limit.timeout.as_millis()),
            Self::BrokeOff => ApiError::bad_request("the body broke off"),
            Self::Undecodable { coding, reason } => {
                let detail = format!("the body cannot be decoded as `Content-Encoding: {coding}`: {reason}");
                ApiError::bad_request(detail)
            }
        }
    }
}

/// Reads a whole body and decodes it. Its memory counts until the returned permit is dropped.
pub(super) async fn read<'a>(
    headers: &HeaderMap,
    mut body: Body,
    limit: &'a Limit,
) -> Result<(Bytes, RoomPermit<&'a Room>), ApiError> {
    let codings = match Codings::of(headers) {
        Ok(codings) => codings,
        Err(refused) => {
            drain(body).await;
            return Err(refused);
        }
    };
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit.bytes {
        drain(body).await;
        return Err(Fault::TooLarge.error(limit));
    }
    let deadline = Instant::now() + limit.timeout;
    let reading = async {
        let (bytes, taken) = collect(&mut body, limit).await?;
        codings.undo(bytes, taken, limit, deadline).await
    };
    let fault = match tokio::time::timeout(limit.timeout, reading).await {
        Ok(Ok(read)) => return Ok(read),
        Ok(Err(fault)) => fault,
        Err(_) => Fault::TooSlow,
    };
    if matches!(fault, Fault::TooLarge | Fault::Full(_)) {
        drain(body).await;
    }
    Err(fault.error(limit))
}

/// Reads all bytes. Most bodies come in one piece, which is not copied.
async fn collect<'a>(body: &mut Body, limit: &'a Limit) -> Result<(Bytes, RoomPermit<&'a Room>), Fault> {
    let (mut taken, mut first, mut all) = (RoomPermit::of(&*limit.room), Bytes::new(), Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(part) = frame.map_err(|_| Fault::BrokeOff)?.into_data() else { continue };
        if part.len() > limit.bytes - first.len() - all.len() {
            return Err(Fault::TooLarge);
        }
        taken.add(part.len())?;
        if first.is_empty() && all.is_empty() {
            first = part;
        } else {
            // Many small pieces would take more memory than their bytes.
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&part);
        }
    }
    all.shrink_to_fit();
    Ok((if all.is_empty() { first } else { all.into() }, taken))
}

/// Reads and discards a refused body, within limits.
pub(super) async fn drain(body: Body) {
    let mut body = Limited::new(body, DRAINED_BYTES_MAX);
    let drained = async { while let Some(Ok(_)) = body.frame().await {} };
    let _drained_or_not = tokio::time::timeout(DRAIN_TIMEOUT, drained).await;
}

/// Parses a JSON object. The content type may be any of the usual ones for JSON, or absent.
pub(super) fn object(headers: &HeaderMap, body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if !(essence.is_empty()
        || essence == "text/plain"
        || essence == "application/json"
        || essence.ends_with("+json"))
    {
        let detail =
            format!("`{essence}` is not accepted here: send the header `Content-Type: application/json`");
        return Err(ApiError::unsupported(detail));
    }
    match json::read(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(ApiError::bad_request("the body must be a JSON object")),
        Err(error) => Err(ApiError::bad_request(format!("the body is not JSON: {error}"))),
    }
}
