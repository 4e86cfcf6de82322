//! Deliveries while the service itself is in trouble: its store fails, or its own code panics.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::*;
use waypost_domain::plugin::{PluginResult, PluginRun, RenderedPayload};
use waypost_domain::{Activity, Entry, Holder, Outcome, PluginDigest, RecipientId, State, SubscriptionId};
use waypost_runtime::stage::PANICKED;
use waypost_store::{Delivery, ReadyQuery, Rendering};

/// The longest that a test waits.
const BOUND: Duration = Duration::from_secs(30);

/// A server that answers 200 to each connection's one request, once it may.
pub(super) struct Target {
    pub(super) url: String,
    asked: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Target {
    pub(super) async fn start(gate: &Arc<Semaphore>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let (asked, gate) = (Arc::<AtomicUsize>::default(), Arc::clone(gate));
        let (counted, mut tasks) = (Arc::clone(&asked), JoinSet::new());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(answer(stream, Arc::clone(&counted), Arc::clone(&gate)));
            }
        });
        Self { url, asked, _tasks: tasks }
    }

    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn answer(mut stream: TcpStream, asked: Arc<AtomicUsize>, gate: Arc<Semaphore>) {
    let mut request = vec![0; 64 * 1024];
    // An event of these tests comes in one piece.
    if stream.read(&mut request).await.is_ok_and(|read| read > 0) {
        asked.fetch_add(1, Ordering::SeqCst);
        drop(gate.acquire().await);
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await);
    }
}

/// A gate that lets everything pass.
pub(super) fn open_gate() -> Arc<Semaphore> {
    let gate = Arc::new(Semaphore::new(0));
    gate.close();
    gate
}

pub(super) async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + BOUND;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn delivery(service: &Service, id: EventId) -> Delivery {
    service.story(id).await.unwrap().unwrap().deliveries.remove(0)
}

async fn ends_in(service: &Service, id: EventId, name: &str) -> Vec<Entry> {
    until(&format!("{id} is {name}"), async || {
        let delivery = delivery(service, id).await;
        (delivery.state.name() == name).then_some(delivery.history)
    })
    .await
}

pub(super) fn quiet(folder: &std::path::Path, retries: &str) -> Config {
    Config { retention: None, retry_schedule: retries.parse().unwrap(), ..config(folder, false) }
}

