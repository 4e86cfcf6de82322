//! What Waypost tells its operators: operator events, who gets them, and where dead letters go.

use std::path::Path;

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Api, Request, Server, Target, event, event_1_0, merged, wait_until};

/// What finds operator events, and nothing else.
const OPERATOR: &str = "$[?match(@, 'io[.]waypost[.].*')]";
const BATCH: &str = "application/cloudevents-batch+json";

/// Subscribes to operator events, which come to a path of the target.
async fn watch(api: &Api, target: &Target, path: &str) -> String {
    api.subscribe(json!({"name": path, "jsonpath": OPERATOR, "target_url": target.url(path)})).await
}

fn types(requests: &[Request]) -> Vec<String> {
    let ty = |request: &Request| request.json()["type"].as_str().unwrap().to_owned();
    requests.iter().map(|request| ty(request).trim_start_matches("io.waypost.").to_owned()).collect()
}

/// Waits until a path has got an operator event of a type about a subscription, and returns it.
async fn told(target: &Target, path: &str, ty: &str, about: &str) -> Value {
    wait_until(&format!("{path} is told of {ty} of {about}"), async || {
        let events: Vec<_> = target.requests(path).iter().map(Request::json).collect();
        let is_it = |event: &&Value| {
            event["type"] == format!("io.waypost.{ty}") && (about.is_empty() || event["subject"] == about)
        };
        events.iter().find(is_it).cloned()
    })
    .await
}

/// The operator events of the log, newest first.
async fn logged(server: &Server) -> Vec<Value> {
    let events = server.get("/events?q=io.waypost.&limit=1000").await.ok().json();
    events["events"].as_array().unwrap().clone()
}

#[tokio::test]
async fn an_operator_is_told_of_a_dead_letter_and_what_follows_from_it() {
    let (server, target) = (Server::with(&["--retry-schedule", "none"]).await, Target::start().await);
    target.always("/t", Answer::status(410).body("no more"));
    watch(&server, &target, "/ops").await;
    let alice = server.user("alice");
    let uuid = alice.subscribe(json!({"name": "hers", "target_url": target.url("/t")})).await;
    let id = server.receive(&event_1_0("e-1")).await;
    let dead = told(&target, "/ops", "delivery.dead", &uuid).await;
    assert!(dead["source"].as_str().unwrap().starts_with("/waypost/"), "{dead}");
    let delivery = server.delivery(&id, &uuid).await;
    assert_eq!(
        dead["data"],
        json!({
            "subscription": uuid, "name": "hers", "user": "alice", "event": id, "event_id": "e-1",
            "event_source": "/it", "event_type": "it.happened", "delivery": delivery["id"],
            "reason": delivery["reason"], "attempts": 1, "answer": {"status": 410, "body": "no more"},
        })
    );
    let disabled = told(&target, "/ops", "subscription.disabled", &uuid).await;
    assert_eq!(
        disabled["data"],
        json!({"subscription": uuid, "name": "hers", "user": "alice", "reason": "no more"})
    );
    alice.update(&uuid, &json!({"disabled": null})).await;
    let enabled = told(&target, "/ops", "subscription.enabled", &uuid).await;
    assert_eq!(enabled["data"], json!({"subscription": uuid, "name": "hers", "user": "alice"}));
    let begun = alice.post(&format!("/eventmatch/{uuid}/recover"), &json!({"since": "earliest"})).await;
    assert_eq!(begun.status, 202, "{}", begun.text());
    let replayed = told(&target, "/ops", "replay.done", &uuid).await;
    assert_eq!(
        (&replayed["data"]["job"], &replayed["data"]["state"], &replayed["data"]["by"]),
        (&json!("recover"), &json!("done"), &json!("alice"))
    );
    // Each once, and in the log like any other.
    let mut types = types(&target.requests("/ops"));
    types.sort_unstable();
    assert_eq!(types, ["delivery.dead", "replay.done", "subscription.disabled", "subscription.enabled"]);
    let logged = logged(&server).await;
    assert_eq!(logged.len(), 4, "{logged:?}");
    let dead = logged.iter().find(|event| event["type"] == "io.waypost.delivery.dead").unwrap();
    let story = server.story(dead["id"].as_str().unwrap()).await;
    assert_eq!((&story["sender"], &story["event"]["data"]["event"]), (&json!("waypost"), &json!(id)));
}

