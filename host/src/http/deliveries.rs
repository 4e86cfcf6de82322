//! `/eventmatch/{uuid}/deliveries`: the deliveries of one subscription and their outcomes, newest first.

use std::num::NonZeroUsize;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::error::ApiError;
use super::eventmatch::own;
use super::id::Id;
use super::identity::User;
use super::parameters::{Parameters, QueryDoc};
use super::story::View;
use crate::clock;
use crate::domain::{EventId, SubscriptionId};
use crate::store::Range;

/// How many deliveries a list has unless asked otherwise, and at most.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1_000;
/// How many events of the log are searched in one request, for each delivery that is asked for, and at the least.
const SEARCHED_FACTOR: usize = 20;
const SEARCHED_MIN: usize = 2_000;
/// How many events are held in memory at once: each may be as large as `event_bytes_max`.
const PAGE: usize = 32;

/// Which part of the list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    limit: Option<NonZeroUsize>,
    before: Option<EventId>,
}

impl QueryDoc for Page {
    const DOC: &'static str = "limit (from 1 on; at most 1000 are listed) and before (an event's id)";
}

/// `GET /eventmatch/{uuid}/deliveries`
///
/// The list may be empty and have a `next`: then nothing was found in the part of the log that one request searches.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<SubscriptionId>,
    Parameters(page): Parameters<Page>,
) -> Result<Json<Value>, ApiError> {
    own(&api, &user, id)?;
    let limit = page.limit.map_or(LIMIT, NonZeroUsize::get).min(LIMIT_MAX);
    let (mut shown, mut before) = (Vec::new(), page.before);
    for _ in 0..(SEARCHED_FACTOR * limit).max(SEARCHED_MIN).div_ceil(PAGE) {
        let stories = api.store.stories(Range { before, since: None, until: None, limit: PAGE }).await?;
        let more = stories.len() == PAGE;
        for story in stories {
            before = Some(story.event.id);
            let view = View::of(story, &user, &api);
            shown.extend(view.as_ref().and_then(|view| show(view, id)));
            if shown.len() == limit {
                return Ok(page_of(shown, id, limit, before));
            }
        }
        if !more {
            return Ok(page_of(shown, id, limit, None));
        }
    }
    Ok(page_of(shown, id, limit, before))
}

/// Shows one delivery with the event that it is of.
fn show(view: &View, subscription: SubscriptionId) -> Option<Value> {
    let delivery = view.deliveries.iter().find(|delivery| delivery.recipient == subscription.into())?;
    let mut shown = delivery.show(&view.event);
    shown["event"] = view.event.id.to_string().into();
    shown["received"] = clock::text(view.event.received).into();
    Some(shown)
}

fn page_of(deliveries: Vec<Value>, id: SubscriptionId, limit: usize, before: Option<EventId>) -> Json<Value> {
    let next = before.map(|before| format!("/eventmatch/{id}/deliveries?limit={limit}&before={before}"));
    Json(json!({"deliveries": deliveries, "next": next}))
}
