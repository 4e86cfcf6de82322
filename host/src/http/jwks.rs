//! `/.well-known/jwks.json`: the public keys with which this service signs deliveries. Anyone may read them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, header};
use serde_json::Value;

use super::Api;

/// `GET /.well-known/jwks.json`
pub(super) async fn read(State(api): State<Arc<Api>>) -> ([(HeaderName, &'static str); 1], Json<Value>) {
    ([(header::CACHE_CONTROL, "public, max-age=300")], Json(api.service_key.jwks()))
}
