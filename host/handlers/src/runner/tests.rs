use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;
use serde_json::json;
use tokio::sync::Notify;

use super::*;
use crate::definition::{Definition, Program};
use crate::fetch::Fetcher;
use crate::places::{Destination, Source};
use crate::program::Closure;
use crate::ready::Loaded;
use crate::upload::{Accept, Refusal, Uploader};
use waypost_domain::{Entry, Event, EventId, State};
use waypost_engine::intake;
use waypost_engine::worker::Workers;
use waypost_store::faulty::Fault;
use waypost_store::{self as store, Arrival, Delivery, Progress, ReadyQuery, Release, Wake};

/// The longest that a test waits.
const BOUND: Duration = Duration::from_secs(30);

/// Returns a handler that runs this closure.
fn handler(closure: Closure, destination: &Destination, accept: Accept) -> Handler {
    let mut definition = Definition::new("h".parse().unwrap(), Program::Closure(closure.clone()));
    definition.destination = destination.clone();
    Handler {
        definition,
        fetcher: Fetcher::new(&Source::Nothing, BOUND).unwrap(),
        uploader: Uploader::new(destination, BOUND, accept).unwrap(),
        program: Loaded::Closure(closure),
    }
}

/// Accepts no follow-up event, and is never called.
fn nothing() -> Accept {
    Arc::new(|_, _| Box::pin(async { Err(Refusal::Other("nothing is accepted".to_owned())) }))
}

/// Has no room for a follow-up event.
fn busy() -> Accept {
    Arc::new(|_, _| Box::pin(async { Err(Refusal::Intake(intake::Error::Busy { max: 1 })) }))
}

/// Returns a handler that counts its runs, each of which lasts until it is told to go.
fn counting(begun: &Arc<AtomicUsize>, go: &Arc<Notify>) -> Handler {
    let (begun, go) = (Arc::clone(begun), Arc::clone(go));
    let closure = Closure::new(move |_| {
        begun.fetch_add(1, Ordering::SeqCst);
        let go = Arc::clone(&go);
        async move {
            go.notified().await;
            Ok(())
        }
    });
    handler(closure, &Destination::Nowhere, nothing())
}

/// Returns a handler with one place that makes an output of event 1 alone, for a follow-up event.
fn following(runs: &Arc<AtomicUsize>, folder: &Path, accept: Accept) -> Handler {
    let counted = Arc::clone(runs);
    let closure = Closure::new(move |run| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            if run.event.id() == "1" {
                std::fs::write(run.output().join("x"), "x")?;
            }
            Ok(())
        }
    });
    let destination = Destination::Events { folder: folder.join("out"), ty: "t".to_owned() };
    let mut handler = handler(closure, &destination, accept);
    handler.definition.max_parallel = 1;
    handler
}

fn arrival(id: &str, sender: &str, recipient: RecipientId) -> Arrival {
    let event = json!({"specversion": "1.0", "id": id, "source": "/s", "type": "t"});
    Arrival {
        event: Event::from_json(event.to_string()).unwrap(),
        received: clock::now(),
        sender: sender.to_owned(),
        matched: vec![recipient],
        failed: Vec::new(),
    }
}

/// The workers of one handler, whose dispatched runs the tests are about.
struct Stage {
    store: Arc<Store>,
    workers: Workers<Runner>,
    recipient: RecipientId,
}

impl Stage {
    /// Starts them in `folder`.
    fn start(handler: Handler, folder: &Path) -> Self {
        Self::start_on(Arc::new(Store::open(folder, Duration::ZERO).unwrap()), handler, folder)
    }

    fn start_on(store: Arc<Store>, handler: Handler, folder: &Path) -> Self {
        let recipient = handler.definition.name.dispatched();
        let (tasks, stop) = (TaskTracker::new(), store.alarm().stop_token());
        let runner = Runner::new(folder.join("runs"), &[Arc::new(handler)], &tasks);
        let searched = *store.share().changed().borrow();
        let workers = Workers::start("the runs", Arc::clone(&store), runner, searched, stop, tasks);
        Self { store, workers, recipient }
    }

    /// Adds a pending run on an event.
    async fn enqueue(&self, id: &str) -> EventId {
        self.store.log(vec![arrival(id, "ann", self.recipient)]).await.unwrap()[0]
    }

    /// Makes the run that is put off due, and tells its worker.
    async fn make_due(&self) {
        let (recipient, now) = (self.recipient, Timestamp::MAX);
        let query = ReadyQuery { recipient, after: EventId::NIL, first_attempts: 0, now, due: 1 };
        let pending = self.store.ready(query).await.unwrap().due.remove(0);
        let release = Release {
            recipient,
            event: pending.event.id,
            position: pending.position,
            progress: Progress { held: None, ..pending.progress },
            by: Holder::Host,
            reason: "it is asked for".to_owned(),
            since: clock::now(),
            due: Timestamp::UNIX_EPOCH,
        };
        self.store.release(release).await.unwrap();
        self.wake();
    }

