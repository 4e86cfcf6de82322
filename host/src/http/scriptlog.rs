//! `/scriptlog`: the runs of handlers as Dispatcher-K8s shows them. A run's UUID is its event's id: an event goes to one
//! handler.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};
use waypost_api::v1;

use super::Api;
use super::dry_run::DryRunPermits;
use super::error::ApiError;
use super::events::{Page, find_shown, not_found, views};
use super::id::RunId;
use super::parameters::{Here, Parameters};
use super::runs::exit_code;
use super::story::{Delivery, View};
use super::tasks::ended;
use crate::identity::User;
use waypost_domain::EventId;

/// Lists the runs of handlers as Pacifica's Dispatcher-K8s does, newest first
///
/// The header `Link` leads to the next page, also from a page without a run.
#[utoipa::path(get, path = "/scriptlog", operation_id = "list_scriptlogs",
    tag = "Pacifica", params(Page),
    responses((status = 200, description = "A page", body = Vec<v1::ScriptLog>)))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(permits): Extension<DryRunPermits>,
    user: User,
    here: Here,
    Parameters(page): Parameters<Page>,
) -> Result<(HeaderMap, Json<Vec<v1::ScriptLog>>), ApiError> {
    let (logs, end) = views(&api, &user, &page, &permits, log, |log| log.event.len()).await?;
    Ok((here.link(page.after(&end)), Json(logs)))
}

/// Shows the run of a handler as Pacifica's Dispatcher-K8s does
#[utoipa::path(get, path = "/scriptlog/{id}", operation_id = "read_scriptlog",
    tag = "Pacifica",
    responses((status = 200, description = "The run", body = v1::ScriptLog)))]
pub(super) async fn read(
    State(api): State<Arc<Api>>,
    user: User,
    RunId(id): RunId<EventId>,
) -> Result<Json<v1::ScriptLog>, ApiError> {
    let view = find_shown(&api, &user, id).await?;
    log(&view).map(Json).ok_or_else(|| not_found(id))
}

/// Shows the run of an event, if a handler took it, with the members and types of Dispatcher-K8s: its return
/// code is a string.
fn log(view: &View) -> Option<v1::ScriptLog> {
    let run: &Delivery = view.deliveries.iter().rfind(|delivery| delivery.handler.is_some())?;
    let program = run.runs().last().and_then(|run| run.program.as_ref());
    let said = |text: Option<&String>| text.cloned().unwrap_or_default();
    let last = run.attempts().last();
    Some(v1::ScriptLog {
        uuid: view.event.id.uuid(),
        event: String::from_utf8_lossy(&view.event.event.json()).into_owned(),
        stdout: said(program.map(|program| &program.stdout.tail)),
        stderr: said(program.map(|program| &program.stderr.tail)),
        return_code: program.and_then(|program| exit_code(&program.exit)).map(|code| code.to_string()),
        script_id: run.handler.clone(),
        created: view.event.received.into(),
        updated: last.map_or(view.event.received, ended).into(),
        deleted: None,
    })
}
