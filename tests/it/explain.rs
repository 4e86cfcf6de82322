//! Why a filter matches or does not: the dry run of a subscription, and an event's explanation for a user's subscriptions.

use http::Method;
use serde_json::{Value, json};

use crate::filters::{JSONPATH2, RFC9535};
use crate::harness::{Answer, Api, Reply, Server, Target, event, merged};

async fn post(api: &Api, path: &str, body: String) -> Reply {
    api.send(Method::POST, path, &[("content-type", "application/json")], body).await
}

/// Posts an event to the dry run of a subscription; `query` is appended to the path.
async fn test(api: &Api, uuid: &str, query: &str, body: &Value) -> Value {
    post(api, &format!("/eventmatch/{uuid}/test{query}"), body.to_string()).await.ok().json()
}

/// Percent-encodes a query's value.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

// the dry run

#[tokio::test]
async fn a_dry_run_says_which_condition_failed_and_sends_nothing() {
    let (server, target) = (Server::start().await, Target::start().await);
    for jsonpath in [RFC9535, JSONPATH2] {
        let uuid = server.subscribe(json!({"target_url": target.url("/t"), "jsonpath": jsonpath})).await;
        let matched = test(&server, &uuid, "", &event("a")).await;
        assert_eq!(matched["matches"], true, "{matched}");
        assert_eq!(matched["filter"]["failure"], Value::Null);
        let other = json!({"data": [{"key": "Taggy", "value": "Other"}, {"key": "Tag", "value": "Some"}]});
        let missed = test(&server, &uuid, "", &merged(event("a"), other)).await;
        assert_eq!(missed["matches"], false, "{missed}");
        assert!(!missed["filter"]["reason"].as_str().unwrap().is_empty());
        let steps = missed["filter"]["steps"].as_array().unwrap();
        assert_eq!((&steps[0]["path"], &steps[0]["found"]), (&json!("$.data"), &json!(1)), "{missed}");
        let failing = steps.last().unwrap();
        assert_eq!(failing["found"], 0);
        let conditions = failing["conditions"].as_array().unwrap();
        let of = |name: &str| {
            let mut all = conditions.iter();
            let found = all.find(|condition| condition["condition"].as_str().unwrap().contains(name));
            found.unwrap_or_else(|| panic!("{name} in {missed}"))
        };
        assert_eq!((&of("key")["tested"], &of("key")["passed"]), (&json!(2), &json!(1)));
        assert_eq!((&of("value")["tested"], &of("value")["passed"]), (&json!(2), &json!(0)));
        assert_eq!(of("value")["seen"], json!(["\"Other\"", "\"Some\""]));
    }
    assert_eq!(server.get("/events").await.ok().json()["events"], json!([]), "nothing is logged");
    server.receive(&event("a")).await;
    target.wait_for("/t", 2).await;
    assert_eq!(target.all().len(), 2, "what was accepted is sent, and nothing else");
}

#[tokio::test]
async fn a_dry_run_takes_every_form_of_an_event_but_no_batch() {
    let (server, target) = (Server::start().await, Target::start().await);
    let uuid = server.subscribe(json!({"target_url": target.url("/t"), "jsonpath": "$[?@ == 'x']"})).await;
    let path = format!("/eventmatch/{uuid}/test");
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/s"),
        ("ce-type", "x"),
        ("content-type", "text/plain"),
    ];
    let reply = server.send(Method::POST, &path, &binary, "lens changed").await.ok().json();
    assert_eq!(reply["matches"], true);
    let batch = [("content-type", "application/cloudevents-batch+json")];
    server.send(Method::POST, &path, &batch, json!([event("a")]).to_string()).await.refused(400);
    post(&server, &path, "{}".to_owned()).await.refused_as(400, 422);
    post(&server, &path, String::new()).await.refused_as(400, 422);
    server.get(&path).await.refused(405);
    server.user("mallory").post(&path, &event("a")).await.refused(403);
    server.post(&format!("/eventmatch/{}/test", uuid::Uuid::new_v4()), &event("a")).await.refused(403);
}

