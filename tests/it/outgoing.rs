//! Outgoing requests: only the target's status decides a delivery, and nothing else in its answer, its connections or the
//! environment.

use serde_json::{Value, json};

use crate::harness::{Act, Answer, Launch, RawTarget, Server, Target, event, event_1_0, run_in, wait_until};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// All variables that name a proxy, without the variable for exceptions, which could hide that one of them is used.
fn proxied(proxy: &str) -> [(&str, &str); 8] {
    [
        ("http_proxy", proxy),
        ("https_proxy", proxy),
        ("all_proxy", proxy),
        ("HTTP_PROXY", proxy),
        ("HTTPS_PROXY", proxy),
        ("ALL_PROXY", proxy),
        ("no_proxy", ""),
        ("NO_PROXY", ""),
    ]
}

// The environment

/// With `http_proxy` set in a login shell, the policy request and its event went to the proxy, whose 403 was a final
/// `denied`.
#[tokio::test]
async fn no_proxy_of_the_environment_gets_a_delivery_or_a_policy_request() {
    let (proxy, policy, target) = (Target::start().await, Target::start().await, Target::start().await);
    let url = proxy.url("");
    let env = proxied(&url);
    let server = Server::launch(Launch::Plain, &["--policy-url", &policy.url("")], &env).await;
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let folder = tempfile::tempdir().unwrap();
    let send = ["send", "--to", &server.url, "-"];
    let sent = run_in(folder.path(), &send, &env, &event_1_0("a").to_string()).await;
    assert_eq!(sent.code, 0, "{}", sent.stderr);
    server.delivery_in(sent.stdout.trim(), &subscription, "delivered").await;
    assert_eq!(policy.requests("/events/anonymous").len(), 1);
    assert_eq!(target.requests("/t").len(), 1);
    assert!(proxy.all().is_empty(), "{:?}", proxy.all());
}

/// Requests to carts and ingest services went through the proxy, too.
#[tokio::test]
async fn no_proxy_of_the_environment_gets_a_cart_request_or_an_upload() {
    let (proxy, service) = (Target::start().await, Target::start().await);
    service.always("/upload", Answer::status(500).body("full"));
    let url = proxy.url("");
    let env = proxied(&url);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("event.json"), with_a_file()).unwrap();
    let run = async |rest: &str| {
        std::fs::write(folder.path().join("waypost.toml"), handler(rest)).unwrap();
        run_in(folder.path(), &RUN, &env, "").await
    };
    let cart = format!("fetch = {{ cart = \"{}\" }}\n", service.url("/cart"));
    let ran = run(&cart).await;
    assert_ne!(ran.code, 0, "this cart service answers 200 where one answers 201: {}", ran.stdout);
    assert!(service.all().iter().any(|request| request.path.starts_with("/cart/")));
    let (upload, status) = (service.url("/upload"), service.url("/status"));
    let ingest = format!("upload = {{ ingest = \"{upload}\", status = \"{status}\" }}\n");
    std::fs::write(folder.path().join("event.json"), event_1_0("b").to_string()).unwrap();
    run(&ingest).await;
    let got = service.requests("/upload");
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].header("waypost-agent"), "service");
    assert!(proxy.all().is_empty(), "{:?}", proxy.all());
}

/// Runs the handler of [`handler`].
const RUN: [&str; 8] =
    ["handler", "run", "h", "--config", "waypost.toml", "--event", "event.json", "--upload"];

/// Configures a handler with these further lines.
fn handler(rest: &str) -> String {
    let table =
        "[[handler]]\nname = \"h\"\nfilter = \"$\"\ncommand = [\"sh\", \"-c\", \"echo x > output/x\"]\n";
    format!("{table}upload_retry_schedule = \"none\"\n{rest}")
}

fn with_a_file() -> String {
    let file = json!({
        "destinationTable": "Files", "_id": 1, "name": "a", "subdir": "", "size": 1, "hashtype": "sha1",
        "hashsum": "86f7e437faa5a7fce15d1ddcb9eaeaea377667b8", "mimetype": "text/plain",
        "ctime": "2026-01-01T00:00:00", "mtime": "2026-01-01T00:00:00",
    });
    json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": [file]}).to_string()
}

