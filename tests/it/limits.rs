//! Everything has a limit, and the limit's name is in the error (promise 5).

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::harness::{RawConnection, Reply, Server, Target, event, event_1_0, merged, wait_until};

const BATCH: &str = "application/cloudevents-batch+json";

/// Returns an event whose JSON text has exactly this many bytes.
fn sized(bytes: usize) -> String {
    let empty = merged(event_1_0("sized"), json!({"data": ""})).to_string();
    let text = merged(event_1_0("sized"), json!({"data": "x".repeat(bytes - empty.len())})).to_string();
    assert_eq!(text.len(), bytes);
    text
}

#[tokio::test]
async fn an_event_over_the_limit_is_413_and_one_at_the_limit_is_accepted() {
    let server = Server::with(&["--event-bytes-max", "2000"]).await;
    server.receive_as("application/json", sized(2000)).await.ok();
    server.receive_as("application/json", sized(2001)).await.refused(413).says("2000");
    server.receive_as("application/json", "x".repeat(100_000)).await.refused(413);
    let headers = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];
    server.send(Method::POST, "/receive", &headers, "x".repeat(2001)).await.refused(413);
    let events = server.get("/events").await.ok().json()["events"].as_array().unwrap().len();
    assert_eq!(events, 1);
}

#[tokio::test]
async fn the_default_limit_is_1_mib() {
    let server = Server::start().await;
    server.receive_as("application/json", sized(1 << 20)).await.ok();
    let mut connection = RawConnection::open(&server.url).await;
    let head = "POST /receive HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1048577\r\n\r\n";
    connection.write(head).await;
    connection.reply().await.unwrap().refused(413);
}

#[tokio::test]
async fn a_chunked_body_over_the_limit_is_413_too() {
    let server = Server::with(&["--event-bytes-max", "2000"]).await;
    let mut connection = RawConnection::open(&server.url).await;
    let head = "POST /receive HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    connection.write(head).await;
    for _ in 0..3 {
        connection.write(format!("3e8\r\n{}\r\n", "x".repeat(1000))).await;
    }
    connection.reply().await.unwrap().refused(413);
    server.receive(&event_1_0("alive")).await;
}

#[tokio::test]
async fn a_subscription_over_the_limit_is_413() {
    let server = Server::with(&["--subscription-bytes-max", "2000"]).await;
    let body = |bytes: usize| json!({"name": "n", "jsonpath": "$", "target_url": "http://127.0.0.1:9/", "extensions": {"a": "x".repeat(bytes)}});
    let uuid = server.post("/eventmatch", &body(1000)).await.ok().json()["uuid"].as_str().unwrap().to_owned();
    server.post("/eventmatch", &body(2000)).await.refused(413).says("2000");
    server.put(&format!("/eventmatch/{uuid}"), &body(2000)).await.refused(413);
    assert_eq!(server.get("/eventmatch").await.ok().json().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_408() {
    let server = Server::with(&["--body-timeout-ms", "200"]).await;
    for path in ["/receive", "/eventmatch"] {
        let mut connection = RawConnection::open(&server.url).await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
        );
        connection.write(head).await;
        connection.write("{\"half\"").await;
        connection.reply().await.unwrap().refused(408);
    }
    server.receive(&event("alive")).await;
}

#[tokio::test]
async fn a_head_that_does_not_arrive_ends_the_connection() {
    let server = Server::with(&["--header-timeout-ms", "200"]).await;
    let mut connection = RawConnection::open(&server.url).await;
    let begun = Instant::now();
    connection.write("GET /healthz HTTP/1.1\r\nHost: localhost\r\n").await;
    let reply = connection.reply().await;
    assert!(reply.is_none_or(|reply| reply.status == 408));
    assert!(begun.elapsed() < Duration::from_secs(10), "the default is 10 s");
    server.get("/healthz").await.ok();
}

#[tokio::test]
async fn a_head_that_is_too_large_or_not_http_is_a_client_error() {
    let server = Server::start().await;
    let many = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X-A: b\r\n".repeat(500));
    let bad_length = "POST /receive HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n";
    for bytes in [many.as_str(), bad_length, "\x16\x03\x01 no HTTP\r\n\r\n", "GET\r\n\r\n"] {
        let mut connection = RawConnection::open(&server.url).await;
        connection.write(bytes).await;
        let reply = connection.reply().await;
        assert!(reply.is_none_or(|reply| (400..500).contains(&reply.status)));
    }
    // The server may close the connection before it has read this much.
    let refused = server.try_send(Method::GET, "/healthz", &[("x-long", &"x".repeat(900_000))], "").await;
    assert!(refused.is_err() || refused.is_ok_and(|reply| (400..500).contains(&reply.status)));
    server.get("/healthz").await.ok();
}

#[tokio::test]
async fn connections_over_the_limit_are_answered_503() {
    let server = Server::with(&["--connections-max", "3"]).await;
    let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut connection = RawConnection::open(&server.url).await;
        connection.write(request).await;
        assert_eq!(connection.reply().await.unwrap().status, 200);
        open.push(connection);
    }
    let mut over = RawConnection::open(&server.url).await;
    over.write(request).await;
    over.reply().await.unwrap().refused(503).says("3");
    open[0].write(request).await;
    assert_eq!(open[0].reply().await.unwrap().status, 200, "those within are served on");
    open.pop();
    wait_until("there is room again", async || {
        let mut connection = RawConnection::open(&server.url).await;
        connection.write(request).await;
        connection.reply().await.filter(|reply| reply.status == 200)
    })
    .await;
}

