//! `/audit`: who changed what, and when.

use std::num::NonZeroUsize;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use waypost_api::v1;

use super::Api;
use super::error::ApiError;
use super::parameters::{Parameters, QueryDoc};
use waypost_domain::{Action, AuditEntry, TokenId};
use waypost_store::{AuditPlace, AuditQuery};

/// How many entries a list has by default, and at most.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1_000;

/// Which part of the audit to list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    limit: Option<NonZeroUsize>,
    before: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    user: Option<String>,
    action: Option<String>,
    id: Option<String>,
}

impl QueryDoc for Page {
    const DOC: &'static str = "limit (from 1 on; at most 1000 are listed), before (the `next` of a page), since and until \
        (times such as 2026-01-31T12:00:00Z), user (who did it, or whose it is), action (such as subscription.change) and \
        id (of what it was done to)";
}

/// `GET /audit`
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Parameters(page): Parameters<Page>,
) -> Result<Json<v1::AuditPage>, ApiError> {
    let limit = page.limit.map_or(LIMIT, NonZeroUsize::get).min(LIMIT_MAX);
    let query = AuditQuery {
        before: page.before.as_deref().map(place).transpose()?,
        since: page.since,
        until: page.until,
        user: page.user.clone(),
        action: page.action.as_deref().map(action).transpose()?,
        id: page.id.clone(),
        limit,
    };
    let (entries, next) = api.store.audit(query).await?;
    let audit = entries.into_iter().map(show).collect();
    Ok(Json(v1::AuditPage { audit, next: next.map(|place| next_url(&page, limit, place)) }))
}

fn place(text: &str) -> Result<AuditPlace, ApiError> {
    let parts =
        text.split_once('-').and_then(|(group, index)| Some((group.parse().ok()?, index.parse().ok()?)));
    let (group, index) =
        parts.ok_or_else(|| ApiError::bad_request(format!("`before={text}` is not the `next` of a page")))?;
    Ok(AuditPlace { group, index })
}

fn action(name: &str) -> Result<Action, ApiError> {
    Action::of(name).ok_or_else(|| {
        let names = Action::ALL.map(Action::name).join(", ");
        ApiError::bad_request(format!("`action={name}` is not an action: use one of {names}"))
    })
}

fn next_url(page: &Page, limit: usize, place: AuditPlace) -> String {
    let mut url = format!("/audit?limit={limit}&before={}-{}", place.group, place.index);
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
    for (name, value) in [
        ("since", time(page.since)),
        ("until", time(page.until)),
        ("user", page.user.clone()),
        ("action", page.action.clone()),
        ("id", page.id.clone()),
    ] {
        if let Some(value) = value {
            url.push_str(&format!("&{name}={}", utf8_percent_encode(&value, NON_ALPHANUMERIC)));
        }
    }
    url
}

fn show(entry: AuditEntry) -> v1::AuditEntry {
    v1::AuditEntry {
        at: entry.at.into(),
        via: entry.by.via.name().to_owned(),
        token: entry.by.via.token().map(TokenId::uuid),
        by: entry.by.user,
        action: entry.action.name().to_owned(),
        id: Some(entry.id).filter(|id| !id.is_empty()),
        user: entry.user,
        detail: entry.detail,
    }
}
