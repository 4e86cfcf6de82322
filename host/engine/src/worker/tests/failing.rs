//! Attempts, workers and the store fail.

use super::*;
use waypost_domain::{Entry, State};
use waypost_store::faulty::Fault;
use waypost_store::journal::{MemoryJournal, Trouble};
use waypost_store::redb::Options;

#[tokio::test]
async fn an_attempt_that_panics_is_an_outcome_of_its_delivery_alone() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::<false>::open(folder.path(), 2, |call| {
        Box::pin(async move {
            assert!(call.event != "poison", "oops");
            delivered()
        })
    });
    let poison = engine.log("poison").await;
    let others = [engine.log("b").await, engine.log("c").await];
    engine.until(&others, "delivered").await;
    engine.until(&[poison], "dead").await;
    let State::Dead { reason } = engine.delivery(poison).await.state else { unreachable!() };
    assert_eq!((reason.as_str(), engine.calls().len()), ("it panicked", 3));
}

#[tokio::test]
async fn a_worker_that_panics_begins_again_each_time_later_and_loses_no_wake() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::<false>::open(folder.path(), 1, |_| Box::pin(async { delivered() }));
    engine.deliverer.panics.store(3, Ordering::SeqCst);
    let begun = Instant::now();
    let mut ids = Vec::new();
    for id in ["a", "b", "c"] {
        ids.push(engine.log(id).await);
    }
    engine.until(&ids, "delivered").await;
    assert!(begun.elapsed() >= Duration::from_millis(4 + 8 + 16), "{:?}", begun.elapsed());
    assert_eq!(engine.calls(), ["a", "b", "c"]);
}

#[tokio::test]
async fn an_attempt_in_flight_when_its_worker_panics_is_repeated() {
    let (folder, gate) = (tempfile::tempdir().unwrap(), closed());
    let engine = Engine::<false>::open(folder.path(), 2, gated("a", &gate));
    let id = engine.log("a").await;
    until(|| engine.workers.in_flight().contains(id, ID)).await;
    engine.deliverer.panics.store(1, Ordering::SeqCst);
    let next = engine.log("b").await;
    engine.until(&[next], "delivered").await;
    gate.add_permits(1);
    engine.until(&[id], "delivered").await;
    assert_eq!(engine.calls().iter().filter(|event| *event == "a").count(), 2);
    assert_eq!(engine.delivery(id).await.history.len(), 1, "only one attempt ended");
}

/// While the store could not be read, a worker slept: attempts under way were not polled, and their ends not recorded.
#[tokio::test]
async fn attempts_go_on_and_are_recorded_while_the_store_cannot_be_read() {
    let (folder, gate) = (tempfile::tempdir().unwrap(), closed());
    let store = Arc::new(Store::open(folder.path(), Duration::ZERO).unwrap());
    let (fails, failed) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (is_failing, counted) = (Arc::clone(&fails), Arc::clone(&failed));
    store.faults.follow(move |method, _| {
        let meets = method == "ready" && is_failing.load(Ordering::SeqCst) > 0;
        meets.then(|| {
            counted.fetch_add(1, Ordering::SeqCst);
            Fault::Fails(Error::Unavailable { reason: "the disk is away".to_owned() })
        })
    });
    let engine = Engine::<false>::start(store, 2, gated("a", &gate));
    let id = engine.log("a").await;
    until(|| engine.workers.in_flight().contains(id, ID)).await;
    fails.store(1, Ordering::SeqCst);
    let next = engine.log("b").await;
    until(|| failed.load(Ordering::SeqCst) > 0).await;
    gate.add_permits(1);
    engine.until(&[id], "delivered").await;
    assert_eq!(engine.state(next).await, "pending");
    fails.store(0, Ordering::SeqCst);
    engine.until(&[next], "delivered").await;
    assert_eq!(engine.calls(), ["a", "b"]);
}

/// The row of a delivery whose end the store has not taken is still there, and was read again at once.
#[tokio::test]
async fn what_is_not_recorded_is_repeated_by_the_next_worker_and_not_by_this_one() {
    let (folder, gate) = (tempfile::tempdir().unwrap(), closed());
    let store = Arc::new(Store::open(folder.path(), Duration::ZERO).unwrap());
    let failures = AtomicU32::new(1);
    store.faults.follow(move |method, _| {
        let meets = method == "settle"
            && failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        meets.then(|| Fault::Fails(Error::Unavailable { reason: "the disk is full".to_owned() }))
    });
    let engine = Engine::<false>::start(store, 2, gated("slow", &gate));
    // It keeps the worker.
    let slow = engine.log("slow").await;
    until(|| engine.workers.in_flight().contains(slow, ID)).await;
    let id = engine.log("a").await;
    until(|| engine.calls() == ["slow", "a"]).await;
    engine.wake();
    let next = engine.log("b").await;
    engine.until(&[next], "delivered").await;
    assert_eq!(engine.calls(), ["slow", "a", "b"]);
    gate.add_permits(1);
    engine.until(&[slow], "delivered").await;
    let repeating = async {
        while engine.state(id).await != "delivered" {
            // Once the worker has ended, this starts another.
            engine.wake();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(BOUND, repeating).await.unwrap();
    assert_eq!(engine.calls(), ["slow", "a", "b", "a"]);
}

/// A journal delays, doubles and forgets: each delivery ends all the same, and its history has one end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_delivery_ends_once_on_a_journal_with_troubles() {
    let (folder, count) = (tempfile::tempdir().unwrap(), AtomicU32::new(0));
    let journal = MemoryJournal::with_troubles(move |_| match count.fetch_add(1, Ordering::Relaxed) % 11 {
        3 => Trouble::LostAnswer,
        5 => Trouble::Delay(Duration::from_millis(2)),
        7 => Trouble::Doubled,
        9 => Trouble::Refused,
        _ => Trouble::Nothing,
    });
    let store = Store::join(folder.path(), Options::default(), Arc::new(journal)).await.unwrap();
    let engine = Engine::<true>::start(Arc::new(store), 4, |_| Box::pin(async { delivered() }));
    let mut ids = Vec::new();
    for number in 0..30 {
        ids.push(engine.log(&number.to_string()).await);
    }
    engine.until(&ids, "delivered").await;
    for id in ids {
        let history = engine.delivery(id).await.history;
        assert!(matches!(&history[..], [Entry::Attempt(_)]), "{history:?}");
    }
    engine.workers.stop(BOUND).await;
}
