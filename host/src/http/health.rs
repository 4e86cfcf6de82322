//! `/healthz`: the process answers, and all of its stages live. `/readyz`: it can write to disk.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::Api;
use super::error::ApiError;

/// The longest that a readiness probe waits for the disk.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers, as long as no stage of the service is dead.
pub(super) async fn healthz(State(api): State<Arc<Api>>) -> Result<Json<Value>, ApiError> {
    match api.store.alarm().dead() {
        None => Ok(Json(json!({"status": "ok"}))),
        Some(dead) => {
            let detail = format!("{} has ended: the service must be started again", dead.stage);
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, detail))
        }
    }
}

/// Writes something and waits until it is on disk.
pub(super) async fn readyz(State(api): State<Arc<Api>>) -> Result<Json<Value>, ApiError> {
    match tokio::time::timeout(PROBE_TIMEOUT, api.store.probe()).await {
        Ok(probed) => probed?,
        Err(_) => {
            let detail = format!("the disk took longer than {} s for one write", PROBE_TIMEOUT.as_secs());
            return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, detail));
        }
    }
    Ok(Json(json!({"status": "ready"})))
}
