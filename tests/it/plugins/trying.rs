//! Dry runs with `POST /eventmatch/{uuid}/test`, and `plugin push` and `replay` on a running server.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use waypost_guests::PROBE;

use super::upload;
use crate::harness::{Answer, Api, Reply, Server, Target, event_1_0, run};

async fn digest(api: &Api) -> String {
    upload(api, PROBE).await["digest"].as_str().unwrap().to_owned()
}

/// Makes a dry run with an event in the body.
async fn try_event(api: &Api, uuid: &str, query: &str, event: &Value) -> Reply {
    let headers = [("content-type", "application/cloudevents+json")];
    api.send(Method::POST, &format!("/eventmatch/{uuid}/test{query}"), &headers, event.to_string()).await
}

/// Makes a dry run with a logged event.
async fn try_logged(api: &Api, uuid: &str, query: &str) -> Reply {
    api.send(Method::POST, &format!("/eventmatch/{uuid}/test{query}"), &[], Bytes::new()).await
}

async fn with_probe(api: &Api, target: &str, config: Value) -> String {
    let plugin = json!({"digest": digest(api).await, "config": config});
    api.subscribe(json!({"target_url": target, "plugin": plugin})).await
}

#[tokio::test]
async fn a_dry_run_shows_the_plugin_and_the_requests_and_sends_nothing() {
    let (server, target) = (Server::start().await, Target::start().await);
    let plugin = json!({"digest": digest(&server).await, "config": {"transform": "upper", "log": "hello"}});
    let auth = json!({"type": "header", "header": {"type": "Bearer", "credentials": "sesame"}});
    let fields = json!({"target_url": target.url("/t"), "plugin": plugin, "auth": auth});
    let uuid = server.subscribe(fields).await;
    let tried = try_event(&server, &uuid, "", &event_1_0("1")).await.ok();
    assert!(!tried.text().contains("sesame"), "{}", tried.text());
    let tried = tried.json();
    assert_eq!(tried["matches"], true);
    assert_eq!(tried["policy"], json!({"verdict": "allowed", "reason": null, "answer": null}));
    let run = &tried["plugin"];
    assert_eq!((&run["verdict"], &run["reason"]), (&json!("transformed"), &Value::Null), "{run}");
    assert_eq!(run["answered"], json!(["policy", "filter", "transform"]));
    assert_eq!(run["logs"][0]["message"], "hello");
    let request = &tried["requests"][0];
    assert_eq!((&request["method"], &request["url"]), (&json!("POST"), &json!(target.url("/t"))));
    assert_eq!(request["body"], "{\"N\":1}");
    let headers = request["headers"].as_array().unwrap();
    assert!(headers.contains(&json!(["authorization", "(secret)"])), "{request}");
    assert!(headers.contains(&json!(["x-made-by", "probe"])), "{request}");
    assert_eq!(tried["requests"].as_array().unwrap().len(), 1);
    assert_eq!(server.get("/events").await.ok().json()["events"], json!([]), "nothing is kept");
    server.receive(&event_1_0("1")).await;
    target.wait_for("/t", 1).await;
    assert_eq!(target.all().len(), 1, "what was accepted is sent, and nothing else");
}

#[tokio::test]
async fn a_dry_run_reads_the_state_and_does_not_write_it() {
    let (server, target) = (Server::start().await, Target::start().await);
    let uuid = with_probe(&server, &target.url("/t"), json!({"count": "n", "transform": "count"})).await;
    let id = server.receive(&event_1_0("1")).await;
    server.delivery_in(&id, &uuid, "delivered").await;
    for _ in 0..2 {
        let tried = try_event(&server, &uuid, "", &event_1_0("2")).await.ok().json();
        assert_eq!(tried["requests"][0]["body"], "2", "{tried}");
    }
    let id = server.receive(&event_1_0("3")).await;
    server.delivery_in(&id, &uuid, "delivered").await;
    let bodies: Vec<_> = target.requests("/t").iter().map(|request| request.text().to_owned()).collect();
    assert_eq!(bodies, ["1", "2"]);
}

