//! Access: tokens, sessions, admins, and the audit.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Api, Process, Reply, Server, Target, event_1_0, run_in};

const JSON: (&str, &str) = ("content-type", "application/json");

/// Makes a token as the admin of a server that listens on loopback.
async fn token(server: &Server, wanted: Value) -> Value {
    let reply = server.post("/tokens", &wanted).await;
    assert_eq!(reply.status, 201, "{}", String::from_utf8_lossy(&reply.body));
    reply.json()
}

async fn ask(api: &Api, method: Method, path: &str, secret: &str, body: &Value) -> Reply {
    let bearer = format!("Bearer {secret}");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    api.send(method, path, &[JSON, ("authorization", &bearer)], body).await
}

#[tokio::test]
async fn a_token_is_shown_once_and_is_good_until_it_is_revoked() {
    let mut server = Server::start().await;
    let made = token(&server, json!({"user": "ann", "name": "laptop", "expires": "90d"})).await;
    let secret = made["token"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("wp_") && secret.len() == 46, "{secret}");
    assert_eq!(made["scopes"], json!(["receive", "read", "subscribe"]));
    let me = ask(&server, Method::GET, "/me", &secret, &Value::Null).await.ok().json();
    assert_eq!((&me["user"], &me["admin"], &me["via"]), (&json!("ann"), &json!(false), &json!("token")));
    let listed = server.get("/tokens").await.ok();
    assert!(!listed.text().contains(&secret), "it is not shown again");
    let listed = listed.json();
    assert_eq!((&listed[0]["id"], &listed[0]["name"]), (&made["id"], &json!("laptop")));
    assert!(listed[0]["last_used"].is_string(), "{listed}");
    server.restart().await;
    ask(&server, Method::GET, "/me", &secret, &Value::Null).await.ok();
    assert!(!server.log().contains(&secret), "no log has it");
    assert!(server.log().contains("`waypost token create --user NAME`"), "the first start says how");
    // A user may revoke only his own tokens.
    let others = token(&server, json!({"user": "bob"})).await;
    let path = |made: &Value| format!("/tokens/{}", made["id"].as_str().unwrap());
    ask(&server, Method::DELETE, &path(&others), &secret, &Value::Null).await.refused(404);
    ask(&server, Method::POST, "/tokens", &secret, &json!({"user": "ann"})).await.refused(403);
    let own = ask(&server, Method::GET, "/tokens", &secret, &Value::Null).await.ok().json();
    assert_eq!(own.as_array().unwrap().len(), 1, "{own}");
    assert_eq!(ask(&server, Method::DELETE, &path(&made), &secret, &Value::Null).await.status, 204);
    let refused = ask(&server, Method::GET, "/me", &secret, &Value::Null).await.refused(401);
    assert!(refused.detail.contains("is unknown, revoked or expired"), "{refused:?}");
}

#[tokio::test]
async fn an_invalid_token_request_is_refused_with_the_reason() {
    let server = Server::start().await;
    for (wanted, pointer) in [
        (json!({}), Some("/user")),
        (json!({"user": ".."}), Some("/user")),
        (json!({"user": 1}), Some("/user")),
        (json!({"user": "ann", "scopes": []}), Some("/scopes")),
        (json!({"user": "ann", "scopes": ["read", "write"]}), Some("/scopes/1")),
        (json!({"user": "ann", "expires": "soon"}), Some("/expires")),
        (json!({"user": "ann", "expires": "2020-01-01T00:00:00Z"}), Some("/expires")),
        (json!({"user": "ann", "name": "n".repeat(101)}), Some("/name")),
        (json!({"user": "ann", "admin": true}), None),
    ] {
        let reply = server.post("/tokens", &wanted).await;
        let status = reply.status;
        let problem = reply.refused(status);
        assert!(
            (400..500).contains(&status) && problem.pointer.as_deref() == pointer,
            "{wanted}: {problem:?}"
        );
    }
    assert_eq!(server.get("/tokens").await.ok().json(), json!([]));
}

#[tokio::test]
async fn a_receive_token_can_only_send() {
    let server = Server::start().await;
    let made = token(&server, json!({"user": "detector", "scopes": ["receive"]})).await;
    let secret = made["token"].as_str().unwrap();
    let id = ask(&server, Method::POST, "/receive", secret, &event_1_0("a")).await.ok().text();
    let story = server.get(&format!("/events/{id}")).await.ok().json();
    assert_eq!(story["sender"], "detector");
    for (method, path) in [(Method::GET, "/events"), (Method::GET, "/eventmatch"), (Method::GET, "/me")] {
        let refused = ask(&server, method, path, secret, &Value::Null).await.refused(403);
        assert!(refused.detail.contains("scopes `receive`"), "{refused:?}");
    }
    let header = server.user("detector").get("/events").await.ok();
    assert_eq!(header.json()["events"][0]["id"], json!(id), "the user himself sees it");
}