    fn wake(&self) {
        self.store.wakes().push([(self.recipient, Wake::read())]);
    }

    async fn delivery(&self, id: EventId) -> Delivery {
        self.store.history(id).await.unwrap().unwrap().deliveries.remove(0)
    }

    /// Waits until a run is in this state.
    async fn until(&self, id: EventId, state: &str) -> Delivery {
        let waiting = async {
            loop {
                let delivery = self.delivery(id).await;
                if delivery.state.name() == state {
                    return delivery;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(BOUND, waiting).await.expect(state)
    }
}

async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(BOUND, waiting).await.unwrap();
}

/// The run stayed pending, started again at once, and panicked again in an endless loop.
#[tokio::test]
async fn an_upload_that_panics_waits_for_its_schedule_without_another_run() {
    let folder = tempfile::tempdir().unwrap();
    let runs = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&runs);
    let closure = Closure::new(move |run| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move { Ok(std::fs::write(run.output().join("x"), "x")?) }
    });
    let destination = Destination::Events { folder: folder.path().join("out"), ty: "t".to_owned() };
    let accept: Accept = Arc::new(|_, _| panic!("the embedding program's own mistake"));
    let stage = Stage::start(handler(closure, &destination, accept), folder.path());
    for (number, id) in ["1", "2"].into_iter().enumerate() {
        let id = stage.enqueue(id).await;
        let State::Retrying { reason, due } = stage.until(id, "retrying").await.state else { unreachable!() };
        assert!(reason.starts_with("the service panicked"), "{reason}");
        assert!(due > clock::now(), "not at once");
        // The second one is read after the first one's end.
        assert_eq!(runs.load(Ordering::SeqCst), number + 1);
    }
}

#[tokio::test]
async fn a_run_that_panics_is_over_where_its_schedule_is() {
    let folder = tempfile::tempdir().unwrap();
    let closure = Closure::new(|_| async { panic!("the embedding program's own mistake") });
    let stage = Stage::start(handler(closure, &Destination::Nowhere, nothing()), folder.path());
    let id = stage.enqueue("1").await;
    let State::Dead { reason } = stage.until(id, "dead").await.state else { unreachable!() };
    assert!(reason.contains("the closure panicked"), "{reason}");
}

/// The shortage was counted as a failure: after 75 minutes of a full disk, the upload was a dead letter.
#[tokio::test]
async fn a_follow_up_event_that_the_store_has_no_room_for_uses_up_no_attempt_and_needs_no_further_run() {
    let folder = tempfile::tempdir().unwrap();
    let (runs, asked) = (Arc::default(), AtomicUsize::new(0));
    let accept: Accept = Arc::new(move |_, _| {
        let is_first = asked.fetch_add(1, Ordering::SeqCst) == 0;
        Box::pin(async move {
            if is_first {
                let source = store::Error::Unavailable { reason: "the disk is full".to_owned() };
                return Err(Refusal::Intake(intake::Error::Log { source }));
            }
            Ok(EventId::MAX)
        })
    });
    let stage = Stage::start(following(&runs, folder.path(), accept), folder.path());
    let id = stage.enqueue("1").await;
    let held = stage.until(id, "retrying").await.history;
    assert!(
        matches!(&held[..], [Entry::Held { by: Holder::Host, reason, .. }] if reason.contains("the disk is full")),
        "{held:?}"
    );
    assert_eq!(stage.workers.hold(stage.recipient).map(|(by, _)| by), Some(Holder::Host), "it is shown");
    stage.make_due().await;
    let entries = stage.until(id, "delivered").await.history;
    let number =
        |entry: &Entry| if let Entry::Attempt(attempt) = entry { Some(attempt.number) } else { None };
    let numbers: Vec<_> = entries.iter().filter_map(number).collect();
    assert_eq!((numbers, runs.load(Ordering::SeqCst)), (vec![1], 1));
    assert_eq!(stage.workers.hold(stage.recipient), None);
}

/// Four events whose files did not fit on the disk held all four permits of their handler for ever.
#[tokio::test]
async fn a_run_that_this_machine_has_no_room_for_leaves_its_place_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let runs = Arc::default();
    let stage = Stage::start(following(&runs, folder.path(), busy()), folder.path());
    let id = stage.enqueue("1").await;
    let other = stage.enqueue("2").await;
    stage.until(other, "delivered").await;
    let held = stage.until(id, "retrying").await.history;
    let [Entry::Held { since, due, .. }] = &held[..] else { panic!("{held:?}") };
    assert!(due > since, "not at once");
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

/// A store in which settling fails as `script` says, by how often it was tried before; and how often it was tried.
fn settling(
    folder: &Path,
    script: impl Fn(usize) -> Option<store::Error> + Send + Sync + 'static,
) -> (Arc<Store>, Arc<AtomicUsize>) {
    let store = Arc::new(Store::open(folder, Duration::ZERO).unwrap());
    let tried = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&tried);
    store.faults.follow(move |method, _| {
        if method != "settle" {
            return None;
        }
        script(counted.fetch_add(1, Ordering::SeqCst)).map(Fault::Fails)
    });
    (store, tried)
}