/// No timeout applied before the first bytes had shown whether a connection speaks HTTP/1 or HTTP/2, so silent ones could
/// use up `connections_max`.
#[tokio::test]
async fn a_silent_connection_is_closed_and_frees_its_place() {
    let server = Server::with(&["--connections-max", "2", "--header-timeout-ms", "300"]).await;
    let _silent = RawConnection::open(&server.url).await;
    let mut begun = RawConnection::open(&server.url).await;
    begun.write("P").await;
    wait_until("there is room again", async || {
        let mut connection = RawConnection::open(&server.url).await;
        connection.write("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        connection.reply().await.filter(|reply| reply.status == 200)
    })
    .await;
}

/// A target accepted the event with 200, but its answer never ended: that counted as a failure, and the event was sent
/// again.
#[tokio::test]
async fn an_answer_that_does_not_end_counts_by_its_status() {
    let server = Server::with(&["--attempt-timeout-ms", "300", "--retry-schedule", "1h"]).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let subscription = server.subscribe(json!({"target_url": url})).await;
    let id = server.receive(&event("a")).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    // The answer must not come before the request.
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut [0; 5]).await.unwrap();
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nthus";
    tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes()).await.unwrap();
    let delivery = server.delivery_in(&id, &subscription, "delivered").await;
    let told = "thus\n(the rest did not come within 1 s)";
    assert_eq!(delivery["attempts"][0]["target"], json!({"status": 200, "body": told}));
}

#[tokio::test]
async fn a_full_queue_is_accepted_and_delivered_once_the_target_is_back() {
    let flags = ["--in-flight-max", "16", "--subscription-in-flight-max", "8"];
    let (server, target) = (Server::with(&flags).await, Target::start().await);
    let gate = target.hang("/t");
    server.subscribe(json!({"target_url": target.url("/t")})).await;
    for batch in 0..40 {
        let events: Vec<Value> = (0..100).map(|n| event(&format!("{batch}-{n}"))).collect();
        let ids = server.receive_as(BATCH, json!(events).to_string()).await.ok().text();
        assert_eq!(ids.lines().count(), 100);
    }
    assert!(target.requests("/t").len() <= 8);
    gate.open();
    let got = target.wait_for("/t", 4000).await;
    let mut ids: Vec<_> = got.iter().map(|request| request.event_id()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4000, "each exactly once");
    assert!(target.peak("/t") <= 8);
}