#[tokio::test]
async fn an_operator_is_told_of_a_run_that_fails_for_good() {
    let target = Target::start().await;
    let config = "[[handler]]\nname = \"fails\"\nfilter = \"$[?@ == 'it.happened']\"\ncommand = [\"./fails.sh\"]\n\
                  retry_schedule = \"none\"\n";
    let script = |folder: &Path| crate::handlers::script(folder, "fails.sh", "exit 3");
    let server = Server::configured(config, script).await;
    watch(&server, &target, "/ops").await;
    let id = server.receive(&event_1_0("e-1")).await;
    let failed = told(&target, "/ops", "handler.failed", "").await;
    assert_eq!(
        (&failed["data"]["handler"], &failed["data"]["event"], &failed["data"]["event_id"]),
        (&json!("fails"), &json!(id), &json!("e-1"))
    );
}

#[tokio::test]
async fn only_admins_get_them_also_by_replay() {
    let (server, target) = (Server::with(&["--retry-schedule", "none"]).await, Target::start().await);
    target.always("/t", Answer::status(410));
    let alice = server.user("alice");
    let hers = watch(&alice, &target, "/alice").await;
    let uuid = server.subscribe(json!({"target_url": target.url("/t")})).await;
    server.receive(&event_1_0("e-1")).await;
    server.disabled(&uuid).await;
    wait_until("both are logged", async || (logged(&server).await.len() == 2).then_some(())).await;
    // The one that they are about does not get them, either: it matches everything.
    server.update(&uuid, &json!({"disabled": null, "target_url": target.url("/fine")})).await;
    wait_until("all are logged", async || (logged(&server).await.len() == 3).then_some(())).await;
    let all = logged(&server).await;
    let dead = all.iter().find(|event| event["type"] == "io.waypost.delivery.dead").unwrap();
    let dead = dead["id"].as_str().unwrap();
    alice.get(&format!("/events/{dead}")).await.refused(404);
    assert_eq!(alice.get("/events").await.ok().json()["events"], json!([]));
    for uuid in [&hers, &uuid] {
        let begun = server.post(&format!("/eventmatch/{uuid}/recover"), &json!({"since": "earliest"})).await;
        assert_eq!(begun.status, 202, "{}", begun.text());
        wait_until("the replay is over", async || {
            let shown = server.get(&format!("/eventmatch/{uuid}/recover")).await;
            (shown.status == 200 && shown.json()["state"] == "done").then_some(())
        })
        .await;
    }
    // Nor by a redelivery to all that match, nor if an admin names it.
    server.post(&format!("/events/{dead}/retry"), &json!(null)).await.ok();
    let again = server.post(&format!("/events/{dead}/retry?subscription={hers}"), &json!(null)).await.ok();
    assert_eq!(again.json()["deliveries"], json!([]), "{}", again.text());
    let late = watch(&server, &target, "/ops").await;
    server.post(&format!("/eventmatch/{late}/recover"), &json!({"since": "earliest"})).await;
    target.wait_for("/ops", 3).await;
    assert_eq!(target.requests("/alice").len(), 0);
    let fine = target.requests("/fine");
    assert!(fine.iter().all(|request| request.json()["subject"] != uuid.as_str()), "{:?}", types(&fine));
    // Why, for those who ask.
    let explained = server.get(&format!("/events/{dead}?explain=alice")).await.ok().json();
    let reason = &explained["explain"]["subscriptions"][0]["reason"];
    assert!(reason.as_str().unwrap().contains("admins"), "{explained}");
}

/// Policy does not decide about operator events: it knows nothing of them, and might be what is down.
#[tokio::test]
async fn policy_is_not_asked_about_them() {
    let (policy, target) = (Target::start().await, Target::start().await);
    policy.always("/events/anonymous", Answer::status(403));
    let server = Server::with(&["--policy-url", &policy.url("")]).await;
    watch(&server, &target, "/ops").await;
    let uuid = server.subscribe(json!({"target_url": target.url("/t")})).await;
    server.update(&uuid, &json!({"disabled": "2026-01-01T00:00:00Z"})).await;
    told(&target, "/ops", "subscription.disabled", &uuid).await;
    assert_eq!(policy.all().len(), 0);
}

