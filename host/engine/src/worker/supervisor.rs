//! The supervisor: the one task that starts workers, wakes them, and reads why each has ended.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::in_flight::InFlight;
use super::mailbox::{Mailbox, Mailboxes};
use super::timetable::Timetable;
use super::worker::{Worker, WorkerEnd};
use super::{Deliverer, Division, Standing};
use waypost_domain::{Holder, RecipientId};
use waypost_runtime::clock;
use waypost_runtime::stage::caught;
use waypost_store::{Gains, HashSlot, Store, Wake};

/// How often the store is searched for work without a wake.
pub(super) const SWEEP: Duration = Duration::from_secs(30);
/// The longest that a worker that panicked rests.
const PANIC_PAUSE_MAX: Duration = Duration::from_secs(5 * 60);
/// How many rows of a deleted recipient are dropped in one transaction.
const CANCEL_AT_ONCE: usize = 1_000;

/// The workers of one deliverer: a handle on their tasks.
pub struct Workers<D: Deliverer> {
    shared: Arc<Shared<D>>,
    tasks: TaskTracker,
}

/// What all workers of one deliverer share.
pub(super) struct Shared<D: Deliverer> {
    pub(super) store: Arc<Store>,
    pub(super) deliverer: Arc<D>,
    pub(super) in_flight: Arc<InFlight<D::Mark>>,
    mailboxes: Arc<Mailboxes>,
    /// Cancelled when no new attempts may start.
    pub(super) stop: CancellationToken,
    /// Cancelled when attempts in flight are dropped, too.
    pub(super) abort: CancellationToken,
}

impl<D: Deliverer> Workers<D> {
    /// Starts to attempt pending deliveries. `stage` is the supervisor's name in the error when it dies; it runs, with
    /// all workers, as one of `tasks` until `stop`, which comes from the store's alarm. `searched` is how often slots
    /// had been gained when `deliverer` looked at the store.
    pub fn start(
        stage: &'static str,
        store: Arc<Store>,
        deliverer: Arc<D>,
        searched: Gains,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        let (alarm, share) = (store.alarm(), store.share().changed());
        let shared = Arc::new(Shared::new(store, deliverer, stop.clone()));
        let supervisor = Supervisor::new(Arc::clone(&shared), searched);
        tasks.spawn(alarm.watch(stage, stop, supervisor.run(share)));
        Self { shared, tasks }
    }

    /// Returns the deliveries with an attempt in flight.
    pub fn in_flight(&self) -> &Arc<InFlight<D::Mark>> {
        &self.shared.in_flight
    }

    /// Returns the token that ends attempts in flight.
    pub fn abort_token(&self) -> &CancellationToken {
        &self.shared.abort
    }

    /// Returns what holds a recipient's deliveries, other than itself, and since when.
    pub fn hold(&self, recipient: RecipientId) -> Option<(Holder, Timestamp)> {
        self.shared.mailbox(recipient)?.hold()
    }

    /// Returns the mailboxes of the running workers.
    pub(crate) fn mailboxes(&self) -> Arc<Mailboxes> {
        Arc::clone(&self.shared.mailboxes)
    }

    /// Starts no more attempts, waits for those in flight at most `grace`, and then drops them: they are repeated after
    /// the next start.
    pub async fn stop(&self, grace: Duration) {
        self.shared.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(grace, self.tasks.wait()).await.is_err() {
            tracing::warn!("attempts are still under way: they will be repeated after the next start");
            self.shared.abort.cancel();
            self.tasks.wait().await;
        }
    }
}

/// Dropping without [`Workers::stop`] aborts the attempts in flight; they are repeated after the next start.
impl<D: Deliverer> Drop for Workers<D> {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        self.shared.abort.cancel();
    }
}

impl<D: Deliverer> Shared<D> {
    fn new(store: Arc<Store>, deliverer: Arc<D>, stop: CancellationToken) -> Self {
        Self {
            store,
            deliverer,
            in_flight: Arc::default(),
            mailboxes: Arc::default(),
            stop,
            abort: CancellationToken::new(),
        }
    }

    fn mailbox(&self, recipient: RecipientId) -> Option<Arc<Mailbox>> {
        self.mailboxes.of(recipient)
    }

