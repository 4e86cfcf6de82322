//! The library's front door, tried as a program would use it, and as one that means no good.
#![expect(clippy::unwrap_used, reason = "what goes wrong here fails the test, which is the point")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use http::{Request, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tower::ServiceExt as _;
use waypost::{
    Caller, Decision, Delivery, Event, FunctionError, NewEvent, NewSubscription, OpenError, PublishError,
    State, SubscriptionError, Waypost,
};

const GRACE: Duration = Duration::from_secs(5);

async fn open() -> Waypost {
    Waypost::in_memory().setting("retry_schedule", "10ms,10ms,10ms").open().await.unwrap()
}

fn event(run: u32) -> NewEvent {
    NewEvent::new("org.example.done", "/mine").data(json!({"run": run}))
}

/// Sends what it gets to a channel.
fn inbox() -> (
    impl Fn(Delivery) -> futures_util::future::BoxFuture<'static, Result<(), FunctionError>>
    + Send
    + Sync
    + 'static,
    mpsc::Receiver<Delivery>,
) {
    let (sender, receiver) = mpsc::channel(64);
    let take = move |delivery| -> futures_util::future::BoxFuture<'static, _> {
        let sender = sender.clone();
        Box::pin(async move {
            sender.send(delivery).await.ok();
            Ok(())
        })
    };
    (take, receiver)
}

async fn next(inbox: &mut mpsc::Receiver<Delivery>) -> Delivery {
    let received = tokio::time::timeout(Duration::from_secs(20), inbox.recv()).await;
    received.expect("a delivery within 20 s").expect("the function is registered")
}

/// Waits until the only delivery of an event has ended.
async fn ended(waypost: &Waypost, id: waypost::EventId) -> State {
    let ended = async {
        loop {
            let story = waypost.event(id).await.unwrap().unwrap();
            if let [delivery] = story.deliveries()
                && matches!(
                    delivery.state(),
                    State::Delivered { .. } | State::Denied { .. } | State::Dead { .. }
                )
            {
                return delivery.state().clone();
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("it ends within 20 s")
}

#[tokio::test]
async fn what_a_function_has_not_taken_waits_for_it_across_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let waypost = Waypost::builder(folder.path()).open().await.unwrap();
    let (take, mut first) = inbox();
    let subscription = waypost.subscribe_fn("inbox", "$.data.run", take).await.unwrap();
    waypost.publish(event(1)).await.unwrap();
    next(&mut first).await;
    waypost.shutdown(GRACE).await;
    drop(waypost);

    // Nothing has registered the function since the start: its deliveries wait, and are charged to nobody.
    let waypost = Waypost::builder(folder.path()).open().await.unwrap();
    let id = waypost.publish(event(2)).await.unwrap();
    let story = waypost.event(id).await.unwrap().unwrap();
    assert_eq!(story.deliveries()[0].state(), &State::Pending);
    let (take, mut second) = inbox();
    let again = waypost.subscribe_fn("inbox", "$.data.run", take).await.unwrap();
    assert_eq!(again.id(), subscription.id(), "the name is what stays");
    let delivery = next(&mut second).await;
    assert_eq!((delivery.event_id, delivery.attempt), (id, 1));
    assert_eq!(waypost.subscriptions().list().len(), 1);
    waypost.shutdown(GRACE).await;
}

#[tokio::test]
async fn a_function_that_fails_is_called_again_and_one_that_refuses_is_not() {
    let waypost = open().await;
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let fails = move |_: Delivery| {
        let number = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            match number {
                0 => Err(FunctionError::Retry("busy".to_owned())),
                1 => panic!("a function's bug"),
                _ => Err(FunctionError::Final("never".to_owned())),
            }
        }
    };
    waypost.subscribe_fn("fails", "$", fails).await.unwrap();
    let id = waypost.publish(event(1)).await.unwrap();
    let state = ended(&waypost, id).await;
    assert!(matches!(&state, State::Dead { reason, .. } if reason == "never"), "{state:?}");
    assert_eq!(calls.load(Ordering::SeqCst), 3);
    assert!(waypost.subscriptions().list()[0].is_enabled(), "one bad event says nothing about the function");
    waypost.shutdown(GRACE).await;
}

/// Of registrations at once, one makes the subscription; one that failures have disabled is enabled by the next.
#[tokio::test]
async fn a_name_is_one_subscription_and_registering_it_again_enables_it() {
    let waypost = Waypost::in_memory().setting("retry_schedule", "none").open().await.unwrap();
    let fails = |_: Delivery| async { Err(FunctionError::Retry("broken".to_owned())) };
    let all = futures_util::future::join_all((0..4).map(|_| waypost.subscribe_fn("inbox", "$", fails))).await;
    let ids: Vec<_> = all.into_iter().map(|made| made.unwrap().id()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]) && waypost.subscriptions().list().len() == 1);
    let failed = waypost.publish(event(1)).await.unwrap();
    ended(&waypost, failed).await;
    let disabled = waypost.subscriptions().get(ids[0]).unwrap();
    assert_eq!((disabled.is_enabled(), disabled.error()), (false, Some("broken")));
    let (take, mut inbox) = inbox();
    assert!(waypost.subscribe_fn("inbox", "$", take).await.unwrap().is_enabled());
    let id = waypost.publish(event(2)).await.unwrap();
    assert_eq!(next(&mut inbox).await.event_id, id);
    // What its owner has disabled stays so.
    let off = NewSubscription::unchanged().disabled(true);
    waypost.subscriptions().update(ids[0], off).await.unwrap();
    assert!(!waypost.subscribe_fn("inbox", "$", fails).await.unwrap().is_enabled());
    waypost.shutdown(GRACE).await;
}

