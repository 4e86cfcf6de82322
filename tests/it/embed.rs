//! Waypost embedded in another program: only its public API, without a process or REST.

use std::net::SocketAddr;
use std::path::Path;

use axum::body::Body;
use axum::extract::ConnectInfo;
use http::Request;
use serde_json::json;
use tempfile::TempDir;
use tower::ServiceExt as _;
use waypost::config::Config;
use waypost::service::{Error, Service};
use waypost_domain::{
    Activity, Actor, Entry, Event, EventId, Recovery, State, Subscription, SubscriptionId, TargetUrl,
};
use waypost_handlers::{Destination, Router, Source};
use waypost_runtime::clock;
use waypost_store::redb::OpenError;

use crate::harness::{Answer, Gate, Target, event_1_0, merged, wait_until};

fn config(folder: &TempDir) -> Config {
    Config {
        data: folder.path().to_owned(),
        retry_schedule: "100ms,100ms,1h".parse().unwrap(),
        shutdown_grace: std::time::Duration::from_millis(300),
        ..Config::default()
    }
}

async fn open(folder: &TempDir) -> Service {
    Service::open(config(folder)).await.unwrap()
}

/// Subscribes `url` to the events that this JSONPath matches.
async fn subscribe(service: &Service, jsonpath: &str, url: String) -> SubscriptionId {
    let (user, name) = ("me".to_owned(), "mine".to_owned());
    let target = url.try_into().unwrap();
    let subscription = Subscription::new(user, name, jsonpath.to_owned(), target, clock::now());
    let id = subscription.id;
    service.directory().create(subscription).await.unwrap();
    id
}

async fn accept(service: &Service, id: &str) -> EventId {
    let event = Event::from_json(event_1_0(id).to_string()).unwrap();
    service.accept(vec![event], "me").await.unwrap().remove(0)
}

/// Waits until the event's only delivery is in a state with this name, and returns it.
async fn delivery_in(service: &Service, id: EventId, name: &str) -> State {
    wait_until(&format!("{id} is {name}"), async || {
        let story = service.story(id).await.unwrap().unwrap();
        let state = story.deliveries[0].state.clone();
        (state.name() == name).then_some(state)
    })
    .await
}

/// Events for a target that was stored before targets were checked were sent to port 80 of its host, ten times.
#[tokio::test]
async fn a_stored_target_that_is_invalid_is_a_dead_letter_at_once_and_nothing_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let service = open(&folder).await;
    let stored = TargetUrl::from_stored("http://127.0.0.1:99999/x".to_owned());
    let (user, name) = ("me".to_owned(), "mine".to_owned());
    let subscription = Subscription::new(user, name, "$".to_owned(), stored, clock::now());
    let id = subscription.id;
    service.directory().create(subscription).await.unwrap();
    let event = accept(&service, "1").await;
    let dead = delivery_in(&service, event, "dead").await;
    let reason = "target_url names a port that cannot be one: `99999` is not within 1 to 65535";
    assert!(matches!(&dead, State::Dead { reason: found, .. } if found == reason), "{dead:?}");
    wait_until("the subscription is disabled", async || {
        let activity = service.directory().get(id).unwrap().activity.clone();
        matches!(activity, Activity::Disabled { error: Some(error), .. } if error == reason).then_some(())
    })
    .await;
    assert_eq!(service.story(event).await.unwrap().unwrap().deliveries[0].history.len(), 1, "one attempt");
    service.close().await;
}

#[tokio::test]
async fn an_accepted_event_is_delivered_and_has_a_story() {
    let (folder, target) = (tempfile::tempdir().unwrap(), Target::start().await);
    target.answers("/t", [Answer::status(503).body("not now")]);
    let service = open(&folder).await;
    let subscription = subscribe(&service, "$.data", target.url("/t")).await;
    let id = accept(&service, "1").await;
    delivery_in(&service, id, "delivered").await;
    let story = service.story(id).await.unwrap().unwrap();
    assert_eq!((story.event.id, story.event.sender.as_str()), (id, "me"));
    assert_eq!(story.event.matched, [subscription.into()]);
    assert_eq!(story.deliveries[0].history.len(), 2, "two attempts");
    let got = target.wait_for("/t", 2).await;
    assert_eq!(got[1].event_id(), "1");
    assert_eq!(got[0].webhook_id(), got[1].webhook_id());
    assert_eq!(service.story(EventId::MAX).await.unwrap(), None);
    service.close().await;
}