/// The command line followed redirects, and sent the user header along.
#[tokio::test]
async fn the_command_line_follows_no_redirect() {
    let (server, elsewhere) = (Target::start().await, Target::start().await);
    server.always("/receive", Answer::status(307).header("location", elsewhere.url("/receive")));
    let folder = tempfile::tempdir().unwrap();
    let send = ["send", "--to", &server.url(""), "--user", "me", "-"];
    let sent = run_in(folder.path(), &send, &[], &event_1_0("a").to_string()).await;
    assert_ne!(sent.code, 0);
    assert!(sent.stderr.contains("307"), "{}", sent.stderr);
    assert!(elsewhere.all().is_empty());
}

// Odd answers

/// Returns how a delivery ends whose target gives this answer, without another attempt.
async fn answered(act: Act) -> (String, Value, Value) {
    let (server, target) = (Server::start().await, RawTarget::always(act).await);
    let subscription = server.subscribe(json!({"target_url": target.url("/t"), "retry": "none"})).await;
    let id = server.receive(&event("a")).await;
    let delivery = wait_until("the delivery has ended", async || {
        let delivery = server.delivery(&id, &subscription).await;
        matches!(delivery["state"].as_str(), Some("delivered" | "dead")).then_some(delivery)
    })
    .await;
    assert_eq!(target.requests().len(), 1, "it is sent once");
    let target = delivery["attempts"][0]["target"].clone();
    (delivery["state"].as_str().unwrap().to_owned(), target, delivery["reason"].clone())
}

/// Each of these answers counted as "cannot be reached": ten attempts, a dead letter, and a disabled subscription.
#[tokio::test]
async fn a_200_delivers_whatever_its_headers_look_like() {
    let many: String = (0..101).map(|n| format!("x-{n}: {n}\r\n")).collect();
    for headers in [
        "X-A : 1\r\n",
        "X-A: one\r\n two\r\n",
        "X-A: \u{1}\r\n",
        "no colon here\r\n",
        "(x): 1\r\n",
        &many,
        &format!("x: {}\r\n", "y".repeat(500_000)),
        "content-length: 2\r\ncontent-length: 3\r\n",
        "transfer-encoding: gzip, rot13\r\n",
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{headers}connection: close\r\n\r\nok");
        let (state, target, reason) = answered(Act::Last(answer.into_bytes())).await;
        let shown = &headers[..headers.len().min(60)];
        assert_eq!(state, "delivered", "{shown:?}: {reason}");
        assert_eq!(target["status"], 200, "{shown:?}");
        let body = target["body"].as_str().unwrap();
        assert!(body == "ok" || body.contains("cannot be read"), "{shown:?}: {body}");
    }
}

#[tokio::test]
async fn any_other_status_counts_as_itself() {
    let answer = "HTTP/1.1 410 Gone\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n";
    let (state, target, reason) = answered(Act::Last(answer.into())).await;
    assert_eq!((state.as_str(), &target["status"]), ("dead", &json!(410)));
    assert!(reason.as_str().unwrap().contains("410 Gone"), "{reason}");
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_reported_as_such() {
    for (answer, begin) in [
        ("SSH-2.0-OpenSSH_9.9\r\n", "SSH-2.0-OpenSSH_9.9"),
        ("220 mail ready\r\n", "220 mail ready"),
        ("{}", "{}"),
    ] {
        let (state, target, reason) = answered(Act::Last(answer.into())).await;
        assert_eq!((state.as_str(), target), ("dead", Value::Null));
        let reason = reason.as_str().unwrap();
        assert!(reason.contains("the target's answer is no HTTP") && reason.contains(begin), "{reason}");
    }
    let (state, _, reason) = answered(Act::Last(b"HTTP/1.1 10".to_vec())).await;
    assert_eq!(state, "dead");
    assert!(reason.as_str().unwrap().contains("the target gave no answer"), "{reason}");
}

// Slow bodies

/// The attempt lasted until its timeout although the status had decided it, and a stop meanwhile repeated it.
#[tokio::test]
async fn a_status_decides_before_the_body_has_arrived() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nbegun".to_vec();
    let target = RawTarget::always(Act::Stall(head)).await;
    let server = Server::with(&["--attempt-timeout-ms", "600000"]).await;
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let id = server.receive(&event("a")).await;
    let delivery = server.delivery_in(&id, &subscription, "delivered").await;
    let body = delivery["attempts"][0]["target"]["body"].as_str().unwrap();
    assert_eq!(body, "begun\n(the rest did not come within 1 s)");
}

