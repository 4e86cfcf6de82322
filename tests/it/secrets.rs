//! No secret leaks: a whole session, and then a search for every secret in everything that the service has sent and
//! written.
//!
//! To cover a new secret, add one line: a subscription with a text from [`Session::secret`]. A secret that the service
//! makes and hands out once goes through [`Session::handed_out`].

use std::cell::RefCell;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use http::Method;
use serde_json::{Value, json};
use waypost::config::Config;
use waypost::service::Service;

use crate::harness::{Answer, Api, Reply, Server, Target, event_1_0, merged, run_in, wait_until};

/// The secrets of a session, and all output of the service.
#[derive(Default)]
struct Session {
    secrets: RefCell<Vec<String>>,
    /// The places and the bytes of all output.
    said: RefCell<Vec<(String, Vec<u8>)>>,
}

impl Session {
    /// Makes a secret that nothing else contains.
    fn secret(&self, name: &str) -> String {
        let secret = format!("s3cr3t-{name}-{}", uuid::Uuid::new_v4().simple());
        self.secrets.borrow_mut().push(secret.clone());
        secret
    }

    /// Takes a secret out of the only answer that may contain it.
    fn handed_out(&self, answer: &Reply, pointer: &str) -> String {
        let secret = answer.json().pointer(pointer).and_then(Value::as_str).unwrap().to_owned();
        self.keep(secret.clone());
        secret
    }

    /// Makes a secret for signatures.
    fn signing_secret(&self) -> String {
        let key = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()].map(uuid::Uuid::into_bytes).concat();
        let text = BASE64_STANDARD.encode(key);
        self.keep(text.trim_end_matches('=').to_owned());
        format!("whsec_{text}")
    }

    /// Returns an `auth` that gets tokens for the target from a token server.
    fn oauth2(&self, target: &Target) -> Value {
        let token = json!({"access_token": self.secret("token"), "expires_in": 3600}).to_string();
        target.always("/token", Answer::status(200).body(token));
        let oauth2 = json!({
            "token_url": target.url("/token"), "client_id": "w", "client_secret": self.secret("client"),
            "client_auth": "post",
        });
        json!({"auth": {"type": "oauth2", "oauth2": oauth2}})
    }

    fn keep(&self, secret: String) {
        self.secrets.borrow_mut().push(secret);
    }

    /// Makes a token, begins a session, and uses both.
    async fn use_token(&self, server: &Api) {
        let made = server.post("/tokens", &json!({"user": "ann", "name": "mine"})).await;
        let bearer = format!("Bearer {}", self.handed_out(&made, "/token"));
        let wrong = format!("Bearer wp_{}", self.secret("wrong"));
        for authorization in [&bearer, &wrong] {
            let headers = [("authorization", authorization.as_str())];
            let me = server.send(Method::GET, "/me", &headers, "").await;
            self.hear("GET /me with a token", format!("{:?}\n{}", me.headers, me.text()));
        }
        let begun = server.send(Method::POST, "/sessions", &[("authorization", &bearer)], "").await;
        let cookie = begun.header("set-cookie").split(';').next().unwrap().to_owned();
        self.hear("POST /sessions", begun.text());
        self.keep(cookie.split_once('=').unwrap().1.to_owned());
        let headers = [("cookie", cookie.as_str()), ("sec-fetch-site", "same-origin")];
        let me = server.send(Method::GET, "/me", &headers, "").await.ok();
        self.hear("GET /me with a cookie", format!("{:?}\n{}", me.headers, me.text()));
    }

    fn hear(&self, place: impl Into<String>, said: impl Into<Vec<u8>>) {
        self.said.borrow_mut().push((place.into(), said.into()));
    }

    /// Sends a request, and keeps the answer.
    async fn ask(&self, api: &Api, method: Method, path: &str, body: &str) -> Reply {
        let reply =
            api.send(method.clone(), path, &[("content-type", "application/json")], body.to_owned()).await;
        self.hear(format!("{method} {path}"), format!("{:?}\n{}", reply.headers, reply.text()));
        reply
    }

    async fn get(&self, api: &Api, path: &str) -> Reply {
        self.ask(api, Method::GET, path, "").await
    }

    /// Returns the subscriptions of the session, each with another kind of secret.
    fn subscriptions(&self) -> Vec<Value> {
        let basic =
            |password: String| json!({"type": "basic", "basic": {"username": "ann", "password": password}});
        let header =
            |text: String| json!({"type": "header", "header": {"type": "Bearer", "credentials": text}});
        vec![
            json!({"auth": basic(self.secret("password"))}),
            json!({"auth": header(self.secret("credentials"))}),
            json!({"auth": header(self.secret("binary")), "event_format": "1.0", "content_mode": "binary"}),
            json!({"headers": {"authorization": self.secret("custom"), "x-api-key": self.secret("header")}}),
            json!({"auth": header(self.secret("signed")), "signing_secret": self.signing_secret()}),
        ]
    }

    /// Returns every place that contains a secret in any of its forms.
    fn leaks(&self) -> Vec<String> {
        let mut leaks = Vec::new();
        for secret in &*self.secrets.borrow() {
            for form in forms(secret) {
                for (place, said) in &*self.said.borrow() {
                    if said.windows(form.len()).any(|part| part == form) {
                        leaks.push(format!("{place}: {secret} as {}", String::from_utf8_lossy(&form)));
                    }
                }
            }
        }
        leaks
    }
}

