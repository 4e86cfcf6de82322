//! Long tasks of a service, and what happens when one of them ends without being stopped.
//!
//! A service with a dead stage looks alive and does half of its work. So the end of any stage ends the service, with
//! the stage's name, and the next start continues as usual. Every long task runs inside [`Alarm::watch`]. Stages stop
//! by tokens of [`Alarm::stop_token`], so that the death of one stops them all.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

/// What users are told of a panic. Its text may contain other users' data, so it goes to stderr only.
pub const PANICKED: &str = "the service panicked (its text is on stderr)";

/// A stage of the service that has ended without being stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{stage} has ended, and the service with it: {reason}")]
pub struct DeadStage {
    /// The stage.
    pub stage: String,
    /// How it ended.
    pub reason: String,
}

/// Tells all users of one store that a stage is dead. A cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Alarm {
    first: Arc<OnceLock<DeadStage>>,
    raised: CancellationToken,
}

impl Alarm {
    /// Raises the alarm. Only the first stage counts: others may die because of it.
    pub fn raise(&self, stage: impl Into<String>, reason: impl Into<String>) {
        let dead = DeadStage { stage: stage.into(), reason: reason.into() };
        tracing::error!(stage = dead.stage, reason = dead.reason, "a stage of the service is dead");
        self.first.set(dead).ok();
        self.raised.cancel();
    }

    /// Returns the stage that died first, if one has.
    pub fn dead(&self) -> Option<&DeadStage> {
        self.first.get()
    }

    /// Waits until a stage is dead. Cancel safe.
    pub async fn raised(&self) -> DeadStage {
        self.raised.cancelled().await;
        self.first.get().expect("the stage is set before the alarm is raised").clone()
    }

    /// Returns a token that stops a stage: its owner cancels it, or the death of another stage does.
    pub fn stop_token(&self) -> CancellationToken {
        self.raised.child_token()
    }

    /// Runs a stage to its end. A panic raises the alarm, and so does an end before `stop` is cancelled.
    pub async fn watch(
        self,
        stage: impl Into<String>,
        stop: CancellationToken,
        work: impl Future<Output = ()>,
    ) {
        match caught(work).await {
            Err(panic) => self.raise(stage, format!("it panicked: {panic}")),
            Ok(()) if stop.is_cancelled() => {}
            Ok(()) => self.raise(stage, "it returned though nothing had stopped it"),
        }
    }
}

/// Awaits `work`; a panic in it is returned as its text.
///
/// # Errors
/// When `work` panics.
pub async fn caught<T>(work: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| panic_text(&*panic))
}

/// Returns the text of a panic.
pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stage_that_panics_or_returns_unasked_raises_the_alarm() {
        let alarm = Alarm::default();
        let (first, second) = (alarm.stop_token(), alarm.stop_token());
        alarm.clone().watch("the first", first.clone(), async { panic!("oops {}", 7) }).await;
        let dead = alarm.raised().await;
        assert_eq!((dead.stage.as_str(), dead.reason.as_str()), ("the first", "it panicked: oops 7"));
        assert!(first.is_cancelled() && second.is_cancelled(), "one dead stage stops them all");
        alarm.clone().watch("the second", CancellationToken::new(), async {}).await;
        assert_eq!(alarm.dead().unwrap().stage, "the first", "what follows from it does not count");
        let other = Alarm::default();
        other.clone().watch("the second", other.stop_token(), async {}).await;
        assert!(other.dead().unwrap().reason.contains("nothing had stopped it"));
    }

    #[tokio::test]
    async fn a_stage_that_was_stopped_may_end() {
        let alarm = Alarm::default();
        let stop = alarm.stop_token();
        let stopped = stop.clone();
        let work = async move { stopped.cancelled().await };
        tokio::join!(alarm.clone().watch("it", stop.clone(), work), async { stop.cancel() });
        assert_eq!(alarm.dead(), None);
    }
}
