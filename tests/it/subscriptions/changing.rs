//! Changing a subscription: omitted members are kept, secrets too.

use http::Method;
use serde_json::{Value, json};

use super::{basic, bearer, create, list, minimal, path, read, time};
use crate::harness::{Server, Target, event, merged};

// PUT

#[tokio::test]
async fn put_changes_only_the_given_fields() {
    let server = Server::start().await;
    let before = create(
        &server,
        json!({"extensions": {"a": 1}, "auth": basic(), "retry": "5s", "timeout_ms": 100, "content_mode": "binary"}),
    )
    .await;
    let after = server.put(&path(&before), &json!({"name": "renamed"})).await.ok().json();
    assert!(time(&after["updated"]) > time(&before["updated"]));
    let expected = merged(before.clone(), json!({"name": "renamed", "updated": after["updated"]}));
    assert_eq!(strip_nulls(&after), strip_nulls(&expected));
    assert_eq!(read(&server, &before).await, after);
    let cleared = server.put(&path(&before), &json!({"retry": null, "timeout_ms": null})).await.ok().json();
    assert_eq!((&cleared["retry"], &cleared["timeout_ms"]), (&Value::Null, &Value::Null));
    assert_eq!(cleared["extensions"], json!({"a": 1}));
}

/// Removes null members, as `merged` does, so that both sides can be compared.
fn strip_nulls(value: &Value) -> Value {
    value
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

#[tokio::test]
async fn put_of_the_body_of_a_get_changes_only_updated() {
    let server = Server::start().await;
    let before = create(&server, json!({"auth": bearer(), "extensions": {"x": "y"}})).await;
    let after = server.put(&path(&before), &before).await.ok().json();
    assert_eq!(merged(after, json!({"updated": null})), merged(before, json!({"updated": null})));
}

#[tokio::test]
async fn put_cannot_change_the_owner_or_read_only_fields() {
    let server = Server::start().await;
    let victim = create(&server.user("alice"), json!({})).await;
    let mine = create(&server, json!({})).await;
    let theft = json!({
        "uuid": victim["uuid"], "user": "alice", "created": "2001-01-01T00:00:00Z", "deleted": "2001-01-01T00:00:00Z",
    });
    let after = server.put(&path(&mine), &theft).await.ok().json();
    for key in ["uuid", "user", "created", "deleted"] {
        assert_eq!(after[key], mine[key], "{key}");
    }
    assert_eq!(read(&server.user("alice"), &victim).await, victim);
    assert_eq!(list(&server.user("alice")).await, [victim]);
}

#[tokio::test]
async fn a_put_with_a_bad_field_changes_nothing() {
    let server = Server::start().await;
    let before = create(&server, json!({"auth": basic()})).await;
    let cases = [
        (json!({"name": "x", "jsonpath": "$["}), "/jsonpath"),
        (json!({"name": "x", "target_url": "gopher://x"}), "/target_url"),
        (json!({"name": null}), "/name"),
        (json!({"jsonpath": null}), "/jsonpath"),
        (json!({"name": "x", "retry": "soon"}), "/retry"),
    ];
    for (fields, pointer) in cases {
        server.put(&path(&before), &fields).await.refused(422).at(pointer);
    }
    let auth = json!({"auth": {"type": "header", "header": {"type": "Bearer", "credentials": "a\r\nb"}}});
    server.put(&path(&before), &auth).await.refused(422).within("/auth");
    let json_type = [("content-type", "application/json")];
    server.send(Method::PUT, &path(&before), &json_type, "{").await.refused(400);
    server.send(Method::PUT, &path(&before), &[("content-type", "text/csv")], "{}").await.refused(415);
    assert_eq!(read(&server, &before).await, before);
}

#[tokio::test]
async fn put_pauses_and_re_enables() {
    let server = Server::start().await;
    let subscription = create(&server, json!({})).await;
    let put = async |fields: Value| server.put(&path(&subscription), &fields).await.ok().json();
    let paused = put(json!({"disabled": "2026-01-02T03:04:05Z", "error": "broken"})).await;
    assert_eq!(time(&paused["disabled"]), "2026-01-02T03:04:05Z".parse().unwrap());
    assert_eq!(paused["error"], "broken");
    let enabled = put(json!({"disabled": null})).await;
    assert_eq!((&enabled["disabled"], &enabled["error"]), (&Value::Null, &Value::Null), "clears `error` too");
    let paused = put(json!({"disabled": "2026-01-02T03:04:05.000000"})).await;
    assert_eq!(
        time(&paused["disabled"]),
        "2026-01-02T03:04:05Z".parse().unwrap(),
        "as the original writes it"
    );
    assert_eq!(paused["error"], Value::Null);
    let enabled = put(json!({"disabled": null, "error": null})).await;
    assert_eq!((&enabled["disabled"], &enabled["error"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn secrets_are_never_returned_and_a_put_that_omits_them_keeps_them() {
    let (server, target) = (Server::start().await, Target::start().await);
    let shown = [
        (basic(), json!({"type": "basic", "basic": {"username": "u"}}), "Basic dTpzM2NyZXQtd29yZA=="),
        (bearer(), json!({"type": "header", "header": {"type": "Bearer"}}), "Bearer s3cret-token"),
    ];
    for (place, (auth, masked, header)) in shown.into_iter().enumerate() {
        let at = format!("/{place}");
        let fields = json!({"auth": auth, "target_url": target.url(&at), "jsonpath": "$"});
        let reply = server.post("/eventmatch", &merged(minimal(), fields)).await.ok();
        let subscription = reply.json();
        assert_eq!(subscription["auth"], masked);
        let replies = [
            reply,
            server.get(&path(&subscription)).await.ok(),
            server.get("/eventmatch").await.ok(),
            server.put(&path(&subscription), &subscription).await.ok(),
            server.put(&path(&subscription), &json!({"name": "renamed"})).await.ok(),
        ];
        assert!(replies.iter().all(|reply| !reply.text().contains("s3cret")));
        let id = server.receive(&event("a")).await;
        assert_eq!(target.wait_for(&at, 1).await[0].header("authorization"), header);
        assert!(!server.get(&format!("/events/{id}")).await.ok().text().contains("s3cret"));
        assert_eq!(
            server.put(&path(&subscription), &json!({"auth": {}})).await.ok().json()["auth"],
            json!({})
        );
        server.receive(&event("b")).await;
        assert_eq!(target.wait_for(&at, 2).await[1].header("authorization"), "", "`{{}}` takes it away");
    }
    assert!(!server.log().contains("s3cret"));
}

#[tokio::test]
async fn masked_auth_cannot_create_a_subscription_nor_change_its_kind() {
    let server = Server::start().await;
    let masked = json!({"auth": {"type": "header", "header": {"type": "Bearer"}}});
    server.post("/eventmatch", &merged(minimal(), masked.clone())).await.refused(422).within("/auth");
    let subscription = create(&server, json!({"auth": basic()})).await;
    server.put(&path(&subscription), &masked).await.refused(422).within("/auth");
}
