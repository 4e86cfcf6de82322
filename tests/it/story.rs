//! Queries and operations on the past: the log, one event's story, the Dispatcher's view, redelivery, purge (FACTS 9).

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Gate, Reply, Server, Target, event, event_1_0, merged, wait_until};

async fn ids(server: &Server, query: &str) -> Vec<String> {
    let page = server.get(&format!("/events{query}")).await.ok().json();
    page["events"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

async fn retry(server: &Server, path: &str) -> Reply {
    server.send(Method::POST, path, &[], "").await
}

#[tokio::test]
async fn the_story_shows_every_match_and_attempt() {
    let (server, target) = (Server::with(&["--retry-schedule", "20ms"]).await, Target::start().await);
    target.answers("/t", [Answer::status(503).body("busy"), Answer::status(202).body("thanks")]);
    let url = target.url("/t");
    let subscription = server.user("alice").subscribe(json!({"target_url": url, "name": "hers"})).await;
    server.subscribe(json!({"target_url": target.url("/other"), "jsonpath": "$.nothing"})).await;
    let id = server.receive(&event("a")).await;
    server.delivery_in(&id, &subscription, "delivered").await;
    let story = server.story(&id).await;
    assert_eq!((&story["id"], &story["event"]), (&json!(id), &event("a")));
    assert_eq!((&story["status"], &story["mode"]), (&json!("200 OK"), &json!("structured")));
    assert!(story["received"].as_str().unwrap().ends_with('Z'));
    let deliveries = story["deliveries"].as_array().unwrap();
    assert_eq!(deliveries.len(), 1, "only what matched");
    let delivery = &deliveries[0];
    let expected = json!({
        "id": target.requests("/t")[0].webhook_id(), "subscription": subscription, "name": "hers", "user": "alice",
        "target_url": url, "state": "delivered",
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&delivery[key], value, "{key} in {delivery}");
    }
    assert_eq!(delivery["due"], Value::Null);
    let attempts = delivery["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2);
    assert_eq!((&attempts[0]["number"], &attempts[0]["outcome"]), (&json!(1), &json!("retry")));
    assert_eq!(attempts[0]["target"], json!({"status": 503, "body": "busy"}));
    assert!(!attempts[0]["reason"].as_str().unwrap().is_empty());
    assert_eq!((&attempts[1]["outcome"], &attempts[1]["reason"]), (&json!("delivered"), &Value::Null));
    assert_eq!(attempts[1]["target"], json!({"status": 202, "body": "thanks"}));
    assert_eq!(attempts[1]["policy"], Value::Null, "no policy server, no answer of one");
    assert!(attempts.iter().all(|attempt| attempt["took_ms"].is_u64()));
    assert!(attempts[0]["at"].as_str().unwrap() < attempts[1]["at"].as_str().unwrap());
}

#[tokio::test]
async fn a_retrying_delivery_shows_when_it_is_due() {
    let (server, target) = (Server::with(&["--retry-schedule", "1h"]).await, Target::start().await);
    target.always("/t", Answer::status(500));
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let id = server.receive(&event("a")).await;
    let delivery = server.delivery_in(&id, &subscription, "retrying").await;
    let due: jiff::Timestamp = delivery["due"].as_str().unwrap().parse().unwrap();
    let at: jiff::Timestamp = delivery["attempts"][0]["at"].as_str().unwrap().parse().unwrap();
    let wait = due.duration_since(at).as_secs();
    assert!((3200..=4000).contains(&wait), "an hour give or take a tenth: {wait} s");
    server.status_is(&id, "202 Accepted").await;
}

#[tokio::test]
async fn the_log_is_newest_first_and_pages() {
    let mut server = Server::start().await;
    let mut sent = Vec::new();
    for n in 0..25 {
        sent.push(server.receive(&event_1_0(&format!("e{n}"))).await);
    }
    sent.reverse();
    server.restart().await;
    assert_eq!(ids(&server, "").await, sent);
    assert_eq!(ids(&server, "?limit=3").await, sent[..3]);
    assert_eq!(ids(&server, &format!("?before={}&limit=2", sent[4])).await, sent[5..7]);
    let (mut next, mut paged) = ("/events?limit=10".to_owned(), Vec::new());
    loop {
        let page = server.get(&next).await.ok().json();
        paged.extend(
            page["events"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned()),
        );
        let Some(further) = page["next"].as_str() else { break };
        next = further.to_owned();
    }
    assert_eq!(paged, sent);
    let listed = &server.get("/events?limit=1").await.ok().json()["events"][0];
    assert_eq!(listed["event_id"], "e24");
    assert_eq!((&listed["source"], &listed["type"]), (&json!("/it"), &json!("it.happened")));
    assert_eq!(
        (&listed["spec_version"], &listed["status"]),
        (&json!("1.0"), &json!("422 Unprocessable Entity"))
    );
    for bad in ["limit=x", "limit=-1", "before=x", "since=yesterday", "until=x"] {
        server.get(&format!("/events?{bad}")).await.refused_as(400, 422);
    }
}

#[tokio::test]
async fn the_log_can_be_limited_by_time() {
    let server = Server::start().await;
    let first = server.receive(&event("a")).await;
    let mut second = server.receive(&event("b")).await;
    // Times have at least millisecond precision: post until the two differ.
    let received = async |id: &str| server.story(id).await["received"].as_str().unwrap().to_owned();
    while received(&second).await == received(&first).await {
        second = server.receive(&event("b")).await;
    }
    let since = ids(&server, &format!("?since={}", received(&second).await)).await;
    assert!(since.contains(&second) && !since.contains(&first), "{since:?}");
    let until = ids(&server, &format!("?until={}", received(&first).await)).await;
    assert!(!until.contains(&second), "{until:?}");
    assert!(ids(&server, "?since=2100-01-01T00:00:00Z").await.is_empty());
    assert!(ids(&server, "?until=2001-01-01T00:00:00Z").await.is_empty());
    assert_eq!(ids(&server, "?since=2001-01-01T00:00:00Z").await.last(), Some(&first));
}

#[tokio::test]
async fn an_unknown_event_is_404_and_a_malformed_id_400_or_422() {
    let server = Server::start().await;
    let unknown = uuid::Uuid::now_v7();
    for path in ["/events", "/status", "/get"] {
        server.get(&format!("{path}/{unknown}")).await.refused(404);
    }
    server.get("/events/x").await.refused(400);
    server.get("/status/x").await.refused(422);
    server.get("/get/x").await.refused(422);
    retry(&server, &format!("/events/{unknown}/retry")).await.refused(404);
    retry(&server, "/events/x/retry").await.refused(400);
    server.delete("/events/x").await.refused(400);
}

#[tokio::test]
async fn a_user_sees_his_own_deliveries_and_an_admin_all() {
    let (server, target) = (Server::with(&["--admin-users", "root"]).await, Target::start().await);
    let alices = server.user("alice").subscribe(json!({"target_url": target.url("/a")})).await;
    let bobs = server.user("bob").subscribe(json!({"target_url": target.url("/b")})).await;
    let only_alice = json!({"target_url": target.url("/c"), "jsonpath": "$.secret"});
    server.user("alice").subscribe(only_alice).await;
    // The sender may look up his own event, too.
    let shared = server.user("producer").receive(&event("shared")).await;
    target.wait_for("/a", 1).await;
    target.wait_for("/b", 1).await;
    let root = server.user("root");
    assert_eq!(root.story(&shared).await["deliveries"].as_array().unwrap().len(), 2);
    for (user, own, other) in [("alice", &alices, &bobs), ("bob", &bobs, &alices)] {
        let story = server.user(user).get(&format!("/events/{shared}")).await.ok();
        assert!(story.text().contains(own.as_str()) && !story.text().contains(other.as_str()), "{user}");
    }
    let nobodys = server.user("mallory");
    nobodys.get(&format!("/events/{shared}")).await.refused(404);
    server.get(&format!("/events/{shared}")).await.refused(404);
    assert!(!nobodys.get("/events").await.text().contains(&shared));
    assert!(root.get("/events").await.ok().text().contains(&shared));
    nobodys.delete(&format!("/events/{shared}")).await.refused_as(403, 404);
    server.user("alice").delete(&format!("/events/{shared}")).await.refused(403);
    server.user("alice").delete("/events?before=2100-01-01T00:00:00Z").await.refused(403);
    root.story(&shared).await;
}

#[tokio::test]
async fn a_non_admin_retries_only_his_own_deliveries() {
    let (server, target) = (Server::with(&["--admin-users", "root"]).await, Target::start().await);
    let alices = server.user("alice").subscribe(json!({"target_url": target.url("/a")})).await;
    let bobs = server.user("bob").subscribe(json!({"target_url": target.url("/b")})).await;
    let root = server.user("root");
    let id = server.user("producer").receive(&event("a")).await;
    root.delivery_in(&id, &alices, "delivered").await;
    root.delivery_in(&id, &bobs, "delivered").await;
    let path = format!("/events/{id}/retry");
    let retried = server.user("bob").send(Method::POST, &path, &[], "").await.ok().json();
    assert_eq!(retried["deliveries"].as_array().unwrap().len(), 1);
    assert_eq!(retried["deliveries"][0]["subscription"], bobs);
    target.wait_for("/b", 2).await;
    root.delivery_in(&id, &bobs, "delivered").await;
    let retried = root.send(Method::POST, &path, &[], "").await.ok().json();
    assert_eq!(retried["deliveries"].as_array().unwrap().len(), 2);
    target.wait_for("/a", 2).await;
    target.wait_for("/b", 3).await;
    assert_eq!(target.requests("/a").len(), 2);
    server.user("mallory").send(Method::POST, &path, &[], "").await.refused(404);
}

#[tokio::test]
async fn retry_sends_again_to_all_that_match_now() {
    let flags = ["--retry-schedule", "none", "--admin-users", "nobody"];
    let (server, target) = (Server::with(&flags).await, Target::start().await);
    target.answers("/dead", [Answer::status(500)]);
    let fine = server.subscribe(json!({"target_url": target.url("/fine")})).await;
    let dead = server.subscribe(json!({"target_url": target.url("/dead")})).await;
    let id = server.receive(&event("a")).await;
    server.delivery_in(&id, &fine, "delivered").await;
    server.delivery_in(&id, &dead, "dead").await;
    server.disabled(&dead).await;
    server.update(&dead, &json!({"disabled": null})).await;
    let new = server.subscribe(json!({"target_url": target.url("/new")})).await;
    let reply = retry(&server, &format!("/events/{id}/retry")).await.ok().json();
    assert_eq!(reply["id"], id);
    let deliveries = reply["deliveries"].as_array().unwrap();
    let subscriptions: Vec<_> =
        deliveries.iter().map(|delivery| delivery["subscription"].as_str().unwrap()).collect();
    assert!([&fine, &dead, &new].iter().all(|uuid| subscriptions.contains(&uuid.as_str())), "{reply}");
    let fines = target.wait_for("/fine", 2).await;
    assert_eq!(fines[0].webhook_id(), fines[1].webhook_id(), "a repeat is recognisable");
    assert_eq!(fines[0].body, fines[1].body);
    target.wait_for("/new", 1).await;
    for subscription in [&fine, &dead, &new] {
        server.delivery_in(&id, subscription, "delivered").await;
    }
    let delivery = server.delivery(&id, &dead).await;
    let numbers: Vec<_> =
        delivery["attempts"].as_array().unwrap().iter().map(|attempt| &attempt["number"]).collect();
    assert_eq!(numbers, [&json!(1), &json!(1)], "the schedule begins anew: {delivery}");
    let one = retry(&server, &format!("/events/{id}/retry?subscription={fine}")).await.ok().json();
    assert_eq!(one["deliveries"].as_array().unwrap().len(), 1);
    target.wait_for("/fine", 3).await;
    assert_eq!(target.requests("/new").len(), 1);
    retry(&server, &format!("/events/{id}/retry?subscription=x")).await.refused_as(400, 422);
}

#[tokio::test]
async fn a_retry_outlives_kill_9() {
    let (mut server, target) = (Server::start().await, Target::start().await);
    let subscription = server.subscribe(json!({"target_url": target.url("/t"), "max_in_flight": 1})).await;
    let id = server.receive(&event("a")).await;
    server.delivery_in(&id, &subscription, "delivered").await;
    let gate = target.hang("/t");
    retry(&server, &format!("/events/{id}/retry")).await.ok();
    server.kill9();
    gate.open();
    let before = target.requests("/t").len();
    server.restart().await;
    target.wait_for("/t", before + 1).await;
    server.delivery_in(&id, &subscription, "delivered").await;
}

#[tokio::test]
async fn purge_removes_finished_events_and_keeps_open_ones() {
    let (server, target) = (Server::with(&["--retry-schedule", "1h"]).await, Target::start().await);
    target.always("/open", Answer::status(500));
    let done = server.receive(&event("done")).await;
    let other = server.receive(&event("other")).await;
    let subscription = server.subscribe(json!({"target_url": target.url("/open")})).await;
    let open = server.receive(&event("open")).await;
    server.delivery_in(&open, &subscription, "retrying").await;
    let purged = server.delete(&format!("/events/{done}")).await.ok().json();
    assert_eq!(purged["purged"], 1, "{purged}");
    server.get(&format!("/events/{done}")).await.refused(404);
    server.get(&format!("/status/{done}")).await.refused(404);
    server.delete(&format!("/events/{done}")).await.refused(404);
    let kept = server.delete(&format!("/events/{open}")).await.ok().json();
    assert_eq!((&kept["purged"], &kept["kept"]), (&json!(0), &json!(1)));
    let none = server.delete("/events?before=2001-01-01T00:00:00Z").await.ok().json();
    assert_eq!(none["purged"], 0);
    let rest = server.delete("/events?before=2100-01-01T00:00:00Z").await.ok().json();
    assert_eq!((&rest["purged"], &rest["kept"]), (&json!(1), &json!(1)));
    server.get(&format!("/events/{other}")).await.refused(404);
    assert_eq!(ids(&server, "").await, [open]);
    server.delete("/events?before=soon").await.refused_as(400, 422);
    server.delete("/events").await.refused_as(400, 422);
}

#[tokio::test]
async fn retention_removes_finished_events_and_keeps_open_ones() {
    let flags = ["--retention", "1ms", "--retry-schedule", "1h"];
    let (mut server, target) = (Server::with(&flags).await, Target::start().await);
    target.always("/open", Answer::status(500));
    let open = json!({"target_url": target.url("/open"), "jsonpath": "$.open"});
    let subscription = server.subscribe(open).await;
    let done = server.receive(&event("done")).await;
    let open = server.receive(&merged(event("open"), json!({"open": true}))).await;
    server.delivery_in(&open, &subscription, "retrying").await;
    // Retention runs once an hour, and at the start.
    server.restart().await;
    wait_until("the finished event is gone", async || {
        (server.get(&format!("/events/{done}")).await.status == 404).then_some(())
    })
    .await;
    assert_eq!(server.delivery(&open, &subscription).await["state"], "retrying");
}

#[tokio::test]
async fn the_status_follows_the_deliveries() {
    let (server, target) = (Server::with(&["--retry-schedule", "none"]).await, Target::start().await);
    let unmatched = server.receive(&event("unmatched")).await;
    server.status_is(&unmatched, "422 Unprocessable Entity").await;
    let gate = target.hang("/t");
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let id = server.receive(&event("a")).await;
    server.status_is(&id, "102 Processing").await;
    server.delivery_in(&id, &subscription, "delivering").await;
    gate.open();
    server.status_is(&id, "200 OK").await;
    assert_eq!(server.get(&format!("/status/{id}")).await.ok().header("content-type"), "application/json");
    target.always("/t", Answer::status(500).after(&Gate::closed()));
    server.update(&subscription, &json!({"max_in_flight": 1})).await;
    server.receive(&event("holds the only place")).await;
    let waiting = server.receive(&event("b")).await;
    server.status_is(&waiting, "202 Accepted").await;
    let dying =
        server.user("u").subscribe(json!({"target_url": target.url("/dead"), "jsonpath": "$.dead"})).await;
    target.always("/dead", Answer::status(500));
    server.update(&subscription, &json!({"jsonpath": "$.other"})).await;
    let dead = server.receive(&merged(event("c"), json!({"dead": 1}))).await;
    server.delivery_in(&dead, &dying, "dead").await;
    server.status_is(&dead, "500 Internal Server Error").await;
}

#[tokio::test]
async fn get_answers_the_dispatchers_fields() {
    let server = Server::start().await;
    let id = server.receive(&event("a")).await;
    let task = server.get(&format!("/get/{id}")).await.ok().json();
    let fields = [
        "eventType",
        "eventTypeVersion",
        "source",
        "eventID",
        "eventTime",
        "schemaURL",
        "contentType",
        "eventData",
        "data",
        "taskID",
        "taskStatus",
        "taskApplicationName",
        "taskName",
        "exceptionType",
        "exceptionValue",
        "exceptionTraceback",
        "created",
        "updated",
        "deleted",
    ];
    for field in fields {
        assert!(task.get(field).is_some(), "{field} in {task}");
    }
    assert_eq!((&task["eventID"], &task["taskID"]), (&json!("a"), &json!(id)));
    assert_eq!((&task["eventType"], &task["source"]), (&event("a")["eventType"], &event("a")["source"]));
    assert_eq!(task["eventTime"], event("a")["eventTime"]);
    assert_eq!(task["taskStatus"], "422 Unprocessable Entity");
    // The original's clients call `json.loads` on both: the whole event and its data are strings.
    let read = |name: &str| serde_json::from_str::<Value>(task[name].as_str().unwrap()).unwrap();
    assert_eq!((read("eventData"), read("data")), (event("a"), event("a")["data"].clone()));
    assert_eq!(task["exceptionTraceback"], "");
    assert_eq!((&task["exceptionType"], &task["exceptionValue"]), (&Value::Null, &Value::Null));
    let new = server.receive(&event_1_0("b")).await;
    let task = server.get(&format!("/get/{new}")).await.ok().json();
    assert_eq!((&task["eventID"], &task["eventType"]), (&json!("b"), &json!("it.happened")));
}

#[tokio::test]
async fn the_root_lists_tasks_newest_first() {
    let server = Server::start().await;
    assert_eq!(server.get("/").await.ok().json(), json!([]));
    let mut sent = Vec::new();
    for n in 0..3 {
        sent.push(server.receive(&event(&n.to_string())).await);
    }
    sent.reverse();
    let tasks = server.get("/").await.ok().json();
    let listed: Vec<_> =
        tasks.as_array().unwrap().iter().map(|task| task["taskID"].as_str().unwrap()).collect();
    assert_eq!(listed, sent);
    for field in ["created", "updated", "deleted"] {
        assert!(tasks[0].get(field).is_some(), "{field}");
    }
}

#[tokio::test]
async fn health_and_readiness_answer() {
    let server = Server::start().await;
    assert_eq!(server.get("/healthz").await.ok().json(), json!({"status": "ok"}));
    assert_eq!(server.get("/readyz").await.ok().json(), json!({"status": "ready"}));
}
