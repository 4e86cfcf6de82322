//! Blocking work on threads that end soon after the future that waits for them is dropped.

use std::future::Future;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How much is read, hashed and sent at once. Between two pieces a thread checks whether it should end.
pub(super) const PIECE_BYTES: usize = 256 * 1024;

/// The result of a thread's work is not needed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stopped;

/// Tells a thread that its result is not needed any more.
#[derive(Clone, Debug)]
pub(super) struct Stop(CancellationToken);

impl Stop {
    /// Checks whether the work should go on.
    ///
    /// # Errors
    /// When the work should end.
    pub(super) fn check(&self) -> Result<(), Stopped> {
        if self.0.is_cancelled() { Err(Stopped) } else { Ok(()) }
    }

    /// Sends a value, and waits until there is room for it.
    ///
    /// # Errors
    /// When the work should end, or the receiver is dropped.
    pub(super) fn send<T>(&self, sender: &mpsc::Sender<T>, value: T) -> Result<(), Stopped> {
        let sent = tokio::runtime::Handle::current().block_on(self.0.run_until_cancelled(sender.send(value)));
        if matches!(sent, Some(Ok(()))) { Ok(()) } else { Err(Stopped) }
    }
}

/// Starts blocking work at once. Dropping the future that this returns asks it to end. A panic is passed on to the
/// future.
pub(super) fn run<T, E>(
    work: impl FnOnce(&Stop) -> Result<T, E> + Send + 'static,
) -> impl Future<Output = Result<T, E>> + Send
where
    T: Send + 'static,
    E: From<Stopped> + Send + 'static,
{
    let stop = Stop(CancellationToken::new());
    let guard = stop.0.clone().drop_guard();
    let thread = tokio::task::spawn_blocking(move || work(&stop));
    async move {
        let result = thread.await;
        drop(guard);
        match result {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down.
                Err(_) => Err(Stopped.into()),
            },
        }
    }
}