#[tokio::test]
async fn a_dead_operator_event_makes_none() {
    let (server, target) = (Server::with(&["--retry-schedule", "none"]).await, Target::start().await);
    target.always("/deaf", Answer::status(415));
    let deaf = watch(&server, &target, "/deaf").await;
    let uuid = server.user("alice").subscribe(json!({"target_url": target.url("/t")})).await;
    server.user("alice").update(&uuid, &json!({"disabled": "2026-01-01T00:00:00Z"})).await;
    let first = wait_until("it is logged", async || logged(&server).await.pop()).await;
    server.delivery_in(first["id"].as_str().unwrap(), &deaf, "dead").await;
    server.user("alice").update(&uuid, &json!({"disabled": null})).await;
    wait_until("the next is logged", async || (logged(&server).await.len() == 2).then_some(())).await;
    target.wait_for("/deaf", 2).await;
    assert_eq!(logged(&server).await.len(), 2);
}

#[tokio::test]
async fn no_producer_can_send_one() {
    let server = Server::start().await;
    let forged = merged(event_1_0("a"), json!({"type": "io.waypost.delivery.dead"}));
    let refused = server.receive_as("application/json", forged.to_string()).await.refused(422);
    refused.says("io.waypost.");
    let batch = json!([event_1_0("a"), merged(forged, json!({"type": "IO.WayPost.x"}))]);
    server.receive_as(BATCH, batch.to_string()).await.refused(422).says("event 1");
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/s"),
        ("ce-type", "io.waypost.disk.low"),
        ("content-type", "text/plain"),
    ];
    server.send(Method::POST, "/receive", &headers, "x").await.refused(422);
    let old = merged(event("a"), json!({"eventType": "io.waypost.x"}));
    server.receive_as("application/json", old.to_string()).await.refused(422);
    assert_eq!(server.get("/events").await.ok().json()["events"], json!([]));
    // Whoever is called as such events' sender is shown is somebody else.
    let waypost = server.user("waypost");
    let uuid = server.subscribe(json!({"target_url": "http://127.0.0.1:9/"})).await;
    server.update(&uuid, &json!({"disabled": "2026-01-01T00:00:00Z"})).await;
    wait_until("it is logged", async || (logged(&server).await.len() == 1).then_some(())).await;
    assert_eq!(waypost.get("/events").await.ok().json()["events"], json!([]));
}

#[tokio::test]
async fn a_breaker_that_flaps_tells_once_a_minute() {
    let (server, target) = (Server::with(&["--retry-schedule", "30d"]).await, Target::start().await);
    watch(&server, &target, "/ops").await;
    let alice = server.user("alice");
    let uuid = alice.subscribe(json!({"name": "hers", "target_url": target.url("/t")})).await;
    let send = async |prefix: &str| {
        let events: Vec<Value> = (0..12).map(|number| event_1_0(&format!("{prefix}{number}"))).collect();
        server.receive_as(BATCH, json!(events).to_string()).await.ok();
    };
    let state = async |wanted: &str| {
        wait_until(&format!("the breaker is {wanted}"), async || {
            let shown = server.subscription(&uuid).await;
            (shown["breaker"]["state"] == wanted).then_some(())
        })
        .await;
    };
    for round in 0..3 {
        target.always("/t", Answer::status(500));
        send(&format!("{round}-")).await;
        state("open").await;
        target.always("/t", Answer::status(200));
        alice.post(&format!("/eventmatch/{uuid}/probe"), &json!({})).await;
        wait_until("it is closed", async || {
            let shown = server.subscription(&uuid).await;
            (!["open", "probing"].contains(&shown["breaker"]["state"].as_str().unwrap_or("none")))
                .then_some(())
        })
        .await;
    }
    let opened = told(&target, "/ops", "breaker.opened", &uuid).await;
    assert_eq!((&opened["data"]["name"], &opened["data"]["user"]), (&json!("hers"), &json!("alice")));
    assert!(opened["data"]["reason"].as_str().unwrap().contains("500"), "{opened}");
    assert_eq!(opened["data"]["of"], "target");
    told(&target, "/ops", "breaker.closed", &uuid).await;
    assert_eq!(types(&target.requests("/ops")), ["breaker.opened", "breaker.closed"]);
}

#[tokio::test]
async fn an_operator_is_told_of_a_folder_that_is_nearly_full() {
    let max = 16 * 1024 * 1024;
    let flags = ["--max-disk-bytes", &max.to_string()];
    let (server, target) = (Server::with(&flags).await, Target::start().await);
    watch(&server, &target, "/ops").await;
    let large = "x".repeat(200_000);
    let low = wait_until("it is told", async || {
        let event = merged(event_1_0("large"), json!({"data": large}));
        // It may be full by now.
        server.receive_as("application/cloudevents+json", event.to_string()).await;
        let told = target.requests("/ops");
        told.iter().map(Request::json).find(|event| event["type"] == "io.waypost.disk.low")
    })
    .await;
    assert_eq!((&low["subject"], &low["data"]["max_bytes"]), (&Value::Null, &json!(max)));
    assert!(low["data"]["used_bytes"].as_u64().unwrap() > max * 9 / 10, "{low}");
}

