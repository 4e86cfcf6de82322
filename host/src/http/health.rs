//! `/healthz`: the process answers, and all of its stages are running. `/readyz`: it can write to disk.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::{Extension, Json};
use tokio::sync::Mutex;
use tokio::time::Instant;
use waypost_api::v1;

use super::Api;
use super::error::ApiError;

/// The longest that a readiness probe waits for the disk.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the result of a probe is reused. A probe is a commit, and any client may ask for one.
const PROBE_REUSE: Duration = Duration::from_secs(1);

/// Succeeds while no stage of the service has ended
#[utoipa::path(get, path = "/healthz", operation_id = "check_health",
    tag = "Service",
    responses((status = 200, description = "It runs", body = v1::Health)))]
pub(super) async fn healthz(State(api): State<Arc<Api>>) -> Result<Json<v1::Health>, ApiError> {
    match api.store.alarm().dead() {
        None => Ok(Json(v1::Health { status: "ok".to_owned() })),
        Some(dead) => {
            let detail = format!("{} has ended: the service must be restarted", dead.stage);
            Err(ApiError::unavailable(detail))
        }
    }
}

/// Succeeds if the disk can be written
///
/// A probe is committed; all requests within one second share one.
#[utoipa::path(get, path = "/readyz", operation_id = "check_readiness",
    tag = "Service",
    responses((status = 200, description = "It can be written", body = v1::Ready)))]
pub(super) async fn readyz(
    State(api): State<Arc<Api>>,
    Extension(probe): Extension<Probe>,
) -> Result<Json<v1::Ready>, ApiError> {
    let write = async || match tokio::time::timeout(PROBE_TIMEOUT, api.store.probe()).await {
        Ok(probed) => Ok(probed?),
        Err(_) => {
            let detail = format!("the disk took longer than {} s for one write", PROBE_TIMEOUT.as_secs());
            Err(ApiError::unavailable(detail))
        }
    };
    probe.ask(write).await?;
    // Damaged records do not make the service unready, but operators should see them.
    let damaged_records = Some(api.store.damaged()).filter(|damaged| *damaged > 0);
    Ok(Json(v1::Ready { status: "ready".to_owned(), damaged_records }))
}

/// The result of the last probe. One probe runs at a time, and other requests wait for its result.
#[derive(Clone, Debug, Default)]
pub(super) struct Probe(Arc<Mutex<Option<Last>>>);

#[derive(Debug)]
struct Last {
    /// When it ended, or when it began if its caller went away before the end.
    at: Instant,
    found: Option<Result<(), ApiError>>,
}

impl Probe {
    async fn ask(&self, probe: impl AsyncFnOnce() -> Result<(), ApiError>) -> Result<(), ApiError> {
        let mut last = self.0.lock().await;
        match &*last {
            Some(Last { at, found: Some(found) }) if at.elapsed() < PROBE_REUSE => return found.clone(),
            // The caller went away before the end: that commit still counts as this second's.
            Some(Last { at, found: None }) => tokio::time::sleep_until(*at + PROBE_REUSE).await,
            Some(_) | None => {}
        }
        *last = Some(Last { at: Instant::now(), found: None });
        let found = probe().await;
        *last = Some(Last { at: Instant::now(), found: Some(found.clone()) });
        found
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::future::join_all;

    use super::*;

    /// Each request was a commit of its own, so frequent requests slowed every event down.
    #[tokio::test]
    async fn concurrent_requests_share_one_probe() {
        let (probe, writes) = (Probe::default(), Cell::new(0));
        let ask = || {
            probe.ask(async || {
                writes.set(writes.get() + 1);
                tokio::task::yield_now().await;
                Err(ApiError::unavailable("the disk is full"))
            })
        };
        let asked = Instant::now();
        let found = join_all((0..100).map(|_| ask())).await;
        assert!(found.iter().all(Result::is_err));
        assert!(writes.get() <= 1 + asked.elapsed().as_secs(), "{} writes", writes.get());
        let before = writes.get();
        probe.0.lock().await.as_mut().unwrap().at -= PROBE_REUSE;
        ask().await.unwrap_err();
        assert_eq!(writes.get(), before + 1, "a result is not reused for ever");
    }

    #[tokio::test]
    async fn a_client_that_hangs_up_does_not_allow_more_probes() {
        let (probe, begun) = (Probe::default(), Instant::now());
        let aborted = probe.ask(async || std::future::pending().await);
        assert!(tokio::time::timeout(Duration::ZERO, aborted).await.is_err());
        probe.ask(async || Ok(())).await.unwrap();
        assert!(begun.elapsed() >= PROBE_REUSE);
    }
}
