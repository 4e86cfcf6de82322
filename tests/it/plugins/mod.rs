//! Plugins: uploads, and their use by subscriptions.

mod authoring;
mod breaking;
mod delivering;
mod examining;
mod failing;
mod filling;
mod fixing;
mod keeping;
mod made;
mod refusing;
mod remembering;
mod sharing;
mod trying;
mod uploading;

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Api, Reply};

/// Returns the bytes of a guest.
pub(crate) fn wasm(path: &str) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

/// Posts a module.
pub(crate) async fn post(api: &Api, wasm: impl Into<bytes::Bytes>) -> Reply {
    api.send(Method::POST, "/plugins", &[("content-type", "application/wasm")], wasm).await
}

/// Uploads a module, and returns its report.
pub(crate) async fn upload(api: &Api, path: &str) -> Value {
    let reply = post(api, wasm(path)).await;
    assert!(matches!(reply.status, 200 | 201), "{}", reply.text());
    reply.json()
}

/// Uploads the guest that does what its configuration says, and subscribes to everything with it.
pub(crate) async fn probing(api: &Api, target: &str, config: Value) -> String {
    using(api, waypost_guests::PROBE, target, json!({"config": config})).await
}

/// Uploads a guest, and subscribes to everything with it and these members of `plugin`.
pub(crate) async fn using(api: &Api, guest: &str, target: &str, mut plugin: Value) -> String {
    plugin["digest"] = upload(api, guest).await["digest"].clone();
    api.subscribe(json!({"target_url": target, "plugin": plugin})).await
}
