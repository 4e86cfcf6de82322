//! `/plugins`: modules, uploaded once and referred to by their digest.
//!
//! Knowing a digest is enough to refer to its module and to see its report: a digest is a hash of the module's bytes
//! and cannot be guessed. The list has the modules that a user has uploaded or uses.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;
use uuid::Uuid;
use waypost_api::v1;

use super::error::ApiError;
use super::parameters::{Here, Parameters, after_nothing, part};
use super::{Api, body, report};
use crate::identity::User;
use waypost_domain::{PluginDigest, PluginUse, Subscription};
use waypost_engine::modules::{Referring, UploadResult};
use waypost_runtime::clock;
use waypost_runtime::fair_semaphore::FairPermit;
use waypost_store::Module;

/// Uploads a module
///
/// It is compiled and checked. Subscriptions refer to it by its digest.
#[utoipa::path(post, path = "/plugins", operation_id = "upload_module",
    tag = "Plugins",
    request_body(content = v1::Component, content_type = "application/wasm"),
    responses((status = 201, description = "It is new", body = v1::Module),
        (status = 200, description = "It was there", body = v1::Module)))]
pub(super) async fn upload(
    State(api): State<Arc<Api>>,
    user: User,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<v1::Module>), ApiError> {
    let (_turn, body) = turn(&api, &user, body).await?;
    let (wasm, _taken) = body::read(&headers, body, &api.limits.plugin).await?;
    let uploaded = api.modules.upload(wasm, &user.actor(), clock::now()).await?;
    let status = match uploaded {
        UploadResult::New(_) => StatusCode::CREATED,
        UploadResult::Known(_) => StatusCode::OK,
    };
    Ok((status, Json(show(uploaded.module()))))
}

/// Which modules to list.
#[derive(Debug, Deserialize, Serialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// How many to list, from 1 on: all unless it is set.
    #[param(value_type = Option<u64>, nullable = false, minimum = 1)]
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<NonZeroUsize>,
    /// The digest of one in the list: only those after it.
    #[param(value_type = Option<String>, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<PluginDigest>,
}

/// Lists the modules that you have uploaded or use, or for an admin all, the newest first
///
/// The header `Link` leads to the next page.
#[utoipa::path(get, path = "/plugins", operation_id = "list_modules",
    tag = "Plugins", params(Page),
    responses((status = 200, description = "The modules", body = Vec<v1::Module>)))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    user: User,
    here: Here,
    Parameters(page): Parameters<Page>,
) -> Result<(HeaderMap, Json<Vec<v1::Module>>), ApiError> {
    let mut uses: HashMap<PluginDigest, Vec<Uuid>> = HashMap::new();
    for own in api.directory.of_user(&user.name) {
        if let Some(plugin) = &own.plugin {
            uses.entry(plugin.digest).or_default().push(own.id.uuid());
        }
    }
    let mut modules = api.modules.list().await?;
    modules.retain(|module| {
        let is_uploader = module.by == user.name || module.uploads.contains_key(&user.name);
        user.is_admin() || is_uploader || uses.contains_key(&module.report.digest)
    });
    modules.sort_by_key(|module| std::cmp::Reverse(module.uploaded));
    let part = part(modules, page.limit, page.after, |module| module.report.digest);
    let (modules, last) = part.ok_or_else(after_nothing)?;
    let next = last.map(|last| Page { after: Some(last), ..page });
    let listed = modules.iter().map(|module| {
        let used_by = uses.remove(&module.report.digest).unwrap_or_default();
        v1::Module { used_by: Some(used_by), ..show(module) }
    });
    Ok((here.link(next), Json(listed.collect())))
}

/// Shows what is known of a module
#[utoipa::path(get, path = "/plugins/{digest}", operation_id = "read_module",
    tag = "Plugins",
    responses((status = 200, description = "The module", body = v1::Module)))]
pub(super) async fn read(
    State(api): State<Arc<Api>>,
    _user: User,
    Path(digest): Path<String>,
) -> Result<Json<v1::Module>, ApiError> {
    let digest: PluginDigest =
        digest.parse().map_err(|error| ApiError::bad_request(format!("`{digest}`: {error}")))?;
    let module = api.modules.module(digest).await?;
    let module = module.ok_or_else(|| ApiError::not_found(format!("there is no module {digest}")))?;
    Ok(Json(show(&module)))
}

/// Takes the right to upload before the module is read into memory.
pub(super) async fn turn(api: &Api, user: &User, body: Body) -> Result<(FairPermit, Body), ApiError> {
    match api.modules.turn(&user.name).await {
        Ok(turn) => Ok((turn, body)),
        Err(error) => {
            body::drain(body).await;
            Err(error.into())
        }
    }
}

/// Checks the plugin of a subscription that is about to be written, where it differs from the stored one. Hold the
/// guard until the subscription is written.
pub(super) async fn refer(
    api: &Api,
    stored: Option<&Subscription>,
    wanted: &Subscription,
) -> Result<Option<Referring>, ApiError> {
    let stored: Option<&PluginUse> = stored.and_then(|stored| stored.plugin.as_deref());
    match wanted.plugin.as_deref() {
        Some(plugin) if stored != Some(plugin) => {
            within(api, plugin)?;
            Ok(Some(api.modules.refer(&wanted.user, plugin).await?))
        }
        Some(_) | None => Ok(None),
    }
}

/// Refuses limits above the service's, which would be lowered silently.
fn within(api: &Api, plugin: &PluginUse) -> Result<(), ApiError> {
    let (own, most) = (&plugin.limits, api.modules.host().limits());
    let millis = |time: std::time::Duration| usize::try_from(time.as_millis()).unwrap_or(usize::MAX);
    for (name, own, most) in [
        ("time_ms", own.time.map(millis), millis(most.time)),
        ("memory_bytes", own.memory_bytes, most.memory_bytes),
        ("output_bytes", own.output_bytes, most.output_bytes),
        ("log_bytes", own.log_bytes, most.log_bytes),
        ("state_bytes", own.state_bytes, most.state_bytes),
        ("state_keys", own.state_keys, most.state_keys),
    ] {
        if own.is_some_and(|own| own > most) {
            let detail = format!("`plugin.limits.{name}` is at most {most} (the setting plugin_{name})");
            return Err(ApiError::field(format!("/plugin/limits/{name}"), detail));
        }
    }
    Ok(())
}

/// Returns a module's report as REST shows it.
pub(super) fn show(module: &Module) -> v1::Module {
    report::show(&module.report, Some(module.uploaded))
}