#[tokio::test]
async fn a_dry_run_tries_another_filter_before_it_is_saved() {
    let (server, target) = (Server::start().await, Target::start().await);
    let uuid = server.subscribe(json!({"target_url": target.url("/t"), "jsonpath": "$.nothing"})).await;
    let query = format!("?jsonpath={}", encoded(JSONPATH2));
    let tried = test(&server, &uuid, &query, &event("a")).await;
    assert_eq!((&tried["matches"], &tried["filter"]["dialect"]), (&json!(true), &json!("jsonpath2")));
    let path = format!("/eventmatch/{uuid}/test{query}&filter_dialect=rfc9535");
    server.post(&path, &event("a")).await.refused(422).at("/jsonpath").says("column");
    server.post(&format!("/eventmatch/{uuid}/test?path=x"), &event("a")).await.refused(400).says("jsonpath");
    assert_eq!(server.subscription(&uuid).await["jsonpath"], "$.nothing");
}

#[tokio::test]
async fn a_dry_run_on_a_logged_event_is_for_those_who_may_see_it() {
    let (policy, target) = (Target::start().await, Target::start().await);
    policy.always("/events/alice", Answer::status(200));
    policy.always("/events/bob", Answer::status(403));
    let server = Server::with(&["--admin-users", "root", "--policy-url", &policy.url("")]).await;
    let subscribe = async |user: &str, jsonpath: &str| {
        server.user(user).subscribe(json!({"target_url": target.url("/t"), "jsonpath": jsonpath})).await
    };
    let (alices, bobs) = (subscribe("alice", "$").await, subscribe("bob", "$").await);
    let other = subscribe("alice", "$.nothing").await;
    let root = server.user("root");
    let id = server.user("producer").receive(&event("a")).await;
    root.delivery_in(&id, &alices, "delivered").await;
    root.delivery_in(&id, &bobs, "denied").await;
    let path = |uuid: &str| format!("/eventmatch/{uuid}/test?event={id}");
    let tested = post(&server.user("alice"), &path(&other), String::new()).await.ok().json();
    assert_eq!(tested["matches"], false);
    let denied = post(&server.user("bob"), &path(&bobs), String::new()).await;
    denied.refused(404);
    assert!(!denied.text().contains("Taggy"));
    server.user("alice").post(&path(&other), &event("a")).await.refused(400).says("?event=");
}

// explanations of a logged event for a user's subscriptions

/// Returns the explanation for one subscription.
fn told<'v>(explained: &'v Value, uuid: &str) -> &'v Value {
    let mut all = explained["explain"]["subscriptions"].as_array().unwrap().iter();
    all.find(|told| told["subscription"] == uuid).unwrap_or_else(|| panic!("{uuid} in {explained}"))
}

