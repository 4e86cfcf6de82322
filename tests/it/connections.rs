//! Connections and their bodies: how long they may be idle, how much memory bodies may take, and the answer to anything but
//! HTTP.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;

use crate::harness::{Api, Process, RawConnection, Server, event_1_0, wait_until};

const GET: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A connection was closed after 10 s without a request, since hyper's limit for headers begins at the end of the previous
/// request: clients that keep connections for longer got resets.
#[tokio::test]
async fn between_requests_the_idle_limit_applies_and_not_the_header_limit() {
    let server = Server::with(&["--header-timeout-ms", "300", "--idle-timeout-ms", "60000"]).await;
    let (mut idle, mut slow) =
        (RawConnection::open(&server.url).await, RawConnection::open(&server.url).await);
    for connection in [&mut idle, &mut slow] {
        connection.write(GET).await;
        connection.reply().await.unwrap().ok();
    }
    // Slow headers end the connection; by then the other one has been idle for as long.
    let begun = Instant::now();
    slow.write("GET /healthz HTTP/1.1\r\n").await;
    assert!(slow.reply().await.is_none());
    assert!(begun.elapsed() >= Duration::from_millis(300));
    idle.write(GET).await;
    idle.reply().await.unwrap().ok();
}

#[tokio::test]
async fn an_idle_connection_is_closed_at_its_limit() {
    let server = Server::with(&["--idle-timeout-ms", "1000"]).await;
    let mut connection = RawConnection::open(&server.url).await;
    connection.write(GET).await;
    connection.reply().await.unwrap().ok();
    let begun = Instant::now();
    connection.write(GET).await;
    connection.reply().await.unwrap().ok();
    assert!(connection.reply().await.is_none());
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
}

/// A request under way has limits of its own.
#[tokio::test]
async fn a_slow_body_does_not_count_as_an_idle_connection() {
    let flags = ["--idle-timeout-ms", "200", "--header-timeout-ms", "200", "--body-timeout-ms", "2000"];
    let server = Server::with(&flags).await;
    let mut connection = RawConnection::open(&server.url).await;
    connection.write("POST /receive HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{").await;
    connection.reply().await.unwrap().refused(408).says("body_timeout_ms");
}