/// An admin could not fix another user's broken subscription.
#[tokio::test]
async fn an_admin_changes_another_users_subscription_and_the_audit_says_so() {
    let server = Server::start().await;
    let target = Target::start().await;
    let ann = server.user("ann");
    let uuid = ann.subscribe(json!({"target_url": target.url("/old?key=hush")})).await;
    let path = format!("/eventmatch/{uuid}");
    server.user("bob").get(&path).await.refused(403);
    server.user("bob").get("/eventmatch?user=ann").await.refused(403);
    assert_eq!(server.get("/eventmatch?user=ann").await.ok().json()[0]["uuid"], json!(uuid));
    let changed = server.update(&uuid, &json!({"target_url": target.url("/new?key=hush")})).await;
    assert_eq!(changed["user"], "ann", "it stays its owner's");
    let id = server.user("ann").receive(&event_1_0("a")).await;
    target.wait_for("/new", 1).await;
    server.post(&format!("/events/{id}/retry?subscription={uuid}"), &json!({})).await.ok();
    server.delete(&path).await.ok();
    assert_eq!(ann.get("/eventmatch").await.ok().json(), json!([]));
    ann.get("/audit").await.refused(403);
    let audit = server.get(&format!("/audit?id={uuid}")).await.ok().json();
    let audit = audit["audit"].as_array().unwrap();
    let said: Vec<_> =
        audit.iter().map(|entry| format!("{} {} {}", entry["action"], entry["by"], entry["user"])).collect();
    assert_eq!(
        said,
        [
            r#""subscription.delete" "anonymous" "ann""#,
            r#""subscription.change" "anonymous" "ann""#,
            r#""subscription.create" "ann" "ann""#,
        ]
    );
    let urls = &audit[1]["detail"]["target_url"];
    assert_eq!(*urls, json!({"from": target.url("/old"), "to": target.url("/new")}));
    let anns = server.get("/audit?user=ann&limit=2").await.ok().json();
    assert_eq!(anns["audit"].as_array().unwrap().len(), 2);
    let rest = server.get(anns["next"].as_str().unwrap()).await.ok().json();
    assert_eq!(rest["audit"].as_array().unwrap().len(), 2, "{rest}");
    server.get("/audit?action=nothing").await.refused(400);
}

/// An admin, who may change every subscription, could have had other users' passwords sent to a target of his own.
#[tokio::test]
async fn an_admin_cannot_get_another_users_credentials() {
    let server = Server::start().await;
    let (target, other) = (Target::start().await, Target::start().await);
    let ann = server.user("ann");
    let auth = json!({"type": "header", "header": {"type": "Bearer", "credentials": "hers"}});
    let headers = json!({"x-api-key": "hers, too", "x-plain": "no secret"});
    for (fields, pointer) in [(json!({"auth": auth}), "/auth"), (json!({"headers": headers}), "/headers")] {
        let mut fields = fields;
        fields["target_url"] = target.url("/t").into();
        let uuid = ann.subscribe(fields).await;
        let path = format!("/eventmatch/{uuid}");
        let refused = server.put(&path, &json!({"target_url": other.url("/t")})).await.refused(422);
        assert_eq!(refused.pointer.as_deref(), Some(pointer), "{refused:?}");
        server.put(&path, &json!({"target_url": target.url("/elsewhere")})).await.ok();
        ann.put(&path, &json!({"target_url": other.url("/hers")})).await.ok();
        let without = json!({"target_url": target.url("/t"), "auth": null, "headers": {}});
        server.put(&path, &without).await.ok();
    }
}

