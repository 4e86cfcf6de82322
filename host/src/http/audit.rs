//! `/audit`: who changed what, and when.

use std::num::NonZeroUsize;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;
use waypost_api::v1;

use super::Api;
use super::error::ApiError;
use super::parameters::{Here, Parameters};
use waypost_domain::{Action, AuditEntry, TokenId};
use waypost_store::{AuditPlace, AuditQuery};

/// How many entries a list has by default, and at most.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1_000;

/// Which part of the audit to list.
#[derive(Clone, Debug, Deserialize, Serialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// How many to list: from 1 on, 100 unless it is set, at most 1000.
    #[param(value_type = Option<u64>, nullable = false, minimum = 1)]
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<NonZeroUsize>,
    /// The `before` of a page's `next`.
    #[param(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<String>,
    /// A time such as 2026-01-31T12:00:00Z: only what was done then or later.
    #[param(value_type = Option<String>, nullable = false, format = DateTime)]
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    /// A time: only what was done before it.
    #[param(value_type = Option<String>, nullable = false, format = DateTime)]
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
    /// A user: who did it, or whose it is.
    #[param(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// What was done, such as subscription.change.
    #[param(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<String>,
    /// The id of what it was done to.
    #[param(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

/// Lists who changed what, and when, newest first
#[utoipa::path(get, path = "/audit", operation_id = "list_audit",
    tag = "Access", params(Page),
    responses((status = 200, description = "A page", body = v1::AuditPage)))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    here: Here,
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
    let page = |AuditPlace { group, index }| Page {
        limit: NonZeroUsize::new(limit),
        before: Some(format!("{group}-{index}")),
        ..page.clone()
    };
    Ok(Json(v1::AuditPage { audit, next: next.map(|place| here.with(&page(place))) }))
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
