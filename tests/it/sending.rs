//! A subscription's own headers, tokens for its target, and the target's consent: sent only where they belong, and never
//! shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Server, Target, event_1_0, wait_until};

// Headers

#[tokio::test]
async fn headers_are_sent_and_the_secret_ones_are_not_shown() {
    let (server, target) = (Server::start().await, Target::start().await);
    let headers = json!({"X-Api-Key": "s3cret-key", "x-team": "optics", "Cookie": "id=s3cret-id"});
    let uuid = server.subscribe(json!({"target_url": target.url("/t"), "headers": headers})).await;
    let shown = server.subscription(&uuid).await;
    assert_eq!(shown["headers"], json!({"cookie": "…", "x-api-key": "…", "x-team": "optics"}));
    let id = server.receive(&event_1_0("a")).await;
    server.delivery_in(&id, &uuid, "delivered").await;
    let sent = &target.requests("/t")[0];
    assert_eq!((sent.header("x-api-key"), sent.header("x-team")), ("s3cret-key", "optics"));
    assert_eq!((sent.header("cookie"), sent.header("waypost-agent")), ("id=s3cret-id", "delivery"));
    // Putting back the shown value keeps the secret; null removes all headers.
    server.update(&uuid, &json!({"headers": {"x-api-key": "…", "x-new": "1"}})).await;
    server.update(&uuid, &server.subscription(&uuid).await).await;
    let tried = server.post(&format!("/eventmatch/{uuid}/test"), &event_1_0("b")).await.ok();
    assert!(tried.text().contains(r#"["x-api-key","(secret)"]"#), "{}", tried.text());
    let id = server.receive(&event_1_0("b")).await;
    server.delivery_in(&id, &uuid, "delivered").await;
    let sent = &target.requests("/t")[1];
    assert_eq!(
        (sent.header("x-api-key"), sent.header("x-new"), sent.header("x-team")),
        ("s3cret-key", "1", "")
    );
    assert_eq!(server.update(&uuid, &json!({"headers": null})).await["headers"], json!({}));
    let all = [tried.text(), server.story(&id).await.to_string(), server.log()].concat();
    assert!(!all.contains("s3cret"), "{all}");
}

#[tokio::test]
async fn a_header_that_identifies_a_sender_is_refused_with_its_pointer() {
    let server = Server::with(&["--user-header", "X-Lab-User"]).await;
    let create = async |fields: Value| {
        let mut body = json!({"name": "n", "jsonpath": "$", "target_url": "http://127.0.0.1:9/"});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        server.post("/eventmatch", &body).await.refused(422)
    };
    for name in [
        "host",
        "Connection",
        "transfer-encoding",
        "content-type",
        "content_length",
        "webhook-id",
        "Webhook-Signature",
        "ce-id",
        "waypost-agent",
        "x-lab-user",
        "X_Lab_User",
        "x-forwarded-user",
        "user-agent",
        "a b",
        "",
    ] {
        let problem = create(json!({"headers": {name: "x"}})).await;
        assert_eq!(problem.pointer.as_deref(), Some(&*format!("/headers/{name}")), "{}", problem.detail);
    }
    for value in [json!("a\r\nx: y"), json!("ä"), json!(" a"), json!(7), json!(null)] {
        let problem = create(json!({"headers": {"x-a": value}})).await;
        assert_eq!(problem.pointer.as_deref(), Some("/headers/x-a"), "{}", problem.detail);
    }
    let many: serde_json::Map<_, _> = (0..33).map(|n| (format!("x-{n}"), json!("x"))).collect();
    let auth = json!({"type": "basic", "basic": {"username": "u", "password": "p"}});
    for (fields, at) in [
        (json!({"headers": ["x"]}), "/headers"),
        (json!({"headers": many}), "/headers"),
        (json!({"headers": {"x-a": "x".repeat(9000)}}), "/headers"),
        (json!({"headers": {"X-A": "1", "x-a": "2"}}), "/headers/x-a"),
        (json!({"headers": {"x-key": "…"}}), "/headers/x-key"),
        (json!({"headers": {"authorization": "x"}, "auth": auth}), "/headers/authorization"),
    ] {
        assert_eq!(create(fields).await.pointer.as_deref(), Some(at));
    }
}

// Tokens

fn oauth2(server: &Target, over: Value) -> Value {
    let mut oauth2 = json!({
        "token_url": server.url("/token"), "client_id": "waypost", "client_secret": "s3cret-word", "scope": "events",
    });
    oauth2.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
    json!({"type": "oauth2", "oauth2": oauth2})
}

fn granting(n: usize) -> Answer {
    let token =
        json!({"access_token": format!("s3cret-token-{n}"), "token_type": "Bearer", "expires_in": 3600});
    Answer::status(200).header("content-type", "application/json").body(token.to_string())
}

#[tokio::test]
async fn one_token_serves_many_deliveries_and_a_rejected_one_is_replaced_once() {
    let (server, target) = (Server::start().await, Target::start().await);
    let count = Arc::new(AtomicUsize::new(0));
    let tokens = Arc::clone(&count);
    target.script("/token", move |_| granting(tokens.fetch_add(1, Ordering::SeqCst)));
    let fields = json!({"target_url": target.url("/t"), "auth": oauth2(&target, json!({})), "retry": "none"});
    let uuid = server.subscribe(fields).await;
    let shown = server.subscription(&uuid).await;
    let expected = json!({"type": "oauth2", "oauth2": {
        "token_url": target.url("/token"), "client_id": "waypost", "client_auth": "basic", "scope": "events",
        "audience": null,
    }});
    assert_eq!(shown["auth"], expected);
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(server.receive(&event_1_0(&format!("e{n}"))).await);
    }
    for id in &ids {
        server.delivery_in(id, &uuid, "delivered").await;
    }
    let asked = target.requests("/token");
    assert_eq!(asked.len(), 1, "one request for all");
    assert_eq!(asked[0].text(), "grant_type=client_credentials&scope=events");
    assert_eq!(asked[0].header("authorization"), "Basic d2F5cG9zdDpzM2NyZXQtd29yZA==");
    let bearers = target.requests("/t");
    assert!(bearers.iter().all(|request| request.header("authorization") == "Bearer s3cret-token-0"));
    // The target no longer accepts the token.
    target.script("/t", |request| {
        let is_new = request.header("authorization") == "Bearer s3cret-token-1";
        Answer::status(if is_new { 200 } else { 401 })
    });
    let id = server.receive(&event_1_0("late")).await;
    let delivery = server.delivery_in(&id, &uuid, "delivered").await;
    assert_eq!(delivery["attempts"].as_array().unwrap().len(), 1, "in the same attempt");
    assert_eq!(count.load(Ordering::SeqCst), 2);
    // If the target rejects every token, each attempt gets only one new token, and the target's answer decides.
    target.always("/t", Answer::status(401).body("never: s3cret-token-2"));
    let id = server.receive(&event_1_0("never")).await;
    let delivery = server.delivery_in(&id, &uuid, "dead").await;
    assert_eq!(count.load(Ordering::SeqCst), 3);
    assert_eq!(delivery["attempts"][0]["target"], json!({"status": 401, "body": "never: (secret)"}));
    let all =
        [server.story(&id).await.to_string(), server.log(), server.subscription(&uuid).await.to_string()];
    assert!(!all.concat().contains("s3cret"), "{all:?}");
}

#[tokio::test]
async fn a_token_server_that_fails_is_an_outcome_with_a_reason_and_is_asked_again() {
    let (server, target) = (Server::with(&["--attempt-timeout-ms", "500"]).await, Target::start().await);
    let denied = json!({"error": "invalid_client", "error_description": "s3cret-word is not it"});
    let hanging = crate::harness::Gate::closed();
    for (answer, words) in [
        // This case comes first: on a kept connection, the request would be repeated.
        (Answer::drop_connection(), "gave no answer"),
        (Answer::status(401).body(denied.to_string()), "answered 401: invalid_client: (secret) is not it"),
        (Answer::status(200).body("<html>"), "is not a JSON object"),
        (Answer::status(200).body("x".repeat(200_000)), "is not a JSON object"),
        (Answer::status(200).body(r#"{"access_token": "a\r\nb"}"#), "does not fit into a header"),
        (Answer::status(307).header("location", target.url("/elsewhere")), "answered 307"),
        (Answer::status(200).after(&hanging), "did not answer within"),
    ] {
        target.answers("/token", [answer, granting(7)]);
        let auth = oauth2(&target, json!({"client_auth": "post", "audience": "https://t.example"}));
        let fields = json!({"target_url": target.url("/t"), "auth": auth, "retry": "20ms,20ms"});
        let uuid = server.subscribe(fields).await;
        let id = server.receive(&event_1_0(words)).await;
        let delivery = server.delivery_in(&id, &uuid, "delivered").await;
        let first = &delivery["attempts"][0];
        assert_eq!((&first["outcome"], &first["target"]), (&json!("retry"), &Value::Null), "{words}");
        assert!(first["reason"].as_str().unwrap().contains(words), "{words}: {first}");
        assert!(!delivery.to_string().contains("s3cret"), "{delivery}");
        let asked = target.requests("/token").pop().unwrap();
        assert!(
            asked.text().contains("audience=https%3A%2F%2Ft.example&client_id=waypost&client_secret=s3cret")
        );
        server.delete(&format!("/eventmatch/{uuid}")).await.ok();
    }
    assert!(target.requests("/elsewhere").is_empty());
    assert!(!server.log().contains("s3cret"));
}

#[tokio::test]
async fn credentials_for_a_token_are_checked_and_stay_with_their_token_url() {
    let (server, target) = (Server::start().await, Target::start().await);
    let fields = json!({"target_url": target.url("/t"), "auth": oauth2(&target, json!({}))});
    let uuid = server.subscribe(fields).await;
    let path = format!("/eventmatch/{uuid}");
    let kept = server.update(&uuid, &server.subscription(&uuid).await).await;
    assert_eq!(kept["auth"]["oauth2"]["client_id"], "waypost");
    let tried = server.post(&format!("{path}/test"), &event_1_0("b")).await.ok().text();
    assert!(tried.contains(r#"["authorization","(secret)"]"#), "{tried}");
    assert!(target.requests("/token").is_empty(), "a dry run asks for no token");
    let put = |over: Value| json!({"auth": {"type": "oauth2", "oauth2": over}});
    for (over, at) in [
        // The secret would be sent to another server.
        (json!({"token_url": "http://elsewhere.example/token"}), "client_secret"),
        (json!({"token_url": "elsewhere"}), "token_url"),
        (json!({"token_url": null}), "token_url"),
        (json!({"token_url": format!("{}/receive", server.url)}), "token_url"),
        (json!({"client_id": ""}), "client_id"),
        (json!({"client_secret": "a\nb"}), "client_secret"),
        (json!({"client_auth": "jwt"}), "client_auth"),
        (json!({"scope": 7}), "scope"),
    ] {
        let problem = server.put(&path, &put(over.clone())).await.refused(422);
        assert_eq!(problem.pointer.as_deref(), Some(&*format!("/auth/oauth2/{at}")), "{over}");
    }
}

// Consent

#[tokio::test]
async fn a_target_whose_consent_is_required_is_asked_before_it_gets_events() {
    let server = Server::with(&["--webhook-origin", "waypost.example"]).await;
    let target = Target::start().await;
    target.script("/t", |request| match request.method == Method::OPTIONS {
        true => Answer::status(405),
        false => Answer::status(200),
    });
    let fields = json!({"target_url": target.url("/t"), "handshake": "require", "retry": "20ms,20ms,20ms"});
    let uuid = server.subscribe(fields).await;
    let id = server.receive(&event_1_0("a")).await;
    let delivery = server.delivery_in(&id, &uuid, "dead").await;
    let reason = delivery["attempts"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("did not consent") && reason.contains("waypost.example"), "{reason}");
    assert!(target.requests("/t").iter().all(|request| request.method == Method::OPTIONS));
    assert_eq!(target.requests("/t")[0].header("webhook-request-origin"), "waypost.example");
    // It consents now: the status does not count.
    target.script("/t", |request| match request.method == Method::OPTIONS {
        true => Answer::status(405).header("webhook-allowed-origin", "waypost.example"),
        false => Answer::status(200),
    });
    server.update(&uuid, &json!({"disabled": null})).await;
    let before = target.requests("/t").len();
    for n in 0..3 {
        let id = server.receive(&event_1_0(&format!("b{n}"))).await;
        server.delivery_in(&id, &uuid, "delivered").await;
    }
    let requests = target.requests("/t").split_off(before);
    let asked = requests.iter().filter(|request| request.method == Method::OPTIONS).count();
    assert_eq!((asked, requests.len()), (1, 4), "the consent is remembered");
    assert!(requests.iter().all(|request| request.header("webhook-request-origin") == "waypost.example"));
}

#[tokio::test]
async fn a_target_whose_consent_is_optional_gets_events_whatever_it_answers() {
    let (server, target) = (Server::start().await, Target::start().await);
    target.script("/t", |request| match request.method == Method::OPTIONS {
        true => Answer::drop_connection(),
        false => Answer::status(200),
    });
    let uuid = server.subscribe(json!({"target_url": target.url("/t"), "handshake": "try"})).await;
    for n in 0..2 {
        let id = server.receive(&event_1_0(&format!("a{n}"))).await;
        server.delivery_in(&id, &uuid, "delivered").await;
    }
    let requests = target.requests("/t");
    assert_eq!(requests.iter().filter(|request| request.method == Method::POST).count(), 2);
    assert!(
        requests
            .iter()
            .filter(|request| request.method == Method::POST)
            .all(|request| { request.header("webhook-request-origin").is_empty() })
    );
    let put = json!({"handshake": "maybe"});
    let refused = server.put(&format!("/eventmatch/{uuid}"), &put).await.refused(422);
    assert_eq!(refused.pointer.as_deref(), Some("/handshake"));
    let skip = server.update(&uuid, &json!({"handshake": null})).await;
    assert_eq!(skip["handshake"], "skip");
    wait_until("no more is asked", async || {
        let before = target.requests("/t").len();
        let id = server.receive(&event_1_0("c")).await;
        server.delivery_in(&id, &uuid, "delivered").await;
        (target.requests("/t").len() == before + 1).then_some(())
    })
    .await;
}
