//! Requests are signed as Standard Webhooks specifies, if the subscription says so.

use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde_json::{Value, json};
use standardwebhooks::Webhook;

use crate::harness::{Answer, Request, Server, Target, event, event_1_0, wait_until};

/// Creates a subscription, and returns its UUID and its secret.
async fn with_secret(server: &Server, fields: Value) -> (String, String) {
    let mut body = json!({"name": "signed", "jsonpath": "$", "signing_secret": "generate"});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let reply = server.post("/eventmatch", &body).await.ok();
    assert_eq!(reply.header("cache-control"), "no-store");
    let subscription = reply.json();
    let secret = subscription["signing_secret"].as_str().unwrap().to_owned();
    (subscription["uuid"].as_str().unwrap().to_owned(), secret)
}

fn verify(secret: &str, request: &Request) -> Result<(), standardwebhooks::WebhookError> {
    Webhook::new(secret).unwrap().verify(&request.body, &request.headers)
}

async fn requests(target: &Target, path: &str, count: usize) -> Vec<Request> {
    wait_until(&format!("{count} requests at {path}"), async || {
        let requests = target.requests(path);
        (requests.len() == count).then_some(requests)
    })
    .await
}

#[tokio::test]
async fn a_receiver_verifies_each_attempt_with_the_secret_that_was_shown_once() {
    let (mut server, target) = (Server::start().await, Target::start().await);
    target.answers("/t", [Answer::status(500)]);
    let (uuid, secret) = with_secret(&server, json!({"target_url": target.url("/t"), "retry": "2s"})).await;
    assert!(BASE64_STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap().len() == 32);
    let shown = server.subscription(&uuid).await;
    assert!(!shown.to_string().contains("whsec_"), "{shown}");
    assert_eq!(shown["signing"]["algorithms"], json!(["hmac-sha256"]));
    assert_eq!(
        (&shown["signing"]["old_until"], &shown["signing"]["public_key"]),
        (&json!(null), &json!(null))
    );
    // The sealed secret survives a restart.
    server.restart().await;
    let id = server.receive(&event("a")).await;
    server.delivery_in(&id, &uuid, "delivered").await;
    let attempts = requests(&target, "/t", 2).await;
    for attempt in &attempts {
        verify(&secret, attempt).unwrap();
        assert!(verify("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", attempt).is_err());
    }
    assert_eq!((attempts[0].webhook_id(), &attempts[0].body), (attempts[1].webhook_id(), &attempts[1].body));
    let times = [0, 1].map(|n| attempts[n].header("webhook-timestamp").parse::<i64>().unwrap());
    assert!(times[0] < times[1], "each attempt has its own time: {times:?}");
    let story = server.story(&id).await.to_string();
    assert!(!story.contains(&secret) && !story.contains("v1,"), "{story}");
    assert!(!server.log().contains(&secret));
}

#[tokio::test]
async fn a_given_secret_is_used_and_never_repeated() {
    let (server, target) = (Server::start().await, Target::start().await);
    let secret = format!("whsec_{}", BASE64_STANDARD.encode([7; 24]));
    let body =
        json!({"name": "n", "jsonpath": "$", "target_url": target.url("/t"), "signing_secret": secret});
    let reply = server.post("/eventmatch", &body).await.ok();
    assert!(!reply.text().contains("whsec_"), "{}", reply.text());
    let uuid = reply.json()["uuid"].as_str().unwrap().to_owned();
    server.receive(&event_1_0("a")).await;
    verify(&secret, &requests(&target, "/t", 1).await[0]).unwrap();
    // Putting the same secret again changes nothing; null removes it.
    let since = reply.json()["signing"]["since"].clone();
    assert_eq!(server.update(&uuid, &json!({"signing_secret": secret})).await["signing"]["since"], since);
    assert_eq!(server.update(&uuid, &json!({"signing_secret": null})).await["signing"], json!(null));
    server.receive(&event_1_0("b")).await;
    let unsigned = &requests(&target, "/t", 2).await[1];
    for header in ["webhook-signature", "webhook-timestamp"] {
        assert_eq!(unsigned.header(header), "");
    }
    for (wrong, detail) in [
        (json!("hunter2"), "whsec_"),
        (json!("whsec_AAAA"), "24 to 64 bytes"),
        (json!("whsk_AAAA"), "`signing`"),
        (json!(7), "generate"),
    ] {
        let refused = server.put(&format!("/eventmatch/{uuid}"), &json!({"signing_secret": wrong})).await;
        let problem = refused.refused(422);
        assert_eq!(problem.pointer.as_deref(), Some("/signing_secret"));
        assert!(problem.detail.contains(detail) && !problem.detail.contains("hunter2"), "{}", problem.detail);
    }
}