/// The result was not recorded, and the program ran again in an endless loop.
#[tokio::test]
async fn a_run_whose_end_cannot_be_recorded_does_not_begin_again_and_others_do() {
    let folder = tempfile::tempdir().unwrap();
    let (begun, go) = (Arc::default(), Arc::<Notify>::default());
    let mut handler = counting(&begun, &go);
    handler.definition.max_parallel = 1;
    let damaged = |_| Some(store::Error::Damaged { table: "batches", reason: "torn".to_owned() });
    let (store, failed) = settling(folder.path(), damaged);
    let stage = Stage::start_on(store, handler, folder.path());
    for number in 1..=3 {
        let id = stage.enqueue(&number.to_string()).await;
        stage.wake();
        until(|| begun.load(Ordering::SeqCst) == number).await;
        assert!(stage.workers.in_flight().contains(id, stage.recipient), "it has its turn");
        go.notify_one();
        until(|| failed.load(Ordering::SeqCst) == number).await;
    }
    assert_eq!(begun.load(Ordering::SeqCst), 3);
}

/// A result that the full disk did not take was taken for none: the program ran again.
#[tokio::test]
async fn a_run_whose_end_is_not_recorded_yet_keeps_its_place_until_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (begun, go) = (Arc::default(), Arc::<Notify>::default());
    let mut handler = counting(&begun, &go);
    handler.definition.max_parallel = 1;
    let full = |settled| {
        let reason = "the disk is full".to_owned();
        (settled == 0).then_some(store::Error::Unavailable { reason })
    };
    let (store, failed) = settling(folder.path(), full);
    let stage = Stage::start_on(store, handler, folder.path());
    let id = stage.enqueue("1").await;
    go.notify_one();
    until(|| failed.load(Ordering::SeqCst) == 1).await;
    let next = stage.enqueue("2").await;
    stage.until(id, "delivered").await;
    until(|| begun.load(Ordering::SeqCst) == 2).await;
    assert_eq!(stage.delivery(next).await.state.name(), "pending");
    go.notify_one();
    stage.until(next, "delivered").await;
    assert_eq!(begun.load(Ordering::SeqCst), 2);
}

/// A dispatched run waits for one of the routed ones, and not until all of them are done.
#[tokio::test]
async fn the_two_recipients_of_a_handler_share_its_places() {
    let folder = tempfile::tempdir().unwrap();
    let (begun, go) = (Arc::default(), Arc::<Notify>::default());
    let mut handler = counting(&begun, &go);
    handler.definition.max_parallel = 2;
    let routed = handler.definition.name.routed();
    let mut stage = Stage::start(handler, folder.path());
    let dispatched = std::mem::replace(&mut stage.recipient, routed);
    let mut ids = Vec::new();
    for id in ["1", "2", "3", "4"] {
        ids.push(stage.enqueue(id).await);
    }
    until(|| begun.load(Ordering::SeqCst) == 2).await;
    stage.recipient = dispatched;
    let id = stage.enqueue("5").await;
    let mut ended = 0;
    while !stage.workers.in_flight().contains(id, dispatched) {
        go.notify_one();
        ended += 1;
        until(|| begun.load(Ordering::SeqCst) == 2 + ended).await;
    }
    assert!(ended < 3, "at most one more of the others has come before it");
    assert_eq!(stage.workers.in_flight().lock().len(), 2);
}

/// Runs began in the order of their events: another sender waited for all hundred.
#[tokio::test]
async fn a_senders_hundred_events_delay_anothers_by_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let begun = Arc::<Mutex<Vec<String>>>::default();
    let recorded = Arc::clone(&begun);
    let closure = Closure::new(move |run| {
        recorded.lock().unwrap().push(run.event.id().to_owned());
        async { Ok(()) }
    });
    let mut handler = handler(closure, &Destination::Nowhere, nothing());
    handler.definition.max_parallel = 1;
    let store = Arc::new(Store::open(folder.path(), Duration::ZERO).unwrap());
    let recipient = handler.definition.name.dispatched();
    // Each in a commit of its own, so that no page has another's by chance.
    for number in 0..100 {
        store.log(vec![arrival(&format!("ann {number}"), "ann", recipient)]).await.unwrap();
    }
    for id in ["bob 0", "bob 1"] {
        store.log(vec![arrival(id, "bob", recipient)]).await.unwrap();
    }
    let _stage = Stage::start_on(store, handler, folder.path());
    until(|| begun.lock().unwrap().len() == 102).await;
    assert_eq!(begun.lock().unwrap()[..6], ["ann 0", "bob 0", "ann 1", "bob 1", "ann 2", "ann 3"]);
}