/// Returns the forms in which a secret may leak: plain, base64 at each of the three offsets, hexadecimal.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let mut forms = vec![secret.as_bytes().to_vec()];
    for engine in [BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD] {
        for before in 0..3 {
            let text = engine.encode([&vec![0; before][..], secret.as_bytes()].concat());
            // The first characters depend on the preceding bytes, the last one on the following bytes.
            forms.push(text.as_bytes()[[0, 2, 3][before]..text.len() - 1].to_vec());
        }
    }
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    forms.push(hex.to_uppercase().into_bytes());
    forms.push(hex.into_bytes());
    forms
}

#[test]
fn a_secret_is_found_in_each_of_its_forms() {
    let session = Session::default();
    let secret = session.secret("x");
    for before in ["", "u", "us", "use", "user"] {
        for after in ["", "1", "12", "123"] {
            let text = format!("{before}{secret}{after}");
            session.said.borrow_mut().clear();
            session.hear("std", format!("Basic {}", BASE64_STANDARD_NO_PAD.encode(&text)));
            session.hear("url", format!("Basic {}", BASE64_URL_SAFE_NO_PAD.encode(&text)));
            session.hear("plain", text);
            let leaks = session.leaks().join("\n");
            assert!(["std: ", "url: ", "plain: "].iter().all(|place| leaks.contains(place)), "{leaks}");
        }
    }
    session.said.borrow_mut().clear();
    session.hear("other", "s3cr3t-x-");
    assert!(session.leaks().is_empty());
}

/// Records the bytes of all files below a folder.
fn read_all(session: &Session, folder: &Path) -> usize {
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files += read_all(session, &path);
        } else {
            session.hear(path.display().to_string(), std::fs::read(&path).unwrap());
            files += 1;
        }
    }
    files
}

/// Requests everything that a user and an admin may see.
async fn look_at_everything(session: &Session, api: &Api, subscriptions: &[String], events: &[String]) {
    let mut paths: Vec<String> = [
        "/eventmatch",
        "/events",
        "/plugins",
        "/",
        "/scriptlog",
        "/healthz",
        "/readyz",
        "/me",
        "/tokens",
        "/sessions",
        "/audit",
        "/x",
    ]
    .map(str::to_owned)
    .to_vec();
    for id in subscriptions {
        let parts = ["", "/deliveries", "/deliveries?state=dead", "/recover", "/plugin"];
        paths.extend(parts.map(|part| format!("/eventmatch/{id}{part}")));
    }
    for id in events {
        paths.extend([format!("/events/{id}"), format!("/status/{id}"), format!("/get/{id}")]);
        paths.push(format!("/events/{id}?explain=ann"));
    }
    for path in paths {
        for api in [api, &api.user("ann"), &api.user("bob")] {
            session.get(api, &path).await;
        }
    }
    for id in subscriptions {
        let path = format!("/eventmatch/{id}/test");
        let body = event_1_0("tried").to_string();
        let reply = session.ask(&api.user("ann"), Method::POST, &path, &body).await;
        assert!(reply.text().contains("(secret)"), "{}", reply.text());
    }
}