#[tokio::test]
async fn a_rotation_signs_with_both_secrets_for_a_while() {
    let (server, target) = (Server::start().await, Target::start().await);
    let (uuid, old) = with_secret(&server, json!({"target_url": target.url("/t")})).await;
    let rotate = format!("/eventmatch/{uuid}/rotate-secret");
    let reply = server.post(&rotate, &json!({"keep_old_for": "24h"})).await.ok();
    assert_eq!(reply.header("cache-control"), "no-store");
    let new = reply.json()["signing_secret"].as_str().unwrap().to_owned();
    assert_ne!(new, old);
    assert!(reply.json()["signing"]["old_until"].is_string());
    server.receive(&event_1_0("a")).await;
    let both = &requests(&target, "/t", 1).await[0];
    assert_eq!(both.header("webhook-signature").split(' ').count(), 2);
    verify(&old, both).unwrap();
    verify(&new, both).unwrap();
    // A compromised secret ends at once, and older ones with it.
    let reply = server.post(&rotate, &json!({"keep_old_for": "0"})).await.ok();
    let newest = reply.json()["signing_secret"].as_str().unwrap().to_owned();
    assert_eq!(reply.json()["signing"]["old_until"], json!(null));
    server.receive(&event_1_0("b")).await;
    let one = &requests(&target, "/t", 2).await[1];
    verify(&newest, one).unwrap();
    assert!(verify(&new, one).is_err() && verify(&old, one).is_err());
    // An empty body is a rotation, too. Too many at once are refused, and so is another user's.
    for _ in 0..4 {
        server.send(http::Method::POST, &rotate, &[], "").await.ok();
    }
    server.send(http::Method::POST, &rotate, &[], "").await.refused(409);
    server.user("mallory").post(&rotate, &json!({})).await.refused(403);
    for (wrong, at) in [
        (json!({"keep_old_for": "31d"}), "/keep_old_for"),
        (json!({"keep_old_for": 5}), "/keep_old_for"),
        (json!({"keep": "1h"}), "/keep"),
        (json!({"signing_secret": null}), "/signing_secret"),
    ] {
        assert_eq!(server.post(&rotate, &wrong).await.refused(422).pointer.as_deref(), Some(at));
    }
    let unsigned = server.subscribe(json!({"target_url": target.url("/u")})).await;
    server.post(&format!("/eventmatch/{unsigned}/rotate-secret"), &json!({})).await.refused(409);
}

