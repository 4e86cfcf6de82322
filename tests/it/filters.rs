//! Filters as their owners meet them: two dialects, one that is too expensive, and the command line.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Output, Server, Target, event, merged, run, run_in};

/// The same filter in both dialects: it finds the value of the key `Taggy` in [`event`].
pub(crate) const RFC9535: &str = "$.data[?@.key == 'Taggy' && @.value == 'Blah'].value";
pub(crate) const JSONPATH2: &str = r#"$.data[*][?(@.key = "Taggy" and @.value = "Blah")].value"#;

/// It visits all descendants of each descendant of each node: too many in an event that is large and deep.
const EXPENSIVE: &str = "$..[?@..[?@..x]]";

fn large(id: &str) -> Value {
    let deep = |n: usize| (0..60).fold(json!(n), |inner, _| json!([inner]));
    merged(event(id), json!({"data": (0..200).map(deep).collect::<Vec<_>>()}))
}

// subscriptions

#[tokio::test]
async fn a_subscription_shows_its_dialect_and_its_index() {
    let (server, target) = (Server::start().await, Target::start().await);
    let by_type = r#"$[?(@["eventType"] = "x")]"#;
    for (fields, used, index) in [
        (json!({"jsonpath": "$.data[?@.value == 'x']"}), "rfc9535", "equality on $.data[*].value"),
        (json!({"jsonpath": r#"$.data[*][?(@.key = "x")]"#}), "jsonpath2", "equality on $.data[*].key"),
        (json!({"jsonpath": by_type}), "jsonpath2", "equality on $.eventType"),
        (json!({"jsonpath": by_type, "filter_dialect": "jsonpath2"}), "jsonpath2", "equality on $.eventType"),
        (json!({"jsonpath": "data", "filter_dialect": "rfc9535"}), "rfc9535", "existence of $.data"),
        (json!({"jsonpath": "$..value"}), "rfc9535", "scan"),
    ] {
        let uuid = server.subscribe(merged(fields.clone(), json!({"target_url": target.url("/t")}))).await;
        // Lists have no numbers of deliveries.
        let shown = merged(server.subscription(&uuid).await, json!({"counts": null}));
        let dialect = fields.get("filter_dialect").cloned().unwrap_or(json!("auto"));
        assert_eq!(
            (&shown["filter_dialect"], &shown["filter_dialect_used"], &shown["index"], &shown["warnings"]),
            (&dialect, &json!(used), &json!(index), &json!([])),
            "{fields}"
        );
        let listed = server.get("/eventmatch").await.ok().json();
        let listed = listed.as_array().unwrap().last().cloned().unwrap();
        assert_eq!(merged(listed, json!({"counts": null})), shown, "a list shows the same");
        let put = server.update(&uuid, &shown).await;
        assert_eq!(
            merged(put, json!({"updated": null, "counts": null})),
            merged(shown, json!({"updated": null}))
        );
    }
}

/// Shell patterns were accepted without a warning, and `--explain` blamed the data.
#[tokio::test]
async fn a_pattern_that_can_match_nothing_is_reported_when_it_is_saved_and_explained() {
    let (server, target) = (Server::start().await, Target::start().await);
    let filter = "$.data[?search(@.name, '*.tif')]";
    let uuid = server.subscribe(json!({"target_url": target.url("/t"), "jsonpath": filter})).await;
    let warnings = server.subscription(&uuid).await["warnings"].clone();
    let told = warnings[0].as_str().unwrap();
    assert!(told.starts_with("column 25: this pattern is no regular expression"), "{warnings}");
    let tried = server.post(&format!("/eventmatch/{uuid}/test"), &event("a")).await.ok().json();
    let problem = tried["filter"]["steps"][1]["conditions"][0]["problem"].as_str().unwrap().to_owned();
    assert!(problem.starts_with("its pattern is no regular expression"), "{tried}");
    assert!(tried["filter"]["reason"].as_str().unwrap().ends_with(&problem), "{tried}");
    let output = run(&["match", "--explain", filter, "-"], &event("a").to_string()).await;
    assert_eq!(output.code, 1);
    for part in ["warning: column 25: this pattern is no regular", "matches nothing"] {
        assert!(output.stderr.contains(part), "{output:?}");
    }
    let large = json!({"target_url": target.url("/t"), "jsonpath": r"$.data[?match(@.name, '\\w{1,64}')]", "name": "n"});
    assert_eq!(server.post("/eventmatch", &large).await.ok().json()["warnings"], json!([]));
}

/// Sites whose clients all use the original's language had to say so in each subscription.
#[tokio::test]
async fn the_default_dialect_applies_to_filters_that_do_not_name_theirs() {
    let server = Server::with(&["--filter-dialect-default", "jsonpath2"]).await;
    let target = Target::start().await;
    // In RFC 9535 this tests the children of each row, and finds nothing.
    let filter = "$.data[*][?(@.value)]";
    let uuid = server.subscribe(json!({"target_url": target.url("/own"), "jsonpath": filter})).await;
    let shown = server.subscription(&uuid).await;
    assert_eq!(
        (&shown["filter_dialect"], &shown["filter_dialect_used"]),
        (&json!("jsonpath2"), &json!("jsonpath2"))
    );
    let said = json!({"target_url": target.url("/said"), "jsonpath": filter, "filter_dialect": "auto"});
    let auto = server.subscription(&server.subscribe(said).await).await;
    assert_eq!((&auto["filter_dialect"], &auto["filter_dialect_used"]), (&json!("auto"), &json!("rfc9535")));
    server.receive(&event("a")).await;
    target.wait_for("/own", 1).await;
}

#[tokio::test]
async fn a_disabled_subscription_has_no_index() {
    let (server, target) = (Server::start().await, Target::start().await);
    let uuid = server.subscribe(json!({"target_url": target.url("/t"), "jsonpath": RFC9535})).await;
    let paused = server.update(&uuid, &json!({"disabled": "2026-01-31T12:00:00Z"})).await;
    assert_eq!((&paused["index"], &paused["filter_dialect_used"]), (&Value::Null, &json!("rfc9535")));
    let resumed = server.update(&uuid, &json!({"disabled": null})).await;
    assert_eq!(resumed["index"], "equality on $.data[*].value");
}

#[tokio::test]
async fn a_filter_that_both_dialects_accept_and_read_differently_has_a_warning() {
    let (mut server, target) = (Server::start().await, Target::start().await);
    let ambiguous = json!({"target_url": target.url("/t"), "jsonpath": "$.data[?(@.value)]"});
    let uuid = server.subscribe(ambiguous).await;
    server.restart().await;
    let shown = server.subscription(&uuid).await;
    assert_eq!(shown["filter_dialect_used"], "rfc9535");
    assert!(shown["warnings"][0].as_str().unwrap().contains("filter_dialect"), "{shown}");
    let chosen = server.update(&uuid, &json!({"filter_dialect": "jsonpath2"})).await;
    assert_eq!((&chosen["filter_dialect_used"], &chosen["warnings"]), (&json!("jsonpath2"), &json!([])));
    // In jsonpath2 it tests the array itself, which has no member `value`.
    let matches = async || {
        let tested = server.post(&format!("/eventmatch/{uuid}/test"), &event("a")).await.ok();
        tested.json()["matches"].as_bool().unwrap()
    };
    assert!(!matches().await);
    server.update(&uuid, &json!({"filter_dialect": "rfc9535"})).await;
    assert!(matches().await);
}

#[tokio::test]
async fn a_wrong_filter_is_refused_with_its_position_and_a_hint() {
    let (server, target) = (Server::start().await, Target::start().await);
    let target_url = target.url("/t");
    let uuid = server.subscribe(json!({"target_url": target_url, "jsonpath": JSONPATH2})).await;
    let create = async |fields: Value| {
        let body = merged(json!({"name": "n", "target_url": target_url}), fields);
        server.post("/eventmatch", &body).await.refused(422)
    };
    let refused = create(json!({"jsonpath": "$[?@.a = 1 && @.b == 2]", "filter_dialect": "rfc9535"})).await;
    refused.at("/jsonpath").says("column 8").says("expected `==`").says("`=` is jsonpath2");
    let refused = create(json!({"jsonpath": "$[?(@.a == 1)]", "filter_dialect": "jsonpath2"})).await;
    refused.at("/jsonpath").says("column 9").says("RFC 9535");
    create(json!({"jsonpath": "$", "filter_dialect": "xpath"})).await.at("/filter_dialect").says("jsonpath2");
    // A PUT of only the filter or only the dialect parses the filter again.
    let path = format!("/eventmatch/{uuid}");
    let refused = server.put(&path, &json!({"filter_dialect": "rfc9535"})).await.refused(422);
    refused.at("/jsonpath").says("jsonpath2");
    assert_eq!(server.subscription(&uuid).await["filter_dialect"], "auto", "nothing has changed");
    let both = json!({"filter_dialect": "rfc9535", "jsonpath": RFC9535});
    assert_eq!(server.update(&uuid, &both).await["filter_dialect_used"], "rfc9535");
}

#[tokio::test]
async fn an_event_goes_to_both_dialects() {
    let (server, target) = (Server::start().await, Target::start().await);
    for (path, jsonpath) in [
        ("/rfc9535", RFC9535),
        ("/jsonpath2", JSONPATH2),
        ("/type", r#"$[?(@["eventType"] = "org.pacifica.metadata.ingest")]"#),
        ("/bare", "eventType"),
        ("/other", "$.data[?@.key == 'Other']"),
        ("/array", r#"$.data[?(@.key = "Taggy")]"#),
    ] {
        server.subscribe(json!({"target_url": target.url(path), "jsonpath": jsonpath})).await;
    }
    let id = server.receive(&event("a")).await;
    for path in ["/rfc9535", "/jsonpath2", "/type", "/bare"] {
        target.wait_for(path, 1).await;
    }
    assert_eq!(server.story(&id).await["deliveries"].as_array().unwrap().len(), 4);
    assert!(target.requests("/other").is_empty() && target.requests("/array").is_empty());
}

// a filter without a result

#[tokio::test]
async fn a_filter_that_is_too_expensive_says_so_and_affects_no_other() {
    let (mut server, target) = (Server::with(&["--admin-users", "root"]).await, Target::start().await);
    let subscribe = async |server: &Server, user: &str, name: &str, jsonpath: &str| {
        let fields = json!({"target_url": target.url("/t"), "name": name, "jsonpath": jsonpath});
        server.user(user).subscribe(fields).await
    };
    let expensive = subscribe(&server, "alice", "all of it", EXPENSIVE).await;
    let fine = subscribe(&server, "bob", "fine", "$.eventType").await;
    let small = server.user("producer").receive(&event("small")).await;
    let id = server.user("producer").receive(&large("large")).await;
    target.wait_for("/t", 2).await;
    let root = server.user("root");
    root.delivery_in(&id, &fine, "delivered").await;
    root.status_is(&id, "200 OK").await;
    assert_eq!(root.story(&small).await["filters_failed"], json!([]));

    server.restart().await;
    let root = server.user("root");
    let story = root.story(&id).await;
    assert_eq!(story["deliveries"].as_array().unwrap().len(), 1);
    let failed = story["filters_failed"].as_array().unwrap();
    assert_eq!(failed.len(), 1, "{failed:?}");
    let expected = json!({"subscription": expensive, "name": "all of it", "user": "alice"});
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&failed[0][key], value);
    }
    assert!(failed[0]["reason"].as_str().unwrap().starts_with("filter too expensive: "), "{failed:?}");
    assert_eq!(failed[0]["at"], story["received"]);
    // Its owner learns of the failure, but nothing of the event, since it has not matched.
    let alices = server.user("alice").story(&id).await;
    assert_eq!((&alices["filters_failed"], &alices["event"]), (&story["filters_failed"], &Value::Null));
    assert_eq!(server.user("bob").story(&id).await["filters_failed"], json!([]));
    server.user("mallory").get(&format!("/events/{id}")).await.refused(404);
    server.user("alice").get(&format!("/events/{id}?explain=alice")).await.refused(404);

    let explained = root.get(&format!("/events/{id}?explain=alice")).await.ok().json();
    let told = &explained["explain"]["subscriptions"][0];
    assert!(told["reason"].as_str().unwrap().contains("its filter failed"), "{told}");
    assert!(told["filter"]["failure"].as_str().unwrap().starts_with("filter too expensive"), "{told}");
    let lines = run(&["event", "get", &id, "--server", &server.url, "--user", "root"], "").await.stdout;
    let line = lines.lines().find(|line| line.starts_with("    FILTER ")).unwrap();
    assert!(line.starts_with(&format!("    FILTER {expensive} (")), "{line}");
    assert!(line.contains("failed: filter too expensive: "), "{line}");
}

#[tokio::test]
async fn a_retry_evaluates_the_filter_again() {
    let (server, target) = (Server::start().await, Target::start().await);
    let uuid = server.subscribe(json!({"target_url": target.url("/t"), "jsonpath": EXPENSIVE})).await;
    let id = server.receive(&large("large")).await;
    let path = format!("/events/{id}/retry");
    let retried = server.send(Method::POST, &path, &[], "").await.ok().json();
    assert_eq!(retried["deliveries"], json!([]));
    assert_eq!(retried["filters_failed"][0]["subscription"], uuid);
    server.update(&uuid, &json!({"jsonpath": "$.data"})).await;
    let retried = server.send(Method::POST, &path, &[], "").await.ok().json();
    assert_eq!(
        (retried["deliveries"].as_array().unwrap().len(), &retried["filters_failed"]),
        (1, &json!([]))
    );
    server.delivery_in(&id, &uuid, "delivered").await;
    assert_eq!(server.story(&id).await["filters_failed"].as_array().unwrap().len(), 1, "what was stays told");
}

// the command line

#[track_caller]
fn says(output: &Output, code: i32, texts: &[&str]) {
    assert_eq!(output.code, code, "{output:?}");
    for text in texts {
        assert!(output.stderr.contains(text), "`{text}` is not in: {}", output.stderr);
    }
}

#[tokio::test]
async fn match_reads_both_dialects() {
    let json = event("a").to_string();
    for (arguments, found) in [
        (&["match", RFC9535][..], "\"Blah\"\n"),
        (&["match", JSONPATH2], "\"Blah\"\n"),
        (&["match", "--dialect", "jsonpath2", JSONPATH2], "\"Blah\"\n"),
        (&["match", "eventType"], "\"org.pacifica.metadata.ingest\"\n"),
    ] {
        let output = run(arguments, &json).await;
        assert_eq!(
            (output.code, output.stdout.as_str(), output.stderr.as_str()),
            (0, found, ""),
            "{arguments:?}"
        );
    }
    let ambiguous = run(&["match", "$.data[?(@.value)].value"], &json).await;
    says(&ambiguous, 0, &["warning: ", "filter_dialect"]);
    assert_eq!(ambiguous.stdout, "1234\n\"Blah\"\n");
    let wrong = run(&["match", "--dialect", "rfc9535", JSONPATH2], &json).await;
    says(&wrong, 2, &["error: column 19: ", "\n                  ^"]);
    says(&run(&["match", "--dialect", "xpath", "$"], &json).await, 2, &["jsonpath2"]);
    let expensive = run(&["match", EXPENSIVE], &large("a").to_string()).await;
    says(&expensive, 2, &["error: filter too expensive: "]);
}

#[tokio::test]
async fn match_explains_on_stderr_and_does_not_change_stdout() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("e.json"), event("a").to_string()).unwrap();
    let explain = async |expression: &str| {
        run_in(folder.path(), &["match", "--explain", expression, "e.json"], &[], "").await
    };
    let found = explain(RFC9535).await;
    says(&found, 0, &["read as rfc9535: "]);
    assert_eq!(found.stdout, "\"Blah\"\n");
    let missed = explain(r#"$.data[*][?(@.key = "Taggy" and @.value = "Other")]"#).await;
    says(&missed, 1, &["read as jsonpath2: ", "of 2 pass", "saw ", "\"Blah\""]);
    assert_eq!(missed.stdout, "");
}