#[tokio::test]
async fn a_dry_run_stops_where_the_filter_or_policy_stops_it() {
    let (policy, target) = (Target::start().await, Target::start().await);
    let server = Server::with(&["--policy-url", &policy.url("")]).await;
    let uuid = with_probe(&server, &target.url("/t"), json!({})).await;
    let tried = try_event(&server, &uuid, "?jsonpath=$.nothing", &event_1_0("1")).await.ok().json();
    assert_eq!(
        (&tried["matches"], &tried["policy"], &tried["plugin"]),
        (&json!(false), &Value::Null, &Value::Null)
    );
    assert!(policy.all().is_empty(), "nobody is asked about an event that does not match");
    policy.always("/events/anonymous", Answer::status(403).body("not yours"));
    let tried = try_event(&server, &uuid, "", &event_1_0("1")).await.ok().json();
    assert_eq!(tried["policy"]["verdict"], "denied");
    assert_eq!(tried["policy"]["answer"], json!({"status": 403, "body": "not yours"}));
    assert_eq!((&tried["plugin"], &tried["requests"]), (&Value::Null, &json!([])));
}

#[tokio::test]
async fn another_module_and_a_failing_one_can_be_tried() {
    let (server, target) = (Server::start().await, Target::start().await);
    let uuid = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let plain = try_event(&server, &uuid, "", &event_1_0("1")).await.ok().json();
    assert_eq!((&plain["plugin"], plain["requests"].as_array().unwrap().len()), (&Value::Null, 1));
    let digest = digest(&server).await;
    let tried = try_event(&server, &uuid, &format!("?plugin={digest}"), &event_1_0("1")).await.ok().json();
    assert_eq!(tried["plugin"]["digest"], digest);
    let unknown = format!("?plugin=sha256:{}", "0".repeat(64));
    try_event(&server, &uuid, &unknown, &event_1_0("1")).await.refused(422).says("upload it first");
    try_event(&server, &uuid, "?plugin=abc", &event_1_0("1"))
        .await
        .refused(400)
        .says("64 hexadecimal digits");
    let uuid = with_probe(&server, &target.url("/t"), json!({"filter": "panic: oh no"})).await;
    let tried = try_event(&server, &uuid, "", &event_1_0("1")).await.ok().json();
    assert_eq!((&tried["plugin"]["verdict"], &tried["requests"]), (&json!("failed"), &json!([])));
    assert!(tried["plugin"]["stderr"].as_str().unwrap().contains("oh no"), "{tried}");
}

#[tokio::test]
async fn a_dry_run_with_a_logged_event_needs_policys_consent() {
    let policy = Target::start().await;
    let server = Server::with(&["--policy-url", &policy.url("")]).await;
    policy.always("/events/bob", Answer::status(403));
    let bob = server.user("bob");
    let uuid = bob.subscribe(json!({"target_url": policy.url("/t")})).await;
    let id = server.receive(&event_1_0("1")).await;
    server.delivery_in(&id, &uuid, "denied").await;
    try_logged(&bob, &uuid, &format!("?event={id}")).await.refused(404);
    try_logged(&server.user("mallory"), &uuid, &format!("?event={id}")).await.refused(403);
    // An admin's dry run of bob's subscription is still made as bob.
    let tried = try_logged(&server, &uuid, &format!("?event={id}")).await.ok().json();
    assert_eq!((&tried["policy"]["verdict"], &tried["plugin"]), (&json!("denied"), &Value::Null), "{tried}");
}

