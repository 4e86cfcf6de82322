mod changing;
mod delivering;
mod entering;
mod guarding;
mod sharing;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::{Request, StatusCode};
use serde_json::json;
use tower::ServiceExt;

use super::*;
use waypost_domain::{Actor, Recovery, Subscription};
use waypost_handlers::{Closure, Definition, Program};
use waypost_runtime::clock;
use waypost_store::faulty::Fault;

/// Opens a service in `folder` whose store panics when this method is called; for `wakes`, when the last stage that calls
/// it does.
async fn panicking(folder: &std::path::Path, method: &'static str, handler: bool) -> Service {
    let config = config(folder, handler);
    let routes = handler::routes(&config.handlers).unwrap();
    let (store, followers) = (open_store(&config).await.unwrap(), AtomicUsize::new(0));
    store.faults.follow(move |called, _| {
        // The directory takes the wakes before any stage begins, then subscriptions' workers do, then handlers'.
        let follower = if called == "wakes" { followers.fetch_add(1, Ordering::SeqCst) } else { usize::MAX };
        (called == method && follower > usize::from(handler)).then_some(Fault::Panic)
    });
    Box::pin(start_on(config, routes, store)).await.unwrap()
}

/// Starts a service on a store, with its own guard.
async fn start_on(config: Config, routes: Vec<Route>, store: Arc<Store>) -> Result<Service, Error> {
    let guard = Arc::new(config.guard());
    Box::pin(Service::start(config, routes, store, guard, None)).await
}

fn config(folder: &std::path::Path, handler: bool) -> Config {
    waypost_net::tls::install_provider();
    let mut config = Config { data: folder.to_owned(), ..Config::default() };
    config.retention = Some(Duration::from_secs(60 * 60));
    if handler {
        let closure = Closure::new(|_| async { Ok(()) });
        config.handlers.push(Definition::new("h".parse().unwrap(), Program::Closure(closure)));
    }
    config
}

async fn health(service: &Service) -> StatusCode {
    let request = Request::get("/healthz").body(axum::body::Body::empty()).unwrap();
    service.router().oneshot(request).await.unwrap().status()
}

async fn begin_recovery(service: &Service) {
    let target = "http://127.0.0.1:1/".parse().unwrap();
    let subscription =
        Subscription::new("ann".to_owned(), "all".to_owned(), "$".to_owned(), target, clock::now());
    let recovery = Recovery::new(subscription.id, None, None, "ann".to_owned(), clock::now());
    service.recoveries().create(subscription, recovery, &Actor::program("ann")).await.unwrap();
}

fn event(id: &str) -> Event {
    let event = json!({"specversion": "1.0", "id": id, "source": "/s", "type": "t"});
    Event::from_json(event.to_string()).unwrap()
}

/// A dead stage left a process that answered 200 on /healthz and never did that stage's work again.
#[tokio::test]
async fn a_stage_that_panics_ends_the_service_and_the_next_start_is_a_normal_day() {
    for (method, is_handlers, stage) in [
        ("wakes", false, "the dispatcher of deliveries"),
        ("recover", false, "the replaying of the log"),
        ("purge", false, "the purge of old events"),
        ("modules", false, "the tending of modules"),
        ("wakes", true, "the dispatcher of runs"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let service = panicking(folder.path(), method, is_handlers).await;
        if method == "recover" {
            begin_recovery(&service).await;
        }
        let dead = service.dead_stage().await;
        assert_eq!(dead.stage, stage);
        assert!(dead.reason.contains("to panic"), "{dead}");
        assert_eq!(health(&service).await, StatusCode::SERVICE_UNAVAILABLE, "{stage}");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let served = service.serve(listener, std::future::pending()).await;
        assert_eq!(served.unwrap_err(), dead, "it ends though nobody asks it to");

        let service = Service::open(config(folder.path(), is_handlers)).await.unwrap();
        let ids = service.accept(vec![event("a")], "ann").await.unwrap();
        assert!(service.story(ids[0]).await.unwrap().is_some());
        assert_eq!(health(&service).await, StatusCode::OK, "{stage}");
        service.close().await;
    }
}

/// What had started went on delivering, and kept the data folder in use, for as long as the program lived.
#[tokio::test]
async fn a_start_that_fails_leaves_no_stage_running_and_the_folder_free() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let component = Program::Component { path: missing.clone(), allow_hosts: Vec::new() };
    let handler = Definition::new("h".parse().unwrap(), component);
    let good = || config(folder.path(), true);
    let failing = [
        Config { handlers: vec![handler], ..good() },
        Config { policy_plugin: Some(missing.clone()), ..good() },
        Config { receive_secrets: Some(missing), ..good() },
    ];
    for config in failing {
        let failed = Service::open(config).await.err().expect("it lacks a file");
        let service = Service::open(good()).await;
        service.unwrap_or_else(|error| panic!("{error}, after {failed}")).close().await;
    }
}

#[tokio::test]
async fn a_server_that_panics_is_named_and_one_that_is_asked_to_end_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    for panics in [true, false] {
        let service = Service::open(config(folder.path(), false)).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let served = service.serve(listener, async move { assert!(!panics, "oops") }).await;
        assert_eq!(
            served.map_err(|dead| dead.stage),
            if panics { Err("the HTTP server".to_owned()) } else { Ok(()) }
        );
    }
}
