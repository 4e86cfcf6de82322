//! The engine with a deliverer that follows a script, on a small store.

mod dividing;
mod failing;
mod holding;
mod working;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::*;
use waypost_domain::{Event, EventId};
use waypost_runtime::clock;
use waypost_store::{Arrival, Delivery, Fence, HashSlot, Wake};

/// The longest that a test waits. It is less than a sweep, which would find what a lost wake was about.
const BOUND: Duration = Duration::from_secs(20);
/// The recipient of all deliveries.
const ID: RecipientId = RecipientId::MAX;

/// An attempt, for the script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// Which event, by its producer's id.
    pub(super) event: String,
    /// 1 for the first attempt that counts.
    pub(super) number: u32,
}

type Script = dyn Fn(Call) -> BoxFuture<'static, Next> + Send + Sync;

/// A deliverer that does what a script says, for a recipient of one node (`false`) or of all (`true`).
pub(super) struct Scripted<const SHARED: bool> {
    window: Window,
    slots: Arc<Slots>,
    script: Box<Script>,
    standing: Mutex<Standing<()>>,
    /// How many more times a worker panics.
    panics: AtomicU32,
    /// Until when it holds back everything.
    held_until: Mutex<Option<tokio::time::Instant>>,
    /// How often a worker has asked for a choice.
    choices: AtomicU32,
    /// The attempts that have begun.
    calls: Mutex<Vec<(Call, Instant)>>,
}

impl<const SHARED: bool> Scripted<SHARED> {
    pub(super) fn new(
        width: usize,
        tasks: &TaskTracker,
        script: impl Fn(Call) -> BoxFuture<'static, Next> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            window: Window { min: width, max: width },
            slots: Slots::unreserved(width, tasks.clone()),
            script: Box::new(script),
            standing: Mutex::new(Standing::Active(Arc::new(()))),
            panics: AtomicU32::new(0),
            held_until: Mutex::default(),
            choices: AtomicU32::new(0),
            calls: Mutex::default(),
        })
    }

    pub(super) fn set(&self, standing: Standing<()>) {
        *self.standing.lock() = standing;
    }
}

impl<const SHARED: bool> Deliverer for Scripted<SHARED> {
    const RULES: Rules = Rules {
        division: if SHARED { Division::ByEvent } else { Division::ByRecipient },
        linger: if SHARED { Duration::MAX } else { Duration::from_millis(2) },
        hold_min: Duration::from_millis(1),
        insists: SHARED,
        panic_pause: Duration::from_millis(4),
    };
    type Subject = ();
    type Cache = ();
    type Permit = ();
    type Mark = ();

    fn wakes(&self, store: &Store) -> Arc<WakeSet> {
        store.wakes()
    }

    fn standing(&self, _: RecipientId) -> Standing<()> {
        match &*self.standing.lock() {
            Standing::Active(subject) => Standing::Active(Arc::clone(subject)),
            Standing::Inactive => Standing::Inactive,
            Standing::Gone => Standing::Gone,
        }
    }

    fn window(&self, (): &()) -> Window {
        self.window
    }

    fn slots<'s>(&'s self, (): &'s ()) -> &'s Arc<Slots> {
        &self.slots
    }

    fn choose(&self, (): &(), _: &VecDeque<PendingDelivery>, _: &Arc<()>) -> Choice<()> {
        let left = |panics: u32| panics.checked_sub(1);
        let panics = self.panics.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left);
        assert!(panics.is_err(), "a test wants the worker to panic");
        self.choices.fetch_add(1, Ordering::SeqCst);
        let held_until = self.held_until(&());
        Choice { next: held_until.is_none().then_some((0, ())), held_until }
    }

    fn held_until(&self, (): &()) -> Option<tokio::time::Instant> {
        self.held_until.lock().filter(|until| *until > tokio::time::Instant::now())
    }

    fn mark(&self) {}

    async fn deliver(
        self: &Arc<Self>,
        assignment: &Assignment<'_, Self>,
        (): (),
        _: &mut AttemptRecord,
    ) -> Next {
        let event = assignment.pending.event.event.id().to_owned();
        let call = Call { event, number: assignment.pending.progress.failed + 1 };
        self.calls.lock().push((call.clone(), Instant::now()));
        (self.script)(call).await
    }

    async fn panicked(self: &Arc<Self>, _: &Assignment<'_, Self>, _: &mut AttemptRecord) -> Next {
        dead("it panicked")
    }
}

