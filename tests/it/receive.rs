//! `/receive`: every mode and version, invalid events, and the answers (FACTS 4 and 10).

use http::Method;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::harness::{Api, Reply, Server, Target, event, event_1_0, merged};

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

fn is_id(text: &str) -> bool {
    text.len() == 36 && text.parse::<uuid::Uuid>().is_ok_and(|id| id.get_version_num() == 7)
}

/// Posts data with the `ce-` headers of a valid 1.0 event; `over` replaces some of them (or, with "", omits them).
async fn binary(api: &Api, over: &[(&str, &str)], data: &str) -> Reply {
    let mut headers = vec![
        ("ce-specversion", "1.0"),
        ("ce-id", "bin-1"),
        ("ce-source", "/it"),
        ("ce-type", "it.binary"),
        ("content-type", "application/json"),
    ];
    for (name, value) in over {
        headers.retain(|(known, _)| known != name);
        if !value.is_empty() {
            headers.push((name, value));
        }
    }
    api.send(Method::POST, "/receive", &headers, data.to_owned()).await
}

async fn logged(api: &Api) -> usize {
    api.get("/events").await.ok().json()["events"].as_array().unwrap().len()
}

#[tokio::test]
async fn an_event_answers_its_bare_id() {
    let server = Server::start().await;
    let types =
        ["application/json", "application/cloudevents+json", "application/cloudevents+json; charset=utf-8"];
    for content_type in
        types.into_iter().chain(["Application/JSON", "APPLICATION/CLOUDEVENTS+JSON;charset=UTF-8"])
    {
        let reply = server.receive_as(content_type, event("a").to_string()).await.ok();
        assert!(is_id(&reply.text()), "{content_type}: {}", reply.text());
        assert!(reply.header("content-type").starts_with("text/plain"));
        assert_eq!(server.story(&reply.text()).await["event"], event("a"));
    }
    let reply = server.send(Method::POST, "/receive", &[], event("a").to_string()).await.ok();
    assert!(is_id(&reply.text()), "no content type at all");
}

#[tokio::test]
async fn the_answer_is_json_if_accept_prefers_it() {
    let server = Server::start().await;
    let receive = async |accept: &str, content_type: &str, body: Value| {
        let headers = [("accept", accept), ("content-type", content_type)];
        server.send(Method::POST, "/receive", &headers, body.to_string()).await.ok()
    };
    let reply = receive("application/json", STRUCTURED, event("a")).await;
    assert_eq!(reply.header("content-type"), "application/json");
    assert!(is_id(reply.json().as_str().unwrap()));
    for text in ["*/*", "text/plain", "text/html, */*;q=0.1", "text/plain, application/json;q=0.5"] {
        assert!(is_id(&receive(text, STRUCTURED, event("a")).await.text()), "{text}");
    }
    let ids = receive("application/json", BATCH, json!([event("a"), event("b")])).await.json();
    assert!(ids.as_array().unwrap().iter().all(|id| is_id(id.as_str().unwrap())), "{ids}");
    assert_eq!(receive("application/json", BATCH, json!([])).await.json(), json!([]));
}

#[tokio::test]
async fn ids_are_those_of_status_get_and_events_and_sort_by_time() {
    let server = Server::start().await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(server.receive(&event(&format!("e{n}"))).await);
    }
    assert!(ids.is_sorted(), "{ids:?}");
    for id in &ids {
        server.get(&format!("/status/{id}")).await.ok();
        server.get(&format!("/get/{id}")).await.ok();
        server.get(&format!("/events/{id}")).await.ok();
    }
}

#[tokio::test]
async fn every_version_is_accepted_structured() {
    let server = Server::start().await;
    let id_0_2 = json!({"specversion": "0.2", "type": "t", "source": "/s", "id": "i", "contenttype": "application/json"});
    let id_0_3 =
        json!({"specversion": "0.3", "type": "t", "source": "/s", "id": "i", "subject": "x", "data": [1]});
    for (version, event) in [("0.1", event("i")), ("0.2", id_0_2), ("0.3", id_0_3), ("1.0", event_1_0("i"))] {
        for content_type in [STRUCTURED, "application/json"] {
            let id = server.receive_as(content_type, event.to_string()).await.ok().text();
            let story = server.story(&id).await;
            assert_eq!((&story["event"], &story["mode"]), (&event, &json!("structured")));
            assert_eq!(story["content_type"], content_type);
        }
        let listed = server.get("/events?limit=1").await.ok().json()["events"][0].clone();
        assert_eq!(listed["spec_version"], version);
        assert_eq!(listed["event_id"], "i");
        assert!(listed["source"].is_string() && listed["type"].is_string(), "{listed}");
    }
}