#[tokio::test]
async fn a_batch_is_all_or_none_and_an_event_without_recipients_is_logged() {
    let folder = tempfile::tempdir().unwrap();
    let service = open(&folder).await;
    let batch = (0..3).map(|n| Event::from_json(event_1_0(&n.to_string()).to_string()).unwrap()).collect();
    let ids = service.accept(batch, "me").await.unwrap();
    assert!(ids.is_sorted() && ids.len() == 3);
    for id in ids {
        assert_eq!(service.story(id).await.unwrap().unwrap().deliveries, []);
    }
    assert_eq!(service.accept(Vec::new(), "me").await.unwrap(), []);
    service.close().await;
}

#[tokio::test]
async fn a_filter_that_does_not_parse_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let service = open(&folder).await;
    let target = "http://127.0.0.1:9/".parse().unwrap();
    let bad = Subscription::new("me".to_owned(), "bad".to_owned(), "$[".to_owned(), target, clock::now());
    let error = service.directory().create(bad).await.unwrap_err();
    assert_eq!(error.to_string(), "failed to parse the filter");
    assert_eq!(service.directory().of_user("me"), []);
    service.close().await;
}

#[tokio::test]
async fn nothing_is_lost_when_a_service_is_closed_and_opened_again() {
    let (folder, target) = (tempfile::tempdir().unwrap(), Target::start().await);
    let gate = Gate::closed();
    target.always("/t", Answer::status(200).after(&gate));
    let service = open(&folder).await;
    subscribe(&service, "$", target.url("/t")).await;
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(accept(&service, &n.to_string()).await);
    }
    target.wait_for("/t", 1).await;
    service.close().await;
    gate.open();

    let service = open(&folder).await;
    assert_eq!(service.directory().of_user("me").len(), 1);
    for id in &ids {
        delivery_in(&service, *id, "delivered").await;
    }
    let mut arrived: Vec<_> = target.requests("/t").iter().map(|got| got.webhook_id().to_owned()).collect();
    arrived.sort();
    arrived.dedup();
    assert_eq!(arrived.len(), 20, "a repeat is recognisable");
    service.close().await;
}

#[tokio::test]
async fn two_services_in_one_process_are_independent() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let target = Target::start().await;
    let (first, second) = (open(&one).await, open(&other).await);
    subscribe(&first, "$", target.url("/first")).await;
    subscribe(&second, "$", target.url("/second")).await;
    let id = accept(&first, "only").await;
    delivery_in(&first, id, "delivered").await;
    assert_eq!(second.story(id).await.unwrap(), None);
    first.close().await;
    let id = accept(&second, "later").await;
    delivery_in(&second, id, "delivered").await;
    assert_eq!((target.requests("/first").len(), target.requests("/second").len()), (1, 1));
    second.close().await;
}

async fn refusal(folder: &TempDir) -> (Error, String) {
    let error = Service::open(config(folder)).await.err().expect("a second service on the same folder");
    let chain = waypost_runtime::chain::text(&error);
    (error, chain)
}

#[tokio::test]
async fn a_second_service_on_the_same_folder_is_refused_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let service = open(&folder).await;
    let (error, chain) = refusal(&folder).await;
    assert!(matches!(error, Error::Open(OpenError::InUse { .. })), "{chain}");
    let path: &Path = folder.path();
    assert!(chain.contains(&path.display().to_string()), "{chain}");
    let id = accept(&service, "unharmed").await;
    assert!(service.story(id).await.unwrap().is_some());
    service.close().await;
    open(&folder).await.close().await;
}

#[tokio::test]
async fn a_service_that_is_dropped_releases_its_folder() {
    let (folder, target) = (tempfile::tempdir().unwrap(), Target::start().await);
    let gate = target.hang("/t");
    let service = open(&folder).await;
    subscribe(&service, "$", target.url("/t")).await;
    let id = accept(&service, "1").await;
    target.wait_for("/t", 1).await;
    drop(service);
    gate.open();
    let service = wait_until("the folder is free", async || Service::open(config(&folder)).await.ok()).await;
    delivery_in(&service, id, "delivered").await;
    service.close().await;
}

