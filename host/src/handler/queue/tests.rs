use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::domain::{Event, State};
use crate::handler::definition::{Definition, Program};
use crate::handler::fetch::{Fetcher, Source};
use crate::handler::program::Closure;
use crate::handler::ready::Loaded;
use crate::handler::runs::UnderWay;
use crate::handler::upload::{Accept, Destination, Refusal, Uploader};
use crate::store::redb::RedbStore;
use crate::store::{Arrival, Store};

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

/// Returns a queue whose handler is owed a run, and the event.
async fn owing(handler: Arc<Handler>, folder: &Path) -> (Queue, EventId) {
    let store: Arc<dyn Store> = Arc::new(RedbStore::open(folder, Duration::ZERO).unwrap());
    let event = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "t"});
    let arrival = Arrival {
        event: Event::from_json(event.to_string()).unwrap(),
        received: clock::now(),
        sender: "ann".to_owned(),
        matched: vec![handler.definition.name.dispatched()],
        failed: Vec::new(),
    };
    let id = store.accept(vec![arrival]).await.unwrap()[0];
    let engine = Arc::new(Engine {
        store,
        runs: folder.join("runs"),
        under_way: UnderWay::default(),
        stop: CancellationToken::new(),
        abort: CancellationToken::new(),
    });
    (Queue::new(engine, handler, Arc::default()), id)
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
    let engine = Arc::clone(&queue.engine);
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
    // Behind the look.
    run::blocking(|| ()).await;
    go.notify_one();
    until(|| engine.under_way.lock().is_empty()).await;
    reading.await;
    assert!(engine.under_way.lock().is_empty(), "it has begun again");
    assert_eq!(begun.load(Ordering::SeqCst), 1);
}

/// It was still owed in what had been read, and not under way any more.
#[test]
fn a_run_that_ends_while_the_store_is_read_does_not_begin_again() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).max_blocking_threads(1).enable_all().build().unwrap();
    runtime.block_on(a_run_ends_while_the_store_is_read());
}

/// The run was left owed, began again at once, and panicked again, for ever.
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
    until(|| queue.engine.under_way.lock().is_empty()).await;
    let story = queue.engine.store.story(id).await.unwrap().unwrap();
    let State::Retrying { reason, due } = State::after(&story.deliveries[0].1) else { panic!("{story:?}") };
    assert!(reason.starts_with("the service panicked"), "{reason}");
    assert!(due > clock::now(), "not at once");
    queue.start_owed().await;
    assert!(queue.engine.under_way.lock().is_empty());
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
    until(|| queue.engine.under_way.lock().is_empty()).await;
    let story = queue.engine.store.story(id).await.unwrap().unwrap();
    let State::Dead { reason } = State::after(&story.deliveries[0].1) else { panic!("{story:?}") };
    assert!(reason.contains("the closure panicked"), "{reason}");
}