#[tokio::test]
async fn a_function_that_hangs_costs_its_own_attempts() {
    let waypost = Waypost::in_memory().setting("attempt_timeout_ms", 20).setting("retry_schedule", "none");
    let waypost = waypost.open().await.unwrap();
    waypost.subscribe_fn("hangs", "$.data[?@ == 1]", |_| std::future::pending()).await.unwrap();
    let (take, mut other) = inbox();
    waypost.subscribe_fn("works", "$.data[?@ == 2]", take).await.unwrap();
    let hanging = waypost.publish(event(1)).await.unwrap();
    let good = waypost.publish(event(2)).await.unwrap();
    assert_eq!(next(&mut other).await.event_id, good);
    let state = ended(&waypost, hanging).await;
    assert!(matches!(&state, State::Dead { reason, .. } if reason.contains("20 ms")), "{state:?}");
    waypost.shutdown(GRACE).await;
}

/// Two users' functions of one name are two functions, however the names are written.
#[tokio::test]
async fn users_do_not_share_functions() {
    let waypost = open().await;
    let ((take_ann, mut ann), (take_bob, mut bob)) = (inbox(), inbox());
    waypost.as_user("ann").subscribe_fn("b/inbox", "$.data[?@ == 1]", take_ann).await.unwrap();
    waypost.as_user("ann/b").subscribe_fn("inbox", "$.data[?@ == 2]", take_bob).await.unwrap();
    let ids = waypost.publish_batch([event(1), event(2)]).await.unwrap();
    assert_eq!((next(&mut ann).await.event_id, next(&mut bob).await.event_id), (ids[0], ids[1]));
    waypost.shutdown(GRACE).await;
}

#[tokio::test]
async fn what_rest_refuses_the_api_refuses_with_the_place() {
    let waypost = open().await;
    let invalid = async |subscription| match waypost.subscribe(subscription).await {
        Err(SubscriptionError::Invalid { pointer, reason }) => (pointer.unwrap_or_default(), reason),
        other => panic!("{other:?}"),
    };
    let to = NewSubscription::to;
    for (wrong, at, says) in [
        (to("http://127.0.0.1:99999/"), "/target_url", "99999"),
        (to("in-process:program/inbox"), "/target_url", "http://"),
        (to("http://169.254.169.254/"), "/target_url", "must not lead there"),
        (to("https://t.example/").filter("$["), "/jsonpath", ""),
        (to("https://t.example/").retry("soon"), "/retry", ""),
        (to("https://t.example/").timeout(Duration::from_secs(9999)), "/timeout_ms", ""),
    ] {
        let (pointer, reason) = invalid(wrong).await;
        assert!(pointer == at && reason.contains(says), "{pointer}: {reason}");
    }
    assert!(waypost.subscriptions().list().is_empty(), "nothing of them is kept");
    let wrong = NewEvent::new("", "/mine");
    assert!(matches!(waypost.publish(wrong).await, Err(PublishError::Invalid(_))));
    let large = NewEvent::new("t", "/mine").data("x".repeat(2 << 20));
    let refused = waypost.publish_batch([event(1), large]).await.unwrap_err();
    assert!(refused.to_string().contains("event_bytes_max"), "{refused}");
    waypost.shutdown(GRACE).await;
}

