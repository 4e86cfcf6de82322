//! The cost of safety: deliveries with all protections, in turns with deliveries without them.
//!
//! The protections are the producers' token, a signature of each request, a sealed credential for the target, and the limits
//! on requests (so high that they are checked but never reached). The address guard is on in both: it cannot be turned off.

use anyhow::Result;
use serde_json::json;

use crate::event::FILES_FILTER;
use crate::ledger::Fan;
use crate::plugins::race;
use crate::report::Row;
use crate::sink::Gate;
use crate::stage::{Settings, Stage};

/// No run is faster.
const PER_SECOND_MAX: usize = 80_000;
const LIMITS: &str = "address_requests_per_second = 1000000\nuser_requests_per_second = 1000000\n";
const NO_LIMITS: &str = "address_requests_per_second = 0\nuser_requests_per_second = 0\n";

/// Measures both in turns.
pub(crate) async fn play(settings: &Settings) -> Result<Row> {
    let seconds = usize::try_from(settings.seconds.unwrap_or(8)).unwrap_or(60).clamp(1, 60);
    let set = |config| Stage::configured(settings, Fan::All(1), PER_SECOND_MAX * seconds, Gate::Open, config);
    let plain = set(NO_LIMITS).await?;
    plain.subscribe(|_| FILES_FILTER.to_owned()).await?;
    let mut safe = set(LIMITS).await?;
    let mut rest = safe.rest().await?;
    rest.create(json!({
        "name": "safe",
        "jsonpath": FILES_FILTER,
        "target_url": safe.sink.url(0),
        "signing_secret": "generate",
        "auth": {"type": "header", "header": {"type": "Bearer", "credentials": "a secret of the target"}},
    }))
    .await?;
    safe.token = Some(rest.token(json!({"user": "producer", "scopes": ["receive"]})).await?);
    race("safety", settings, &plain, &safe, "without").await
}