/// hyper answers what it cannot parse with a bare status.
#[tokio::test]
async fn anything_but_http_is_answered_with_the_reason() {
    let server = Server::start().await;
    let many = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X-A: b\r\n".repeat(500));
    let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(70_000));
    for (bytes, status, says) in [
        ("\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03 no HTTP\r\n\r\n", 400, "http://"),
        ("GET\r\n\r\n", 400, "percent-encoded"),
        ("GET /events/a>b HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "percent-encoded"),
        ("GET /events?since=a b HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "percent-encoded"),
        ("POST /receive HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n", 400, "header"),
        (many.as_str(), 431, "100 headers"),
        (long.as_str(), 414, "URL"),
    ] {
        for used in [false, true] {
            let mut connection = RawConnection::open(&server.url).await;
            if used {
                connection.write(GET).await;
                connection.reply().await.unwrap().ok();
            }
            connection.write(bytes).await;
            let reply = connection.reply().await.unwrap_or_else(|| panic!("no answer to {bytes:.40?}"));
            assert_eq!(reply.header("connection"), "close");
            reply.refused(status).says(says);
            assert!(connection.reply().await.is_none(), "it is closed");
        }
    }
    // The request head does not end: the client sees the answer, and no reset for the bytes that it still sends.
    let mut connection = RawConnection::open(&server.url).await;
    connection.write(format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-A: {}", "x".repeat(600_000))).await;
    connection.reply().await.unwrap().refused(431).says("400 KiB");
}

/// Anything written between two requests used to be taken for such an answer of hyper.
#[tokio::test]
async fn answers_that_look_like_hypers_own_are_not_rewritten() {
    let server = Server::start().await;
    let mut connection = RawConnection::open(&server.url).await;
    for round in 0..3 {
        let requests = format!("{GET}GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n{GET}");
        connection.write(requests).await;
        connection.reply().await.unwrap().ok();
        connection.reply().await.unwrap().refused(404);
        connection.reply().await.unwrap_or_else(|| panic!("round {round}")).ok();
    }
}

/// Slow bodies held memory without a bound: each connection could hold as much as the largest event.
#[tokio::test]
async fn slow_uploads_are_bounded_and_do_not_block_small_events() {
    let sizes =
        ["--event-bytes-max", "1000000", "--subscription-bytes-max", "1000", "--plugin-bytes-max", "1000"];
    let server = Server::with(&[&sizes[..], &["--bodies-bytes-max", "3000000"]].concat()).await;
    let mut uploads = Vec::new();
    let refused = loop {
        let mut upload = RawConnection::open(&server.url).await;
        let head = "POST /receive HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 900000\r\n\r\n";
        upload.write(head).await;
        upload.write("x".repeat(600_000)).await;
        uploads.push(upload);
        // The length that a request announces takes no room: a client has to send bytes before it reaches the bound.
        let probe = "x".repeat(900_000);
        let reply = server.receive_as("application/json", probe).await;
        if reply.status == 503 {
            break reply;
        }
        reply.refused(400);
        assert!(uploads.len() < 10);
    };
    assert_eq!(refused.header("retry-after"), "1");
    refused.refused(503).says("bodies_bytes_max");
    for n in 0..20 {
        server.receive(&event_1_0(&n.to_string())).await;
    }
    drop(uploads);
    wait_until("what the uploads held is free", async || {
        let reply = server.receive_as("application/json", "x".repeat(900_000)).await;
        (reply.status == 400).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_slash_at_the_end_of_a_path_is_ignored() {
    let server = Server::start().await;
    let headers = [("content-type", "application/json")];
    let reply = server.send(Method::POST, "/receive/", &headers, event_1_0("1").to_string()).await;
    let id = reply.ok().text();
    let body = json!({"name": "n", "jsonpath": "$", "target_url": "http://127.0.0.1:9/"});
    let uuid = server.post("/eventmatch/", &body).await.ok().json()["uuid"].as_str().unwrap().to_owned();
    for path in [
        format!("/eventmatch/{uuid}/"),
        format!("/eventmatch/{uuid}/deliveries/"),
        format!("/events/{id}/"),
        format!("/status/{id}/"),
        format!("/get/{id}/"),
        "/events/?limit=1".to_owned(),
        "/plugins/".to_owned(),
        "/scriptlog/".to_owned(),
        "/healthz/".to_owned(),
        "/readyz/".to_owned(),
    ] {
        server.get(&path).await.ok();
    }
    assert_eq!(server.send(Method::OPTIONS, "/receive/", &[], "").await.status, 200);
    server.get("/healthz//").await.refused(404);
    server.get("/dispatch/unknown/").await.refused(404).says("unknown");
    server.send(Method::PATCH, "/events/", &[], "").await.refused(405);
}

#[tokio::test]
async fn lists_refuse_bad_parameters_alike() {
    let server = Server::start().await;
    let uuid = server.subscribe(json!({"target_url": "http://127.0.0.1:9/"})).await;
    let deliveries = format!("/eventmatch/{uuid}/deliveries");
    for list in ["/events", "/", "/scriptlog", "/eventmatch", &deliveries] {
        for bad in [
            "limit=0",
            "limit=-1",
            "limit=",
            "limit=x",
            "limit=1&limit=2",
            "limt=1",
            "limit=99999999999999999999",
        ] {
            server.get(&format!("{list}?{bad}")).await.refused(400).says("`limit` (How many");
        }
        server.get(&format!("{list}?limit=1")).await.ok();
    }
    server.get("/events?limit=0").await.refused(400).says("a number from 1 on");
    for list in ["/plugins", "/tokens", "/sessions"] {
        server.get(&format!("{list}?limit=1")).await.ok();
        server.get(&format!("{list}?limt=1")).await.refused(400).says("`limit` (How many");
    }
    for list in ["/events", "/", "/scriptlog"] {
        let path = |plus: &str| format!("{list}?since=2026-01-31T12:00:00{plus}01:00");
        server.get(&path("+")).await.refused(400).says("%2B");
        server.get(&path("%2B")).await.ok();
        let hint = server.get(&format!("{list}?since=yesterday+noon")).await.refused(400).detail;
        assert!(!hint.contains("%2B"), "{hint}");
    }
}

#[tokio::test]
async fn a_name_to_listen_on_is_resolved() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Process::waypost(&["serve", "--listen", "localhost:0"], folder.path());
    let url = server.address().await;
    Api::new(url.replace("127.0.0.1", "localhost")).get("/healthz").await.ok();
}
