//! `POST /receive`: accepts events. `OPTIONS /receive`: the receiver's side of the webhook handshake.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use waypost_api::v1;

use super::error::ApiError;
use super::idempotency::{IdempotencyKey, ProducerKeyHeaders};
use super::{Api, body};
use crate::identity::Sender;
use waypost_domain::EventId;
use waypost_domain::event::{EventBody, decode};
use waypost_store::Receipt;

/// Headers of the handshake (CloudEvents 1.0 webhook specification §4): the origin of the sender, and what it
/// is allowed.
const REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");
const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");

/// Says what of a request was logged before: `true` if all of it was, or the places of the events in the batch, from 0.
const DUPLICATE: HeaderName = HeaderName::from_static("waypost-duplicate");
/// The most bytes of places in it: servers in between refuse answers with large headers.
const PLACES_BYTES_MAX: usize = 1_024;

/// Accepts one event or a batch
///
/// Besides the structured mode that is described here: as `application/json`, a batch as
/// `application/cloudevents-batch+json`, or in binary mode, with the attributes in `ce-` headers. The answer has the ids,
/// once the events are on disk: as text, one in each line, or as JSON for clients that prefer it.
#[utoipa::path(post, path = "/receive", operation_id = "send_events",
    tag = "Events",
    params(ProducerKeyHeaders),
    request_body(content = v1::CloudEvent, content_type = "application/cloudevents+json"),
    responses((status = 200, description = "The id of each event",
        headers(("waypost-duplicate" = String, description = "Only with a `dedup_window`, where events repeat others: `true` \
            if all of them do, or which events of the batch, like `0-3, 7`; a long list ends with `...`")),
        content((String = "text/plain"), (v1::EventIds = "application/json")))))]
pub(super) async fn receive(
    State(api): State<Arc<Api>>,
    sender: Sender,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (body, _taken) = body::read(&headers, body, &api.limits.event).await?;
    let sender = match sender {
        Sender::Known(name) => name,
        Sender::Signed(signed) => signed.by(&body)?,
    };
    let (events, is_batch) = match decode(&headers, body)? {
        EventBody::One(event) => (vec![event], false),
        EventBody::Batch(events) => (events, true),
    };
    let key = IdempotencyKey::of_producer(&headers)?.id("receive", &sender);
    let receipts = api.intake.accept_once(events, &sender, key).await?;
    let ids: Vec<_> = receipts.iter().map(|receipt| receipt.id).collect();
    let mut response = answer(&ids, is_batch, prefers_json(&headers));
    if let Some(repeats) = repeats(&receipts) {
        let repeats = HeaderValue::try_from(repeats).expect("digits and commas");
        response.headers_mut().insert(DUPLICATE, repeats);
    }
    Ok(response)
}

/// Says which events were logged before, if any were: `true`, or like `0-3, 7`.
fn repeats(receipts: &[Receipt]) -> Option<String> {
    if !receipts.iter().any(|receipt| receipt.is_repeat) {
        return None;
    }
    if receipts.iter().all(|receipt| receipt.is_repeat) {
        return Some("true".to_owned());
    }
    let (mut places, mut bytes, mut place) = (Vec::new(), 0, 0);
    for run in receipts.chunk_by(|one, next| one.is_repeat == next.is_repeat) {
        let first = place;
        place += run.len();
        if !run[0].is_repeat {
            continue;
        }
        if bytes > PLACES_BYTES_MAX {
            places.push("...".to_owned());
            break;
        }
        places.push(match run.len() {
            1 => first.to_string(),
            _ => format!("{first}-{}", place - 1),
        });
        bytes += places.last().map_or(0, String::len);
    }
    Some(places.join(", "))
}

pub(super) fn answer(ids: &[EventId], is_batch: bool, json: bool) -> Response {
    let mut texts = ids.iter().map(ToString::to_string);
    match (json, is_batch) {
        (true, true) => Json(texts.collect::<Vec<_>>()).into_response(),
        (true, false) => Json(texts.next()).into_response(),
        (false, _) => texts.collect::<Vec<_>>().join("\n").into_response(),
    }
}

/// Tells whether a client asks for JSON before plain text. Only their order counts; quality values are ignored.
pub(super) fn prefers_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let types = accept.split(',').map(|part| part.split(';').next().unwrap_or_default().trim());
    types.into_iter().find_map(|name| match name {
        "application/json" => Some(true),
        "text/plain" | "text/*" | "*/*" => Some(false),
        _ => None,
    }) == Some(true)
}

/// Allows any origin that names itself to send events
///
/// The handshake of CloudEvents webhooks (§4).
#[utoipa::path(options, path = "/receive", operation_id = "ask_to_send_events",
    tag = "Events",
    responses((status = 200, description = "The headers say what is allowed")))]
pub(super) async fn handshake(_sender: Sender, headers: HeaderMap) -> Response {
    let mut response = StatusCode::OK.into_response();
    let answer = response.headers_mut();
    answer.insert(header::ALLOW, HeaderValue::from_static("POST"));
    if let Some(origin) = headers.get(REQUEST_ORIGIN) {
        answer.insert(ALLOWED_ORIGIN, origin.clone());
        answer.insert(ALLOWED_RATE, HeaderValue::from_static("*"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(are_repeats: impl IntoIterator<Item = bool>) -> Option<String> {
        let receipt = |is_repeat| Receipt { id: EventId::NIL, is_repeat };
        repeats(&are_repeats.into_iter().map(receipt).collect::<Vec<_>>())
    }

    #[test]
    fn repeats_are_named_by_their_places() {
        assert_eq!(of([false, false]), None);
        assert_eq!(of([true]).unwrap(), "true");
        assert_eq!(of([true, true]).unwrap(), "true");
        assert_eq!(of([true, true, true, false, true]).unwrap(), "0-2, 4");
        assert_eq!(of([false, true]).unwrap(), "1");
        let many = of((0..10_000).map(|place| place % 2 == 0)).unwrap();
        assert!(many.len() < 2 * PLACES_BYTES_MAX && many.starts_with("0, 2, ") && many.ends_with(", ..."));
    }
}