#[tokio::test]
async fn the_limit_applies_to_a_batch_as_one_body() {
    let server = Server::with(&["--event-bytes-max", "2000"]).await;
    let batch: Vec<Value> = (0..20).map(|n| event_1_0(&n.to_string())).collect();
    let reply = server.receive_as(BATCH, json!(batch).to_string()).await;
    reply.refused(413).says("2000");
    server.receive_as(BATCH, json!(batch[..3]).to_string()).await.ok();
}

/// The deliveries that events cause were not counted: a batch of small events could take unbounded memory.
#[tokio::test]
async fn the_deliveries_of_a_request_count_and_too_many_are_413() {
    let server = Server::with(&["--accept-bytes-max", "20000"]).await;
    for n in 0..200 {
        let fields = json!({"name": n.to_string(), "target_url": "http://127.0.0.1:9/", "max_in_flight": 1});
        server.subscribe(fields).await;
    }
    // 64 bytes for each of 200 deliveries.
    server.receive(&event_1_0("one")).await;
    let two = json!([event_1_0("a"), event_1_0("b")]).to_string();
    let refused = server.receive_as(BATCH, two).await.refused(413);
    refused.says("take more than 20000 bytes (the setting accept_bytes_max)");
    assert_eq!(server.get("/events").await.ok().json()["events"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn too_many_events_at_once_are_503_and_nothing_else() {
    let server = Server::with(&["--accept-bytes-max", "20000"]).await;
    wait_until("one is refused", async || {
        let posts = (0..32).map(|_| server.receive_as("application/json", sized(15_000)));
        let mut is_refused = false;
        for reply in futures_util::future::join_all(posts).await.iter().filter(|reply| reply.status != 200) {
            reply.refused(503).says("accept_bytes_max");
            assert_eq!(reply.header("retry-after"), "1");
            is_refused = true;
        }
        is_refused.then_some(())
    })
    .await;
    server.receive_as("application/json", sized(15_000)).await.ok();
}

/// Pending deliveries of a disabled subscription used to keep their events forever.
#[tokio::test]
async fn a_disabled_subscription_keeps_no_event_beyond_its_retention() {
    let flags = ["--retention", "1s", "--backlog-retention", "1s"];
    let (mut server, target) = (Server::with(&flags).await, Target::start().await);
    target.always("/t", crate::harness::Answer::status(503));
    let uuid = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let id = server.receive(&event("old")).await;
    server.delivery_in(&id, &uuid, "retrying").await;
    server.update(&uuid, &json!({"disabled": "2100-01-01T00:00:00Z"})).await;
    // Each start removes events past their retention.
    wait_until("the event is gone", async || {
        server.restart().await;
        (server.get(&format!("/events/{id}")).await.status == 404).then_some(())
    })
    .await;
}

// Requests per second, and the number of things per user

/// Sends concurrent requests that a proxy on this machine forwards for `address`, and returns the answers.
async fn forwarded(server: &Server, user: Option<&str>, address: &str, path: &str) -> Vec<Reply> {
    let api = user.map_or_else(|| (**server).clone(), |user| server.user(user));
    let headers = [("x-forwarded-for", address)];
    join_all((0..20).map(|_| api.send(Method::GET, path, &headers, ""))).await
}

/// Counts the answers that are good, and those that are refused with this setting's name.
fn split(replies: Vec<Reply>, setting: &str) -> (usize, usize) {
    let (good, refused): (Vec<_>, Vec<_>) = replies.into_iter().partition(|reply| reply.status != 429);
    for reply in &refused {
        assert!((1..=2).contains(&reply.header("retry-after").parse::<u32>().unwrap()));
    }
    let counts = (good.len(), refused.len());
    refused.into_iter().for_each(|reply| drop(reply.refused(429).says(&format!("(the setting {setting})"))));
    counts
}

#[tokio::test]
async fn only_the_address_that_sends_too_fast_is_429() {
    let server =
        Server::with(&["--address-requests-per-second", "1", "--trusted-proxies", "127.0.0.0/8"]).await;
    const SETTING: &str = "address_requests_per_second";
    for path in ["/events", "/healthz", "/nothing"] {
        let (good, refused) = split(forwarded(&server, None, "192.0.2.1", path).await, SETTING);
        assert!(good + refused == 20 && refused > 0, "{path}: {good} {refused}");
    }
    // All addresses of an IPv6 network count as one.
    let headers: Vec<_> = (0..20).map(|n| format!("2001:db8::{n:x}")).collect();
    let replies = headers.iter().map(async |address| {
        let headers = [("x-forwarded-for", address.as_str())];
        server.send(Method::GET, "/healthz", &headers, "").await
    });
    assert!(split(join_all(replies).await, SETTING).1 > 0);
    // Events count as well, and a refused one is not kept.
    let sent = (0..20).map(async |n| {
        let headers = [("x-forwarded-for", "192.0.2.2"), ("content-type", "application/json")];
        server
            .user("ann")
            .send(Method::POST, "/receive", &headers, event_1_0(&n.to_string()).to_string())
            .await
    });
    let (accepted, refused) = split(join_all(sent).await, SETTING);
    assert!(refused > 0);
    let listed = server.get("/events").await.ok().json()["events"].as_array().unwrap().len();
    assert_eq!(listed, accepted);
    // Requests from this machine are not counted, also if a proxy names it as the client.
    for _ in 0..20 {
        server.get("/healthz").await.ok();
    }
    assert_eq!(split(forwarded(&server, None, "127.0.0.1", "/healthz").await, SETTING), (20, 0));
    assert!(split(forwarded(&server, None, "127.0.0.1, 192.0.2.3", "/healthz").await, SETTING).1 > 0);
}

#[tokio::test]
async fn only_the_user_who_sends_too_fast_is_429() {
    let server = Server::with(&["--user-requests-per-second", "1", "--trusted-proxies", "127.0.0.0/8"]).await;
    let addresses: Vec<_> = (0..20).map(|n| format!("192.0.2.{n}")).collect();
    let asked = async |user: &str| {
        let api = server.user(user);
        let asked = addresses.iter().map(async |address| {
            let headers = [("x-forwarded-for", address.as_str()), ("content-type", "application/json")];
            api.send(Method::POST, "/receive", &headers, event_1_0("1").to_string()).await
        });
        split(join_all(asked).await, "user_requests_per_second")
    };
    assert!(asked("ann").await.1 > 0);
    let (good, _) = asked("bob").await;
    assert!(good > 0, "bob has a second of his own");
    for _ in 0..20 {
        server.user("ann").get("/events").await.ok();
    }
}

#[tokio::test]
async fn the_subscriptions_and_recoveries_of_a_user_are_limited() {
    let server = Server::with(&["--user-subscriptions-max", "2", "--user-recoveries-max", "1"]).await;
    let ann = server.user("ann");
    let body = json!({"name": "n", "jsonpath": "$", "target_url": "http://127.0.0.1:9/"});
    let made = join_all((0..10).map(|_| ann.post("/eventmatch", &body))).await;
    let (made, refused): (Vec<_>, Vec<_>) = made.into_iter().partition(|reply| reply.status == 200);
    assert_eq!((made.len(), refused.len()), (2, 8));
    refused
        .into_iter()
        .for_each(|reply| drop(reply.refused(507).says("(the setting user_subscriptions_max)")));
    server.user("bob").post("/eventmatch", &body).await.ok();
    // While a target hangs, its recovery waits.
    let uuids: Vec<_> = made.iter().map(|reply| reply.json()["uuid"].as_str().unwrap().to_owned()).collect();
    let path = |n: usize| format!("/eventmatch/{}", uuids[n]);
    for n in [0, 1] {
        ann.update(&uuids[n], &json!({"disabled": "2026-01-31T12:00:00Z"})).await;
    }
    let recover =
        async |n: usize| ann.post(&format!("{}/recover", path(n)), &json!({"since": "earliest"})).await;
    assert_eq!(recover(0).await.status, 202);
    recover(1).await.refused(429).says("(the setting user_recoveries_max)");
    recover(0).await.refused(409);
    ann.delete(&format!("{}/recover", path(0))).await.ok();
    assert_eq!(recover(1).await.status, 202);
    ann.delete(&path(1)).await.ok();
    ann.post("/eventmatch", &body).await.ok();
}
