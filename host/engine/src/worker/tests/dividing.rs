//! Nodes divide deliveries: what is lost is left alone, and what is gained is taken over.

use super::*;

/// The other events wait behind the first, whose attempt is in flight.
async fn behind_the_first<const SHARED: bool>(
    folder: &Path,
    gate: &Arc<Semaphore>,
) -> (Engine<SHARED>, Vec<EventId>) {
    let engine = Engine::open(folder, 1, gated("a", gate));
    let mut ids = Vec::new();
    for id in ["a", "b", "c"] {
        ids.push(engine.log(id).await);
    }
    until(|| engine.workers.in_flight().contains(ids[0], ID)).await;
    (engine, ids)
}

#[tokio::test]
async fn what_is_lost_during_an_attempt_waits_until_it_is_gained() {
    let (folder, gate) = (tempfile::tempdir().unwrap(), closed());
    let (engine, ids) = behind_the_first::<false>(folder.path(), &gate).await;
    lose_and_gain(&engine, &ids, &gate).await;
}

#[tokio::test]
async fn what_a_shared_recipient_loses_during_an_attempt_waits_until_it_is_gained() {
    let (folder, gate) = (tempfile::tempdir().unwrap(), closed());
    let (engine, ids) = behind_the_first::<true>(folder.path(), &gate).await;
    lose_and_gain(&engine, &ids, &gate).await;
}

async fn lose_and_gain<const SHARED: bool>(engine: &Engine<SHARED>, ids: &[EventId], gate: &Semaphore) {
    engine.store.share().set(|_| false);
    gate.add_permits(1);
    engine.until(&ids[..1], "delivered").await;
    let lost = engine.log("d").await;
    engine.wake();
    assert_eq!(engine.state(lost).await, "pending");
    assert_eq!(engine.calls(), ["a"]);
    engine.store.share().set(|_| true);
    engine.until(&ids[1..], "delivered").await;
    engine.until(&[lost], "delivered").await;
    assert_eq!(engine.calls().len(), 4, "nothing came twice");
}

/// What had been read before a slot was lost may be out of date when it comes back.
#[tokio::test]
async fn a_slot_that_is_lost_and_gained_during_an_attempt_loses_and_repeats_nothing() {
    for gained_first in [true, false] {
        let (folder, gate) = (tempfile::tempdir().unwrap(), closed());
        let (engine, ids) = behind_the_first::<true>(folder.path(), &gate).await;
        engine.store.share().set(|_| false);
        if !gained_first {
            gate.add_permits(1);
            engine.until(&ids[..1], "delivered").await;
        }
        engine.store.share().set(|_| true);
        let next = engine.log("d").await;
        gate.add_permits(1);
        engine.until(&ids, "delivered").await;
        engine.until(&[next], "delivered").await;
        assert_eq!(engine.calls(), ["a", "b", "c", "d"]);
    }
}

/// A new run waited for the end of those in flight, which may take hours.
#[tokio::test]
async fn what_is_gained_begins_while_other_attempts_are_in_flight() {
    let (folder, gate) = (tempfile::tempdir().unwrap(), closed());
    let engine = Engine::<true>::open(folder.path(), 2, gated("a", &gate));
    let first = engine.log("a").await;
    until(|| engine.workers.in_flight().contains(first, ID)).await;
    engine.store.share().set(|_| false);
    let gained = engine.log("b").await;
    engine.store.share().set(|slot| slot == HashSlot::of_run(gained));
    engine.until(&[gained], "delivered").await;
    assert!(engine.workers.in_flight().contains(first, ID));
    gate.add_permits(1);
    engine.until(&[first], "delivered").await;
    assert_eq!(engine.calls(), ["a", "b"]);
}

/// A worker that had read a page of what was all other nodes' waited for the next sweep.
#[tokio::test]
async fn what_is_gained_behind_what_is_other_nodes_begins_at_once() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..4 {
        let engine = Engine::<true>::open(folder.path(), 1, |_| Box::pin(async { delivered() }));
        engine.store.share().set(|_| false);
        let mut ids = Vec::new();
        for number in 0..12 {
            ids.push(engine.log(&number.to_string()).await);
        }
        let own = HashSlot::of_run(ids[11]);
        engine.store.share().set(|slot| slot == own);
        engine.until(&ids[11..], "delivered").await;
        engine.store.share().set(|_| true);
        engine.until(&ids, "delivered").await;
        assert_eq!(engine.calls().len(), 12);
        engine.workers.stop(BOUND).await;
        engine.store.close().await;
    }
}
