//! Each node works for the hash slots of its share alone, and takes over what it gains.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::Semaphore;

use super::delivering::{Target, accept, open_gate, quiet, until};
use super::*;
use waypost_domain::{Actor, RecipientId, SubscriptionId, recovery};
use waypost_store::{Delivery, Fence, HashSlot};

/// Starts a service that has these slots.
async fn start(config: Config, is_ours: impl Fn(HashSlot) -> bool) -> Service {
    let (store, routes) = (open_store(&config).await.unwrap(), handler::routes(&config.handlers).unwrap());
    store.share().set(is_ours);
    Box::pin(start_on(config, routes, store)).await.unwrap()
}

/// Makes a subscription to everything in the slot of this number.
fn new(slot: u8, url: &str) -> Subscription {
    let target = url.parse().unwrap();
    let mut new = Subscription::new("ann".to_owned(), "all".to_owned(), "$".to_owned(), target, clock::now());
    let mut id = new.id.into_bytes();
    id[15] = slot;
    new.id = SubscriptionId::from_bytes(id);
    new
}

/// Makes a subscription, adds it, and returns its id and slot.
async fn subscribe(service: &Service, slot: u8, url: &str) -> (SubscriptionId, HashSlot) {
    let new = new(slot, url);
    let id = new.id;
    service.directory().create(new).await.unwrap();
    (id, HashSlot::of_subscription(id))
}

/// Counts the calls of a method of the store, for this recipient.
fn count(store: &Store, counted: &'static str, recipient: Option<RecipientId>) -> Arc<AtomicUsize> {
    let calls = Arc::<AtomicUsize>::default();
    let counter = Arc::clone(&calls);
    store.faults.follow(move |method, whose| {
        counter.fetch_add(usize::from(method == counted && whose == recipient), Ordering::SeqCst);
        None
    });
    calls
}

async fn delivery(service: &Service, event: EventId, recipient: impl Into<RecipientId>) -> Delivery {
    let (story, recipient) = (service.story(event).await.unwrap().unwrap(), recipient.into());
    story.deliveries.into_iter().find(|delivery| delivery.recipient == recipient).unwrap()
}

async fn state(service: &Service, event: EventId, recipient: impl Into<RecipientId>) -> &'static str {
    delivery(service, event, recipient).await.state.name()
}

async fn delivered(service: &Service, event: EventId, recipient: impl Into<RecipientId>) {
    let recipient = recipient.into();
    until(&format!("{event} is delivered to {recipient}"), async || {
        (state(service, event, recipient).await == "delivered").then_some(())
    })
    .await;
}

#[tokio::test]
async fn only_recipients_of_the_share_get_deliveries_and_others_once_they_are_gained() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Target::start(&open_gate()).await, Target::start(&open_gate()).await);
    let service = start(quiet(folder.path(), "none"), |_| true).await;
    let (own, own_slot) = subscribe(&service, 1, &ours.url).await;
    let (foreign, foreign_slot) = subscribe(&service, 2, &theirs.url).await;
    service.store.share().set(|slot| slot == own_slot);
    let reads = count(&service.store, "ready", Some(foreign.into()));
    let mut ids = Vec::new();
    for id in ["a", "b"] {
        ids.push(accept(&service, id).await);
        delivered(&service, *ids.last().unwrap(), own).await;
    }
    assert_eq!((reads.load(Ordering::SeqCst), theirs.asked()), (0, 0), "it has no worker");
    assert_eq!(state(&service, ids[0], foreign).await, "pending");

    service.store.share().set(|_| true);
    for id in &ids {
        delivered(&service, *id, foreign).await;
    }
    service.store.share().set(|slot| slot == foreign_slot);
    let id = accept(&service, "c").await;
    delivered(&service, id, foreign).await;
    assert_eq!(state(&service, id, own).await, "pending", "it is lost");
    assert_eq!((ours.asked(), theirs.asked()), (2, 3), "nothing came twice");
    service.close().await;
}

#[tokio::test]
async fn a_worker_whose_slot_is_lost_ends_after_its_attempt() {
    let (folder, gate) = (tempfile::tempdir().unwrap(), Arc::new(Semaphore::new(0)));
    let (slow, other) = (Target::start(&gate).await, Target::start(&open_gate()).await);
    let service = start(quiet(folder.path(), "none"), |_| true).await;
    let (lost, lost_slot) = subscribe(&service, 1, &slow.url).await;
    let (kept, _) = subscribe(&service, 2, &other.url).await;
    let first = accept(&service, "a").await;
    until("the attempt is under way", async || (slow.asked() == 1).then_some(())).await;
    let second = accept(&service, "b").await;
    service.store.share().set(|slot| slot != lost_slot);
    delivered(&service, second, kept).await;
    gate.close();
    delivered(&service, first, lost).await;
    let third = accept(&service, "c").await;
    delivered(&service, third, kept).await;
    assert_eq!((slow.asked(), state(&service, second, lost).await), (1, "pending"));

    service.store.share().set(|_| true);
    for id in [second, third] {
        delivered(&service, id, lost).await;
    }
    assert_eq!(slow.asked(), 3);
    service.close().await;
}

/// What a worker had read before its slot was lost may be out of date when the slot comes back.
#[tokio::test]
async fn a_slot_that_is_lost_and_gained_during_an_attempt_loses_and_repeats_nothing() {
    let (folder, gate) = (tempfile::tempdir().unwrap(), Arc::new(Semaphore::new(0)));
    let target = Target::start(&gate).await;
    let service = start(quiet(folder.path(), "none"), |_| true).await;
    let (id, slot) = subscribe(&service, 1, &target.url).await;
    let first = accept(&service, "a").await;
    until("the attempt is under way", async || (target.asked() == 1).then_some(())).await;
    let second = accept(&service, "b").await;
    service.store.share().set(|known| known != slot);
    service.store.share().set(|_| true);
    gate.close();
    for event in [first, second] {
        delivered(&service, event, id).await;
    }
    assert_eq!(target.asked(), 2);
    service.close().await;
}

