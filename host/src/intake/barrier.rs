//! A quiescence barrier for accepts in progress: what [`super::Intake::quiesce`] waits for.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

/// The time between two calls of [`Barrier::quiesce`]. Each accept that registers holds it. It ends when all of them are
/// done and the epochs before it have ended: each epoch holds the next.
#[derive(Debug, Default)]
pub(super) struct Epoch {
    ended: CancellationToken,
    next: OnceLock<Arc<Epoch>>,
}

impl Drop for Epoch {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

/// The current epoch.
#[derive(Debug, Default)]
pub(super) struct Barrier(ArcSwap<Epoch>);

impl Barrier {
    /// Registers an accept until the result is dropped. What the caller reads afterwards is at least as new as any change
    /// before a [`Self::quiesce`] that does not wait for this accept.
    pub(super) fn register(&self) -> Arc<Epoch> {
        self.0.load_full()
    }

    /// Waits until every accept that registered before has ended. Cancel safe.
    pub(super) async fn quiesce(&self) {
        let ended = {
            let next = Arc::<Epoch>::default();
            let before = self.0.swap(Arc::clone(&next));
            before.next.get_or_init(|| next);
            before.ended.clone()
        };
        ended.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn it_waits_for_those_who_came_before_and_for_nobody_else() {
        let barrier = Barrier::default();
        barrier.quiesce().await;
        let (first, second) = (barrier.register(), barrier.register());
        let mut quiesce = std::pin::pin!(barrier.quiesce());
        assert!(poll!(quiesce.as_mut()).is_pending());
        let later = barrier.register();
        drop(first);
        assert!(poll!(quiesce.as_mut()).is_pending());
        drop(second);
        assert!(poll!(quiesce.as_mut()).is_ready());
        drop(later);
    }

    /// Two recoveries begin together: the second must also wait for the accepts that the first waits for.
    #[tokio::test]
    async fn whoever_asks_second_waits_for_the_same() {
        let barrier = Barrier::default();
        let early = barrier.register();
        let mut first = std::pin::pin!(barrier.quiesce());
        assert!(poll!(first.as_mut()).is_pending());
        let mut second = std::pin::pin!(barrier.quiesce());
        assert!(poll!(second.as_mut()).is_pending());
        drop(early);
        assert!(poll!(first.as_mut()).is_ready());
        assert!(poll!(second.as_mut()).is_ready());
    }
}