#[tokio::test]
async fn a_session_is_begun_with_a_token_and_ends_with_it() {
    let server = Server::start().await;
    let made = token(&server, json!({"user": "ann"})).await;
    let secret = made["token"].as_str().unwrap();
    server.post("/sessions", &Value::Null).await.refused(400);
    let begun = ask(&server, Method::POST, "/sessions", secret, &Value::Null).await;
    assert_eq!(begun.status, 201);
    let cookie = begun.headers["set-cookie"].to_str().unwrap();
    for part in ["__Host-waypost=", "; Path=/", "; HttpOnly", "; SameSite=Strict", "; Secure"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let page = async |cookie: &str| {
        let headers = [("cookie", cookie), ("sec-fetch-site", "same-origin")];
        server.send(Method::GET, "/me", &headers, "").await
    };
    let me = page(&cookie).await.ok().json();
    assert_eq!((&me["user"], &me["via"]), (&json!("ann"), &json!("session")));
    server.send(Method::GET, "/me", &[("cookie", &cookie)], "").await.refused(401);
    let foreign = [("cookie", cookie.as_str()), ("sec-fetch-site", "cross-site")];
    server.send(Method::GET, "/me", &foreign, "").await.refused(403);
    let listed = ask(&server, Method::GET, "/sessions", secret, &Value::Null).await.ok().json();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    server.delete(&format!("/tokens/{}", made["id"].as_str().unwrap())).await;
    page(&cookie).await.refused(401);
}

/// Guessing tokens must not slow down other clients.
#[tokio::test]
async fn ten_thousand_wrong_tokens_do_not_slow_down_others() {
    let server = Server::start().await;
    let made = token(&server, json!({"user": "ann"})).await;
    let secret = made["token"].as_str().unwrap();
    let guess = async |number: usize| {
        for guess in 0..1_000 {
            let reply = ask(&server, Method::GET, "/me", &format!("wp_{number}_{guess}"), &Value::Null).await;
            assert!(matches!(reply.status, 401 | 429), "{}", reply.status);
        }
    };
    let guessing = futures_util::future::join_all((0..10).map(guess));
    let asking = async {
        for _ in 0..100 {
            let asked = ask(&server, Method::GET, "/me", secret, &Value::Null);
            tokio::time::timeout(Duration::from_secs(20), asked).await.unwrap().ok();
        }
    };
    tokio::join!(guessing, asking);
}

#[tokio::test]
async fn serve_refuses_to_listen_to_other_machines_without_a_way_to_authenticate() {
    let folder = tempfile::tempdir().unwrap();
    let waypost = async |arguments: &[&str]| run_in(folder.path(), arguments, &[], "").await;
    let serve = ["serve", "--listen", "0.0.0.0:0", "--data", "data"];
    let refused = waypost(&serve).await;
    for said in ["waypost token create", "trusted_proxies", "receive_auth"] {
        assert!(refused.code != 0 && refused.stderr.contains(said), "{}", refused.stderr);
    }
    let made = waypost(&["token", "create", "--user", "root", "--admin", "--data", "data"]).await;
    let secret = made.stdout.trim();
    assert!(secret.starts_with("wp_") && secret.len() == 46, "{secret:?} {}", made.stderr);
    let listed = waypost(&["token", "list", "--data", "data"]).await.stdout;
    assert!(listed.contains("  root  admin  never used") && !listed.contains(secret), "{listed}");
    let id = listed.split_whitespace().next().unwrap();
    let mut process = Process::waypost(&serve, folder.path());
    let line = process.first_line().await;
    let api = Api::new(format!("http://127.0.0.1:{}", line.rsplit(':').next().unwrap()));
    api.get("/me").await.refused(401);
    let audit = ask(&api, Method::GET, "/audit", secret, &Value::Null).await.ok().json();
    assert_eq!(audit["audit"][0]["action"], "token.create");
    assert_eq!(ask(&api, Method::DELETE, &format!("/tokens/{id}"), secret, &Value::Null).await.status, 204);
    ask(&api, Method::GET, "/audit", secret, &Value::Null).await.refused(401);
}

#[tokio::test]
async fn receive_accepts_only_signed_events_if_configured() {
    use data_encoding::BASE64;
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let config = "receive_auth = \"signature\"\nreceive_secrets = \"producers\"\n";
    let secret = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let server = Server::configured(config, |folder| {
        std::fs::write(folder.join("producers"), format!("beamline whsec_{secret}\n")).unwrap();
    })
    .await;
    let event = event_1_0("a").to_string();
    server.receive_as("application/json", event.clone()).await.refused(401);
    let time = waypost_runtime::clock::now().as_second().to_string();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&BASE64.decode(secret.as_bytes()).unwrap()).unwrap();
    mac.update(format!("m1.{time}.{event}").as_bytes());
    let signature = format!("v1,{}", BASE64.encode(&mac.finalize().into_bytes()));
    let send = async |body: String| {
        let headers =
            [JSON, ("webhook-id", "m1"), ("webhook-timestamp", &time), ("webhook-signature", &signature)];
        server.send(Method::POST, "/receive", &headers, body).await
    };
    let id = send(event.clone()).await.ok().text();
    assert_eq!(server.get(&format!("/events/{id}")).await.ok().json()["sender"], "beamline");
    send(event.replace("\"a\"", "\"b\"")).await.refused(401);
    assert!(!server.log().contains(secret));
}