#[tokio::test]
async fn nothing_begins_while_the_fence_is_closed() {
    let (folder, runs) = (tempfile::tempdir().unwrap(), Arc::<AtomicUsize>::default());
    let target = Target::start(&open_gate()).await;
    let service = start(running(folder.path(), &runs, 1), |_| true).await;
    let (subscription, _) = subscribe(&service, 1, &target.url).await;
    service.store.share().fence(Fence::Closed);
    let reads = count(&service.store, "ready", Some(subscription.into()));
    let first = accept(&service, "a").await;
    let run = service.runs().dispatch("h", Vec::new(), "ann").await.unwrap();
    until("the worker has read it", async || (reads.load(Ordering::SeqCst) > 0).then_some(())).await;
    let second = accept(&service, "b").await;
    assert!(!service.dispatcher.is_in_flight(first, subscription.into()));
    assert_eq!((target.asked(), runs.load(Ordering::SeqCst)), (0, 0));
    assert_eq!(state(&service, first, subscription).await, "pending");

    let begun = Instant::now();
    service.store.share().fence(Fence::Open);
    for event in [first, second] {
        delivered(&service, event, subscription).await;
    }
    delivered(&service, run, recipient()).await;
    assert!(begun.elapsed() < Duration::from_secs(20), "it is told, and need not look");
    service.close().await;
}

/// Returns the recipient of the dispatched runs of the handler `h`.
fn recipient() -> RecipientId {
    "h".parse::<waypost_domain::HandlerName>().unwrap().dispatched()
}

/// Returns the configuration of a handler `h` that counts its runs.
fn running(folder: &std::path::Path, runs: &Arc<AtomicUsize>, max_parallel: usize) -> Config {
    let counted = Arc::clone(runs);
    let closure = Closure::new(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok(()) }
    });
    let mut definition = Definition::new("h".parse().unwrap(), Program::Closure(closure));
    (definition.dispatch, definition.max_parallel) = (true, max_parallel);
    Config { handlers: vec![definition], ..quiet(folder, "none") }
}

/// A page of pending runs that were all other nodes' hid those behind them.
#[tokio::test]
async fn a_run_begins_where_its_event_has_its_slot_also_behind_others() {
    let (folder, runs) = (tempfile::tempdir().unwrap(), Arc::<AtomicUsize>::default());
    let service = start(running(folder.path(), &runs, 1), |_| false).await;
    let mut ids = Vec::new();
    for _ in 0..12 {
        ids.push(service.runs().dispatch("h", Vec::new(), "ann").await.unwrap());
    }
    let own = HashSlot::of_run(ids[11]);
    let (ours, theirs): (Vec<_>, Vec<_>) = ids.iter().partition(|id| HashSlot::of_run(**id) == own);
    service.store.share().set(|slot| slot == own);
    for id in &ours {
        delivered(&service, *id, recipient()).await;
    }
    assert_eq!(runs.load(Ordering::SeqCst), ours.len());
    for id in &theirs {
        assert_eq!(state(&service, *id, recipient()).await, "pending");
    }
    service.store.share().set(|_| true);
    for id in theirs {
        delivered(&service, id, recipient()).await;
    }
    assert_eq!(runs.load(Ordering::SeqCst), 12);
    service.close().await;
}

#[tokio::test]
async fn a_recovery_waits_until_the_slot_of_its_subscription_is_gained() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::start(&open_gate()).await;
    let (foreign, own) = (new(1, &target.url), new(2, &target.url));
    let ids = [foreign.id, own.id];
    let service = start(quiet(folder.path(), "none"), |slot| slot == HashSlot::of_subscription(ids[1])).await;
    let event = accept(&service, "a").await;
    for subscription in [foreign, own] {
        let recovery = Recovery::new(subscription.id, None, None, "ann".to_owned(), clock::now());
        service.recoveries().create(subscription, recovery, &Actor::program("ann")).await.unwrap();
    }
    let find = async |id| service.recoveries().find(id).await.unwrap().unwrap().0;
    let done = async |id| {
        let probe = async || matches!(find(id).await.state, recovery::State::Done { .. }).then_some(());
        until("the recovery is done", probe).await;
        delivered(&service, event, id).await;
    };
    done(ids[1]).await;
    let waiting = find(ids[0]).await;
    assert!(waiting.is_running() && waiting.end.is_none(), "{waiting:?}");
    service.store.share().set(|_| true);
    done(ids[0]).await;
    service.close().await;
}

#[tokio::test]
async fn old_events_are_removed_by_the_owner_of_the_first_slot() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_store(&config(folder.path(), false)).await.unwrap();
    store.share().set(|slot| slot != HashSlot::FIRST);
    let purges = count(&store, "purge", None);
    let service = Box::pin(start_on(config(folder.path(), false), Vec::new(), store)).await.unwrap();
    let target = Target::start(&open_gate()).await;
    let (subscription, _) = subscribe(&service, 1, &target.url).await;
    let id = accept(&service, "a").await;
    delivered(&service, id, subscription).await;
    assert_eq!(purges.load(Ordering::SeqCst), 0);
    service.store.share().set(|_| true);
    until("it purges", async || (purges.load(Ordering::SeqCst) == 1).then_some(())).await;
    service.close().await;
}
