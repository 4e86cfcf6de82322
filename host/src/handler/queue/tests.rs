use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::domain::{Entry, Event, State};
use crate::handler::definition::{Definition, Program};
use crate::handler::fetch::{Fetcher, Source};
use crate::handler::program::Closure;
use crate::handler::ready::Loaded;
use crate::handler::runs::InFlight;
use crate::handler::upload::{Accept, Destination, Refusal, Uploader};
use crate::intake;
use crate::store::Store;
use crate::store::faulty::Fault;
use crate::store::{Arrival, Delivery};

/// Returns a handler that runs this closure.
fn handler(closure: Closure, destination: &Destination, accept: Accept) -> Arc<Handler> {
    let mut definition = Definition::new("h".parse().unwrap(), Program::Closure(closure.clone()));
    definition.destination = destination.clone();
    Arc::new(Handler {
        definition,
        fetcher: Fetcher::new(&Source::Nothing, SWEEP).unwrap(),
        uploader: Uploader::new(destination, SWEEP, accept).unwrap(),
        program: Loaded::Closure(closure),
    })
}

/// Returns a handler that counts its runs, each of which lasts until it is told to go.
fn counting(begun: &Arc<AtomicUsize>, go: &Arc<Notify>) -> Arc<Handler> {
    let (begun, go) = (Arc::clone(begun), Arc::clone(go));
    let closure = Closure::new(move |_| {
        begun.fetch_add(1, Ordering::SeqCst);
        let go = Arc::clone(&go);
        async move {
            go.notified().await;
            Ok(())
        }
    });
    let accept: Accept =
        Arc::new(|_, _| Box::pin(async { Err(Refusal::Other("nobody accepts".to_owned())) }));
    handler(closure, &Destination::Nowhere, accept)
}

/// Returns a handler with one place that makes an output of event 1 alone, for a follow-up event.
fn following(runs: &Arc<AtomicUsize>, folder: &Path, accept: Accept) -> Arc<Handler> {
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
    Arc::get_mut(&mut handler).unwrap().definition.max_parallel = 1;
    handler
}

/// Returns a queue whose handler has a pending run, and the event.
async fn owing(handler: Arc<Handler>, folder: &Path) -> (Queue, EventId) {
    owing_in(Arc::new(Store::open(folder, Duration::ZERO).unwrap()), handler, folder).await
}

async fn owing_in(store: Arc<Store>, handler: Arc<Handler>, folder: &Path) -> (Queue, EventId) {
    let context = Arc::new(RunContext {
        store,
        runs: folder.join("runs"),
        in_flight: InFlight::default(),
        stop: CancellationToken::new(),
        abort: CancellationToken::new(),
    });
    let queue = Queue::new(context, handler, Arc::default());
    let id = owe(&queue, "1").await;
    (queue, id)
}

/// Adds a pending run on one more event for the queue's handler.
async fn owe(queue: &Queue, id: &str) -> EventId {
    let event = json!({"specversion": "1.0", "id": id, "source": "/s", "type": "t"});
    let arrival = Arrival {
        event: Event::from_json(event.to_string()).unwrap(),
        received: clock::now(),
        sender: "ann".to_owned(),
        matched: vec![queue.handler.definition.name.dispatched()],
        failed: Vec::new(),
    };
    queue.context.store.log(vec![arrival]).await.unwrap()[0]
}

/// Makes the run that is put off due.
async fn make_due(queue: &Queue) {
    let recipient = queue.handler.definition.name.dispatched();
    let ask = ReadyQuery { recipient, after: EventId::NIL, first_attempts: 0, now: Timestamp::MAX, due: 1 };
    let pending = queue.context.store.ready(ask).await.unwrap().due.remove(0);
    let due = Timestamp::UNIX_EPOCH;
    let again = Release { due, ..release(recipient, &pending, "it is asked for".to_owned()) };
    queue.context.store.release(again).await.unwrap();
}

/// Waits for the end of a run's task.
async fn next_end(queue: &mut Queue) {
    let ended = tokio::time::timeout(SWEEP, queue.runs.join_next()).await.unwrap();
    queue.ended(ended.unwrap());
}

async fn delivery(queue: &Queue, id: EventId) -> Delivery {
    queue.context.store.history(id).await.unwrap().unwrap().deliveries.remove(0)
}

async fn history(queue: &Queue, id: EventId) -> Vec<Entry> {
    delivery(queue, id).await.history
}

async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SWEEP, waiting).await.unwrap();
}

async fn a_run_ends_while_the_store_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (begun, go) = (Arc::default(), Arc::default());
    let (mut queue, _) = owing(counting(&begun, &go), folder.path()).await;
    let context = Arc::clone(&queue.context);
    queue.start_owed().await;
    until(|| begun.load(Ordering::SeqCst) == 1).await;
    let (open, closed) = std::sync::mpsc::channel::<()>();
    let busy = tokio::task::spawn_blocking(move || closed.recv());
    let mut reading = Box::pin(queue.start_owed());
    tokio::select! {
        biased;
        _ = &mut reading => unreachable!("a look into the store takes a thread, and there is one"),
        () = std::future::ready(()) => {}
    }
    drop(open);
    drop(busy.await);
    // Waits until the store has been read: there is one blocking thread.
    run::blocking(|| ()).await;
    go.notify_one();
    until(|| context.in_flight.lock().is_empty()).await;
    reading.await;
    assert!(context.in_flight.lock().is_empty(), "it has begun again");
    assert_eq!(begun.load(Ordering::SeqCst), 1);
}

