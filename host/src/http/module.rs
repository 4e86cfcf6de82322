//! `/eventmatch/{uuid}/plugin`: the module of one subscription.
//!
//! The other members of a subscription's plugin (`config`, `allow_hosts`, `on_error`, `limits`) stay unchanged when the
//! module is replaced. Running calls end with the module that they began with.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Map, Value};
use waypost_api::v1;

use super::error::ApiError;
use super::eventmatch::{change, own, refuse_other_plugin};
use super::id::Id;
use super::version::{IfMatch, IfMatchHeader};
use super::{Api, body, plugins};
use crate::identity::User;
use waypost_domain::{PluginDigest, PluginUse, Subscription, SubscriptionId};
use waypost_engine::delivery::BreakerState;
use waypost_runtime::clock;

pub(super) const WASM: &str = "application/wasm";

/// Gives a subscription a module
///
/// The other members of its plugin stay as they are.
#[utoipa::path(put, path = "/eventmatch/{uuid}/plugin", operation_id = "set_plugin",
    tag = "Plugins", params(IfMatchHeader),
    request_body(content = v1::Component, content_type = "application/wasm"),
    responses((status = 200, description = "The module", body = v1::Module)))]
pub(super) async fn update(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<SubscriptionId>,
    if_match: IfMatch,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<v1::Module>, ApiError> {
    let stored = match own(&api, &user, id) {
        Ok(stored) => stored,
        Err(refused) => {
            body::drain(body).await;
            return Err(refused);
        }
    };
    let (_turn, body) = plugins::turn(&api, &user, body).await?;
    let (wasm, _taken) = body::read(&headers, body, &api.limits.plugin).await?;
    let now = clock::now();
    let uploaded = api.modules.upload(wasm, &user.actor(), now).await?;
    let digest = uploaded.module().report.digest;
    let plugin = PluginUse::moved(stored.plugin.as_deref(), digest);
    let wanted = Subscription { plugin: Some(Arc::new(plugin)), ..Subscription::clone(&stored) };
    let _referring = plugins::refer(&api, Some(&stored), &wanted).await?;
    let changed = change(&api, &user, id, &if_match, |current| {
        refuse_other_plugin(current, &stored)?;
        Ok(Subscription { plugin: wanted.plugin.clone(), updated: now, ..current.clone() })
    });
    changed.await.map(|_| Json(plugins::show(uploaded.module())))
}

/// Shows the module of a subscription
///
/// The module itself, or with `Accept: application/json` what is known of it, with the configuration and the breaker.
#[utoipa::path(get, path = "/eventmatch/{uuid}/plugin", operation_id = "read_plugin",
    tag = "Plugins",
    responses((status = 200, description = "The module",
        content((v1::SubscriptionModule = "application/json"), (v1::Component = "application/wasm")))))]
pub(super) async fn read(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<SubscriptionId>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let stored = own(&api, &user, id)?;
    let none = || ApiError::not_found("this subscription has no plugin");
    let plugin = stored.plugin.as_deref().ok_or_else(none)?;
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accepted.contains("json") {
        let module = api.modules.module(plugin.digest).await?.ok_or_else(|| gone(plugin.digest))?;
        let breaker = api.dispatcher.breaker(id).map(show_breaker);
        let shown =
            v1::SubscriptionModule { module: plugins::show(&module), config: plugin.config.clone(), breaker };
        return Ok(Json(shown).into_response());
    }
    let wasm = api.modules.bytes(plugin.digest).await?.ok_or_else(|| gone(plugin.digest))?;
    Ok(([(header::CONTENT_TYPE, WASM)], wasm).into_response())
}

/// Shows the breaker of a plugin that has failed recently.
fn show_breaker(breaker: BreakerState) -> v1::Breaker {
    v1::Breaker {
        failures: breaker.failures,
        open_until: breaker.open_until.map(v1::Time),
        reason: breaker.reason,
    }
}

/// Takes the plugin from a subscription
#[utoipa::path(delete, path = "/eventmatch/{uuid}/plugin", operation_id = "remove_plugin",
    tag = "Plugins", params(IfMatchHeader),
    responses((status = 200, description = "It has none")))]
pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<SubscriptionId>,
    if_match: IfMatch,
) -> Result<(), ApiError> {
    let now = clock::now();
    let changed = change(&api, &user, id, &if_match, |current| {
        Ok(Subscription { plugin: None, updated: now, ..current.clone() })
    });
    changed.await.map(drop)
}

/// Lets a subscription's body refer to the module that comes with it.
pub(super) fn insert(body: &mut Map<String, Value>, module: &Bytes) -> Result<(), ApiError> {
    let digest = PluginDigest::of(module).to_string();
    let plugin = body.entry("plugin").or_insert(Value::Null);
    if plugin.is_null() {
        *plugin = Value::Object(Map::new());
    }
    // Anything else that is not an object is refused where the member is read.
    let Some(members) = plugin.as_object_mut() else { return Ok(()) };
    match members.insert("digest".to_owned(), Value::String(digest.clone())) {
        Some(given) if given != digest.as_str() => {
            let detail = format!("`plugin.digest` is not that of the part `plugin`, which is {digest}");
            Err(ApiError::field("/plugin/digest", detail))
        }
        Some(_) | None => Ok(()),
    }
}

fn gone(digest: PluginDigest) -> ApiError {
    ApiError::not_found(format!("the module {digest} is no longer stored: upload it again"))
}