/// A flood is told in a few words.
#[tokio::test]
async fn many_dead_letters_are_told_together() {
    let (server, target) = (Server::start().await, Target::start().await);
    target.always("/t", Answer::status(415));
    watch(&server, &target, "/ops").await;
    let uuid = server.user("alice").subscribe(json!({"target_url": target.url("/t")})).await;
    let events: Vec<Value> = (0..500).map(|number| event_1_0(&number.to_string())).collect();
    server.receive_as(BATCH, json!(events).to_string()).await.ok();
    let told = wait_until("all are told", async || {
        let told: Vec<_> = target.requests("/ops").iter().map(Request::json).collect();
        let count = |event: &Value| event["data"]["count"].as_u64().unwrap_or(1);
        (told.iter().map(count).sum::<u64>() == 500).then_some(told)
    })
    .await;
    assert!(told.iter().all(|event| event["subject"] == uuid.as_str()), "{told:?}");
    let together = told.iter().filter(|event| event["data"]["count"].is_u64());
    assert!(together.clone().all(|event| event["data"]["reason"].as_str().unwrap().contains("415")));
    assert!(together.count() >= 1 && told.len() < 250, "{}", told.len());
}

/// A thousand subscriptions of one user that failed made thousands of events at once.
#[tokio::test]
async fn dead_letters_of_a_users_many_subscriptions_are_told_together_and_anothers_beside_them() {
    let (server, target) = (Server::start().await, Target::start().await);
    target.always("/t", Answer::status(415));
    watch(&server, &target, "/ops").await;
    let (alice, bob) = (server.user("alice"), server.user("bob"));
    for _ in 0..200 {
        alice.subscribe(json!({"target_url": target.url("/t")})).await;
    }
    let his = bob.subscribe(json!({"target_url": target.url("/t")})).await;
    server.receive(&event_1_0("e-1")).await;
    let told = wait_until("all are told", async || {
        let told: Vec<_> = target.requests("/ops").iter().map(Request::json).collect();
        let count = |event: &Value| event["data"]["count"].as_u64().unwrap_or(1);
        (told.iter().map(count).sum::<u64>() == 201).then_some(told)
    })
    .await;
    assert!(told.len() < 150, "{}", told.len());
    let together = told.iter().find(|event| event["data"]["count"].is_u64()).unwrap();
    assert_eq!(
        (&together["subject"], &together["data"]["user"]),
        (&Value::Null, &json!("alice")),
        "{together}"
    );
    assert_eq!(together["data"]["subscriptions"], together["data"]["count"], "{together}");
    assert!(told.iter().any(|event| event["subject"] == his.as_str()));
}

#[tokio::test]
async fn an_operator_is_told_of_the_breaker_of_a_plugin() {
    let (server, target) = (Server::with(&["--retry-schedule", "30d"]).await, Target::start().await);
    watch(&server, &target, "/ops").await;
    let alice = server.user("alice");
    let uuid = alice.subscribe(json!({"name": "hers", "target_url": target.url("/t")})).await;
    let module = crate::plugins::wasm(waypost_guests::TRAP);
    let headers = [("content-type", "application/wasm")];
    alice.send(Method::PUT, &format!("/eventmatch/{uuid}/plugin"), &headers, module).await.ok();
    let events: Vec<Value> = (0..6).map(|number| event_1_0(&number.to_string())).collect();
    server.receive_as(BATCH, json!(events).to_string()).await.ok();
    let opened = told(&target, "/ops", "breaker.opened", &uuid).await;
    let data = &opened["data"];
    assert_eq!(
        (&data["of"], &data["name"], &data["failures"]),
        (&json!("plugin"), &json!("hers"), &json!(5))
    );
}

#[tokio::test]
async fn a_crash_between_a_cause_and_its_event_loses_and_doubles_nothing() {
    let (mut server, target) = (Server::start().await, Target::start().await);
    let alice = server.user("alice");
    let uuid = alice.subscribe(json!({"target_url": target.url("/t")})).await;
    for round in 0..5 {
        let disabled = if round % 2 == 0 { json!("2026-01-01T00:00:00Z") } else { Value::Null };
        server.update(&uuid, &json!({"disabled": disabled})).await;
        server.kill9();
        server.restart().await;
        wait_until("it is logged", async || (logged(&server).await.len() == round + 1).then_some(())).await;
    }
    assert_eq!(logged(&server).await.len(), 5);
}

