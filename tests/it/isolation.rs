//! One subscription's bad target or slow policy affects only that subscription.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

use crate::harness::{Answer, Api, Gate, Launch, RawConnection, Server, Target, event, wait_until};

const BATCH: &str = "application/cloudevents-batch+json";

/// Posts `count` events as one batch and returns their ids.
async fn burst(api: &Api, count: usize) -> Vec<String> {
    let events: Vec<Value> = (0..count).map(|n| event(&n.to_string())).collect();
    let ids = api.receive_as(BATCH, json!(events).to_string()).await.ok().text();
    ids.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_hanging_target_delays_no_other() {
    let flags = ["--in-flight-max", "8", "--subscription-in-flight-max", "4"];
    let (server, target) = (Server::with(&flags).await, Target::start().await);
    let gate = target.hang_after("/hanging", 10);
    let hanging = server.subscribe(json!({"target_url": target.url("/hanging")})).await;
    let fast = server.subscribe(json!({"target_url": target.url("/fast")})).await;
    let ids = burst(&server, 400).await;
    target.wait_for("/fast", 400).await;
    assert!(target.requests("/hanging").len() <= 14, "it has as many under way as one subscription may");
    server.delivery_in(&ids[399], &fast, "delivered").await;
    assert_ne!(server.delivery(&ids[399], &hanging).await["state"], "delivered");
    gate.open();
    target.wait_for("/hanging", 400).await;
    assert!(target.peak("/hanging") <= 4 && target.peak("/fast") <= 4);
}

#[tokio::test]
async fn more_hanging_targets_than_attempts_allowed_in_all_delay_no_other() {
    let flags = ["--in-flight-max", "4", "--subscription-in-flight-max", "4"];
    let (server, target) = (Server::with(&flags).await, Target::start().await);
    for n in 0..10 {
        let path = format!("/hanging-{n}");
        target.hang_after(&path, 5);
        server.user(&format!("u{n}")).subscribe(json!({"target_url": target.url(&path)})).await;
    }
    server.subscribe(json!({"target_url": target.url("/fast")})).await;
    burst(&server, 200).await;
    target.wait_for("/fast", 200).await;
    for n in 0..10 {
        let path = format!("/hanging-{n}");
        // Five are answered, and the sixth hangs.
        target.wait_for(&path, 6).await;
        // An attempt that gives way frees its slot before the target notices that the connection is closed.
        assert!(target.peak(&path) <= 2 * 4);
    }
}

/// The first attempt of each subscription used to be exempt from `in_flight_max`. Now that all count, attempts that hang
/// must not block others: they give way, uncounted.
#[tokio::test]
async fn many_hanging_targets_delay_a_healthy_one_only_by_their_turns() {
    // Ten turns of two seconds at the most; the attempts themselves would last ten minutes.
    let flags = ["--in-flight-max", "8", "--attempt-timeout-ms", "600000", "--retry-schedule", "none"];
    let (server, target) = (Server::with(&flags).await, Target::start().await);
    let gate = target.hang("/hanging");
    let mut hanging = Vec::new();
    for _ in 0..40 {
        hanging.push(server.subscribe(json!({"target_url": target.url("/hanging")})).await);
    }
    let first = server.receive(&event("first")).await;
    target.wait_for("/hanging", 8).await;
    server.subscribe(json!({"target_url": target.url("/healthy")})).await;
    for n in 0..50 {
        server.receive(&event(&n.to_string())).await;
    }
    target.wait_for("/healthy", 50).await;
    // An attempt that gives way frees its slot before the target notices that the connection is closed.
    assert!(target.peak("/hanging") <= 2 * 8, "all attempts count");
    let mut held = 0;
    for uuid in &hanging {
        let delivery = server.delivery(&first, uuid).await;
        assert_eq!(delivery["attempts"], json!([]), "none has failed: {delivery}");
        assert_eq!(server.subscription(uuid).await["disabled"], Value::Null);
        held += usize::from(delivery["held"]["by"] == "host");
    }
    assert!(held > 0, "some have given way");
    gate.open();
}

/// Idle connections to earlier targets took all descriptors, and events for other targets waited until they closed.
#[tokio::test]
async fn kept_connections_leave_descriptors_for_further_targets() {
    let server = Server::launch(Launch::OpenFiles(128), &["--in-flight-max", "16"], &[]).await;
    let mut targets = Vec::new();
    for _ in 0..120 {
        let target = Target::start().await;
        server.subscribe(json!({"target_url": target.url("/t")})).await;
        targets.push(target);
    }
    server.receive(&event("a")).await;
    for target in &targets {
        target.wait_for("/t", 1).await;
    }
}

/// With one event, 3,000 subscriptions and 1,024 open files, connections that could not be opened were charged to their
/// targets: 1,425 dead letters and as many disabled subscriptions. Attempts now have half of the files; clients here take
/// the rest.
#[tokio::test]
async fn a_shortage_of_descriptors_is_not_charged_to_targets() {
    const SUBSCRIPTIONS: usize = 3_000;
    // A debug build takes more.
    const PEAK_BYTES: u64 = if cfg!(debug_assertions) { 512 << 20 } else { 150 << 20 };
    let flags = ["--retry-schedule", "2s,2s", "--connect-timeout-ms", "60000", "--idle-timeout-ms", "600000"];
    let server = Server::launch(Launch::OpenFiles(256), &flags, &[]).await;
    let (gate, target) = SlowTarget::start();
    let body = json!({"name": "n", "jsonpath": "$", "target_url": target.url});
    let mut made = futures_util::stream::iter(0..SUBSCRIPTIONS)
        .map(|_| async {
            server.post("/eventmatch", &body).await.ok().json()["uuid"].as_str().unwrap().to_owned()
        })
        .buffer_unordered(32);
    let mut subscriptions = Vec::new();
    while let Some(uuid) = made.next().await {
        subscriptions.push(uuid);
    }
    drop(made);
    let mut clients = Vec::new();
    for _ in 0..140 {
        let mut client = RawConnection::open(&server.url).await;
        client.write("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        client.reply().await.unwrap().ok();
        clients.push(client);
    }
    let id = server.receive(&event("a")).await;
    let is_short = |delivery: &Value| {
        let reason = delivery["reason"].as_str().unwrap_or_default();
        delivery["held"]["by"] == "host" && reason.contains("Too many open files")
    };
    wait_until("a delivery is held for want of descriptors", async || {
        server.story(&id).await["deliveries"].as_array().unwrap().iter().any(is_short).then_some(())
    })
    .await;
    drop(clients);
    gate.open();
    for count in (0..=SUBSCRIPTIONS).step_by(500) {
        wait_until(&format!("{count} are answered"), async || (target.answered() >= count).then_some(()))
            .await;
    }
    server.status_is(&id, "200 OK").await;
    let story = server.story(&id).await;
    let deliveries = story["deliveries"].as_array().unwrap();
    assert_eq!(deliveries.len(), SUBSCRIPTIONS);
    assert!(deliveries.iter().all(|delivery| delivery["state"] == "delivered"));
    for uuid in &subscriptions {
        assert_eq!(server.subscription(uuid).await["disabled"], Value::Null);
    }
    assert!(server.peak_bytes() <= PEAK_BYTES, "{} bytes", server.peak_bytes());
}

/// A target that accepts connections one by one, a few hundred a second, once its gate is open.
struct SlowTarget {
    url: String,
    answered: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl SlowTarget {
    fn start() -> (Gate, Self) {
        let gate = Gate::closed();
        let opened = gate.clone();
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(128).unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let answered = Arc::<AtomicUsize>::default();
        let (counted, mut tasks) = (Arc::clone(&answered), JoinSet::new());
        tasks.spawn(async move {
            let mut pause = tokio::time::interval(Duration::from_millis(2));
            let mut connections = JoinSet::new();
            opened.pass().await;
            loop {
                pause.tick().await;
                let Ok((mut stream, _)) = listener.accept().await else { continue };
                while connections.try_join_next().is_some() {}
                let counted = Arc::clone(&counted);
                connections.spawn(async move {
                    let mut request = vec![0; 16 * 1024];
                    if stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                        if stream.write_all(answer).await.is_ok() {
                            counted.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        (gate, Self { url, answered, _tasks: tasks })
    }

    fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_failing_target_delays_no_other() {
    let flags = ["--in-flight-max", "8", "--subscription-in-flight-max", "4", "--retry-schedule", "1h"];
    let (server, target) = (Server::with(&flags).await, Target::start().await);
    target.always("/failing", Answer::status(500));
    let failing = server.subscribe(json!({"target_url": target.url("/failing")})).await;
    server.subscribe(json!({"target_url": target.url("/fast")})).await;
    let ids = burst(&server, 200).await;
    target.wait_for("/fast", 200).await;
    target.wait_for("/failing", 10).await;
    // Its breaker opens: what is left waits.
    wait_until("the breaker to open", async || {
        let held = server.delivery(&ids[199], &failing).await["held"].clone();
        (held["by"] == "breaker").then_some(())
    })
    .await;
    burst(&server, 50).await;
    target.wait_for("/fast", 250).await;
}

/// Each of a user's subscriptions waited for a slot before another user's first did: with 400 that hang and 16 slots, he
/// waited for most of a minute.
#[tokio::test]
async fn one_users_many_hanging_subscriptions_delay_another_by_no_turn() {
    let (server, target) = (Server::with(&["--in-flight-max", "16"]).await, Target::start().await);
    let gate = target.hang("/hanging");
    let (ann, bob) = (server.user("ann"), server.user("bob"));
    let body = json!({"name": "n", "jsonpath": "$", "target_url": target.url("/hanging")});
    let mut made = futures_util::stream::iter(0..400)
        .map(|_| async { ann.post("/eventmatch", &body).await.ok() })
        .buffer_unordered(16);
    while made.next().await.is_some() {}
    drop(made);
    bob.subscribe(
        json!({"target_url": target.url("/bob"), "jsonpath": "$[?$.eventID=='b' || $.eventID=='c']"}),
    )
    .await;
    server.receive(&event("a")).await;
    target.wait_for("/hanging", 16).await;
    for (number, id) in ["b", "c"].into_iter().enumerate() {
        let begun = std::time::Instant::now();
        server.receive(&event(id)).await;
        target.wait_for("/bob", number + 1).await;
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
    gate.open();
}

#[tokio::test]
async fn one_users_slow_policy_delays_no_other() {
    let (policy, target) = (Target::start().await, Target::start().await);
    let gate = Gate::closed();
    policy.always("/events/slow", Answer::status(200).after(&gate));
    let url = policy.url("");
    let in_flight = ["--in-flight-max", "8", "--subscription-in-flight-max", "4"];
    // The policy timeout is longer than the wait here.
    let asking = ["--policy-url", &url, "--policy-timeout-ms", "600000"];
    let server = Server::with(&[in_flight, asking].concat()).await;
    server.user("slow").subscribe(json!({"target_url": target.url("/slow")})).await;
    server.user("quick").subscribe(json!({"target_url": target.url("/quick")})).await;
    burst(&server, 200).await;
    target.wait_for("/quick", 200).await;
    assert!(target.requests("/slow").is_empty());
    gate.open();
    target.wait_for("/slow", 200).await;
}

#[tokio::test]
async fn a_hanging_target_does_not_delay_accepting() {
    let in_flight = ["--in-flight-max", "2", "--subscription-in-flight-max", "2"];
    let server = Server::with(&[&in_flight[..], &["--attempt-timeout-ms", "600000"]].concat()).await;
    let target = Target::start().await;
    let gate = Gate::closed();
    target.always("/hanging", Answer::status(200).after(&gate));
    server.subscribe(json!({"target_url": target.url("/hanging")})).await;
    burst(&server, 1).await;
    target.wait_for("/hanging", 1).await;
    // Each is answered while the target hangs: that lasts ten minutes, and the client gives up after two.
    for _ in 0..10 {
        burst(&server, 50).await;
        server.get("/readyz").await.ok();
    }
    let asked = target.requests("/hanging").len();
    assert!((1..=2).contains(&asked), "{asked} attempts while none has ended");
    gate.open();
    target.wait_for("/hanging", 501).await;
}