pub(super) fn delivered() -> Next {
    Next::Over(Outcome::Delivered, Effect::Nothing)
}

fn dead(reason: &str) -> Next {
    Next::Over(Outcome::Dead { reason: reason.to_owned() }, Effect::Nothing)
}

/// A store and its workers.
struct Engine<const SHARED: bool> {
    store: Arc<Store>,
    deliverer: Arc<Scripted<SHARED>>,
    workers: Workers<Scripted<SHARED>>,
}

impl<const SHARED: bool> Engine<SHARED> {
    fn open(
        folder: &Path,
        width: usize,
        script: impl Fn(Call) -> BoxFuture<'static, Next> + Send + Sync + 'static,
    ) -> Self {
        Self::start(Arc::new(Store::open(folder, Duration::ZERO).unwrap()), width, script)
    }

    fn start(
        store: Arc<Store>,
        width: usize,
        script: impl Fn(Call) -> BoxFuture<'static, Next> + Send + Sync + 'static,
    ) -> Self {
        let (stop, tasks) = (store.alarm().stop_token(), TaskTracker::new());
        let deliverer = Scripted::new(width, &tasks, script);
        let searched = *store.share().changed().borrow();
        let started = (Arc::clone(&store), Arc::clone(&deliverer));
        let workers = Workers::start("the workers", started.0, started.1, searched, stop, tasks);
        Self { store, deliverer, workers }
    }

    /// Logs an event with a delivery.
    async fn log(&self, id: &str) -> EventId {
        let event = json!({"specversion": "1.0", "id": id, "source": "/s", "type": "t"});
        let event = Event::from_json(event.to_string()).unwrap();
        let (received, sender, matched) = (clock::now(), "ann".to_owned(), vec![ID]);
        self.store.log(vec![Arrival { event, received, sender, matched, failed: Vec::new() }]).await.unwrap()
            [0]
    }

    fn wake(&self) {
        self.store.wakes().push([(ID, Wake::read())]);
    }

    /// Returns the events of the attempts that have begun, in order.
    fn calls(&self) -> Vec<String> {
        self.deliverer.calls.lock().iter().map(|(call, _)| call.event.clone()).collect()
    }

    async fn delivery(&self, id: EventId) -> Delivery {
        self.store.history(id).await.unwrap().unwrap().deliveries.remove(0)
    }

    async fn state(&self, id: EventId) -> &'static str {
        self.delivery(id).await.state.name()
    }

    /// Waits until deliveries are in this state.
    async fn until(&self, ids: &[EventId], state: &str) {
        for id in ids {
            let reached = async {
                while self.state(*id).await != state {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(BOUND, reached).await.expect(state);
        }
    }

    /// Waits until the store has no pending delivery.
    async fn until_nothing_waits(&self) {
        let settled = async {
            while !self.store.recipients_with_backlog().await.unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(BOUND, settled).await.unwrap();
    }
}

/// Waits until a condition holds.
async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(BOUND, waiting).await.unwrap();
}

/// A script whose attempts of this event wait for a permit of the gate, and all are delivered.
fn gated(event: &'static str, gate: &Arc<Semaphore>) -> impl Fn(Call) -> BoxFuture<'static, Next> + use<> {
    let gate = Arc::clone(gate);
    move |call| {
        let gate = Arc::clone(&gate);
        Box::pin(async move {
            if call.event == event {
                gate.acquire().await.unwrap().forget();
            }
            delivered()
        })
    }
}

fn closed() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(0))
}
