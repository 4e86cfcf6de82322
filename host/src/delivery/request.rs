//! The request that a delivery makes.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request};
use http_body_util::Full;

use crate::domain::{Auth, DeliveryId, Subscription, event};
use crate::store::Logged;

/// Standard Webhooks: the same for each attempt of a delivery, so that a target can tell a repeat.
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("waypost/", env!("CARGO_PKG_VERSION")));

/// Makes the request for one event and one subscription.
///
/// # Errors
/// Returns a sentence when the stored target cannot be put into a request.
pub(super) fn make(event: &Logged, subscription: &Subscription) -> Result<Request<Full<Bytes>>, String> {
    let outgoing = event::encode(
        &event.event,
        subscription.event_format,
        subscription.content_mode,
        &subscription.extensions,
    );
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(subscription.target_url.uri().clone())
        .body(Full::new(outgoing.body))
        .map_err(|error| format!("target_url cannot be used: {error}"))?;
    let headers = request.headers_mut();
    *headers = outgoing.headers;
    headers.insert(USER_AGENT, AGENT);
    let id = DeliveryId::of(event.id, subscription.id).to_string();
    headers.insert(WEBHOOK_ID, HeaderValue::try_from(id).expect("a UUID is visible ASCII"));
    if let Some(value) = authorization(&subscription.auth) {
        headers.insert(AUTHORIZATION, value.map_err(|_| "auth holds characters that no header may have")?);
    }
    Ok(request)
}

/// Returns the value of `Authorization`, marked as sensitive.
fn authorization(auth: &Auth) -> Option<Result<HeaderValue, http::header::InvalidHeaderValue>> {
    let text = match auth {
        Auth::None => return None,
        Auth::Basic { username, password } => {
            format!("Basic {}", BASE64_STANDARD.encode(format!("{username}:{password}")))
        }
        Auth::Header { scheme, credentials } => format!("{scheme} {credentials}"),
    };
    Some(HeaderValue::try_from(text).map(|mut value| {
        value.set_sensitive(true);
        value
    }))
}