#[tokio::test]
async fn a_binary_event_has_its_headers_and_its_unchanged_body() {
    let (server, target) = (Server::start().await, Target::start().await);
    server.subscribe(json!({"target_url": target.url("/t"), "content_mode": "binary"})).await;
    server.subscribe(json!({"target_url": target.url("/matching"), "jsonpath": "$.data.n"})).await;
    let data = r#"{ "n": 1.10,"big": 123456789012345678901234567890 }"#;
    let over =
        [("ce-subject", "\"caf%C3%A9 %22x%22\""), ("ce-myext", "42"), ("ce-time", "2026-01-02T03:04:05Z")];
    let id = binary(&server, &over, data).await.ok().text();
    let story = server.story(&id).await;
    assert_eq!((&story["mode"], &story["content_type"]), (&json!("binary"), &json!("application/json")));
    assert_eq!(story["event"]["subject"], "café \"x\"");
    assert_eq!(story["event"]["myext"], "42");
    assert_eq!(story["event"]["datacontenttype"], "application/json");
    let got = target.wait_for("/t", 1).await.remove(0);
    assert_eq!(got.text(), data);
    assert_eq!(got.header("content-type"), "application/json");
    assert_eq!(got.header("ce-id"), "bin-1");
    assert_eq!(got.header("ce-subject"), "caf%C3%A9%20%22x%22");
    target.wait_for("/matching", 1).await;
}

/// A byte order mark hid the data of a binary event from filters, and there was no warning for data that are not JSON at
/// all.
#[tokio::test]
async fn data_labelled_as_json_are_read_or_the_story_says_why_not() {
    let (server, target) = (Server::start().await, Target::start().await);
    server
        .subscribe(json!({"target_url": target.url("/t"), "content_mode": "binary", "jsonpath": "$.data.n"}))
        .await;
    let marked = "\u{feff}{\"n\": 1}";
    let id = binary(&server, &[], marked).await.ok().text();
    assert_eq!(target.wait_for("/t", 1).await.remove(0).text(), marked, "the body goes on as it came");
    let story = server.story(&id).await;
    assert_eq!((&story["event"]["data"], story.get("data")), (&json!({"n": 1}), None));
    let id = binary(&server, &[], r#"{"n": NaN}"#).await.ok().text();
    let story = server.story(&id).await;
    assert_eq!(story["data"], "application/json, but `NaN` at line 1 column 7 is no JSON");
    assert_eq!(
        (&story["event"]["data_base64"], &story["deliveries"]),
        (&json!("eyJuIjogTmFOfQ=="), &json!([]))
    );
    let shown = crate::harness::run(&["event", "get", &id, "--server", &server.url], "").await;
    assert!(shown.stdout.contains("    DATA application/json, but `NaN`"), "{shown:?}");
}

#[tokio::test]
async fn binary_data_of_any_kind_arrives_unchanged() {
    let (server, target) = (Server::start().await, Target::start().await);
    server.subscribe(json!({"target_url": target.url("/t"), "content_mode": "binary"})).await;
    let bytes: Vec<u8> = (0..=255).collect();
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", "x"),
        ("ce-source", "/it"),
        ("ce-type", "t"),
        ("content-type", "application/octet-stream"),
    ];
    server.send(Method::POST, "/receive", &headers, bytes.clone()).await.ok();
    let got = target.wait_for("/t", 1).await.remove(0);
    assert_eq!(got.body, bytes);
    assert_eq!(got.header("content-type"), "application/octet-stream");
}

