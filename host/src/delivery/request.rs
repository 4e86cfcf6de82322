//! The request that a delivery makes.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request};
use http_body_util::Full;

use crate::domain::event::Outgoing;
use crate::domain::plugin::Output;
use crate::domain::{Auth, DeliveryId, Event, Subscription, event};
use crate::store::Logged;

/// Standard Webhooks: the same for each attempt of a delivery, so that a target can tell a repeat.
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("waypost/", env!("CARGO_PKG_VERSION")));

/// Makes the request for an event and a subscription.
///
/// # Errors
/// Returns a sentence when the stored target cannot be put into a request.
pub(super) fn make(event: &Logged, subscription: &Subscription) -> Result<Request<Full<Bytes>>, String> {
    post(encode(&event.event, subscription), DeliveryId::of(event.id, subscription.id), subscription)
}

/// Makes the request for one output of a subscription's plugin.
///
/// # Errors
/// Returns a sentence when the stored target or the output cannot be put into a request.
pub(super) fn of_output(
    output: &Output,
    id: DeliveryId,
    subscription: &Subscription,
) -> Result<Request<Full<Bytes>>, String> {
    let outgoing = match output {
        Output::Event(event) => encode(event, subscription),
        Output::Raw { content_type, headers, body } => {
            Outgoing { headers: raw_headers(content_type, headers)?, body: body.clone() }
        }
    };
    post(outgoing, id, subscription)
}

fn encode(event: &Event, subscription: &Subscription) -> Outgoing {
    event::encode(event, subscription.event_format, subscription.content_mode, &subscription.extensions)
}

/// Makes headers of what a plugin wants; those that are not its business have been refused when it ran.
fn raw_headers(content_type: &str, headers: &[(String, String)]) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::with_capacity(headers.len() + 4);
    for (name, value) in headers {
        let pair = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(value).ok());
        let (name, value) = pair.ok_or_else(|| format!("the plugin's header `{name}` cannot be sent"))?;
        map.append(name, value);
    }
    let content_type = HeaderValue::from_str(content_type);
    map.insert(CONTENT_TYPE, content_type.map_err(|_| "the plugin's content type cannot be sent")?);
    Ok(map)
}

/// Adds what every request has.
fn post(
    outgoing: Outgoing,
    id: DeliveryId,
    subscription: &Subscription,
) -> Result<Request<Full<Bytes>>, String> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(subscription.target_url.uri().clone())
        .body(Full::new(outgoing.body))
        .map_err(|error| format!("target_url cannot be used: {error}"))?;
    let headers = request.headers_mut();
    *headers = outgoing.headers;
    headers.insert(USER_AGENT, AGENT);
    headers.insert(WEBHOOK_ID, HeaderValue::try_from(id.to_string()).expect("a UUID is visible ASCII"));
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