async fn start(
    config: Config,
    script: impl Fn(&'static str, Option<RecipientId>) -> Option<Fault> + Send + Sync + 'static,
) -> Service {
    let store = open_store(&config).await.unwrap();
    store.faults.follow(script);
    Box::pin(start_on(config, Vec::new(), store)).await.unwrap()
}

async fn subscribe(service: &Service, url: &str) -> SubscriptionId {
    let target = url.parse().unwrap();
    let subscription =
        Subscription::new("ann".to_owned(), "all".to_owned(), "$".to_owned(), target, clock::now());
    let id = subscription.id;
    service.directory().create(subscription).await.unwrap();
    id
}

pub(super) async fn accept(service: &Service, id: &str) -> EventId {
    service.accept(vec![event(id)], "ann").await.unwrap()[0]
}

fn is_enabled(service: &Service, id: SubscriptionId) -> bool {
    service.directory().get(id).unwrap().activity == Activity::Enabled
}

/// Leaves in `folder` deliveries of these events of which the first one's outcome is fixed: its attempt reads that.
async fn with_fixed_delivery(
    folder: &std::path::Path,
    target: &Target,
    events: &[&str],
) -> (SubscriptionId, Vec<EventId>) {
    // Nothing goes out here: reading what is owed fails.
    let unread = |method, _| {
        (method == "ready").then(|| Fault::Fails(store::Error::Unavailable { reason: "not now".to_owned() }))
    };
    let service = start(quiet(folder, "none"), unread).await;
    let subscription = subscribe(&service, &target.url).await;
    let mut ids = Vec::new();
    for id in events {
        ids.push(accept(&service, id).await);
    }
    service.close().await;
    let store = open_store(&quiet(folder, "none")).await.unwrap();
    let recipient = subscription.into();
    let query = ReadyQuery { recipient, after: EventId::NIL, first_attempts: 1, now: clock::now(), due: 0 };
    let pending = store.ready(query).await.unwrap().first_attempts.remove(0);
    let digest = PluginDigest::of(b"module");
    let run =
        PluginRun::failed(digest, 1, clock::now(), waypost_domain::plugin::Failure::Host(String::new()));
    let rendered = RenderedPayload { digest, config: digest, result: PluginResult::Event };
    let (event, position) = (pending.event.id, pending.position);
    let rendering =
        Rendering { recipient, event, position, run: Box::new(run), payload: rendered, state: Vec::new() };
    assert!(store.freeze(rendering).await.unwrap());
    store.close().await;
    assert_eq!(event, ids[0]);
    (subscription, ids)
}

/// While the store could not be read, a worker slept: attempts under way were not polled, and their ends not recorded.
#[tokio::test]
async fn attempts_go_on_and_are_recorded_while_the_store_cannot_be_read() {
    let (folder, gate) = (tempfile::tempdir().unwrap(), Arc::new(Semaphore::new(0)));
    let target = Target::start(&gate).await;
    let (fails, failed) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let (is_failing, counted) = (Arc::clone(&fails), Arc::clone(&failed));
    let service = start(quiet(folder.path(), "none"), move |method, _| {
        let meets = method == "ready" && is_failing.load(Ordering::SeqCst);
        meets.then(|| {
            counted.fetch_add(1, Ordering::SeqCst);
            Fault::Fails(store::Error::Unavailable { reason: "the disk is away".to_owned() })
        })
    })
    .await;
    let subscription = subscribe(&service, &target.url).await;
    let id = accept(&service, "a").await;
    until("the target is asked", async || (target.asked() == 1).then_some(())).await;
    fails.store(true, Ordering::SeqCst);
    // A worker whose subscription has changed reads the store again.
    service.directory().change(subscription, |known| Some(known.clone())).await.unwrap();
    until("a read has failed", async || (failed.load(Ordering::SeqCst) > 0).then_some(())).await;
    gate.close();
    ends_in(&service, id, "delivered").await;
    assert!(fails.load(Ordering::SeqCst), "the store is still away");
    fails.store(false, Ordering::SeqCst);
    let next = accept(&service, "b").await;
    ends_in(&service, next, "delivered").await;
    assert_eq!(target.asked(), 2, "nothing came twice");
    service.close().await;
}

/// A panic in one attempt dropped all of its subscription's attempts, and was repeated every half minute.
#[tokio::test]
async fn an_attempt_that_panics_is_an_outcome_of_its_delivery_alone() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::start(&open_gate()).await;
    let (subscription, ids) =
        Box::pin(with_fixed_delivery(folder.path(), &target, &["poison", "b", "c"])).await;
    let panics = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&panics);
    let service = start(quiet(folder.path(), "1h"), move |method, _| {
        (method == "rendered").then(|| {
            counted.fetch_add(1, Ordering::SeqCst);
            Fault::Panic
        })
    })
    .await;
    for id in &ids[1..] {
        ends_in(&service, *id, "delivered").await;
    }
    let entries = ends_in(&service, ids[0], "retrying").await;
    let Some(Entry::Attempt(attempt)) = entries.last() else { panic!("{entries:?}") };
    assert_eq!(attempt.number, 1, "it is counted");
    let Outcome::Retry { reason, due } = &attempt.outcome else { panic!("{attempt:?}") };
    assert_eq!(reason, PANICKED);
    assert!(due.duration_since(clock::now()).as_mins() > 30, "it waits as the schedule says");
    assert_eq!(panics.load(Ordering::SeqCst), 1);
    assert!(is_enabled(&service, subscription));
    service.close().await;
}

