//! Streams of what happens: server-sent events, from where a client was.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::harness::{Answer, Server, Target, event_1_0, merged, wait_until};

/// A client of a stream.
struct Stream {
    lines: tokio::io::Lines<BufReader<OwnedReadHalf>>,
    status: u16,
    _write: OwnedWriteHalf,
}

#[derive(Debug, PartialEq)]
struct Message {
    name: String,
    id: Option<String>,
    data: Value,
}

impl Stream {
    async fn open(server: &Server, path: &str, headers: &[(&str, &str)]) -> Self {
        let address = server.url.strip_prefix("http://").unwrap();
        let (read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n{headers}\r\n");
        write.write_all(request.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(read).lines();
        let first = lines.next_line().await.unwrap().unwrap();
        let status = first.split(' ').nth(1).unwrap().parse().unwrap();
        while !lines.next_line().await.unwrap().unwrap().is_empty() {}
        Self { lines, status, _write: write }
    }

    /// Returns the next message; `None` at the end.
    async fn next(&mut self) -> Option<Message> {
        let mut message = Message { name: String::new(), id: None, data: Value::Null };
        loop {
            let line = tokio::time::timeout(Duration::from_secs(25), self.lines.next_line());
            let line = line.await.expect("a message comes").ok().flatten()?;
            // Other lines are the sizes of chunks, and comments.
            match line.split_once(": ") {
                Some(("event", name)) => message.name = name.to_owned(),
                Some(("id", id)) => message.id = Some(id.to_owned()),
                Some(("data", data)) => message.data = serde_json::from_str(data).unwrap(),
                Some(_) => {}
                None if line.is_empty() && !message.name.is_empty() => return Some(message),
                None => {}
            }
        }
    }
}

#[tokio::test]
async fn events_are_followed_and_a_stream_goes_on_where_it_was_cut_off() {
    let mut server = Server::start().await;
    let before = server.receive(&event_1_0("before")).await;
    let mut all = Stream::open(&server, "/events/tail", &[]).await;
    let mut some = Stream::open(&server, "/events/tail?jsonpath=$[?@=='wanted']", &[]).await;
    assert_eq!((all.status, some.status), (200, 200));
    let first = server.receive(&event_1_0("first")).await;
    let second = server.receive(&merged(event_1_0("second"), json!({"subject": "wanted"}))).await;
    let message = all.next().await.unwrap();
    assert_eq!((message.name.as_str(), message.id.as_ref()), ("event", Some(&first)), "not {before}");
    assert_eq!(message.data["event_id"], "first");
    assert_eq!(all.next().await.unwrap().id.as_ref(), Some(&second));
    assert_eq!(some.next().await.unwrap().id.as_ref(), Some(&second));
    drop(all);
    // What was sent in between comes first, also from another process.
    let third = server.receive(&event_1_0("third")).await;
    server.restart().await;
    let mut again = Stream::open(&server, "/events/tail", &[("last-event-id", &first)]).await;
    let ids = [again.next().await.unwrap().id.unwrap(), again.next().await.unwrap().id.unwrap()];
    assert_eq!(ids, [second, third]);
    assert_eq!(Stream::open(&server, "/events/tail", &[("last-event-id", "x")]).await.status, 400);
    assert_eq!(Stream::open(&server, "/events/tail?jsonpath=$[", &[]).await.status, 422);
}

#[tokio::test]
async fn the_deliveries_of_a_subscription_are_followed_from_state_to_state() {
    let (server, target) = (Server::start().await, Target::start().await);
    target.answers("/t", [Answer::status(503), Answer::status(200)]);
    let wanted = json!({"target_url": target.url("/t"), "retry": "10ms"});
    let subscription = server.subscribe(wanted).await;
    let path = format!("/eventmatch/{subscription}/tail");
    let mut stream = Stream::open(&server, &path, &[]).await;
    let event = server.receive(&event_1_0("one")).await;
    let mut last = None;
    loop {
        let message = stream.next().await.unwrap();
        assert_eq!((message.name.as_str(), &message.data["event"]), ("delivery", &json!(event)));
        if message.data["state"] == "delivered" {
            assert_eq!(message.data["attempts"].as_array().unwrap().len(), 2);
            break;
        }
        last = message.id;
    }
    drop(stream);
    // With an id from before the end, the end is sent again; sending it again is a change, too.
    let last = last.unwrap_or_else(|| "0".to_owned());
    let mut stream = Stream::open(&server, &path, &[("last-event-id", &last)]).await;
    let message = stream.next().await.unwrap();
    assert_eq!((&message.data["state"], &message.data["event"]), (&json!("delivered"), &json!(event)));
    server.post(&format!("/events/{event}/retry"), &Value::Null).await.ok();
    loop {
        let message = stream.next().await.unwrap();
        if message.data["redeliveries"].as_array().is_some_and(|list| !list.is_empty()) {
            break;
        }
    }
}

/// More than the newest page of deliveries had been missed, and the rest of them never came.
#[tokio::test]
async fn all_deliveries_that_were_missed_follow() {
    let (server, target) = (Server::start().await, Target::start().await);
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let batch: Vec<_> = (0..250).map(|number| event_1_0(&number.to_string())).collect();
    let batch = serde_json::to_vec(&batch).unwrap();
    server.receive_as("application/cloudevents-batch+json", batch).await.ok();
    let all = format!("/eventmatch/{subscription}/deliveries?state=delivered&limit=1000");
    wait_until("all are delivered", async || {
        let page = server.get(&all).await.ok().json();
        (page["deliveries"].as_array().unwrap().len() == 250).then_some(())
    })
    .await;
    let path = format!("/eventmatch/{subscription}/tail");
    let mut stream = Stream::open(&server, &path, &[("last-event-id", "0")]).await;
    let mut missed = std::collections::BTreeSet::new();
    while missed.len() < 250 {
        let message = stream.next().await.unwrap();
        assert_eq!((message.name.as_str(), &message.data["state"]), ("delivery", &json!("delivered")));
        assert!(missed.insert(message.data["event"].to_string()), "each once");
    }
}

/// Policy had let nobody see the event yet, and the stream has no way to know when it does: it looks again.
#[tokio::test]
async fn a_stream_shows_an_event_once_policy_has_let_its_reader_see_it() {
    let (policy, target) = (Target::start().await, Target::start().await);
    let gate = policy.hang("/events/ann");
    let server = Server::wide(&["--allow-targets", "127.0.0.0/8", "--policy-url", &policy.url("")]).await;
    let (ann, bob) = (server.user("ann"), server.user("bob"));
    ann.subscribe(json!({"target_url": target.url("/ann")})).await;
    let mut anns = Stream::open(&server, "/events/tail", &[("http-remote-user", "ann")]).await;
    let mut bobs = Stream::open(&server, "/events/tail", &[("http-remote-user", "bob")]).await;
    let event = server.receive(&event_1_0("one")).await;
    wait_until("policy is asked", async || policy.requests("/events/ann").pop()).await;
    gate.open();
    assert_eq!(anns.next().await.unwrap().id, Some(event));
    // Bob has no subscription: of all that happens, he sees what he sends.
    let own = bob.receive(&event_1_0("own")).await;
    assert_eq!(bobs.next().await.unwrap().id, Some(own));
}

#[tokio::test]
async fn a_user_has_a_few_streams_and_a_server_that_stops_ends_them() {
    let mut server = Server::start().await;
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(Stream::open(&server, "/events/tail", &[]).await);
    }
    assert_eq!(Stream::open(&server, "/events/tail", &[]).await.status, 429);
    drop(streams.pop());
    // The server sees that a client is gone when it writes to it.
    wait_until("there is room again", async || {
        server.receive(&event_1_0("wake")).await;
        let stream = Stream::open(&server, "/events/tail", &[]).await;
        (stream.status == 200).then_some(())
    })
    .await;
    server.terminate();
    let mut last = None;
    while let Some(message) = streams[0].next().await {
        last = Some(message.name);
    }
    assert_eq!(last.as_deref(), Some("bye"));
    assert!(server.exited().await.success());
}

/// A reader that takes nothing must cost neither memory nor others' time, and learns what it has missed.
#[tokio::test]
async fn a_slow_reader_is_told_what_it_has_missed() {
    let server = Server::start().await;
    let first = server.receive(&event_1_0("first")).await;
    let batch: Vec<_> = (0..1_000).map(|number| event_1_0(&number.to_string())).collect();
    let batch = serde_json::to_vec(&batch).unwrap();
    for _ in 0..12 {
        server.receive_as("application/cloudevents-batch+json", batch.clone()).await.ok();
    }
    let newest = server.get("/events?limit=1").await.ok().json()["events"][0]["id"].clone();
    let mut stream = Stream::open(&server, "/events/tail", &[("last-event-id", &first)]).await;
    let mut count = 0;
    let gap = loop {
        let message = stream.next().await.unwrap();
        if message.name == "gap" {
            break message;
        }
        count += 1;
    };
    assert!((10_000..12_000).contains(&count), "{count}");
    assert_eq!(gap.data["until"], newest);
    assert!(gap.data["after"].is_string(), "{gap:?}");
    let next = server.receive(&event_1_0("next")).await;
    assert_eq!(stream.next().await.unwrap().id, Some(next));
}

/// A stream went on for as long as it was connected, whatever became of the token that had opened it.
#[tokio::test]
async fn a_stream_ends_with_the_token_of_its_reader() {
    let server = Server::start().await;
    let token = server.post("/tokens", &json!({"user": "ann"})).await.json();
    let authorization = format!("Bearer {}", token["token"].as_str().unwrap());
    let headers = [("authorization", authorization.as_str())];
    let mut stream = Stream::open(&server, "/events/tail", &headers).await;
    let as_ann = [headers[0], ("content-type", "application/cloudevents+json")];
    let own = server.send(http::Method::POST, "/receive", &as_ann, event_1_0("own").to_string()).await;
    let own = own.ok().text();
    assert_eq!(stream.next().await.unwrap().id, Some(own));
    let path = format!("/tokens/{}", token["id"].as_str().unwrap());
    assert_eq!(server.delete(&path).await.status, 204);
    let message = stream.next().await.unwrap();
    assert_eq!((message.name.as_str(), &message.data["title"]), ("error", &json!("Unauthorized")));
}

/// Over HTTP/2, an answer without an end looked like a client that takes nothing: after `idle_timeout_ms` it was cut off.
#[tokio::test]
async fn a_stream_over_http_2_is_not_silent_while_it_has_messages() {
    const IDLE: Duration = Duration::from_secs(2);
    let server = Server::with(&["--idle-timeout-ms", "2000", "--header-timeout-ms", "2000"]).await;
    let tcp = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await.unwrap();
    let (mut client, connection) = h2::client::handshake(tcp).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(connection);
    let request = http::Request::get(format!("{}/events/tail", server.url)).body(()).unwrap();
    let mut body = client.send_request(request, true).unwrap().0.await.unwrap().into_body();
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < 3 * IDLE {
        server.receive(&event_1_0("one")).await;
        let chunk = body.data().await.expect("the stream goes on").unwrap();
        body.flow_control().release_capacity(chunk.len()).unwrap();
    }
}