    /// Drops a deleted recipient's backlog, until the service stops: the next start continues.
    async fn cancel_pending(&self, recipient: RecipientId) {
        let cancelling = async {
            while !self.stop.is_cancelled() {
                match self.store.cancel_pending(recipient.subscription_id(), CANCEL_AT_ONCE).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => return Err(error.to_string()),
                }
            }
            Ok(())
        };
        if let Err(error) = caught(cancelling).await.flatten() {
            tracing::warn!(%recipient, error, "a deleted subscription's backlog stays for now");
        }
    }
}

/// The supervisor of one deliverer's workers.
struct Supervisor<D: Deliverer> {
    shared: Arc<Shared<D>>,
    /// The workers, and the tasks that drop backlogs, which answer `None`.
    running: JoinSet<Option<TaskEnd>>,
    timetable: Timetable,
    /// How often slots had been gained when the store was searched last.
    searched: Gains,
}

/// The end of a worker's task.
struct TaskEnd {
    recipient: RecipientId,
    begun: Instant,
    /// How long it rests if it has panicked.
    pause: Duration,
    /// Why it has ended, or the text of its panic.
    end: Result<WorkerEnd, String>,
}

impl<D: Deliverer> Supervisor<D> {
    fn new(shared: Arc<Shared<D>>, searched: Gains) -> Self {
        Self { shared, running: JoinSet::new(), timetable: Timetable::default(), searched }
    }