#[tokio::test]
async fn a_stop_does_not_repeat_a_delivery_whose_status_has_arrived() {
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbegun\r\n".to_vec();
    let target = RawTarget::always(Act::Stall(head)).await;
    let mut server = Server::with(&["--attempt-timeout-ms", "600000"]).await;
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let id = server.receive(&event("a")).await;
    target.wait_for(1).await;
    server.terminate();
    assert!(server.exited().await.success());
    server.restart().await;
    server.delivery_in(&id, &subscription, "delivered").await;
    assert_eq!(target.requests().len(), 1);
}

#[tokio::test]
async fn a_policy_servers_status_decides_before_its_body_has_arrived() {
    let head = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 1000\r\n\r\nno".to_vec();
    let (policy, target) = (RawTarget::always(Act::Stall(head)).await, Target::start().await);
    let flags = ["--policy-url", &policy.url(""), "--policy-timeout-ms", "600000"];
    let server = Server::with(&flags).await;
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let id = server.receive(&event("a")).await;
    let delivery = server.delivery_in(&id, &subscription, "denied").await;
    assert_eq!(delivery["attempts"][0]["policy"], json!({"status": 403, "body": "no"}));
}

/// A refusal whose body did not end held up a run for a minute.
#[tokio::test]
async fn the_status_of_a_cart_or_an_ingest_service_decides_before_its_body_has_arrived() {
    let head = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 1000\r\n\r\nthe disk is full".to_vec();
    let service = RawTarget::always(Act::Stall(head)).await;
    let folder = tempfile::tempdir().unwrap();
    let (upload, status) = (service.url("/upload"), service.url("/status"));
    for (event, rest) in [
        (with_a_file(), format!("fetch = {{ cart = \"{}\" }}\n", service.url("/cart"))),
        (
            event_1_0("a").to_string(),
            format!("upload = {{ ingest = \"{upload}\", status = \"{status}\" }}\n"),
        ),
    ] {
        std::fs::write(folder.path().join("event.json"), event).unwrap();
        std::fs::write(folder.path().join("waypost.toml"), handler(&rest)).unwrap();
        // The harness waits for 30 s.
        let ran = run_in(folder.path(), &RUN, &[], "").await;
        let said = ran.stdout + &ran.stderr;
        assert!(said.contains("the disk is full"), "{rest}: {said}");
    }
}

// Kept connections

/// Delivers an event to a target's `/first`, on a connection that is kept, and then accepts one for `/second`. Returns the
/// subscription and the second event's id.
async fn to_first_and_then_to_second(server: &Server, target: &RawTarget) -> (String, String) {
    let fields = |path: &str| json!({"target_url": target.url(path), "retry": "none"});
    let subscription = server.subscribe(fields("/first")).await;
    let first = server.receive(&event("a")).await;
    server.delivery_in(&first, &subscription, "delivered").await;
    server.update(&subscription, &fields("/second")).await;
    let second = server.receive(&event("b")).await;
    (subscription, second)
}

/// A target may close an idle connection just as the next event is sent: that made a dead letter, and disabled the
/// subscription.
#[tokio::test]
async fn a_closed_kept_connection_is_not_the_targets_failure() {
    let target = RawTarget::start(|request| match request.connection {
        0 if request.line().contains("/second") => Act::Last(Vec::new()),
        _ => Act::Answer(OK.to_vec()),
    })
    .await;
    let server = Server::start().await;
    let (subscription, second) = to_first_and_then_to_second(&server, &target).await;
    let delivery = server.delivery_in(&second, &subscription, "delivered").await;
    assert_eq!(delivery["attempts"].as_array().unwrap().len(), 1, "it is not counted: {delivery}");
    assert_eq!(server.subscription(&subscription).await["disabled"], Value::Null);
    let got = target.requests();
    let connections: Vec<_> = got.iter().map(|request| request.connection).collect();
    assert_eq!(connections, [0, 0, 1]);
    assert_eq!(got[1].header("webhook-id"), got[2].header("webhook-id"));
    assert_ne!(got[0].header("webhook-id"), got[1].header("webhook-id"));
}

