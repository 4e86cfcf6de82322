//! `/plugins`: modules, uploaded once and referred to by their digest.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::error::ApiError;
use super::identity::User;
use super::{Api, body};
use crate::clock;
use crate::domain::plugin::{Import, Manifest, Offer};
use crate::domain::{PluginUse, Subscription};
use crate::modules::Referring;
use crate::store::Module;

/// `POST /plugins`
pub(super) async fn upload(
    State(api): State<Arc<Api>>,
    user: User,
    body: Body,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let wasm = body::read(body, api.limits.plugin).await?;
    let module = api.modules.upload(wasm, &user.name, clock::now()).await?;
    Ok((StatusCode::CREATED, Json(show(&module))))
}

/// Checks the plugin of a subscription that is about to be written, where it differs from what is stored. The guard is
/// to be held until it is.
pub(super) async fn refer<'a>(
    api: &'a Api,
    stored: Option<&Subscription>,
    wanted: &Subscription,
) -> Result<Option<Referring<'a>>, ApiError> {
    let stored: Option<&PluginUse> = stored.and_then(|stored| stored.plugin.as_deref());
    match wanted.plugin.as_deref() {
        Some(plugin) if stored != Some(plugin) => Ok(Some(api.modules.refer(plugin).await?)),
        Some(_) | None => Ok(None),
    }
}

/// Returns a module's report as REST shows it.
fn show(module: &Module) -> Value {
    let report = &module.report;
    json!({
        "digest": report.digest.to_string(),
        "bytes": report.bytes,
        "uploaded": module.uploaded.to_string(),
        "exports": report.exports,
        "imports": report.imports.iter().map(import).collect::<Vec<_>>(),
        "manifest": report.manifest.as_ref().map(manifest),
        "compile_ms": u64::try_from(report.compile_time.as_millis()).unwrap_or(u64::MAX),
        "compiled_bytes": report.compiled_bytes,
        "memory_bytes": report.memory_bytes,
    })
}

fn import(import: &Import) -> Value {
    let (offered, fits) = match &import.offered {
        Offer::Yes(name) => (Some(name), true),
        Offer::OtherVersion(name) => (Some(name), false),
        Offer::No => (None, false),
    };
    json!({"name": import.name, "offered": offered, "fits": fits})
}

fn manifest(manifest: &Manifest) -> Value {
    json!({
        "name": manifest.name,
        "version": manifest.version,
        "description": manifest.description,
        "config_schema": manifest.config_schema,
        "wanted_hosts": manifest.wanted_hosts,
    })
}
