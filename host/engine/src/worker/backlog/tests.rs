use super::*;
use waypost_domain::Event;
use waypost_store::faulty::Fault;
use waypost_store::{Arrival, Store};

const ID: RecipientId = RecipientId::MAX;

/// A store, and a worker's backlog that has been read to the end.
async fn read_backlog(folder: &tempfile::TempDir) -> (Arc<Store>, Backlog) {
    let store = Arc::new(Store::open(folder.path(), Duration::ZERO).unwrap());
    let mut backlog = Backlog::new(Arc::<Store>::clone(&store), ID, Division::ByRecipient);
    read(&mut backlog).await;
    assert!(backlog.is_over());
    (store, backlog)
}

/// Reads a page that is in the file.
async fn read(backlog: &mut Backlog) {
    backlog.begin(2);
    if backlog.is_reading() {
        backlog.page().await;
    }
}

async fn accept(store: &Store) {
    let event = r#"{"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}"#;
    let event = Event::from_json(event).unwrap();
    let (received, sender, matched) = (clock::now(), "ann".to_owned(), vec![ID]);
    store.log(vec![Arrival { event, received, sender, matched, failed: Vec::new() }]).await.unwrap();
}

#[tokio::test]
async fn what_was_just_accepted_is_there_at_once_and_comes_once() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut backlog) = read_backlog(&folder).await;
    let due = Timestamp::MAX;
    backlog.record(EventId::MAX, false, Some(due));
    accept(&store).await;
    for _ in 0..2 {
        backlog.receive(Wake::accepted(1));
        assert!(!backlog.is_over() && !backlog.is_due_unread());
        backlog.begin(2);
        assert_eq!((backlog.is_reading(), backlog.waiting.len()), (false, 1));
        assert_eq!(backlog.next_due, Some(due), "it was not looked at");
    }
    backlog.receive(Wake::read());
    read(&mut backlog).await;
    assert_eq!((backlog.waiting.len(), backlog.next_due), (1, None));
}

#[tokio::test]
async fn what_is_accepted_during_a_read_is_read_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut backlog) = read_backlog(&folder).await;
    backlog.receive(Wake::read());
    backlog.begin(2);
    accept(&store).await;
    backlog.receive(Wake::accepted(1));
    if backlog.is_reading() {
        backlog.page().await;
    }
    backlog.begin(2);
    assert_eq!((backlog.is_reading(), backlog.waiting.len()), (false, 1));
    assert!(backlog.next_due.is_none() && !backlog.is_due_unread());
}

#[tokio::test]
async fn a_read_that_was_stopped_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut backlog) = read_backlog(&folder).await;
    accept(&store).await;
    backlog.receive(Wake::read());
    backlog.begin(2);
    let was_stopped = backlog.is_reading();
    backlog.stop();
    assert_eq!(backlog.is_due_unread(), was_stopped);
    read(&mut backlog).await;
    assert_eq!(backlog.waiting.len(), 1);
}

#[tokio::test]
async fn a_read_that_failed_is_made_again_after_a_pause() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut backlog) = read_backlog(&folder).await;
    let fails = |_, _| Some(Fault::Fails(Error::Closed));
    store.faults.follow(fails);
    backlog.receive(Wake::accepted(1));
    backlog.begin(2);
    assert!(!backlog.is_reading() && !backlog.is_over() && !backlog.is_due_unread());
    store.faults.follow(|_, _| None);
    backlog.begin(2);
    assert!(!backlog.is_over(), "not before the end of the pause");
    assert!(backlog.pause().is_some_and(|end| end <= Instant::now() + PAUSE));
    backlog.pause.cut_short();
    backlog.begin(2);
    assert!(backlog.is_over());
}