#[tokio::test]
async fn a_request_is_repeated_once_and_only_on_a_kept_connection_without_an_answer() {
    // A new connection that is closed is the target's failure.
    let (state, target, reason) = answered(Act::Last(Vec::new())).await;
    assert_eq!((state.as_str(), target), ("dead", Value::Null));
    assert!(reason.as_str().unwrap().contains("the target gave no answer"), "{reason}");
    // The request on a kept connection is repeated once.
    let target = RawTarget::start(|request| match request.line().contains("/second") {
        true => Act::Last(Vec::new()),
        false => Act::Answer(OK.to_vec()),
    })
    .await;
    let server = Server::start().await;
    let (subscription, second) = to_first_and_then_to_second(&server, &target).await;
    server.delivery_in(&second, &subscription, "dead").await;
    assert_eq!(target.requests().len(), 3);
}

#[tokio::test]
async fn a_closed_kept_connection_is_not_the_policy_servers_failure() {
    let policy = RawTarget::start(|request| match request.connection {
        0 if request.line().contains("/second") => Act::Last(Vec::new()),
        _ => Act::Answer(OK.to_vec()),
    })
    .await;
    let target = Target::start().await;
    let server = Server::with(&["--policy-url", &policy.url("")]).await;
    for user in ["first", "second"] {
        let fields = json!({"target_url": target.url("/t"), "retry": "none", "jsonpath": format!("$[?$.eventID == '{user}']")});
        let subscription = server.user(user).subscribe(fields).await;
        let id = server.receive(&event(user)).await;
        server.delivery_in(&id, &subscription, "delivered").await;
    }
    let connections: Vec<_> = policy.requests().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [0, 0, 1]);
}

// Retry-After

/// Only the current date format, and seconds that fit into 64 bits, were understood.
#[tokio::test]
async fn retry_after_is_understood_in_each_form_of_http() {
    for retry_after in [
        "Friday, 31-Dec-60 23:59:59 GMT",
        "Thu Dec 31 23:59:59 2099",
        "Thu, 31 Dec 2099 23:59:59 GMT",
        "99999999999999999999",
    ] {
        let (server, target) = (Server::start().await, Target::start().await);
        target.always("/t", Answer::status(503).header("retry-after", retry_after));
        let subscription = server.subscribe(json!({"target_url": target.url("/t"), "retry": "1s,1s"})).await;
        let id = server.receive(&event("a")).await;
        let delivery = server.delivery_in(&id, &subscription, "retrying").await;
        let at = |field: &Value| field.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        let wait = at(&delivery["due"]).duration_since(at(&delivery["attempts"][0]["at"]));
        assert!(wait.as_hours() >= 23, "{retry_after}: {wait:?}");
    }
}

// Target URLs

/// Bytes that a request line must not contain were sent unescaped.
#[tokio::test]
async fn a_target_url_is_returned_as_written_and_sent_as_a_browser_sends_it() {
    let target = RawTarget::always(Act::Answer(OK.to_vec())).await;
    let server = Server::start().await;
    let url = target.url("/größe/a\"b|c{}?q=ä b".replace(' ', "%20").as_str());
    let subscription = server.subscribe(json!({"target_url": url})).await;
    assert_eq!(server.subscription(&subscription).await["target_url"], url);
    let id = server.receive(&event("a")).await;
    server.delivery_in(&id, &subscription, "delivered").await;
    let line = target.requests()[0].line().to_owned();
    assert_eq!(line, "POST /gr%C3%B6%C3%9Fe/a%22b|c%7B%7D?q=%C3%A4%20b HTTP/1.1");
    let fields = json!({"name": "n", "jsonpath": "$", "target_url": "http://größe.example/"});
    let refused = server.post("/eventmatch", &fields).await.refused(422).at("/target_url");
    refused.says("write `xn--gre-6ka8i.example` for `größe.example`");
}