/// Sends bodies that are refused, with secrets in them.
async fn be_refused(session: &Session, ann: &Api, id: &str) {
    let path = format!("/eventmatch/{id}");
    let secret = session.secret("refused");
    let basic = |password: &str| json!({"type": "basic", "basic": {"username": "u", "password": password}});
    for auth in [
        basic(&format!("{secret}\n")),
        json!({"type": "digest", "digest": {"password": secret}}),
        json!({"type": "header", "header": {"type": "", "credentials": secret}}),
        json!({"type": "basic", "basic": {"username": "a:b", "password": secret}}),
        json!({"type": "basic", "basic": {"username": "u", "password": {"value": secret}}}),
        json!({"type": "basic", "basic": [secret]}),
        json!(secret),
        json!([secret]),
    ] {
        let body = json!({"auth": auth});
        let reply = session.ask(ann, Method::PUT, &path, &body.to_string()).await;
        assert_eq!(reply.status, 422, "{body}: {}", reply.text());
        let body = merged(json!({"name": "n", "jsonpath": "$", "target_url": "http://127.0.0.1:9/"}), body);
        let reply = session.ask(ann, Method::POST, "/eventmatch", &body.to_string()).await;
        assert_eq!(reply.status, 422, "{body}: {}", reply.text());
    }
    let whole = json!({"auth": basic(&secret)}).to_string();
    for body in
        [&whole[..whole.len() - 2], &whole[..whole.len() - 4], &format!("{whole}x"), &format!("[{whole}]")]
    {
        let reply = session.ask(ann, Method::PUT, &path, body).await;
        assert!((400..500).contains(&reply.status), "{body}");
        session.ask(ann, Method::POST, "/receive", body).await;
    }
    // A subscription of another user.
    session.ask(&ann.user("bob"), Method::PUT, &path, &whole).await.refused(403);
}

/// Returns the values of `Authorization` that a path of the target got.
fn authorizations(target: &Target, path: &str) -> Vec<String> {
    target.requests(path).iter().map(|request| request.header("authorization").to_owned()).collect()
}

const FLAGS: [&str; 10] = [
    "--log-level",
    "trace",
    "--admin-users",
    "anonymous",
    "--retry-schedule",
    "none",
    "--attempt-timeout-ms",
    "20000",
    "--retention",
    "0",
];

