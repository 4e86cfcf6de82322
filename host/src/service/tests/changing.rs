//! Events are matched with every subscription that comes before them in the log.

use super::*;
use waypost_domain::SubscriptionId;

fn new(jsonpath: &str) -> Subscription {
    let target = "http://127.0.0.1:1/".parse().unwrap();
    Subscription::new("ann".to_owned(), "all".to_owned(), jsonpath.to_owned(), target, clock::now())
}

async fn open(folder: &std::path::Path) -> Service {
    Service::open(Config { retention: None, ..config(folder, false) }).await.unwrap()
}

/// An event that is sent after a subscription was answered goes to it, while other subscriptions come and events pour in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_after_a_subscription_was_created_goes_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let service = open(folder.path()).await;
    let each = async |number: usize| {
        for round in 0..20 {
            let created = service.directory().create(new("$")).await.unwrap().subscription.id;
            let id = service.accept(vec![event(&format!("{number}-{round}"))], "ann").await.unwrap()[0];
            let story = service.story(id).await.unwrap().unwrap();
            assert!(story.event.matched.contains(&created.into()), "{number} {round}");
        }
    };
    futures_util::future::join_all((0..8).map(each)).await;
    service.close().await;
}

/// Each change came between the matching and the logging of events: they were matched again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_do_not_end_hold_up_no_event() {
    let folder = tempfile::tempdir().unwrap();
    let service = open(folder.path()).await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(service.directory().create(new("$")).await.unwrap().subscription.id);
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    let change = async |id: SubscriptionId| {
        let mut round = 0;
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            round += 1;
            let jsonpath = format!("$.a[{round}]");
            let changed =
                |now: &Subscription| Some(Subscription { jsonpath: jsonpath.clone(), ..now.clone() });
            service.directory().change(id, changed).await.unwrap().unwrap();
        }
        round
    };
    let changing = futures_util::future::join_all(ids.into_iter().map(change));
    let sending = async {
        for number in 0..50 {
            let sent = service.accept(vec![event(&number.to_string())], "ann");
            tokio::time::timeout(Duration::from_secs(20), sent).await.expect("it is not starved").unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let (rounds, ()) = tokio::join!(changing, sending);
    assert!(rounds.iter().all(|rounds| *rounds > 1), "and no change is: {rounds:?}");
    service.close().await;
}
