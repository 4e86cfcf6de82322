//! The options of a replay: bounds, rate, progress, cancelling, and who may request it.

use std::time::Instant;

use serde_json::json;

use super::{assert_once, ended, fill, ids, recover, recovery};
use crate::harness::{Answer, Server, Target, event, merged, run, wait_until};

#[tokio::test]
async fn since_and_until_bound_the_time_of_receipt() {
    let (server, target) = (Server::with(&["--admin-users", "nobody"]).await, Target::start().await);
    let mut received = Vec::new();
    for id in ["a", "b", "c", "d"] {
        let id = server.receive(&event(id)).await;
        received.push(server.story(&id).await["received"].clone());
    }
    let uuid = server.subscribe(json!({"target_url": target.url("/t"), "max_in_flight": 1})).await;
    recover(&server, &uuid, json!({"since": received[1], "until": received[3]})).await;
    let done = ended(&server, &uuid, "done").await;
    assert_eq!((&done["looked_at"], &done["created"]), (&json!(2), &json!(2)), "{done}");
    assert_eq!(done["oldest"]["received"], received[1]);
    assert_eq!(ids(&target.wait_for("/t", 2).await), ["b", "c"]);
    let fields = json!({"target_url": target.url("/late"), "start_at": received[3]});
    let late = server.subscribe(fields).await;
    ended(&server, &late, "done").await;
    assert_eq!(ids(&target.wait_for("/late", 1).await), ["d"]);
    // Only the missing deliveries are made.
    recover(&server, &uuid, json!({"since": "earliest"})).await;
    let done = ended(&server, &uuid, "done").await;
    assert_eq!((&done["matched"], &done["created"]), (&json!(4), &json!(2)));
    target.wait_for("/t", 4).await;
    assert_once(&target.requests("/t"), &["a", "b", "c", "d"].map(str::to_owned));
}