#[tokio::test]
async fn a_bad_binary_event_names_the_attribute() {
    let server = Server::start().await;
    let refused = async |over: &[(&str, &str)], says: &str| {
        let reply = binary(&server, over, "{}").await;
        reply.refused_as(400, 422).says(says);
    };
    for missing in ["ce-id", "ce-source", "ce-type"] {
        refused(
            &[(missing, ""), ("content-type", "application/octet-stream")],
            missing.strip_prefix("ce-").unwrap(),
        )
        .await;
    }
    refused(&[("ce-specversion", "9.9")], "specversion").await;
    refused(&[("ce-time", "yesterday")], "time").await;
    refused(&[("ce-subject", "%FF")], "subject").await;
    refused(&[("ce-my_ext", "x")], "my_ext").await;
    let mut headers = vec![("ce-specversion", "1.0"), ("ce-id", "a"), ("ce-id", "b"), ("ce-source", "/s")];
    headers.extend([("ce-type", "t"), ("content-type", "application/json")]);
    server.send(Method::POST, "/receive", &headers, "{}").await.refused_as(400, 422).says("id");
    assert_eq!(logged(&server).await, 0);
}

#[tokio::test]
async fn an_invalid_event_is_refused_with_the_missing_attribute() {
    let server = Server::start().await;
    for no_event in ["{}", "[]", "1", "null", "\"x\"", r#"{"a": 1}"#] {
        server.receive_as("application/json", no_event).await.refused_as(400, 422);
        server.receive_as(STRUCTURED, no_event).await.refused_as(400, 422);
    }
    server.receive_as(STRUCTURED, "{}").await.refused_as(400, 422).says("specversion");
    let cases = [
        (event_1_0("a"), "id"),
        (event_1_0("a"), "source"),
        (event_1_0("a"), "type"),
        (event("a"), "eventID"),
        (event("a"), "source"),
        (event("a"), "eventType"),
    ];
    for (event, attribute) in cases {
        for bad in [Value::Null, json!(""), json!(5), json!({})] {
            let mut event = event.clone();
            event[attribute] = bad.clone();
            server.receive_as(STRUCTURED, event.to_string()).await.refused_as(400, 422).says(attribute);
        }
        let missing = merged(event, json!({attribute: null}));
        server.receive_as("application/json", missing.to_string()).await.refused_as(400, 422).says(attribute);
    }
    assert_eq!(logged(&server).await, 0);
}

#[tokio::test]
async fn the_rules_of_1_0_hold() {
    let server = Server::start().await;
    let refused = async |over: Value, says: &str| {
        let event = merged(event_1_0("a"), over);
        server.receive_as(STRUCTURED, event.to_string()).await.refused_as(400, 422).says(says);
    };
    refused(json!({"time": "2026-01-02"}), "time").await;
    refused(json!({"Upper": "x"}), "Upper").await;
    refused(json!({"under_score": "x"}), "under_score").await;
    refused(json!({"data_base64": "AAEC"}), "data_base64").await;
    refused(json!({"data": null, "data_base64": "§"}), "data_base64").await;
    refused(json!({"specversion": "2.0"}), "specversion").await;
    assert_eq!(logged(&server).await, 0);
    let mut null = event_1_0("a");
    null["subject"] = Value::Null;
    for fine in [
        null,
        merged(event_1_0("b"), json!({"myext": 5, "flag": true})),
        merged(event_1_0("c"), json!({"data": null, "data_base64": "AAEC"})),
        merged(event_1_0("d"), json!({"data": "{\"not\": \"parsed\"}"})),
    ] {
        server.receive(&fine).await;
    }
}

