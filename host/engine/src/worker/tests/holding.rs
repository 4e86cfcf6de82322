//! While a deliverer holds everything back, its recipient has no worker.

use super::*;

fn hold(engine: &Engine<false>, time: Duration) {
    *engine.deliverer.held_until.lock() = Some(tokio::time::Instant::now() + time);
}

fn choices(engine: &Engine<false>) -> u32 {
    engine.deliverer.choices.load(Ordering::SeqCst)
}

/// Each delivery that waited in memory kept the whole batch there that its event came in.
#[tokio::test]
async fn events_for_a_recipient_that_is_held_start_no_worker_until_that_changes() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::<false>::open(folder.path(), 4, |_| Box::pin(async { delivered() }));
    hold(&engine, Duration::from_secs(3600));
    let mut ids = vec![engine.log("first").await];
    until(|| choices(&engine) > 0).await;
    let asked = choices(&engine);
    for number in 0..100 {
        ids.push(engine.log(&number.to_string()).await);
    }
    assert!(choices(&engine) <= asked + 1, "{} after {asked}", choices(&engine));
    assert!(engine.calls().is_empty());
    *engine.deliverer.held_until.lock() = None;
    engine.wake();
    engine.until(&ids, "delivered").await;
    assert_eq!(engine.calls().len(), 101);
}

#[tokio::test]
async fn what_is_held_for_a_time_goes_when_that_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::<false>::open(folder.path(), 4, |_| Box::pin(async { delivered() }));
    // Shorter, and longer, than its worker waits for more.
    for (number, millis) in [1, 60].into_iter().enumerate() {
        let begun = Instant::now();
        hold(&engine, Duration::from_millis(millis));
        let id = engine.log(&number.to_string()).await;
        engine.until(&[id], "delivered").await;
        assert!(begun.elapsed() >= Duration::from_millis(millis));
    }
}

#[tokio::test]
async fn a_recipient_that_is_held_can_be_deleted_and_the_service_can_stop() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::<false>::open(folder.path(), 4, |_| Box::pin(async { delivered() }));
    hold(&engine, Duration::from_secs(3600));
    engine.log("a").await;
    until(|| choices(&engine) > 0).await;
    engine.deliverer.set(Standing::Gone);
    engine.wake();
    engine.until_nothing_waits().await;
    engine.deliverer.set(Standing::Active(Arc::new(())));
    engine.log("b").await;
    tokio::time::timeout(BOUND, engine.workers.stop(Duration::ZERO)).await.unwrap();
}