#[tokio::test]
async fn the_last_attempt_that_panics_is_a_dead_letter_and_disables_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::start(&open_gate()).await;
    let (subscription, ids) = Box::pin(with_fixed_delivery(folder.path(), &target, &["poison"])).await;
    let service =
        start(quiet(folder.path(), "none"), |method, _| (method == "rendered").then_some(Fault::Panic)).await;
    ends_in(&service, ids[0], "dead").await;
    let State::Dead { reason } = delivery(&service, ids[0]).await.state else { panic!("not dead") };
    assert!(reason.starts_with(PANICKED), "{reason}");
    assert!(is_enabled(&service, subscription));
    service.close().await;
}

/// A panicking worker began again with each wake.
#[tokio::test]
async fn a_worker_that_panics_rests_before_it_begins_again() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::start(&open_gate()).await;
    let calls = Arc::<std::sync::Mutex<Vec<Instant>>>::default();
    let noted = Arc::clone(&calls);
    let service = start(quiet(folder.path(), "none"), move |method, _| {
        if method != "ready" {
            return None;
        }
        let mut calls = noted.lock().unwrap();
        calls.push(Instant::now());
        (calls.len() == 1).then_some(Fault::Panic)
    })
    .await;
    subscribe(&service, &target.url).await;
    let mut ids = Vec::new();
    for id in ["a", "b", "c"] {
        // Each of them wakes it.
        ids.push(accept(&service, id).await);
    }
    for id in ids {
        ends_in(&service, id, "delivered").await;
    }
    let calls = calls.lock().unwrap();
    assert!(calls[1] - calls[0] >= Duration::from_secs(1), "{:?}", calls[1] - calls[0]);
    assert_eq!(target.asked(), 3);
}

/// A panic of its worker ended the service.
#[tokio::test]
async fn a_handler_whose_worker_panics_begins_again() {
    let (folder, panics) = (tempfile::tempdir().unwrap(), Arc::<AtomicUsize>::default());
    let mut config = Config { retention: None, ..config(folder.path(), true) };
    config.handlers[0].dispatch = true;
    let recipient = config.handlers[0].name.dispatched();
    let (routes, store) = (handler::routes(&config.handlers).unwrap(), open_store(&config).await.unwrap());
    let counted = Arc::clone(&panics);
    store.faults.follow(move |method, whose| {
        let is_first =
            method == "ready" && whose == Some(recipient) && counted.fetch_add(1, Ordering::SeqCst) == 0;
        is_first.then_some(Fault::Panic)
    });
    let service = Box::pin(start_on(config, routes, store)).await.unwrap();
    let id = service.runs().dispatch("h", Vec::new(), "ann").await.unwrap();
    ends_in(&service, id, "delivered").await;
    assert!(panics.load(Ordering::SeqCst) > 1);
    service.close().await;
}

/// With `retry none`, a hiccup of our own disk was a dead letter and disabled the subscription.
#[tokio::test]
async fn a_store_that_is_away_holds_deliveries_and_counts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::start(&open_gate()).await;
    let (subscription, ids) = Box::pin(with_fixed_delivery(folder.path(), &target, &["a"])).await;
    let away = Arc::new(AtomicBool::new(true));
    let is_away = Arc::clone(&away);
    let service = start(quiet(folder.path(), "none"), move |method, _| {
        let meets = method == "rendered" && is_away.load(Ordering::SeqCst);
        meets.then(|| Fault::Fails(store::Error::Unavailable { reason: "the disk is full".to_owned() }))
    })
    .await;
    let held = until("it is held twice", async || {
        let delivery = delivery(&service, ids[0]).await;
        let State::Held { since, due, .. } = delivery.state else { return None };
        (due.duration_since(since).as_secs() >= 2).then_some(delivery.history)
    })
    .await;
    let holds: Vec<_> = held.iter().filter(|entry| matches!(entry, Entry::Held { .. })).collect();
    assert!(
        matches!(holds[..], [Entry::Held { by: Holder::Store, .. }]),
        "one entry tells of all: {holds:?}"
    );
    away.store(false, Ordering::SeqCst);
    let entries = ends_in(&service, ids[0], "delivered").await;
    let Some(Entry::Attempt(attempt)) = entries.last() else { panic!("{entries:?}") };
    assert_eq!(attempt.number, 1, "none of the others counts");
    assert!(is_enabled(&service, subscription));
    service.close().await;
}