#[tokio::test]
async fn the_services_key_signs_and_its_public_part_is_published() {
    let (mut server, target) = (Server::start().await, Target::start().await);
    let fields = json!({"target_url": target.url("/t"), "signing": {"algorithms": ["ed25519"]}});
    let uuid = server.subscribe(fields).await;
    let jwks = server.get("/.well-known/jwks.json").await.ok().json();
    server.restart().await;
    assert_eq!(server.get("/.well-known/jwks.json").await.ok().json(), jwks, "it is kept");
    let key = &jwks["keys"][0];
    assert_eq!((&key["kty"], &key["crv"], &key["alg"]), (&json!("OKP"), &json!("Ed25519"), &json!("EdDSA")));
    assert!(key["kid"].is_string() && key["d"].is_null());
    let public = BASE64_URL_SAFE_NO_PAD.decode(key["x"].as_str().unwrap()).unwrap();
    let shown = server.subscription(&uuid).await;
    assert_eq!(shown["signing"]["public_key"], format!("whpk_{}", BASE64_STANDARD.encode(&public)));
    server.receive(&event_1_0("a")).await;
    let request = &requests(&target, "/t", 1).await[0];
    let signature = request.header("webhook-signature").strip_prefix("v1a,").unwrap();
    let head = format!("{}.{}.", request.webhook_id(), request.header("webhook-timestamp"));
    let message = [head.as_bytes(), &request.body].concat();
    let signature = BASE64_STANDARD.decode(signature).unwrap();
    UnparsedPublicKey::new(&ED25519, &public).verify(&message, &signature).unwrap();
    // Both at once, so that a receiver can move from one to the other.
    let both = json!({"signing_secret": "generate", "signing": {"algorithms": ["ed25519", "hmac-sha256"]}});
    let secret = server.update(&uuid, &both).await["signing_secret"].as_str().unwrap().to_owned();
    server.receive(&event_1_0("b")).await;
    let request = &requests(&target, "/t", 2).await[1];
    verify(&secret, request).unwrap();
    assert!(request.header("webhook-signature").contains(" v1a,"));
    let put = server.subscription(&uuid).await;
    assert_eq!(server.update(&uuid, &put).await["signing"], put["signing"], "a body that was got can be put");
    for (wrong, at) in [
        (json!({"signing": {"algorithms": ["rsa"]}}), "/signing/algorithms/0"),
        (json!({"signing": {"algorithms": "ed25519"}}), "/signing/algorithms"),
        (json!({"signing": "ed25519"}), "/signing"),
        (json!({"signing": null, "signing_secret": "generate"}), "/signing_secret"),
    ] {
        let refused = server.put(&format!("/eventmatch/{uuid}"), &wrong).await.refused(422);
        assert_eq!(refused.pointer.as_deref(), Some(at), "{wrong}");
    }
    let none = server.subscribe(json!({"target_url": target.url("/u")})).await;
    let wrong = json!({"signing": {"algorithms": ["hmac-sha256"]}});
    let refused = server.put(&format!("/eventmatch/{none}"), &wrong).await.refused(422);
    assert_eq!(refused.pointer.as_deref(), Some("/signing_secret"));
}

/// Checks signatures with the library of receivers in Python. `.ci/run` installs it and names the interpreter that has it.
#[tokio::test]
async fn pythons_library_accepts_a_signature() {
    const VERIFY: &str = "import json, sys\n\
        from standardwebhooks.webhooks import Webhook\n\
        given = json.load(sys.stdin)\n\
        Webhook(given['secret']).verify(given['body'].encode(), given['headers'])\n";
    let Ok(python) = std::env::var("TEST_PYTHON") else {
        eprintln!("skipped: TEST_PYTHON names no Python with `standardwebhooks` (.ci/run does)");
        return;
    };
    let (server, target) = (Server::start().await, Target::start().await);
    let (_, secret) = with_secret(&server, json!({"target_url": target.url("/t")})).await;
    server.receive(&event_1_0("ä")).await;
    let request = &requests(&target, "/t", 1).await[0];
    let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    let headers: serde_json::Map<_, _> =
        names.iter().map(|name| ((*name).to_owned(), request.header(name).into())).collect();
    for (body, is_good) in [(request.text().to_owned(), true), (format!("{} ", request.text()), false)] {
        let given = json!({"secret": secret, "headers": headers, "body": body}).to_string();
        let mut child = Command::new(&python)
            .args(["-c", VERIFY])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(given.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), is_good, "{said}");
        assert!(is_good || said.contains("WebhookVerificationError"), "{said}");
    }
}