// Where dead letters go

#[tokio::test]
async fn a_dead_letter_goes_to_its_url_with_reason_and_answer() {
    let target = Target::start().await;
    target.always("/t", Answer::status(415).body("not this"));
    let service = target.url("/service");
    let server = Server::with(&["--dead-letter-url", &service]).await;
    let (alice, bob) = (server.user("alice"), server.user("bob"));
    let own = json!({"name": "hers", "target_url": target.url("/t"), "dead_letter_url": target.url("/dead")});
    let hers = alice.subscribe(own).await;
    assert_eq!(alice.subscription(&hers).await["dead_letter_url"], target.url("/dead"));
    let his = bob.subscribe(json!({"name": "his", "target_url": target.url("/t")})).await;
    let id = server.receive(&event_1_0("e-1")).await;
    for (path, uuid, name) in [("/dead", &hers, "hers"), ("/service", &his, "his")] {
        let dead = told(&target, path, "delivery.dead", uuid).await;
        let delivery = server.delivery(&id, uuid).await;
        assert_eq!((&dead["data"]["event"], &dead["data"]["name"]), (&json!(id), &json!(name)));
        assert_eq!(dead["data"]["reason"], delivery["reason"]);
        assert_eq!(dead["data"]["answer"], json!({"status": 415, "body": "not this"}));
        assert_eq!(target.requests(path).len(), 1, "each goes to one place");
    }
    // Its owner sees where it went, as the operator does; nobody else.
    let letters = logged(&server).await;
    let of = |uuid: &str| {
        let letter = letters.iter().find(|event| event["subject"] == uuid);
        letter.unwrap_or_else(|| panic!("{letters:?}"))["id"].as_str().unwrap().to_owned()
    };
    let story = alice.story(&of(&hers)).await;
    let delivery = &story["deliveries"][0];
    assert_eq!((&delivery["name"], &delivery["user"]), (&json!("dead letters of hers"), &json!("alice")));
    assert_eq!(delivery["target_url"], target.url("/dead"));
    bob.get(&format!("/events/{}", of(&hers))).await.refused(404);
    bob.get(&format!("/events/{}", of(&his))).await.refused(404);
    // It is told again if she wants that, and to no other place.
    alice.post(&format!("/events/{}/retry", of(&hers)), &json!(null)).await.ok();
    target.wait_for("/dead", 2).await;
    // What stands for the URL is no subscription.
    let recipient = delivery["subscription"].as_str().unwrap();
    for path in ["", "/recover", "/deliveries"] {
        alice.get(&format!("/eventmatch/{recipient}{path}")).await.refused(403);
    }
    alice.post(&format!("/eventmatch/{recipient}/recover"), &json!({"since": "earliest"})).await.refused(403);
    alice.put(&format!("/eventmatch/{recipient}"), &json!({"name": "x"})).await.refused(403);
    alice.delete(&format!("/eventmatch/{recipient}")).await.refused(403);
}

#[tokio::test]
async fn all_dead_letters_go_there_one_by_one() {
    let (server, target) = (Server::start().await, Target::start().await);
    target.always("/t", Answer::status(415));
    let fields = json!({"target_url": target.url("/t"), "dead_letter_url": target.url("/dead")});
    server.user("alice").subscribe(fields).await;
    let events: Vec<Value> = (0..300).map(|number| event_1_0(&number.to_string())).collect();
    server.receive_as(BATCH, json!(events).to_string()).await.ok();
    let mut got: Vec<_> = target.wait_for("/dead", 300).await.iter().map(Request::json).collect();
    got.sort_by_key(|event| event["data"]["event_id"].as_str().unwrap().parse::<u32>().unwrap());
    got.dedup_by_key(|event| event["data"]["event_id"].clone());
    assert_eq!((got.len(), target.requests("/dead").len()), (300, 300));
}