#[tokio::test]
async fn no_secret_leaks() {
    let (session, target) = (Session::default(), Target::start().await);
    target.always("/fails", Answer::status(500).body("no"));
    target.always("/gone", Answer::status(410));
    target.always("/drops", Answer::drop_connection());
    target.always("/redirects", Answer::status(307).header("location", "http://127.0.0.1:1/"));
    let policy = target.url("/policy").replace("://", &format!("://me:{}@", session.secret("policy")));
    let mut server = Server::with(&[&FLAGS[..], &["--policy-url", &policy]].concat()).await;
    let ann = server.user("ann");

    let (mut ids, mut ok) = (Vec::new(), Vec::new());
    for path in ["/ok", "/fails", "/gone", "/drops", "/redirects"] {
        let all = session.subscriptions().into_iter().chain([session.oauth2(&target)]);
        for (number, own) in all.enumerate() {
            let path = if path == "/ok" { format!("/ok/{number}") } else { path.to_owned() };
            let common = json!({"name": path, "jsonpath": "$", "target_url": target.url(&path)});
            let body = merged(common, own).to_string();
            let reply = session.ask(&ann, Method::POST, "/eventmatch", &body).await.ok();
            ids.push(reply.json()["uuid"].as_str().unwrap().to_owned());
            ok.extend(path.starts_with("/ok").then_some(path));
        }
    }
    // The first subscription whose target fails.
    let failing = ok.len();
    be_refused(&session, &ann, &ids[0]).await;
    session.use_token(&server).await;
    let mut events = Vec::new();
    let mut deliver = async |session: &Session, server: &Server, id: &str| {
        let body = event_1_0(id).to_string();
        let event = session.ask(server, Method::POST, "/receive", &body).await.ok().text();
        wait_until("all deliveries are over", async || {
            let story = session.get(server, &format!("/events/{event}")).await.ok().json();
            let deliveries = story["deliveries"].as_array().unwrap();
            let is_over =
                |known: &Value| matches!(known["state"].as_str(), Some("delivered" | "dead" | "skipped"));
            (!deliveries.is_empty() && deliveries.iter().all(is_over)).then_some(())
        })
        .await;
        events.push(event.clone());
        event
    };
    let first = deliver(&session, &server, "first").await;
    let reached = authorizations(&target, "/ok/0");
    assert!(reached[0].starts_with("Basic "), "{reached:?}");
    let first_secret = session.secrets.borrow()[2].clone();
    assert_eq!(authorizations(&target, "/ok/1"), [format!("Bearer {first_secret}")], "secrets are sent");

    // A replaced secret, an omitted one, a deleted subscription, and a second attempt.
    let again = session.secret("replaced");
    let auth = json!({"auth": {"type": "header", "header": {"credentials": again}}});
    session.ask(&ann, Method::PUT, &format!("/eventmatch/{}", ids[1]), &auth.to_string()).await.ok();
    let got = session.get(&ann, &format!("/eventmatch/{}", ids[2])).await.text();
    session.ask(&ann, Method::PUT, &format!("/eventmatch/{}", ids[2]), &got).await.ok();
    session.ask(&ann, Method::DELETE, &format!("/eventmatch/{}", ids[failing]), "").await.ok();
    session.ask(&server, Method::POST, &format!("/events/{first}/retry"), "").await.ok();
    session
        .ask(&ann, Method::POST, &format!("/eventmatch/{}/recover", ids[0]), r#"{"since": "earliest"}"#)
        .await;
    ids.remove(failing);
    deliver(&session, &server, "second").await;
    assert!(authorizations(&target, "/ok/1").contains(&format!("Bearer {again}")));

    // Kill the service, and start it again with another master key.
    server.kill9();
    let rekeyed = run_in(server.folder(), &["db", "rekey", "--data", "data"], &[], "").await;
    assert_eq!(rekeyed.code, 0, "{rekeyed:?}");
    session.hear("waypost db rekey", format!("{rekeyed:?}"));
    server.restart().await;
    let third = deliver(&session, &server, "third").await;
    for path in ok {
        let requests = target.requests(&path);
        let sent = requests
            .iter()
            .filter(|request| request.text().contains("third") || request.header("ce-id") == "third");
        assert_eq!(sent.count(), 1, "{path}: {third}");
        assert!(requests.iter().all(|request| !request.header("authorization").is_empty()));
    }
    // A delivery that waits for a policy server that is down for a while.
    let asked = "/policy/events/ann";
    assert!(
        target.requests(asked).iter().all(|request| request.header("authorization").starts_with("Basic "))
    );
    target.always(asked, Answer::drop_connection());
    let held =
        session.ask(&server, Method::POST, "/receive", &event_1_0("held").to_string()).await.ok().text();
    wait_until("the deliveries are held", async || {
        let story = session.get(&server, &format!("/events/{held}")).await.ok().json();
        let mut deliveries = story["deliveries"].as_array().unwrap().iter();
        deliveries.all(|known| !known["held"].is_null()).then_some(())
    })
    .await;
    target.always(asked, Answer::status(200));
    events.push(held);
    look_at_everything(&session, &server, &ids, &events).await;
    server.terminate();
    server.exited().await;

    session.hear("the log", server.log());
    assert!(server.log().contains("TRACE"), "everything is logged");
    assert!(read_all(&session, server.folder()) > 3);
    // Types that an embedding program may print.
    let config = Config { data: server.data(), ..Config::default() };
    session.hear("Config", format!("{config:?}"));
    let service = Service::open(config).await.unwrap();
    let known = service.directory().of_user("ann");
    assert_eq!(
        known.iter().map(|known| known.secrets().len()).filter(|secrets| *secrets > 0).count(),
        ids.len()
    );
    session.hear("Subscription", format!("{known:?} {known:#?}"));
    session.hear("Vault", format!("{:?}", service.vault()));
    for id in &events {
        session.hear("EventHistory", format!("{:?}", service.story(id.parse().unwrap()).await.unwrap()));
    }
    service.close().await;
    let leaks = session.leaks();
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));
}