/// Logs this many events, each with a delivery, and returns their ids.
async fn accept_many(store: &Store, count: usize) -> Vec<EventId> {
    let mut ids = Vec::new();
    for number in 0..count {
        let event = format!(r#"{{"specversion": "1.0", "id": "{number}", "source": "/s", "type": "t"}}"#);
        let event = Event::from_json(event).unwrap();
        let (received, sender, matched) = (clock::now(), "ann".to_owned(), vec![ID]);
        let arrival = Arrival { event, received, sender, matched, failed: Vec::new() };
        ids.extend(store.log(vec![arrival]).await.unwrap());
    }
    ids
}

/// A page of runs that were all other nodes' was read again and again, and hid those behind it.
#[tokio::test]
async fn what_is_other_nodes_is_passed_once_in_growing_pages_and_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(folder.path(), Duration::ZERO).unwrap());
    let ids = accept_many(&store, 100).await;
    let own = HashSlot::of_run(ids[99]);
    store.share().set(|slot| slot == own);
    let ours: Vec<_> = ids.into_iter().filter(|id| HashSlot::of_run(*id) == own).collect();
    let reads = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = Arc::clone(&reads);
    let read_count = || reads.load(std::sync::atomic::Ordering::SeqCst);
    store.faults.follow(move |method, _| {
        counted.fetch_add(u32::from(method == "ready"), std::sync::atomic::Ordering::SeqCst);
        None
    });
    let mut backlog = Backlog::new(Arc::clone(&store), ID, Division::ByEvent);
    let mut found = Vec::new();
    while !backlog.is_over() {
        read(&mut backlog).await;
        assert!(backlog.waiting.len() <= ours.len());
        found.extend(backlog.waiting.drain(..).map(|pending| pending.event.id));
    }
    assert_eq!(found, ours);
    assert!(read_count() < 15, "{}", read_count());
    let before = read_count();
    accept_many(&store, 1).await;
    backlog.receive(Wake::accepted(1));
    while !backlog.is_over() {
        read(&mut backlog).await;
    }
    assert!(read_count() <= before + 2, "what was passed is not read again");
}

async fn an_attempt_ends_while_the_store_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(folder.path(), Duration::ZERO).unwrap());
    let ids = accept_many(&store, 2).await;
    let mut backlog = Backlog::new(Arc::clone(&store), ID, Division::ByEvent);
    while backlog.waiting.len() < 2 {
        read(&mut backlog).await;
    }
    backlog.waiting.clear();
    // Slots were gained: everything is read again while both attempts are in flight.
    backlog.restart();
    let (open, closed) = std::sync::mpsc::channel::<()>();
    let busy = tokio::task::spawn_blocking(move || closed.recv());
    backlog.begin(2);
    assert!(backlog.is_reading(), "a look into the file takes a thread, and there is one");
    backlog.record(ids[0], false, None);
    drop(open);
    drop(busy.await);
    backlog.page().await;
    assert!(backlog.waiting.is_empty());
    backlog.restart();
    for _ in 0..3 {
        read(&mut backlog).await;
    }
    let again: Vec<_> = backlog.waiting.iter().map(|pending| pending.event.id).collect();
    assert_eq!(again, [ids[0]], "its row is still there, and it is not in flight; the other one is");
}

/// The run was still pending in the page that had been read, and not in flight any more.
#[test]
fn what_ended_while_the_store_was_read_is_not_taken_again() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.max_blocking_threads(1).enable_all().build().unwrap();
    runtime.block_on(an_attempt_ends_while_the_store_is_read());
}

/// Senders took turns among the oldest 128 runs: one with more hid the others.
#[tokio::test]
async fn a_sender_with_many_runs_hides_no_other_and_each_run_is_read_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(folder.path(), Duration::ZERO).unwrap());
    let mut all = Vec::new();
    let mut log = async |sender: &str, count: usize| {
        let arrivals = (0..count).map(|number| {
            let event = format!(r#"{{"specversion": "1.0", "id": "{number}", "source": "/s", "type": "t"}}"#);
            let (event, sender) = (Event::from_json(event).unwrap(), sender.to_owned());
            Arrival { event, received: clock::now(), sender, matched: vec![ID], failed: Vec::new() }
        });
        all.extend(store.log(arrivals.collect()).await.unwrap());
    };
    for _ in 0..3 {
        log("much", 100).await;
        log("many", 90).await;
    }
    log("little", 1).await;
    log("much", 40).await;
    let mut backlog = Backlog::new(Arc::clone(&store), ID, Division::ByEvent);
    for _ in 0..600 {
        read(&mut backlog).await;
    }
    let senders: Vec<_> = backlog.waiting.iter().map(|pending| pending.event.sender.clone()).collect();
    assert!(senders.contains(&"little".to_owned()) && senders.len() < 40, "{senders:?}");
    let mut found = Vec::new();
    while !backlog.is_over() {
        let before = backlog.waiting.iter().filter(|pending| pending.event.sender == "much").count();
        assert!(before <= 16, "{before}");
        // Those that wait longest begin; then there is room for more.
        let most = backlog.waiting.len().min(5);
        found.extend(backlog.waiting.drain(..most).map(|pending| pending.event.id));
        read(&mut backlog).await;
    }
    found.sort_unstable();
    all.sort_unstable();
    assert_eq!(found, all);
}