#[tokio::test]
async fn one_runs_at_a_time_and_can_be_cancelled() {
    let (mut server, target) =
        (Server::with(&["--recover-events-per-second", "20"]).await, Target::start().await);
    let all = fill(&server, "a", 100).await;
    let uuid = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let path = format!("/eventmatch/{uuid}/recover");
    server.get(&path).await.refused(404).says("POST");
    server.delete(&path).await.refused(404);
    recover(&server, &uuid, json!({"since": "earliest"})).await;
    server.post(&path, &json!({"since": "earliest"})).await.refused(409).says("running");
    target.wait_for("/t", 20).await;
    let cancelled = server.delete(&path).await.ok().json();
    assert_eq!(cancelled["state"], "cancelled");
    assert!(cancelled["created"].as_u64().unwrap() < 100, "{cancelled}");
    assert_eq!(server.delete(&path).await.ok().json(), cancelled, "it is over");
    server.restart().await;
    assert_eq!(recovery(&server, &uuid).await, cancelled);
    // The rate makes it slow, so that the deletion of its subscription cancels this one too.
    recover(&server, &uuid, json!({"since": "earliest"})).await;
    let before = target.requests("/t").len();
    assert!(before < all.len());
    server.delete(&format!("/eventmatch/{uuid}")).await.ok();
    server.get(&path).await.refused(403);
    wait_until("the log says that it has ended", async || {
        server.log().contains("a recovery has ended").then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_rate_is_that_of_the_setting() {
    let (server, target) =
        (Server::with(&["--recover-events-per-second", "100"]).await, Target::start().await);
    let all = fill(&server, "a", 250).await;
    let begun = Instant::now();
    let uuid = server.subscribe(json!({"target_url": target.url("/t"), "start_at": "earliest"})).await;
    ended(&server, &uuid, "done").await;
    let took = begun.elapsed().as_millis();
    assert!(took >= 1900, "250 events at 100 a second took {took} ms");
    target.wait_for("/t", 250).await;
    assert_once(&target.requests("/t"), &all);
}

#[tokio::test]
async fn a_replay_uses_the_current_filter_and_delivers_only_matches() {
    let (server, target) =
        (Server::with(&["--recover-events-per-second", "16"]).await, Target::start().await);
    for n in 0..90 {
        let kind = if n % 2 == 0 { "even" } else { "odd" };
        server.receive(&merged(event(&n.to_string()), json!({"eventType": kind}))).await;
    }
    let filter = |kind: &str| format!("$[?@ == '{kind}']");
    let fields = json!({"target_url": target.url("/t"), "start_at": "earliest", "jsonpath": filter("even")});
    let uuid = server.subscribe(fields).await;
    target.wait_for("/t", 10).await;
    server.update(&uuid, &json!({"jsonpath": filter("odd")})).await;
    let done = ended(&server, &uuid, "done").await;
    assert_eq!(done["looked_at"], 90);
    let created = usize::try_from(done["created"].as_u64().unwrap()).unwrap();
    let got = target.wait_for("/t", created).await;
    assert_eq!(got.len(), created);
    let evens = got.iter().filter(|request| request.json()["eventType"] == "even").count();
    assert!((10..=30).contains(&evens), "the first pages: {evens}");
    assert!(created - evens >= 15, "{created}");
}

#[tokio::test]
async fn policy_is_asked_about_replayed_events() {
    let (target, policy) = (Target::start().await, Target::start().await);
    policy.always("/events/bob", Answer::status(403));
    let server = Server::with(&["--policy-url", &policy.url("")]).await;
    let id = server.receive(&event("a")).await;
    for user in ["ann", "bob"] {
        let fields = json!({"target_url": target.url(&format!("/{user}")), "start_at": "earliest"});
        let uuid = server.user(user).subscribe(fields).await;
        let done = ended(&server.user(user), &uuid, "done").await;
        // Each would reveal events that policy denies the user, and their content.
        for told in ["looked_at", "matched", "created", "failed", "oldest", "position", "end"] {
            assert_eq!(done[told], json!(null), "{told}");
        }
        server.delivery_in(&id, &uuid, if user == "ann" { "delivered" } else { "denied" }).await;
    }
    assert!(target.requests("/bob").is_empty());
    let mut fields = json!({"target_url": target.url("/admin"), "start_at": "earliest"});
    // The operator events that tell of the replays before are no part of this.
    fields["jsonpath"] = json!("$[?@ == 'a']");
    let uuid = server.subscribe(fields).await;
    assert_eq!(ended(&server, &uuid, "done").await["matched"], 1);
    assert_eq!(target.requests("/ann").len(), 1);
}

/// A replay makes deliveries only as fast as the target accepts them, so that a new event does not wait behind all of
/// them.
#[tokio::test]
async fn a_live_event_does_not_wait_for_the_end_of_the_replay() {
    let flags = ["--recover-events-per-second", "1000000"];
    let (server, target) = (Server::with(&flags).await, Target::start().await);
    for part in 0..8 {
        fill(&server, &part.to_string(), 250).await;
    }
    let gate = target.hang_after("/t", 40);
    let fields = json!({"target_url": target.url("/t"), "start_at": "earliest", "max_in_flight": 4});
    let uuid = server.subscribe(fields).await;
    wait_until("it waits for the target", async || {
        (recovery(&server, &uuid).await["waiting"].as_str()?.contains("target")).then_some(())
    })
    .await;
    let waiting = recovery(&server, &uuid).await;
    assert!(waiting["created"].as_u64().unwrap() < 1000, "{waiting}");
    server.receive(&event("live")).await;
    gate.open();
    target.wait_for("/t", 2001).await;
    let place = ids(&target.requests("/t")).iter().position(|id| id == "live").unwrap();
    assert!(place < 1000, "the live event came as number {place}");
    ended(&server, &uuid, "done").await;
    assert_eq!(target.requests("/t").len(), 2001);
}

#[tokio::test]
async fn purged_events_are_not_scanned_and_the_progress_shows_the_first_event() {
    let (server, target) = (Server::start().await, Target::start().await);
    let gone = server.receive(&event("gone")).await;
    let left = server.receive(&event("left")).await;
    server.delete(&format!("/events/{gone}")).await.ok();
    let fields = json!({"target_url": target.url("/t"), "start_at": "2020-01-01T00:00:00Z"});
    let uuid = server.subscribe(fields).await;
    let done = ended(&server, &uuid, "done").await;
    assert_eq!((&done["oldest"]["event"], &done["looked_at"]), (&json!(left), &json!(1)));
    assert_eq!(done["since"], "2020-01-01T00:00:00.000000Z");
    let empty = Server::start().await;
    let uuid = empty.subscribe(json!({"target_url": target.url("/e"), "start_at": "earliest"})).await;
    let done = ended(&empty, &uuid, "done").await;
    assert_eq!((&done["oldest"], &done["end"]), (&json!(null), &json!(null)));
}

#[tokio::test]
async fn another_users_subscription_looks_like_an_unknown_one() {
    let server = Server::start().await;
    let uuid = server.user("ann").subscribe(json!({"target_url": "http://127.0.0.1:1/"})).await;
    let unknown = "00000000-0000-4000-8000-000000000000".to_owned();
    for uuid in [&uuid, &unknown] {
        let path = format!("/eventmatch/{uuid}/recover");
        let bob = server.user("bob");
        bob.get(&path).await.refused(403).says("you have no subscription");
        bob.delete(&path).await.refused(403).says("you have no subscription");
        bob.post(&path, &json!({"since": "earliest"})).await.refused(403).says("you have no subscription");
    }
    server.user("ann").get(&format!("/eventmatch/{uuid}/recover")).await.refused(404);
    assert_eq!(server.put(&format!("/eventmatch/{uuid}/recover"), &json!({})).await.status, 405);
    server.get("/eventmatch/7/recover").await.refused(400);
}

#[tokio::test]
async fn a_wrong_body_is_refused_with_the_member() {
    let server = Server::start().await;
    let uuid = server.subscribe(json!({"target_url": "http://127.0.0.1:1/"})).await;
    let path = format!("/eventmatch/{uuid}/recover");
    for (body, pointer, says) in [
        (json!({}), "/since", "missing"),
        (json!({"since": null}), "/since", "missing"),
        (json!({"since": 7}), "/since", "2026-01-31T12:00:00Z"),
        (json!({"since": "now"}), "/since", "earliest"),
        (json!({"since": "2026-01-31"}), "/since", "2026-01-31T12:00:00Z"),
        (json!({"since": "9000-01-01T00:00:00Z"}), "/since", "future"),
        (json!({"since": "earliest", "until": "soon"}), "/until", "2026-01-31T12:00:00Z"),
        (json!({"since": "2026-01-02T00:00:00Z", "until": "2026-01-02T00:00:00Z"}), "/until", "later"),
        (json!({"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}), "/until", "later"),
        (json!({"since": "earliest", "untill": null}), "/untill", "unknown member"),
        (json!({"since": "earliest", "a/b~": 1}), "/a~1b~0", "unknown member"),
    ] {
        server.post(&path, &body).await.refused(422).at(pointer).says(says);
    }
    server.post(&path, &json!(["earliest"])).await.refused(400);
    server.get(&path).await.refused(404);
    for (start_at, says) in [
        (json!("later"), "earliest"),
        (json!(7), "now"),
        (json!("9000-01-01T00:00:00Z"), "future"),
        (json!({}), "now"),
    ] {
        let body =
            json!({"name": "n", "jsonpath": "$", "target_url": "http://127.0.0.1:1/", "start_at": start_at});
        server.post("/eventmatch", &body).await.refused(422).at("/start_at").says(says);
    }
    for start_at in [json!("now"), json!(null)] {
        let uuid = server.subscribe(json!({"target_url": "http://127.0.0.1:1/", "start_at": start_at})).await;
        server.get(&format!("/eventmatch/{uuid}/recover")).await.refused(404);
    }
    let put = server.put(&format!("/eventmatch/{uuid}"), &json!({"start_at": "earliest"})).await;
    put.refused(422).at("/start_at").says("/recover");
}

#[tokio::test]
async fn the_command_line_begins_shows_waits_and_cancels() {
    let (server, target) =
        (Server::with(&["--recover-events-per-second", "40"]).await, Target::start().await);
    fill(&server, "a", 150).await;
    let uuid = server.user("ann").subscribe(json!({"target_url": target.url("/t")})).await;
    let command = async |arguments: &[&str]| {
        let fixed = ["recover", &uuid, "--server", &server.url, "--user", "ann"];
        run(&[&fixed[..], arguments].concat(), "").await
    };
    let never = command(&[]).await;
    assert_eq!((never.code, never.stdout.as_str()), (1, ""), "{}", never.stderr);
    assert!(never.stderr.contains("was ever asked for"), "{}", never.stderr);
    let begun = command(&["--since", "earliest"]).await;
    assert_eq!((begun.code, begun.stdout.as_str()), (0, "running: looked at 0, matched 0, created 0\n"));
    let second = command(&["--since", "2020-01-01"]).await;
    assert!(second.code == 1 && second.stderr.contains("is running"), "{}", second.stderr);
    let cancelled = command(&["--cancel"]).await;
    assert!(cancelled.stdout.starts_with("cancelled: "), "{}", cancelled.stdout);
    let waited = command(&["--since", "2020-01-01", "--wait"]).await;
    let line = "done: looked at 150, matched 150, created ";
    assert!(waited.code == 0 && waited.stdout.starts_with(line), "{} {}", waited.stdout, waited.stderr);
    assert!(waited.stderr.contains("running: "), "{}", waited.stderr);
    assert!(command(&[]).await.stdout.starts_with(line));
    target.wait_for("/t", 150).await;
    for wrong in [&["--since", "soon"][..], &["--until", "2020-01-01"], &["--cancel", "--wait"]] {
        assert_eq!(command(wrong).await.code, 2, "{wrong:?}");
    }
}