#[tokio::test]
async fn garbage_of_every_kind_is_a_client_error() {
    let server = Server::start().await;
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let bodies: [&[u8]; 9] =
        [b"", b"{", b"garbage", b"\xff\xfe", b"{\"a\":\x00}", b"[1,", b"{}{}", b"NaN", deep.as_bytes()];
    for body in bodies {
        for content_type in ["application/json", STRUCTURED, BATCH] {
            server.receive_as(content_type, body.to_vec()).await.refused_as(400, 422);
        }
    }
    let deep = format!(r#"{{"specversion":"1.0","id":"a","source":"/s","type":"t","data":{deep}}}"#);
    server.receive_as(STRUCTURED, deep).await.refused_as(400, 422);
    assert_eq!(logged(&server).await, 0);
    server.receive(&event("alive")).await;
}

#[tokio::test]
async fn other_media_types_are_415() {
    let server = Server::start().await;
    let post = async |content_type: &str| server.receive_as(content_type, event("a").to_string()).await;
    post("application/x-www-form-urlencoded").await.refused(415).says("Content-Type: application/");
    post("application/cloudevents+avro").await.refused(415);
    post("application/cloudevents-batch+xml").await.refused(415);
    post("application/xml").await.refused_as(400, 415);
    post("no media type").await.refused_as(400, 415);
    assert_eq!(logged(&server).await, 0);
}

#[tokio::test]
async fn a_batch_answers_one_id_per_line_in_order() {
    let (server, target) = (Server::start().await, Target::start().await);
    server.subscribe(json!({"target_url": target.url("/t")})).await;
    let shapes = [event, event_1_0];
    let events: Vec<Value> = (0..20).map(|n: usize| shapes[n % 2](&n.to_string())).collect();
    let reply = server.receive_as(BATCH, json!(events).to_string()).await.ok();
    let text = reply.text();
    let ids: Vec<&str> = text.lines().collect();
    assert_eq!(ids.len(), events.len());
    for (id, event) in ids.iter().zip(&events) {
        assert!(is_id(id));
        let story = server.story(id).await;
        assert_eq!((&story["event"], &story["content_type"]), (event, &json!(STRUCTURED)));
    }
    target.wait_for("/t", events.len()).await;
    assert_eq!(server.receive_as(BATCH, "[]").await.ok().text(), "", "an empty batch is allowed");
}

#[tokio::test]
async fn a_batch_is_all_or_nothing_and_each_bad_index_is_listed() {
    let (server, target) = (Server::start().await, Target::start().await);
    server.subscribe(json!({"target_url": target.url("/t")})).await;
    let no_id = merged(event_1_0("x"), json!({"id": null}));
    let batch = json!([event("a"), no_id, event_1_0("b"), 5, merged(event("c"), json!({"source": null}))]);
    let problem = server.receive_as(BATCH, batch.to_string()).await.refused_as(400, 422);
    let pointers: Vec<_> =
        problem.errors.iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect();
    assert_eq!(pointers.len(), 3, "{:?}", problem.errors);
    for (pointer, index) in pointers.iter().zip(["/1", "/3", "/4"]) {
        assert!(pointer == index || pointer.starts_with(&format!("{index}/")), "{pointers:?}");
    }
    assert!(pointers[0] == "/1/id" && pointers[2] == "/4/source", "{pointers:?}");
    assert!(problem.errors.iter().all(|error| !error["detail"].as_str().unwrap().is_empty()));
    server.receive_as(BATCH, event("a").to_string()).await.refused_as(400, 422);
    assert_eq!(logged(&server).await, 0);
    server.receive(&event("only")).await;
    assert_eq!(target.wait_for("/t", 1).await[0].event_id(), "only");
}

#[tokio::test]
async fn options_answers_the_webhook_handshake() {
    let server = Server::start().await;
    let headers = [("webhook-request-origin", "producer.example.com"), ("webhook-request-rate", "120")];
    let reply = server.send(Method::OPTIONS, "/receive", &headers, "").await.ok();
    assert!(reply.header("allow").contains("POST"), "{:?}", reply.headers);
    assert_eq!(reply.header("webhook-allowed-origin"), "producer.example.com");
    assert_eq!(reply.header("webhook-allowed-rate"), "*");
}

#[tokio::test]
async fn the_same_event_twice_is_two_events_by_default() {
    let (server, target) = (Server::start().await, Target::start().await);
    server.subscribe(json!({"target_url": target.url("/t")})).await;
    let (one, two) = (server.receive(&event("same")).await, server.receive(&event("same")).await);
    assert_ne!(one, two);
    let got = target.wait_for("/t", 2).await;
    assert_ne!(got[0].webhook_id(), got[1].webhook_id());
}

#[tokio::test]
async fn within_the_dedup_window_the_second_answers_the_firsts_id() {
    let target = Target::start().await;
    let mut server = Server::with(&["--dedup-window", "1h"]).await;
    server.subscribe(json!({"target_url": target.url("/t")})).await;
    let one = server.receive(&event("same")).await;
    assert_eq!(server.receive(&event("same")).await, one);
    server.kill9();
    server.restart().await;
    assert_eq!(server.receive(&event("same")).await, one, "the window outlives a restart");
    let other_source = server.receive(&merged(event("same"), json!({"source": "/elsewhere"}))).await;
    assert_ne!(other_source, one, "an event is its source and its id");
    let other_id = server.receive(&event("other")).await;
    assert_ne!(other_id, one);
    let batch = json!([event("same"), event("new"), event("new")]);
    let ids = server.receive_as(BATCH, batch.to_string()).await.ok().text();
    let ids: Vec<_> = ids.lines().collect();
    assert_eq!(ids[0], one);
    assert_eq!(ids[1], ids[2], "also within one batch");
    assert_eq!(logged(&server).await, 4);
}

#[tokio::test]
async fn a_repeat_by_webhook_id_says_so() {
    let target = Target::start().await;
    let mut server = Server::with(&["--dedup-window", "1h"]).await;
    server.subscribe(json!({"target_url": target.url("/t")})).await;
    let send = async |server: &Server, headers: &[(&str, &str)], media: &str, body: Value| {
        let headers = [&[("content-type", media)], headers].concat();
        server.send(Method::POST, "/receive", &headers, body.to_string()).await
    };
    let key = [("webhook-id", "msg_1")];
    let one = send(&server, &key, STRUCTURED, event("a")).await.ok();
    assert!(!one.headers.contains_key("waypost-duplicate"));
    let again = send(&server, &key, STRUCTURED, event("b")).await.ok();
    assert_eq!(
        (again.header("waypost-duplicate"), again.text()),
        ("true", one.text()),
        "the first one counts"
    );
    server.kill9();
    server.restart().await;
    let again = send(&server, &[("idempotency-key", "\"msg_1\"")], STRUCTURED, event("a")).await.ok();
    assert_eq!(
        (again.header("waypost-duplicate"), again.text()),
        ("true", one.text()),
        "after a restart, too"
    );
    let other = send(&server, &[("webhook-id", "msg_2")], STRUCTURED, event("c")).await.ok();
    assert!(!other.headers.contains_key("waypost-duplicate"));
    let batch = json!([event("d"), event("c"), event("e"), event("a")]);
    let mixed = send(&server, &[("webhook-id", "msg_3")], BATCH, batch.clone()).await.ok();
    assert_eq!(mixed.header("waypost-duplicate"), "1, 3", "by their sources and ids");
    let whole = send(&server, &[("webhook-id", "msg_3")], BATCH, batch).await.ok();
    assert_eq!((whole.header("waypost-duplicate"), whole.text()), ("true", mixed.text()));
    let refused = send(&server, &[("webhook-id", "")], STRUCTURED, event("f")).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("`webhook-id` must be one text"), "{}", refused.text());
    assert_eq!(logged(&server).await, 4);
}