#[tokio::test]
async fn a_setting_out_of_range_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = Service::open(Config { in_flight_max: 0, ..config(&folder) }).await.err().unwrap();
    assert!(waypost_runtime::chain::text(&error).contains("in_flight_max"), "{error}");
}

#[tokio::test]
async fn events_of_every_version_can_be_made_from_json() {
    for event in
        [json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}), crate::harness::event("1")]
    {
        assert_eq!(Event::from_json(event.to_string()).unwrap().id(), "1");
    }
    let error = Event::from_json(r#"{"specversion": "1.0", "id": "1", "source": "/s"}"#).unwrap_err();
    assert!(error.to_string().contains("type"), "{error}");
}

/// Creating a subscription and beginning its replay are one operation: it completes even if the caller is dropped. A
/// service that is closed during the replay continues it when it is opened again.
#[tokio::test]
async fn a_replay_outlives_its_caller_and_its_service() {
    let (folder, target) = (tempfile::tempdir().unwrap(), Target::start().await);
    let slow = || Config { recover_events_per_second: 50, ..config(&folder) };
    let service = Service::open(slow()).await.unwrap();
    let events = |part: usize| (0..100).map(move |n| event_1_0(&format!("{part}-{n}")).to_string());
    for part in 0..2 {
        let events = events(part).map(|event| Event::from_json(event).unwrap()).collect();
        service.accept(events, "me").await.unwrap();
    }
    let (user, name) = ("me".to_owned(), "mine".to_owned());
    let url = target.url("/t").try_into().unwrap();
    let subscription = Subscription::new(user.clone(), name, "$.data".to_owned(), url, clock::now());
    let id = subscription.id;
    let recovery = Recovery::new(id, None, None, user, clock::now());
    let by = Actor::program("ann");
    tokio::select! {
        biased;
        _ = service.recoveries().create(subscription, recovery.clone(), &by) => unreachable!("a commit takes longer"),
        () = std::future::ready(()) => {}
    }
    target.wait_for("/t", 10).await;
    assert!(!service.recoveries().begin(recovery, &Actor::program("ann")).await.unwrap(), "it runs");
    service.close().await;
    assert!(target.requests("/t").len() < 200);
    let service =
        Service::open(Config { recover_events_per_second: 100_000, ..config(&folder) }).await.unwrap();
    wait_until("the replay is done", async || {
        let (recovery, _) = service.recoveries().find(id).await.unwrap().unwrap();
        (!recovery.is_running()).then_some(())
    })
    .await;
    let got = target.wait_for("/t", 200).await;
    let distinct: std::collections::HashSet<_> = got.iter().map(|request| request.event_id()).collect();
    assert_eq!(distinct.len(), 200);
    service.close().await;
}

/// The Dispatcher's library use: handlers are closures.
#[tokio::test]
async fn a_closure_runs_on_the_files_of_events_and_its_output_is_uploaded() {
    let folder = tempfile::tempdir().unwrap();
    let (files, results) = (folder.path().join("files"), folder.path().join("results"));
    std::fs::create_dir_all(files.join("a")).unwrap();
    std::fs::write(files.join("a/one.txt"), "first").unwrap();
    let mut router = Router::new();
    assert!(router.route("$[", |_| async { Ok(()) }).is_err());
    let failing = router.route("$[?@ == 'it.failed']", |run| async move {
        match run.attempt {
            1 => Err("not yet".into()),
            2 => panic!("a closure's own mistake"),
            _ => Ok(()),
        }
    });
    failing.unwrap().retry_schedule = "1ms,1ms".parse().unwrap();
    let reading = router.route("$.data", |run| async move {
        let text = std::fs::read_to_string(run.download().join("a/one.txt"))?;
        let project = run.parts.transaction.project().map(ToString::to_string);
        std::fs::write(run.output().join("upper"), format!("{} {project:?}", text.to_uppercase()))?;
        Ok(())
    });
    let reading = reading.unwrap();
    reading.name = "reading".parse().unwrap();
    reading.source = Source::Local(files);
    reading.destination = Destination::Local(results);
    let mut config = config(&folder);
    config.data = folder.path().join("data");
    config.handlers = router.into_handlers();
    let service = Service::open(config).await.unwrap();
    let event = json!({
        "specversion": "1.0", "id": "1", "source": "/it", "type": "it.happened",
        "data": [
            {"destinationTable": "Transactions.project", "value": 7},
            {"destinationTable": "Files", "_id": 1, "name": "one.txt", "subdir": "a", "size": 5},
        ],
    });
    let event = Event::from_json(event.to_string()).unwrap();
    let id = service.accept(vec![event], "me").await.unwrap().remove(0);
    delivery_in(&service, id, "delivered").await;
    let story = service.story(id).await.unwrap().unwrap();
    let run = story.deliveries[0].history.iter().find_map(|entry| match entry {
        Entry::Run(run) => Some(run.clone()),
        _ => None,
    });
    let run = run.unwrap();
    assert_eq!((run.handler.as_str(), run.fetched.unwrap().bytes), ("reading", 5));
    let place = std::path::PathBuf::from(&run.uploads[0].place);
    assert_eq!(std::fs::read_to_string(place.join("data/upper")).unwrap(), "FIRST Some(\"7\")");
    // A handler that fails is repeated on its schedule; a panic fails only its own run.
    let event = Event::from_json(
        json!({"specversion": "1.0", "id": "2", "source": "/it", "type": "it.failed"}).to_string(),
    );
    let id = service.accept(vec![event.unwrap()], "me").await.unwrap().remove(0);
    delivery_in(&service, id, "delivered").await;
    assert_eq!(service.runs().handlers().count(), 2);
    service.close().await;
}