#[tokio::test]
async fn deliveries_are_listed_newest_first_and_page_by_page() {
    let (server, target) = (Server::start().await, Target::start().await);
    let uuid = with_probe(&server, &target.url("/t"), json!({"filter": "no: why"})).await;
    let mut ids = Vec::new();
    for number in 0..3 {
        let id = server.receive(&event_1_0(&number.to_string())).await;
        server.delivery_in(&id, &uuid, "skipped").await;
        ids.insert(0, id);
    }
    let path = format!("/eventmatch/{uuid}/deliveries?limit=2");
    let first = server.get(&path).await.ok().json();
    let listed = |page: &Value| -> Vec<String> {
        let deliveries = page["deliveries"].as_array().unwrap();
        deliveries.iter().map(|delivery| delivery["event"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(listed(&first), ids[..2]);
    assert_eq!(first["deliveries"][0]["state"], "skipped");
    assert_eq!(first["deliveries"][0]["reason"], "why");
    assert_eq!(first["deliveries"][0]["attempts"][0]["plugin"]["verdict"], "skipped");
    let second = server.get(first["next"].as_str().unwrap()).await.ok().json();
    assert_eq!(listed(&second), ids[2..]);
    server.user("bob").get(&path).await.refused(403);
    server.get(&format!("/eventmatch/{uuid}/deliveries?limit=0")).await.refused(400).says("limit");
}

#[tokio::test]
async fn replay_shows_what_another_version_would_have_decided() {
    let (server, target) = (Server::start().await, Target::start().await);
    let uuid = with_probe(&server, &target.url("/t"), json!({"filter": "no: too small"})).await;
    let id = server.receive(&event_1_0("1")).await;
    server.delivery_in(&id, &uuid, "skipped").await;
    let replay = async |more: &[&str]| {
        let arguments =
            ["plugin", "replay", PROBE, "--subscription", &uuid, "--server", &server.url, "--last", "5"];
        run(&[&arguments[..], more].concat(), "").await
    };
    let output = replay(&[]).await;
    assert_eq!((output.code, output.stdout.as_str()), (0, "1 delivery: 0 would change\n"), "{output:?}");
    let plugin = json!({"plugin": {"digest": digest(&server).await, "config": {"transform": "upper"}}});
    server.update(&uuid, &plugin).await;
    let output = replay(&[]).await;
    assert_eq!(output.code, 1, "{output:?}");
    assert_eq!(
        output.stdout,
        format!("{id}  skipped (too small) -> transformed\n1 delivery: 1 would change\n")
    );
    let output = replay(&["--json"]).await;
    let shown: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(
        (&shown["changed"], &shown["deliveries"][0]["would_be"]["verdict"]),
        (&json!(1), &json!("transformed"))
    );
    server.receive(&event_1_0("2")).await;
    target.wait_for("/t", 1).await;
    assert_eq!(target.all().len(), 1, "what was accepted is sent, and nothing else");
}

/// Four dry runs of one user took all places, and all other users were refused.
#[tokio::test]
async fn a_user_with_many_dry_runs_leaves_places_for_others() {
    let policy = Target::start().await;
    let server = Server::with(&["--policy-url", &policy.url("")]).await;
    let uuid = server.subscribe(json!({"target_url": policy.url("/t")})).await;
    let gate = policy.hang("/events/anonymous");
    let mut trials = tokio::task::JoinSet::new();
    for _ in 0..7 {
        let (api, uuid) = (server.user("anonymous"), uuid.clone());
        trials.spawn(async move { try_event(&api, &uuid, "", &event_1_0("1")).await });
    }
    // Two run, and four wait.
    let refused = trials.join_next().await.unwrap().unwrap();
    assert_eq!(refused.header("retry-after"), "1");
    refused.refused(503).says("too many tests of yours are under way");
    policy.wait_for("/events/anonymous", 2).await;
    let ann = server.user("ann");
    let anns = ann.subscribe(json!({"target_url": policy.url("/t")})).await;
    try_event(&ann, &anns, "", &event_1_0("1")).await.ok();
    assert_eq!(policy.peak("/events/anonymous"), 2, "the others had as long as hers to come");
    gate.open();
    while let Some(tried) = trials.join_next().await {
        tried.unwrap().ok();
    }
}

#[tokio::test]
async fn push_makes_a_subscription_use_a_module_and_keeps_the_rest() {
    let (server, target) = (Server::start().await, Target::start().await);
    let uuid = with_probe(&server, &target.url("/t"), json!({"filter": "no: why"})).await;
    let push = async |file: &str, stdin: &str| {
        run(&["plugin", "push", file, "--subscription", &uuid, "--server", &server.url], stdin).await
    };
    let output = push(PROBE, "").await;
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.stdout.contains("\nmanifest  probe 1.0.0: "), "{}", output.stdout);
    assert!(output.stdout.ends_with(&format!("\n{uuid} uses it from now on\n")), "{}", output.stdout);
    assert_eq!(server.subscription(&uuid).await["plugin"]["config"], json!({"filter": "no: why"}));
    let output = push("-", "this is no wasm").await;
    assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{output:?}");
    assert!(output.stderr.starts_with("error: "), "{}", output.stderr);
}