/// REST's answer to the request that makes a secret has it; here it was lost.
#[tokio::test]
async fn a_secret_that_is_generated_is_returned_once() {
    let waypost = open().await;
    let to = NewSubscription::to("https://t.example/");
    let made = waypost.subscribe(to.member("signing_secret", "generate")).await.unwrap();
    let secret = made.signing_secret().unwrap();
    assert!(secret.starts_with("whsec_") && !format!("{made:?}").contains(&secret[6..]), "{secret}");
    let subscriptions = waypost.subscriptions();
    assert_eq!(subscriptions.get(made.id()).unwrap().signing_secret(), None);
    let change = |value: &str| NewSubscription::unchanged().member("signing_secret", value);
    let other = subscriptions.update(made.id(), change("generate")).await.unwrap().signing_secret();
    assert!(other.is_some_and(|other| other != secret));
    let own = subscriptions.update(made.id(), change(&secret)).await.unwrap();
    assert_eq!(own.signing_secret(), None, "the program knows it");
    waypost.shutdown(GRACE).await;
}

#[tokio::test]
async fn a_user_manages_their_own_subscriptions_only_and_the_program_all() {
    let waypost = open().await;
    let (ann, bob) = (waypost.as_user("ann"), waypost.as_user("bob"));
    let own = ann.subscribe(NewSubscription::to("https://t.example/").filter("$.data")).await.unwrap();
    assert_eq!((own.user(), own.name(), own.filter()), ("ann", "https://t.example/", "$.data"));
    assert!(bob.subscriptions().get(own.id()).is_none());
    let change = NewSubscription::unchanged().disabled(true);
    assert!(matches!(
        bob.subscriptions().update(own.id(), change.clone()).await,
        Err(SubscriptionError::NotFound(_))
    ));
    assert!(matches!(bob.subscriptions().delete(own.id()).await, Err(SubscriptionError::NotFound(_))));
    let changed = waypost.subscriptions().update(own.id(), change).await.unwrap();
    assert!(!changed.is_enabled() && changed.target() == own.target());
    ann.subscriptions().delete(own.id()).await.unwrap();
    assert!(ann.subscriptions().get(own.id()).is_none());
    waypost.shutdown(GRACE).await;
}

/// A user's handle shows no event that policy has not allowed, nor that its filter matched.
#[tokio::test]
async fn a_denied_event_does_not_exist_for_a_user() {
    let policy = |user: String, _: Event| async move {
        if user == "ann" { Decision::Allow } else { Decision::Deny("not yours".to_owned()) }
    };
    let waypost = Waypost::in_memory().policy(policy).open().await.unwrap();
    let (ann, bob) = (waypost.as_user("ann"), waypost.as_user("bob"));
    let (take, mut seen) = inbox();
    ann.subscribe_fn("inbox", "$.data[?@ == 1]", take).await.unwrap();
    let (take, mut unseen) = inbox();
    bob.subscribe_fn("inbox", "$.data[?@ == 2]", take).await.unwrap();
    let ids = waypost.publish_batch([event(1), event(2)]).await.unwrap();
    next(&mut seen).await;
    assert!(matches!(ended(&waypost, ids[1]).await, State::Denied { .. }), "the program sees why");
    assert!(bob.event(ids[1]).await.unwrap().is_none());
    assert!(bob.event(ids[0]).await.unwrap().is_none(), "another's");
    assert!(unseen.try_recv().is_err());
    waypost.shutdown(GRACE).await;
}

#[tokio::test]
async fn a_wrong_setting_is_named_before_anything_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let open = async |key, value| Waypost::builder(&data).setting(key, value).open().await.unwrap_err();
    assert!(matches!(open("in_flight", "1").await, OpenError::UnknownSetting(key) if key == "in_flight"));
    let error = open("in_flight_max", "many").await.to_string();
    assert!(error.starts_with("the setting `in_flight_max` is `many`"), "{error}");
    assert!(!data.exists());
}

