//! The request that a delivery makes.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request};
use http_body_util::Full;

use super::credentials::Credentials;
use waypost_domain::event::{Form, Outgoing};
use waypost_domain::plugin::Output;
use waypost_domain::target::TargetError;
use waypost_domain::{DeliveryId, Event, Subscription, event};
use waypost_net::{Agent, Guard, Voice, mark};
use waypost_secrets as secrets;
use waypost_store::LoggedEvent;

/// The Standard Webhooks header: the same for each attempt of a delivery, so that a target can detect a repeat.
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
pub(super) const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("waypost/", env!("CARGO_PKG_VERSION")));

/// Why a request cannot be made. The invalid value was stored before the present checks existed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unsendable {
    #[error("target_url {0}")]
    Target(TargetError),
    #[error("auth holds characters that no header may have")]
    Auth,
    #[error("{what} cannot be opened: {reason}; set it again")]
    Damaged { what: &'static str, reason: secrets::OpenError },
    #[error("its signing secret is not valid")]
    Secret,
    #[error("its header `{name}` cannot be set: {reason}")]
    Header { name: String, reason: &'static str },
    #[error("the plugin's output cannot be sent: {0}")]
    Output(String),
}

impl Unsendable {
    /// Tells whether one output is at fault, and not the subscription.
    pub(super) fn is_of_output(&self) -> bool {
        match self {
            Self::Output(_) => true,
            Self::Target(_) | Self::Auth | Self::Secret | Self::Header { .. } | Self::Damaged { .. } => false,
        }
    }
}

/// Makes the request for an event and a subscription.
///
/// # Errors
/// When the subscription cannot be put into a request.
pub(super) fn make(
    event: &LoggedEvent,
    subscription: &Subscription,
    credentials: &Credentials,
) -> Result<Request<Full<Bytes>>, Unsendable> {
    let id = DeliveryId::of(event.id, subscription.id);
    post(encode(&event.event, subscription), id, subscription, credentials)
}

/// Makes the request for one output of a subscription's plugin.
///
/// # Errors
/// When the subscription or the output cannot be put into a request.
pub(super) fn of_output(
    output: &Output,
    id: DeliveryId,
    subscription: &Subscription,
    guard: &Guard,
    credentials: &Credentials,
) -> Result<Request<Full<Bytes>>, Unsendable> {
    let outgoing = match output {
        Output::Event(event) => encode(event, subscription),
        Output::Raw { content_type, headers, body } => {
            let headers = raw_headers(content_type, headers, guard).map_err(Unsendable::Output)?;
            Outgoing { headers, body: body.clone() }
        }
    };
    post(outgoing, id, subscription, credentials)
}

fn encode(event: &Event, subscription: &Subscription) -> Outgoing {
    let form = Form {
        format: subscription.event_format,
        mode: subscription.content_mode,
        content_type: subscription.content_type,
    };
    event::encode(event, form, &subscription.extensions)
}

/// Turns the headers that a plugin sets into a header map. Forbidden ones were refused when it ran, but the output may
/// be older than that rule, or than the setting that names the user header.
fn raw_headers(content_type: &str, headers: &[(String, String)], guard: &Guard) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::with_capacity(headers.len() + 5);
    for (name, value) in headers {
        let pair = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(value).ok());
        let (name, value) = pair.ok_or_else(|| format!("its header `{name}` is not valid"))?;
        guard
            .check_header(&name, Voice::Output)
            .map_err(|reason| format!("its header `{name}` is not a plugin's to set: {reason}"))?;
        map.append(name, value);
    }
    let content_type = HeaderValue::from_str(content_type);
    map.insert(CONTENT_TYPE, content_type.map_err(|_| "its content type is not valid")?);
    Ok(map)
}

/// Adds the headers that every request has.
fn post(
    outgoing: Outgoing,
    id: DeliveryId,
    subscription: &Subscription,
    credentials: &Credentials,
) -> Result<Request<Full<Bytes>>, Unsendable> {
    let uri = subscription.target_url.uri().map_err(|error| Unsendable::Target(error.clone()))?;
    let mut headers = outgoing.headers;
    credentials.add_to(&mut headers);
    headers.insert(USER_AGENT, AGENT);
    headers.insert(WEBHOOK_ID, HeaderValue::try_from(id.to_string()).expect("a UUID is visible ASCII"));
    credentials.sign(&mut headers, id, &outgoing.body);
    mark(&mut headers, Agent::Delivery);
    let mut request = Request::new(Full::new(outgoing.body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.clone();
    *request.headers_mut() = headers;
    Ok(request)
}
