//! Plugins: what can be uploaded, and what a subscription does with it.

mod authoring;
mod trying;
mod uploading;

use http::Method;
use serde_json::Value;

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