    /// Runs until the service stops and all workers have ended.
    async fn run(mut self, mut share: watch::Receiver<Gains>) {
        let shared = Arc::clone(&self.shared);
        let wakes = shared.deliverer.wakes(&shared.store);
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            tokio::select! {
                // Wakes come last, so that they cannot starve the others: they come as often as events.
                biased;
                () = shared.stop.cancelled() => break,
                Some(ended) = self.running.join_next() => self.ended(ended.ok().flatten()),
                () = self.timetable.wait() => {
                    let due = self.timetable.take_due(clock::now());
                    due.into_iter().for_each(|id| self.wake(id, Wake::read()));
                }
                Ok(()) = share.changed() => {
                    let gains = *share.borrow();
                    // Workers look at the share again.
                    shared.mailboxes.lock().values().for_each(|mailbox| mailbox.notify.notify_one());
                    if gains != self.searched {
                        self.search(gains).await;
                    }
                }
                _ = sweep.tick() => {
                    let gains = *share.borrow();
                    self.search(gains).await;
                }
                woken = wakes.drain() => woken.into_iter().for_each(|(id, wake)| self.wake(id, wake)),
            }
        }
        while let Some(ended) = self.running.join_next().await {
            self.ended(ended.ok().flatten());
        }
    }

    /// Delivers a wake: to the running worker, or by starting one. A recipient that another node works for has none
    /// here.
    fn wake(&mut self, recipient: RecipientId, wake: Wake) {
        let shared = Arc::clone(&self.shared);
        if shared.stop.is_cancelled() {
            return;
        }
        let standing = shared.deliverer.standing(recipient);
        let is_here = || {
            D::RULES.division == Division::ByEvent
                || shared.store.share().has(HashSlot::of_subscription(recipient))
        };
        let is_active = match standing {
            Standing::Active(_) => true,
            Standing::Inactive => false,
            Standing::Gone => {
                shared.deliverer.forget(recipient);
                if is_here() {
                    let shared = Arc::clone(&shared);
                    self.running.spawn(async move {
                        shared.cancel_pending(recipient).await;
                        None
                    });
                }
                false
            }
        };
        let mut mailboxes = shared.mailboxes.lock();
        if let Some(mailbox) = mailboxes.get(&recipient) {
            mailbox.push(wake);
        } else if is_active && is_here() {
            let mailbox = Arc::new(Mailbox::default());
            mailbox.push(wake);
            mailboxes.insert(recipient, Arc::clone(&mailbox));
            drop(mailboxes);
            self.timetable.remove(recipient);
            self.start(recipient, mailbox, Duration::ZERO, D::RULES.panic_pause);
        }
    }

    /// Starts a worker again whose deliverer holds everything back until then, or until that changes. Meanwhile there is
    /// only its mailbox.
    fn start_held(&mut self, recipient: RecipientId, mailbox: Arc<Mailbox>, until: Instant) {
        let shared = Arc::clone(&self.shared);
        self.running.spawn(async move {
            let stop = shared.stop.clone();
            stop.run_until_cancelled(rest(&shared, recipient, &mailbox, until)).await;
            let (begun, pause) = (Instant::now(), D::RULES.panic_pause);
            let end = caught(Worker::work(shared, recipient, mailbox)).await;
            Some(TaskEnd { recipient, begun, pause, end })
        });
    }

    /// Starts a worker after a rest. If it panics, it rests for `pause`.
    fn start(&mut self, recipient: RecipientId, mailbox: Arc<Mailbox>, rest: Duration, pause: Duration) {
        let shared = Arc::clone(&self.shared);
        self.running.spawn(async move {
            if !rest.is_zero() {
                // Once the service stops, the worker ends by itself.
                shared.stop.run_until_cancelled(tokio::time::sleep(rest)).await;
            }
            let begun = Instant::now();
            let end = caught(Worker::work(shared, recipient, mailbox)).await;
            Some(TaskEnd { recipient, begun, pause, end })
        });
    }

    /// Handles the end of a worker. A wake that came while it was ending is still in its mailbox.
    fn ended(&mut self, ended: Option<TaskEnd>) {
        let Some(TaskEnd { recipient, begun, pause, end }) = ended else { return };
        let end = match end {
            Ok(end) => end,
            Err(panic) => return self.panicked(recipient, begun, pause, &panic),
        };
        if let WorkerEnd::Held { until } = end
            && let Some(mailbox) = self.shared.mailbox(recipient)
        {
            // The next worker knows nothing of what held this one's deliveries.
            mailbox.clear_hold();
            return self.start_held(recipient, mailbox, until);
        }
        let mailbox = self.shared.mailboxes.lock().remove(&recipient);
        let wake = mailbox.and_then(|mailbox| mailbox.take_wake());
        match (end, wake) {
            (WorkerEnd::Idle { .. }, Some(wake)) => self.wake(recipient, wake),
            (WorkerEnd::Idle { next_due: Some(due) }, None) => self.timetable.set(recipient, due),
            (WorkerEnd::Idle { next_due: None } | WorkerEnd::Stopped, _) => {}
            // It may have become active, or this node's, again: the wake for that went to this worker.
            (WorkerEnd::Inactive | WorkerEnd::LostSlot | WorkerEnd::Held { .. }, _) => {
                self.wake(recipient, Wake::read())
            }
        }
    }

    /// Starts a worker that panicked again, after a rest. Its mailbox stays.
    fn panicked(&mut self, recipient: RecipientId, begun: Instant, pause: Duration, panic: &str) {
        let rest = if begun.elapsed() > PANIC_PAUSE_MAX { D::RULES.panic_pause } else { pause };
        tracing::error!(%recipient, panic, ?rest, "a worker ended with a panic");
        if let Some(mailbox) = self.shared.mailbox(recipient) {
            mailbox.clear_hold();
            self.start(recipient, mailbox, rest, (2 * rest).min(PANIC_PAUSE_MAX));
        }
    }

    /// Looks for work without a wake: after a start, after a gain of slots, and in case a wake was lost.
    async fn search(&mut self, gains: Gains) {
        let shared = Arc::clone(&self.shared);
        let searching = async {
            if gains != self.searched {
                // Another node may have settled deliveries, and added retries.
                shared.deliverer.gained().await?;
                self.timetable.clear();
            }
            shared.store.recipients_with_backlog().await
        };
        match searching.await {
            Ok(recipients) => {
                self.searched = gains;
                for id in recipients {
                    if !self.timetable.contains(id) {
                        self.wake(id, Wake::read());
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "the store cannot be searched for work now"),
        }
    }
}

/// Waits until `until`, or until a wake finds that the recipient's deliveries are not held back any more.
async fn rest<D: Deliverer>(shared: &Shared<D>, recipient: RecipientId, mailbox: &Mailbox, until: Instant) {
    let resting = async {
        loop {
            mailbox.notify.notified().await;
            let is_held = match shared.deliverer.standing(recipient) {
                Standing::Active(subject) => shared.deliverer.held_until(&subject).is_some(),
                Standing::Inactive | Standing::Gone => false,
            };
            if !is_held {
                break;
            }
        }
    };
    let _until_or_sooner = tokio::time::timeout_at(until, resting).await;
    // The wakes of the rest are the worker's.
    mailbox.notify.notify_one();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::tests::{Scripted, delivered};

    const ID: RecipientId = RecipientId::MAX;

    /// A supervisor with a worker that has just ended, and the mailbox of that.
    fn with_ended(folder: &tempfile::TempDir) -> (Supervisor<Scripted<false>>, Arc<Mailbox>) {
        let store = Arc::new(Store::open(folder.path(), Duration::ZERO).unwrap());
        let (stop, tasks) = (store.alarm().stop_token(), TaskTracker::new());
        let deliverer = Scripted::new(1, &tasks, |_| Box::pin(async { delivered() }));
        let supervisor = Supervisor::new(Arc::new(Shared::new(store, deliverer, stop)), Gains::default());
        let mailbox = Arc::<Mailbox>::default();
        supervisor.shared.mailboxes.lock().insert(ID, Arc::clone(&mailbox));
        (supervisor, mailbox)
    }

    fn end(supervisor: &mut Supervisor<Scripted<false>>, end: Result<WorkerEnd, String>) {
        let pause = Duration::from_millis(1);
        supervisor.ended(Some(TaskEnd { recipient: ID, begun: Instant::now(), pause, end }));
    }

    fn runs(supervisor: &Supervisor<Scripted<false>>) -> bool {
        let is_known = supervisor.shared.mailbox(ID).is_some();
        assert_eq!(is_known, !supervisor.running.is_empty());
        is_known
    }

    #[tokio::test]
    async fn a_wake_that_came_while_a_worker_was_ending_starts_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let (mut supervisor, mailbox) = with_ended(&folder);
        mailbox.push(Wake::accepted(1));
        end(&mut supervisor, Ok(WorkerEnd::Idle { next_due: None }));
        assert!(runs(&supervisor));
    }

    #[tokio::test]
    async fn an_idle_worker_is_gone_until_the_next_delivery_is_due() {
        let folder = tempfile::tempdir().unwrap();
        let (mut supervisor, _) = with_ended(&folder);
        end(&mut supervisor, Ok(WorkerEnd::Idle { next_due: Some(Timestamp::MAX) }));
        assert!(!runs(&supervisor) && supervisor.timetable.contains(ID));
        supervisor.wake(ID, Wake::accepted(1));
        assert!(runs(&supervisor) && !supervisor.timetable.contains(ID));
    }

    #[tokio::test]
    async fn a_worker_whose_recipient_is_active_and_here_again_is_followed_by_another() {
        for why in [WorkerEnd::Inactive, WorkerEnd::LostSlot] {
            let folder = tempfile::tempdir().unwrap();
            let (mut supervisor, _) = with_ended(&folder);
            end(&mut supervisor, Ok(why));
            assert!(runs(&supervisor), "{why:?}");
            let (mut supervisor, mailbox) = with_ended(&tempfile::tempdir().unwrap());
            mailbox.push(Wake::read());
            match why {
                WorkerEnd::LostSlot => supervisor.shared.store.share().set(|_| false),
                _ => supervisor.shared.deliverer.set(Standing::Inactive),
            }
            end(&mut supervisor, Ok(why));
            assert!(!runs(&supervisor), "{why:?}");
        }
    }

    #[tokio::test]
    async fn a_worker_that_panicked_keeps_its_mailbox_and_one_that_was_stopped_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let (mut supervisor, mailbox) = with_ended(&folder);
        mailbox.push(Wake::read());
        mailbox.note_hold(Holder::Host, clock::now());
        end(&mut supervisor, Err("oops".to_owned()));
        assert!(runs(&supervisor) && mailbox.has_wake() && mailbox.hold().is_none());
        assert!(Arc::ptr_eq(&mailbox, &supervisor.shared.mailbox(ID).unwrap()));
        supervisor.running.shutdown().await;
        supervisor.shared.stop.cancel();
        end(&mut supervisor, Ok(WorkerEnd::Stopped));
        assert!(!runs(&supervisor));
    }
}