#[tokio::test]
async fn its_own_death_ends_there() {
    let (server, target) = (Server::with(&["--retry-schedule", "none"]).await, Target::start().await);
    target.always("/t", Answer::status(415));
    target.always("/dead", Answer::status(410));
    let fields = json!({"target_url": target.url("/t"), "dead_letter_url": target.url("/dead")});
    let alice = server.user("alice");
    let uuid = alice.subscribe(fields).await;
    for number in 1..=2 {
        server.receive(&event_1_0(&format!("e-{number}"))).await;
        target.wait_for("/dead", number).await;
    }
    wait_until("both are dead", async || {
        let logged = logged(&server).await;
        (logged.len() == 2 && logged.iter().all(|event| event["status"] != "202 Accepted")).then_some(())
    })
    .await;
    for letter in logged(&server).await {
        let story = server.story(letter["id"].as_str().unwrap()).await;
        assert_eq!(story["deliveries"][0]["state"], "dead", "{story}");
    }
    assert_eq!(alice.subscription(&uuid).await["disabled"], Value::Null, "it is another's failure");
    assert_eq!(logged(&server).await.len(), 2);
}

#[tokio::test]
async fn what_policy_hid_stays_hidden() {
    let (policy, target) = (Target::start().await, Target::start().await);
    policy.always("/events/alice", Answer::status(403));
    target.always("/t", Answer::status(415));
    let server = Server::with(&["--policy-url", &policy.url("")]).await;
    let alice = server.user("alice");
    let fields = json!({"target_url": target.url("/t"), "dead_letter_url": target.url("/dead")});
    let uuid = alice.subscribe(fields).await;
    let hidden = server.receive(&event_1_0("hidden")).await;
    server.delivery_in(&hidden, &uuid, "denied").await;
    // Nor does a job that sends it again tell of it.
    server.post(&format!("/eventmatch/{uuid}/redeliver"), &json!({"state": "denied"})).await;
    policy.always("/events/alice", Answer::status(200));
    server.receive(&event_1_0("seen")).await;
    let got = target.wait_for("/dead", 1).await;
    assert_eq!(got[0].json()["data"]["event_id"], "seen");
    assert!(target.requests("/dead").iter().all(|request| !request.text().contains("hidden")));
    let dead = logged(&server).await.into_iter().filter(|event| event["type"] == "io.waypost.delivery.dead");
    assert_eq!(dead.count(), target.requests("/dead").len());
}

#[tokio::test]
async fn it_leads_nowhere_that_a_target_must_not() {
    let server = Server::with(&["--deny-targets", "denied.example"]).await;
    let url = "http://127.0.0.1:9/";
    for (wrong, says) in [
        (json!(format!("{}/receive", server.url)), "this Waypost itself"),
        (json!("http://denied.example/"), "must not lead there"),
        (json!("ftp://127.0.0.1/"), "dead_letter_url"),
        (json!(7), "a URL, or null"),
    ] {
        let body = json!({"name": "n", "jsonpath": "$", "target_url": url, "dead_letter_url": wrong});
        server.post("/eventmatch", &body).await.refused(422).at("/dead_letter_url").says(says);
        let uuid = server.subscribe(json!({"target_url": url})).await;
        let change = json!({"dead_letter_url": wrong});
        server.put(&format!("/eventmatch/{uuid}"), &change).await.refused(422).at("/dead_letter_url");
    }
}

#[tokio::test]
async fn a_disabled_owner_gets_them_and_of_a_deleted_one_nothing_is_left_to_send() {
    let (server, target) = (Server::with(&["--retry-schedule", "30d"]).await, Target::start().await);
    target.always("/t", Answer::status(410));
    let alice = server.user("alice");
    let fields = json!({"target_url": target.url("/t"), "dead_letter_url": target.url("/dead")});
    let uuid = alice.subscribe(fields).await;
    server.receive(&event_1_0("e-1")).await;
    alice.disabled(&uuid).await;
    target.wait_for("/dead", 1).await;
    target.always("/dead", Answer::status(500));
    let moved = json!({"disabled": null, "target_url": target.url("/t2")});
    target.always("/t2", Answer::status(410));
    alice.update(&uuid, &moved).await;
    server.receive(&event_1_0("e-2")).await;
    target.wait_for("/dead", 2).await;
    alice.delete(&format!("/eventmatch/{uuid}")).await.ok();
    let skipped = wait_until("what is left is skipped", async || {
        for letter in logged(&server).await {
            let story = server.story(letter["id"].as_str().unwrap()).await;
            let found = story["deliveries"].as_array().unwrap().iter().find(|it| it["state"] == "skipped");
            if let Some(found) = found {
                return Some(found.clone());
            }
        }
        None
    })
    .await;
    assert!(skipped["reason"].as_str().unwrap().contains("dead_letter_url"), "{skipped}");
}