#[tokio::test]
async fn an_event_explains_why_each_subscription_of_a_user_did_not_match() {
    let (server, target) = (Server::with(&["--admin-users", "root"]).await, Target::start().await);
    let alice = server.user("alice");
    let subscribe = async |jsonpath: &str| {
        alice.subscribe(json!({"target_url": target.url("/t"), "jsonpath": jsonpath, "name": jsonpath})).await
    };
    let matched = subscribe(RFC9535).await;
    let missed = subscribe("$.data[?@.key == 'Taggy' && @.value == 'Other']").await;
    let paused = subscribe("$.source").await;
    alice.update(&paused, &json!({"disabled": "2026-01-31T12:00:00Z"})).await;
    let changed = subscribe("$.nothing").await;
    let gone = subscribe("$").await;
    alice.delete(&format!("/eventmatch/{gone}")).await.ok();
    let bobs = server.user("bob").subscribe(json!({"target_url": target.url("/t")})).await;
    let root = server.user("root");
    let id = server.user("producer").receive(&event("a")).await;
    root.delivery_in(&id, &matched, "delivered").await;
    alice.update(&changed, &json!({"jsonpath": "$.data"})).await;
    let late = subscribe("$").await;

    let explained = root.get(&format!("/events/{id}?explain=alice")).await.ok().json();
    assert_eq!(explained["explain"]["user"], "alice");
    let all = explained["explain"]["subscriptions"].as_array().unwrap();
    let uuids: Vec<_> = all.iter().map(|told| told["subscription"].as_str().unwrap()).collect();
    assert_eq!(uuids, [&matched, &missed, &paused, &changed, &late], "in the order of creation");
    let expect = |uuid: &str, matches: bool, reason: &str| {
        let told = told(&explained, uuid);
        assert_eq!(told["matches"], matches, "{told}");
        assert!(told["reason"].as_str().unwrap().contains(reason), "{reason} in {told}");
        told["filter"].clone()
    };
    expect(&matched, true, "`delivered`");
    assert_eq!(told(&explained, &matched)["delivery"], "delivered");
    let filter = expect(&missed, false, "");
    assert!(filter["steps"].to_string().contains(r#"\"Blah\""#), "the value seen: {filter}");
    assert_eq!(told(&explained, &missed)["reason"], filter["reason"]);
    expect(&paused, true, "disabled when the event came, since 2026-01-31T12:00:00.000000Z");
    expect(&changed, true, "another one");
    expect(&late, true, "older than the subscription");
    assert_eq!(explained["explain"]["next"], Value::Null);
    assert_eq!(told(&explained, &late)["delivery"], Value::Null);
    assert!(root.story(&id).await.get("explain").is_none(), "only when it is asked for");
    let own = alice.get(&format!("/events/{id}?explain=alice")).await.ok().json();
    assert_eq!(own["explain"]["subscriptions"], explained["explain"]["subscriptions"]);
    // Handlers are the operator's: none is configured here.
    assert_eq!((&explained["explain"]["handlers"], &own["explain"]["handlers"]), (&json!([]), &Value::Null));
    let bobs_own = root.get(&format!("/events/{id}?explain=bob")).await.ok().json();
    assert_eq!(bobs_own["explain"]["subscriptions"][0]["subscription"], bobs);
}

#[tokio::test]
async fn explanations_come_in_pages() {
    let (server, target) = (Server::start().await, Target::start().await);
    let id = server.receive(&event("a")).await;
    let mut created = Vec::new();
    for n in 0..101 {
        created.push(
            server.subscribe(json!({"target_url": target.url("/t"), "jsonpath": format!("$.n{n}")})).await,
        );
    }
    let (mut next, mut told) = (format!("/events/{id}?explain=anonymous"), Vec::new());
    loop {
        let explained = server.get(&next).await.ok().json()["explain"].clone();
        let page = explained["subscriptions"].as_array().unwrap();
        assert!(page.len() <= 100);
        told.extend(page.iter().map(|told| told["subscription"].as_str().unwrap().to_owned()));
        let Some(further) = explained["next"].as_str() else { break };
        next = further.to_owned();
    }
    assert_eq!(told, created);
    let unknown = format!("/events/{id}?explain=anonymous&after={}", uuid::Uuid::new_v4());
    server.get(&unknown).await.refused(400).says("after");
}

/// An explanation quotes the event, so a user whom policy has not let see the event must not get it.
#[tokio::test]
async fn a_user_who_may_not_see_an_event_gets_no_explanation() {
    let (policy, target) = (Target::start().await, Target::start().await);
    policy.always("/events/alice", Answer::status(200));
    policy.always("/events/bob", Answer::status(403));
    let server = Server::with(&["--admin-users", "root", "--policy-url", &policy.url("")]).await;
    let (alice, bob) = (server.user("alice"), server.user("bob"));
    let alices = alice.subscribe(json!({"target_url": target.url("/t")})).await;
    let bobs = bob.subscribe(json!({"target_url": target.url("/t")})).await;
    for user in [&alice, &bob] {
        let guess = "$.data[?@.key == 'Taggy' && @.value == 'guess']";
        user.subscribe(json!({"target_url": target.url("/t"), "jsonpath": guess})).await;
    }
    let id = server.user("producer").receive(&event("a")).await;
    let root = server.user("root");
    root.delivery_in(&id, &alices, "delivered").await;
    root.delivery_in(&id, &bobs, "denied").await;
    let of = |user: &str| format!("/events/{id}?explain={user}");
    assert!(alice.get(&of("alice")).await.ok().text().contains("Blah"));
    for (user, asked, status) in [("bob", "bob", 404), ("mallory", "mallory", 404), ("alice", "bob", 403)] {
        let reply = server.user(user).get(&of(asked)).await;
        reply.refused(status);
        assert!(!reply.text().contains("Blah") && !reply.text().contains("guess"), "{}", reply.text());
    }
    bob.get(&format!("/events/{id}")).await.refused(404);
    assert!(root.get(&of("bob")).await.ok().text().contains("Blah"), "an admin sees everything");
}
