//! Who was on his way into the log before a moment: what [`super::Intake::settled`] waits for.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

/// The time between two moments that somebody asked about. Whoever comes in holds it; it ends when all of them are
/// through, and the epochs before it have ended: each holds the next.
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

/// The epoch that is now.
#[derive(Debug, Default)]
pub(super) struct Barrier(ArcSwap<Epoch>);

impl Barrier {
    /// Enters; what the caller looks at afterwards is at least as new as what anybody changed before a
    /// [`Self::settled`] that does not wait for it.
    pub(super) fn register(&self) -> Arc<Epoch> {
        self.0.load_full()
    }

    /// Waits until everybody who had entered before has left. Cancel safe.
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

    /// Two recoveries begin together: the second must wait for those whom the first waits for.
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
