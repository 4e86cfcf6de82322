//! Workers come, work and go.

use super::*;
use waypost_domain::State;

/// A wake that came while a worker was ending was lost until the next sweep.
#[tokio::test]
async fn no_wake_is_lost_however_often_workers_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::<false>::open(folder.path(), 1, |_| Box::pin(async { delivered() }));
    for number in 0..100 {
        let id = engine.log(&number.to_string()).await;
        engine.until(&[id], "delivered").await;
        // The worker lingers for two milliseconds: the next event comes about then.
        let end = Instant::now() + Duration::from_micros(1_900 + number * 3);
        until(|| Instant::now() >= end).await;
    }
    assert_eq!(engine.calls().len(), 100, "nothing came twice");
}

#[tokio::test]
async fn a_retry_that_is_due_wakes_an_idle_recipient() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::<false>::open(folder.path(), 1, |call| {
        Box::pin(async move {
            if call.number == 2 {
                return delivered();
            }
            let due = clock::now() + Duration::from_millis(50);
            Next::Over(Outcome::Retry { reason: "not now".to_owned(), due }, Effect::Nothing)
        })
    });
    let id = engine.log("a").await;
    engine.until(&[id], "delivered").await;
    let calls = engine.deliverer.calls.lock();
    assert_eq!(calls.len(), 2);
    assert!(calls[1].1 - calls[0].1 >= Duration::from_millis(50), "{calls:?}");
}

#[tokio::test]
async fn an_effect_that_comes_first_keeps_others_from_beginning_until_it_is_done() {
    let (folder, gate) = (tempfile::tempdir().unwrap(), closed());
    let opens = Arc::clone(&gate);
    let engine = Engine::<false>::open(folder.path(), 1, move |call| {
        let gate = Arc::clone(&opens);
        Box::pin(async move {
            let effect = if call.event == "a" {
                Effect::First(Box::pin(async move { gate.acquire().await.unwrap().forget() }))
            } else {
                Effect::Nothing
            };
            Next::Over(Outcome::Delivered, effect)
        })
    });
    let ids = [engine.log("a").await, engine.log("b").await];
    until(|| engine.calls() == ["a"] && !engine.workers.in_flight().contains(ids[0], ID)).await;
    assert_eq!(engine.state(ids[0]).await, "pending", "it is not recorded before");
    assert_eq!(engine.calls(), ["a"]);
    gate.add_permits(1);
    engine.until(&ids, "delivered").await;
}

#[tokio::test]
async fn an_effect_that_comes_then_is_done_once_the_end_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(folder.path(), Duration::ZERO).unwrap());
    let (seen, reader) = (Arc::new(Mutex::new(None)), Arc::clone(&store));
    let sees = Arc::clone(&seen);
    let engine = Engine::<true>::start(store, 1, move |_| {
        let (seen, store) = (Arc::clone(&sees), Arc::clone(&reader));
        Box::pin(async move {
            let effect = async move {
                let pending = store.recipients_with_backlog().await.unwrap();
                *seen.lock() = Some(pending.len());
            };
            Next::Over(Outcome::Delivered, Effect::Then(Box::pin(effect)))
        })
    });
    engine.log("a").await;
    until(|| *seen.lock() == Some(0)).await;
}

#[tokio::test]
async fn a_recipient_that_is_inactive_waits_and_one_that_is_gone_loses_its_backlog() {
    let (folder, gate) = (tempfile::tempdir().unwrap(), closed());
    let engine = Engine::<false>::open(folder.path(), 1, gated("a", &gate));
    let ids = [engine.log("a").await, engine.log("b").await];
    until(|| engine.workers.in_flight().contains(ids[0], ID)).await;
    engine.deliverer.set(Standing::Inactive);
    gate.add_permits(1);
    engine.until(&ids[..1], "delivered").await;
    engine.wake();
    engine.deliverer.set(Standing::Active(Arc::new(())));
    engine.wake();
    engine.until(&ids, "delivered").await;
    engine.deliverer.set(Standing::Inactive);
    let id = engine.log("c").await;
    assert_eq!(engine.state(id).await, "pending");
    engine.deliverer.set(Standing::Gone);
    engine.wake();
    engine.until_nothing_waits().await;
    assert_eq!(engine.calls(), ["a", "b"]);
}

#[tokio::test]
async fn nothing_begins_while_the_fence_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(folder.path(), Duration::ZERO).unwrap());
    let reads = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&reads);
    store.faults.follow(move |method, _| {
        counted.fetch_add(u32::from(method == "ready"), Ordering::SeqCst);
        None
    });
    store.share().fence(Fence::Closed);
    let engine = Engine::<false>::start(store, 1, |_| Box::pin(async { delivered() }));
    let ids = [engine.log("a").await, engine.log("b").await];
    until(|| reads.load(Ordering::SeqCst) > 0).await;
    assert_eq!(engine.state(ids[0]).await, "pending");
    assert!(engine.calls().is_empty());
    engine.store.share().fence(Fence::Open);
    engine.until(&ids, "delivered").await;
}

#[tokio::test]
async fn stopping_waits_for_attempts_as_long_as_the_grace_and_then_drops_them() {
    let (folder, gate) = (tempfile::tempdir().unwrap(), closed());
    for (grace, state) in [(BOUND, "delivered"), (Duration::ZERO, "pending")] {
        let engine = Engine::<true>::open(folder.path(), 1, gated("a", &gate));
        let id = engine.log("a").await;
        let next = engine.log("b").await;
        until(|| engine.workers.in_flight().contains(id, ID)).await;
        let opening = async { gate.add_permits(usize::from(state == "delivered")) };
        tokio::join!(engine.workers.stop(grace), opening);
        assert_eq!(engine.state(id).await, state);
        assert_eq!(engine.state(next).await, "pending", "nothing more begins");
        assert!(!engine.workers.in_flight().contains(id, ID));
        engine.store.close().await;
    }
}

/// After several deliveries in a row that were put off, a worker rests before it tries the next one.
#[tokio::test]
async fn a_worker_whose_deliveries_are_put_off_one_after_the_other_rests() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::<false>::open(folder.path(), 1, |call| {
        Box::pin(async move {
            match call.event.as_str() {
                "4" => delivered(),
                _ => Next::Held(Holder::Policy, "no answer".to_owned()),
            }
        })
    });
    let mut ids = Vec::new();
    engine.store.share().fence(Fence::Closed);
    for id in ["1", "2", "3", "4"] {
        ids.push(engine.log(id).await);
    }
    engine.store.share().fence(Fence::Open);
    engine.until(&ids[..1], "retrying").await;
    assert!(matches!(engine.delivery(ids[0]).await.state, State::Held { by: Holder::Policy, .. }));
    until(|| engine.workers.hold(ID).is_some_and(|(by, _)| by == Holder::Policy)).await;
    engine.until(&ids[3..], "delivered").await;
    let calls = engine.deliverer.calls.lock();
    let at = |event: &str| calls.iter().find(|(call, _)| call.event == event).unwrap().1;
    assert!(at("4") - at("3") >= Duration::from_secs(1), "{calls:?}");
}