/// A key is its sender's: nobody takes the place of another's request.
#[tokio::test]
async fn the_webhook_id_of_another_sender_is_another() {
    let server = Server::with(&["--dedup-window", "1h", "--user-header", "remote-user"]).await;
    let send = async |sender, id| {
        let headers = [("content-type", STRUCTURED), ("webhook-id", "msg_1"), ("remote-user", sender)];
        server.send(Method::POST, "/receive", &headers, event(id).to_string()).await.ok()
    };
    let (ann, bob) = (send("ann", "a").await, send("bob", "b").await);
    assert_ne!(ann.text(), bob.text());
    assert_eq!(send("ann", "c").await.text(), ann.text());
    assert_eq!(send("bob", "c").await.text(), bob.text());
}

#[test]
fn no_body_of_any_content_type_stops_the_server() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime.block_on(Server::start());
    let content_types =
        prop::sample::select(vec!["application/json", STRUCTURED, BATCH, "text/plain", "x/y", ""]);
    let whole = event_1_0("p").to_string();
    // Random bytes seldom pass the first byte of a parser; a damaged event does.
    let bodies = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        (0..whole.len(), any::<u8>()).prop_map(move |(place, byte)| {
            let mut bytes = whole.clone().into_bytes();
            bytes[place] = byte;
            bytes
        }),
    ];
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() });
    runner
        .run(&(content_types, bodies), |(content_type, body)| {
            let reply = runtime.block_on(server.receive_as(content_type, body));
            prop_assert!(reply.status < 500, "{}", reply.text());
            Ok(())
        })
        .unwrap();
    runtime.block_on(async { server.receive(&event("alive")).await });
}
