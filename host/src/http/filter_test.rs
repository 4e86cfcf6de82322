//! `POST /eventmatch/{uuid}/test`: what a subscription's filter would do with an event. Nothing is sent or kept.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::eventmatch::{is_own, not_yours};
use super::events::{find, not_found};
use super::id::Id;
use super::identity::User;
use super::parameters::{Parameters, Takes};
use super::{Api, body, explain};
use crate::directory::Known;
use crate::domain::event::{Received, decode};
use crate::domain::{Event, EventId, FilterDialect, SubscriptionId};
use crate::matching::{Document, Filter};

/// What to try.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    /// A logged event, in the place of one in the body.
    event: Option<EventId>,
    /// Another filter than the subscription's.
    jsonpath: Option<String>,
    filter_dialect: Option<FilterDialect>,
}

impl Takes for Wish {
    const TAKES: &'static str = "event (a logged event's id, in the place of a body), jsonpath (a filter to try in the \
        place of the subscription's own) and filter_dialect (auto, rfc9535 or jsonpath2)";
}

/// `POST /eventmatch/{uuid}/test`
pub(super) async fn test(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<SubscriptionId>,
    Parameters(wish): Parameters<Wish>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let known = api.directory.known(id).filter(|found| is_own(&found.subscription, &user));
    let filter = wish.filter(&known.ok_or_else(not_yours)?)?;
    let event = wish.event(&api, &user, &headers, body).await?;
    let tested = tokio::task::spawn_blocking(move || {
        let explanation = Document::parse(&event.json()).map(|event| filter.explain(&event))?;
        Ok(json!({"matches": explanation.matches, "filter": explain::show(&filter, &explanation)}))
    });
    let tested = tested.await.expect("explaining does not panic, and the runtime runs while somebody waits");
    tested.map(Json).map_err(|error: crate::matching::Error| ApiError::bad_request(error.to_string()))
}

impl Wish {
    /// Returns the filter to try.
    fn filter(&self, known: &Known) -> Result<Arc<Filter>, ApiError> {
        let subscription = &known.subscription;
        if self.jsonpath.is_none()
            && self.filter_dialect.is_none()
            && let Some(filter) = &known.filter
        {
            return Ok(Arc::clone(filter));
        }
        let text = self.jsonpath.as_ref().unwrap_or(&subscription.jsonpath);
        let dialect = self.filter_dialect.unwrap_or(subscription.filter_dialect);
        Ok(Arc::new(Filter::parse(text, dialect)?))
    }

    /// Returns the event to try it on.
    async fn event(
        &self,
        api: &Api,
        user: &User,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Event, ApiError> {
        let body = body::read(body, api.limits.event).await?;
        let Some(id) = self.event else {
            return match decode(headers, body)? {
                Received::One(event) => Ok(event),
                Received::Batch(_) => Err(ApiError::bad_request("a test takes one event, this is a batch")),
            };
        };
        if !body.is_empty() {
            let detail = "a test takes one event: name one with `?event=`, or send one as the body";
            return Err(ApiError::bad_request(detail));
        }
        let view = find(api, user, id).await?;
        if !view.shows_event {
            return Err(not_found(id));
        }
        Ok(view.event.event.clone())
    }
}