/// Returns the status of a request with these headers to an embedding program's own server.
async fn status(service: &Service, headers: &[(&str, &str)]) -> u16 {
    let mut request = Request::get("/events").extension(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 1))));
    request = request.header("http-remote-user", "ann");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = service.router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    answer.status().as_u16()
}

/// Routes that a program serves itself are guarded like the service's own. A listener for other machines accepts any host
/// name, since it cannot know its own.
#[tokio::test]
async fn pages_of_other_sites_cannot_use_the_routes_of_an_embedding_program() {
    let folder = tempfile::tempdir().unwrap();
    let service = open(&folder).await;
    assert_eq!(status(&service, &[("host", "localhost:1")]).await, 200);
    assert_eq!(status(&service, &[("host", "evil.example")]).await, 421);
    assert_eq!(status(&service, &[("sec-fetch-site", "cross-site")]).await, 403);
    service.close().await;

    let wide = Config { listen: SocketAddr::from(([0, 0, 0, 0], 0)), ..config(&folder) };
    let refused = Service::open(wide.clone()).await.err().unwrap();
    assert!(matches!(refused, Error::Strangers { .. }), "it knows nobody to believe: {refused}");
    let proxies = ["127.0.0.0/8".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
    let wide = Config { trusted_proxies: proxies.to_vec(), ..wide };
    let service = Service::open(wide).await.unwrap();
    assert_eq!(status(&service, &[("host", "waypost.example")]).await, 200);
    assert_eq!(
        status(&service, &[("host", "waypost.example"), ("origin", "http://waypost.example")]).await,
        200
    );
    assert_eq!(
        status(&service, &[("host", "waypost.example"), ("origin", "http://evil.example")]).await,
        403
    );
    service.close().await;
}

/// A batch used to be matched without a pause, and blocked everything else meanwhile.
#[tokio::test]
async fn other_requests_proceed_while_a_batch_is_matched() {
    let folder = tempfile::tempdir().unwrap();
    let service = open(&folder).await;
    for n in 0..20 {
        let filter = format!("$..[?search(@.text, 'x+y{n}')]");
        subscribe(&service, &filter, "http://127.0.0.1:9/".to_owned()).await;
    }
    let event = |id: usize| {
        let event = merged(event_1_0(&id.to_string()), json!({"data": {"text": "x".repeat(2000)}}));
        Event::from_json(event.to_string()).unwrap()
    };
    let mut accepting = Box::pin(service.accept((0..200).map(event).collect(), "me"));
    let mut turns = 0;
    let accepted = std::future::poll_fn(|context| {
        turns += 1;
        accepting.as_mut().poll(context)
    });
    assert_eq!(accepted.await.unwrap().len(), 200);
    drop(accepting);
    assert!(turns > 10, "{turns}");
    service.close().await;
}