/// The run was still pending in the page that had been read, and not in flight any more.
#[test]
fn a_run_that_ends_while_the_store_is_read_does_not_begin_again() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).max_blocking_threads(1).enable_all().build().unwrap();
    runtime.block_on(a_run_ends_while_the_store_is_read());
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
    let (mut queue, id) = owing(handler(closure, &destination, accept), folder.path()).await;
    queue.start_owed().await;
    until(|| queue.context.in_flight.lock().is_empty()).await;
    let story = queue.context.store.history(id).await.unwrap().unwrap();
    let State::Retrying { reason, due } = story.deliveries[0].state.clone() else { panic!("{story:?}") };
    assert!(reason.starts_with("the service panicked"), "{reason}");
    assert!(due > clock::now(), "not at once");
    queue.start_owed().await;
    assert!(queue.context.in_flight.lock().is_empty());
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_run_that_panics_is_over_where_its_schedule_is() {
    let folder = tempfile::tempdir().unwrap();
    let closure = Closure::new(|_| async { panic!("the embedding program's own mistake") });
    let accept: Accept =
        Arc::new(|_, _| Box::pin(async { Err(Refusal::Other("nobody accepts".to_owned())) }));
    let (mut queue, id) = owing(handler(closure, &Destination::Nowhere, accept), folder.path()).await;
    queue.start_owed().await;
    until(|| queue.context.in_flight.lock().is_empty()).await;
    let story = queue.context.store.history(id).await.unwrap().unwrap();
    let State::Dead { reason } = story.deliveries[0].state.clone() else { panic!("{story:?}") };
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
    let (mut queue, id) = owing(following(&runs, folder.path(), accept), folder.path()).await;
    queue.start_owed().await;
    next_end(&mut queue).await;
    let held = history(&queue, id).await;
    assert!(
        matches!(&held[..], [Entry::Held { by: Holder::Host, reason, .. }] if reason.contains("the disk is full")),
        "{held:?}"
    );
    make_due(&queue).await;
    queue.start_owed().await;
    next_end(&mut queue).await;
    let Delivery { state, history: entries, .. } = delivery(&queue, id).await;
    assert!(matches!(state, State::Delivered { .. }), "{entries:?}");
    let numbers: Vec<_> = entries.iter().filter_map(number).collect();
    assert_eq!((numbers, runs.load(Ordering::SeqCst)), (vec![1], 1));
}

fn number(entry: &Entry) -> Option<u32> {
    if let Entry::Attempt(attempt) = entry { Some(attempt.number) } else { None }
}

/// Four events whose files did not fit on the disk held all four permits of their handler for ever.
#[tokio::test]
async fn a_run_that_this_machine_has_no_room_for_leaves_its_place_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let runs = Arc::default();
    let accept: Accept =
        Arc::new(|_, _| Box::pin(async { Err(Refusal::Intake(intake::Error::Busy { max: 1 })) }));
    let (mut queue, id) = owing(following(&runs, folder.path(), accept), folder.path()).await;
    let other = owe(&queue, "2").await;
    for _ in 0..2 {
        queue.start_owed().await;
        next_end(&mut queue).await;
    }
    let delivered = delivery(&queue, other).await;
    assert!(matches!(delivered.state, State::Delivered { .. }), "{delivered:?}");
    let held = history(&queue, id).await;
    let [Entry::Held { since, due, .. }] = &held[..] else { panic!("{held:?}") };
    assert!(due > since, "not at once");
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_queue_whose_runs_are_put_off_one_after_the_other_rests() {
    let folder = tempfile::tempdir().unwrap();
    let accept: Accept =
        Arc::new(|_, _| Box::pin(async { Err(Refusal::Intake(intake::Error::Busy { max: 1 })) }));
    let (mut queue, _) = owing(following(&Arc::default(), folder.path(), accept), folder.path()).await;
    for _ in 0..SHORTAGES_MAX {
        assert!(queue.rest.is_none());
        queue.start_owed().await;
        next_end(&mut queue).await;
        make_due(&queue).await;
    }
    assert!(queue.rest.is_some());
}

/// The result was not recorded, and the program ran again in an endless loop.
#[tokio::test]
async fn a_run_whose_end_cannot_be_recorded_does_not_begin_again_and_others_do() {
    let folder = tempfile::tempdir().unwrap();
    let (begun, go) = (Arc::default(), Arc::<Notify>::default());
    let mut handler = counting(&begun, &go);
    Arc::get_mut(&mut handler).unwrap().definition.max_parallel = 1;
    let store = Arc::new(Store::open(folder.path(), Duration::ZERO).unwrap());
    store.faults.follow(|method, _| {
        let damaged = || store::Error::Damaged { table: "batches", reason: "torn".to_owned() };
        (method == "settle").then(|| Fault::Fails(damaged()))
    });
    let (mut queue, _) = owing_in(store, handler, folder.path()).await;
    queue.start_owed().await;
    go.notify_one();
    next_end(&mut queue).await;
    let other = owe(&queue, "2").await;
    queue.start_owed().await;
    let key = (other, queue.handler.definition.name.dispatched());
    assert!(queue.context.in_flight.lock().contains_key(&key), "it has its turn");
    go.notify_one();
    next_end(&mut queue).await;
    queue.start_owed().await;
    assert!(queue.runs.is_empty());
    assert_eq!(begun.load(Ordering::SeqCst), 2);
}
