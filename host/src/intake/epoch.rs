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
pub(super) struct Epochs(ArcSwap<Epoch>);

impl Epochs {
    /// Enters; what the caller looks at afterwards is at least as new as what anybody changed before a
    /// [`Self::settled`] that does not wait for it.
    pub(super) fn enter(&self) -> Arc<Epoch> {
        self.0.load_full()
    }

    /// Waits until everybody who had entered before has left. Cancel safe.
    pub(super) async fn settled(&self) {
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
        let epochs = Epochs::default();
        epochs.settled().await;
        let (first, second) = (epochs.enter(), epochs.enter());
        let mut settled = std::pin::pin!(epochs.settled());
        assert!(poll!(settled.as_mut()).is_pending());
        let later = epochs.enter();
        drop(first);
        assert!(poll!(settled.as_mut()).is_pending());
        drop(second);
        assert!(poll!(settled.as_mut()).is_ready());
        drop(later);
    }

    /// Two recoveries begin together: the second must wait for those whom the first waits for.
    #[tokio::test]
    async fn whoever_asks_second_waits_for_the_same() {
        let epochs = Epochs::default();
        let early = epochs.enter();
        let mut first = std::pin::pin!(epochs.settled());
        assert!(poll!(first.as_mut()).is_pending());
        let mut second = std::pin::pin!(epochs.settled());
        assert!(poll!(second.as_mut()).is_pending());
        drop(early);
        assert!(poll!(first.as_mut()).is_ready());
        assert!(poll!(second.as_mut()).is_ready());
    }
}