async fn asked(app: axum::Router, request: Request<Body>) -> (StatusCode, String) {
    let answer = app.oneshot(request).await.unwrap();
    let status = answer.status();
    let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn get(uri: &str) -> http::request::Builder {
    Request::get(uri).header("Host", "localhost")
}

/// Nested in an application that is served without addresses, every request was answered with 401 "the request's
/// address is unknown", whatever it carried.
#[tokio::test]
async fn nested_without_addresses_a_request_needs_a_user_and_nothing_of_a_client_makes_one() {
    let waypost = open().await;
    let app = axum::Router::new().nest("/events", waypost.http());
    let (status, body) = asked(app.clone(), get("/events/healthz").body(Body::empty()).unwrap()).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    for request in [
        get("/events/me"),
        get("/events/me").header("Http-Remote-User", "ann"),
        get("/events/me").header("X-Forwarded-For", "127.0.0.1"),
        get("/events/me").header("Authorization", "Bearer wp_wrong"),
    ] {
        let (status, body) = asked(app.clone(), request.body(Body::empty()).unwrap()).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{body}");
    }
    // The application itself says who it is, whatever the client claims.
    let claimed = get("/events/me").header("Http-Remote-User", "boss").extension(Caller("ann".to_owned()));
    let (status, body) = asked(app.clone(), claimed.body(Body::empty()).unwrap()).await;
    assert!(status == StatusCode::OK && body.contains("\"ann\"") && !body.contains("boss"), "{body}");
    // Served with addresses, a request of this machine has the default user.
    let local = get("/events/me").extension(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 9))));
    let (status, body) = asked(app, local.body(Body::empty()).unwrap()).await;
    assert!(status == StatusCode::OK && body.contains("anonymous"), "{body}");
    waypost.shutdown(GRACE).await;
}

#[tokio::test]
async fn serving_ends_with_the_router() {
    let waypost = open().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (serving, handle) = (waypost.clone(), waypost.clone());
    let (served, ()) = tokio::join!(serving.serve(listener), async move { handle.shutdown(GRACE).await });
    served.unwrap();
    assert!(matches!(waypost.publish(event(1)).await, Err(PublishError::Unavailable(_))));
}

/// Begins to send an event to a server, and returns the connection once its body is awaited.
async fn begin_request(address: SocketAddr) -> (TcpStream, &'static str) {
    let (head, rest) = (r#"{"specversion": "1.0", "id": "1", "source": "/s", "#, r#""type": "t"}"#);
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = head.len() + rest.len();
    let request = format!(
        "POST /receive HTTP/1.1\r\nHost: {address}\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\
         Content-Type: application/cloudevents+json\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut asked = [0; 25];
    stream.read_exact(&mut asked).await.unwrap();
    assert_eq!(asked, *b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    (stream, rest)
}

/// A server of `serve` gave its requests the setting `shutdown_grace_ms`, whatever grace `shutdown` had, and the store was
/// closed meanwhile.
#[tokio::test]
async fn requests_in_flight_get_the_grace_of_the_shutdown() {
    for (setting, grace, is_answered) in
        [("0", Duration::from_secs(60), true), ("60000", Duration::ZERO, false)]
    {
        let waypost = Waypost::in_memory().setting("shutdown_grace_ms", setting).open().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = async {
            let (mut stream, rest) = begin_request(address).await;
            let asking = async {
                if is_answered {
                    // The shutdown has begun once nothing listens any more.
                    while TcpStream::connect(address).await.is_ok() {
                        tokio::task::yield_now().await;
                    }
                    stream.write_all(rest.as_bytes()).await.unwrap();
                }
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.ok();
                assert_eq!(answer.starts_with("HTTP/1.1 200"), is_answered, "{answer}");
            };
            tokio::join!(waypost.shutdown(grace), asking);
        };
        let ended = async { tokio::join!(waypost.serve(listener), client) };
        let (served, ()) =
            tokio::time::timeout(Duration::from_secs(20), ended).await.expect("it ends in time");
        served.unwrap();
    }
}

/// A server that the program polls no more does not keep a shutdown from ending.
#[tokio::test]
async fn a_server_that_is_not_polled_keeps_nothing_from_ending() {
    let waypost = open().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut serving = std::pin::pin!(waypost.serve(listener));
    tokio::select! {
        biased;
        _ = serving.as_mut() => panic!("nothing has stopped it"),
        () = tokio::task::yield_now() => {}
    }
    let ended = waypost.shutdown(Duration::from_millis(20));
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("it ends in time");
}

/// Built without plugins, an upload is refused with the reason, and a subscription that has a plugin is refused too.
#[cfg(not(feature = "plugins"))]
#[tokio::test]
async fn without_plugins_a_module_is_refused() {
    let waypost = open().await;
    let upload =
        Request::post("/plugins").header("Host", "localhost").header("Content-Type", "application/wasm");
    let upload = upload.extension(Caller("ann".to_owned())).body(Body::from("\0asm\x0d\0\x01\0")).unwrap();
    let (status, body) = asked(waypost.http(), upload).await;
    assert!(
        status == StatusCode::NOT_IMPLEMENTED && body.contains("without the feature `plugins`"),
        "{status} {body}"
    );
    waypost.shutdown(GRACE).await;
}
