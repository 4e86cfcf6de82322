//! Waypost's own requests carry no user's authority: no delivery, plugin or program acts as a user of this or another
//! Waypost.
//!
//! The tests run two services on one machine, each of which trusts requests from this address.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{RawConnection, Reserved, Server, Target, event_1_0, wait_until};
use crate::plugins::{probing, using};

/// The subscription that an attacker wants to create in another user's name.
fn stolen() -> Value {
    json!({"name": "stolen", "jsonpath": "$", "target_url": "http://127.0.0.1:9/"})
}

/// An event whose body in binary mode is that of a subscription.
fn disguised(data: &Value) -> Value {
    json!({"specversion": "1.0", "id": "a", "source": "/s", "type": "t", "datacontenttype": "application/json", "data": data})
}

async fn subscriptions(server: &Server, user: Option<&str>) -> Value {
    let api = user.map_or_else(|| (**server).clone(), |user| server.user(user));
    api.get("/eventmatch").await.ok().json()
}

/// Asserts that neither the default user nor `boss` has a subscription at `victim`.
async fn nothing_was_made(victim: &Server) {
    assert_eq!(subscriptions(victim, None).await, json!([]));
    assert_eq!(subscriptions(victim, Some("boss")).await, json!([]));
}

// Deliveries

/// A plugin's raw output with the user header created a subscription for boss, which got events that policy denied the
/// plugin's user.
#[tokio::test]
async fn a_plugins_output_names_no_user() {
    let (server, victim) = (Server::start().await, Server::start().await);
    let target = format!("{}/eventmatch", victim.url);
    for name in [
        "http-remote-user",
        "Http-Remote-User",
        "http_remote_user",
        "X-Forwarded-User",
        "Waypost-Agent",
        "cookie",
    ] {
        let config =
            json!({"transform": "raw", "headers": format!("{name}: boss"), "body": stolen().to_string()});
        let subscription = probing(&server, &target, config).await;
        server.update(&subscription, &json!({"retry": "none"})).await;
        let id = server.receive(&event_1_0("a")).await;
        let delivery = server.delivery_in(&id, &subscription, "dead").await;
        let reason = delivery["reason"].as_str().unwrap();
        assert!(reason.contains(&format!("header `{name}` is not a plugin's to set")), "{reason}");
        server.delete(&format!("/eventmatch/{subscription}")).await.ok();
    }
    nothing_was_made(&victim).await;
}

/// A delivery in binary mode to `/eventmatch` acted as the default user, without any header.
#[tokio::test]
async fn a_delivery_is_not_from_the_default_user() {
    let (server, victim) = (Server::with(&["--admin-users", "nobody"]).await, Server::start().await);
    let old = victim.receive(&event_1_0("old")).await;
    for (path, data) in [
        ("/eventmatch".to_owned(), stolen()),
        (format!("/events/{old}/retry"), json!({})),
        ("/dispatch/add/1/2".to_owned(), json!({})),
        ("/plugins".to_owned(), json!({})),
    ] {
        let fields =
            json!({"target_url": format!("{}{path}", victim.url), "content_mode": "binary", "retry": "none"});
        let subscription = server.subscribe(fields).await;
        let id = server.receive(&disguised(&data)).await;
        let delivery = server.delivery_in(&id, &subscription, "dead").await;
        let answer = &delivery["attempts"][0]["target"];
        assert_eq!(answer["status"], 401, "{path}: {delivery}");
        let said = answer["body"].as_str().unwrap();
        assert!(said.contains("waypost-agent") && said.contains("speaks for no user"), "{path}: {said}");
        server.delete(&format!("/eventmatch/{subscription}")).await.ok();
    }
    nothing_was_made(&victim).await;
}

/// `auth` and the other members that shape a request cannot remove the mark.
#[tokio::test]
async fn no_member_of_a_subscription_removes_the_mark() {
    let (server, target) = (Server::start().await, Target::start().await);
    let auth = json!({"type": "header", "header": {"type": "Bearer", "credentials": "waypost-agent: none"}});
    let extensions = json!({"waypostagent": "none", "user": "boss"});
    server
        .subscribe(json!({"target_url": target.url("/t"), "auth": auth, "content_mode": "binary", "extensions": extensions}))
        .await;
    server.receive(&disguised(&json!({}))).await;
    let got = target.wait_for("/t", 1).await.remove(0);
    let marks: Vec<_> = got.headers.get_all("waypost-agent").iter().collect();
    assert_eq!(marks, ["delivery"]);
    assert!(got.headers.keys().all(|name| !name.as_str().contains("remote-user")), "{:?}", got.headers);
}

// The service itself

/// The service's own address was a target like any other, and requests from there were trusted.
#[tokio::test]
async fn the_listeners_own_address_is_refused_as_a_target() {
    let server = Server::start().await;
    let port = server.url.rsplit(':').next().unwrap().to_owned();
    for host in [
        "127.0.0.1",
        "localhost",
        "LOCALHOST.",
        "0x7f.1",
        "2130706433",
        "0.0.0.0",
        "[::ffff:127.0.0.1]",
        "[::]",
    ] {
        let fields =
            json!({"name": "n", "jsonpath": "$", "target_url": format!("http://{host}:{port}/eventmatch")});
        let refused = server.post("/eventmatch", &fields).await.refused(422).at("/target_url");
        refused.says("is this Waypost itself");
    }
    let other = server.subscribe(json!({"target_url": "http://127.0.0.1:9/"})).await;
    let change = json!({"target_url": format!("http://localhost:{port}/eventmatch")});
    server.put(&format!("/eventmatch/{other}"), &change).await.refused(422).at("/target_url");
    nothing_was_made_but(&server, &other).await;
}

async fn nothing_was_made_but(server: &Server, uuid: &str) {
    let all = subscriptions(server, None).await;
    assert_eq!(all.as_array().unwrap().len(), 1, "{all}");
    assert_eq!(all[0]["uuid"], uuid);
}

/// The check when a connection is made covers what the URL does not show: here the service moves to the address later.
#[tokio::test]
async fn a_target_that_later_leads_to_the_service_itself_gets_nothing() {
    let reserved = Reserved::new();
    let address = reserved.url("").strip_prefix("http://").unwrap().to_owned();
    let mut server = Server::start().await;
    let fields =
        json!({"target_url": reserved.url("/eventmatch"), "content_mode": "binary", "retry": "none"});
    let subscription = server.subscribe(fields).await;
    server.update(&subscription, &json!({"disabled": "2026-01-01T00:00:00Z"})).await;
    server.move_to(&address);
    drop(reserved);
    server.restart().await;
    assert_eq!(server.url, format!("http://{address}"));
    server.update(&subscription, &json!({"disabled": null})).await;
    let id = server.receive(&disguised(&stolen())).await;
    let delivery = server.delivery_in(&id, &subscription, "dead").await;
    let reason = delivery["reason"].as_str().unwrap();
    assert!(reason.contains(&format!("{address} is this Waypost itself")), "{reason}");
    nothing_was_made_but(&server, &subscription).await;
}

/// Chaining two services still works: the second accepts the event, from a sender without a name.
#[tokio::test]
async fn another_waypost_accepts_events_from_a_sender_without_a_name() {
    let (first, second, target) = (Server::start().await, Server::start().await, Target::start().await);
    first.subscribe(json!({"target_url": format!("{}/receive", second.url)})).await;
    second.subscribe(json!({"target_url": target.url("/t")})).await;
    first.receive(&event_1_0("a")).await;
    assert_eq!(target.wait_for("/t", 1).await[0].event_id(), "a");
    let events = second.get("/events").await.ok().json();
    let id = events["events"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(
        second.story(&id).await["sender"],
        "",
        "neither the default user, who is an admin, nor a user"
    );
    // Naming a user does not make a request that sender's.
    let nobody =
        second.send(Method::GET, &format!("/events/{id}"), &[("http-remote-user", "mallory")], "").await;
    nobody.refused(404);
}

// Plugins' own requests

/// A plugin's request came from a trusted address, and acted as the default user.
#[tokio::test]
async fn a_plugins_request_acts_as_no_user_and_does_not_reach_the_service_itself() {
    let server = Server::with(&["--allow-targets", "127.0.0.0/8", "--plugin-time-ms", "10000"]).await;
    let victim = Server::start().await;
    let fetching = async |url: &str, headers: &str| {
        let host = url.split('/').nth(2).unwrap();
        let headers = format!("content-type: application/json\n{headers}");
        let config = json!({"url": url, "method": "POST", "headers": headers, "body": stolen().to_string()});
        let plugin = json!({"config": config, "allow_hosts": [host]});
        let subscription = using(&server, waypost_guests::FETCH, "http://127.0.0.1:9/", plugin).await;
        let id = server.receive(&event_1_0("a")).await;
        let delivery = wait_until("the plugin has run", async || {
            let delivery = server.delivery(&id, &subscription).await;
            (delivery["attempts"] != json!([])).then_some(delivery)
        })
        .await;
        server.delete(&format!("/eventmatch/{subscription}")).await.ok();
        delivery["attempts"][0]["plugin"].to_string()
    };
    let run = fetching(&format!("{}/eventmatch", victim.url), "accept: */*").await;
    assert!(run.contains("401, "), "{run}");
    for name in ["http-remote-user", "x-forwarded-for", "waypost-agent"] {
        let run = fetching(&format!("{}/eventmatch", victim.url), &format!("{name}: boss")).await;
        assert!(run.contains(&format!("header `{name}` is not a plugin's to set")), "{run}");
    }
    let run = fetching(&format!("{}/eventmatch", server.url), "accept: */*").await;
    assert!(run.contains("it leads to this Waypost itself"), "{run}");
    nothing_was_made(&victim).await;
    nothing_was_made(&server).await;
}

/// The operator may allow plugins to set further headers.
#[tokio::test]
async fn the_operator_allows_further_headers() {
    let (server, target) =
        (Server::with(&["--plugin-headers", "x-acme-*,x-scope-orgid"]).await, Target::start().await);
    let config = json!({"transform": "raw", "headers": "X-Acme-Key: k\nX-Scope-OrgID: 7", "body": "{}"});
    let allowed = probing(&server, &target.url("/t"), config).await;
    let id = server.receive(&event_1_0("a")).await;
    server.delivery_in(&id, &allowed, "delivered").await;
    let got = target.wait_for("/t", 1).await.remove(0);
    assert_eq!((got.header("x-acme-key"), got.header("x-scope-orgid")), ("k", "7"));
}

// The mark

#[tokio::test]
async fn a_marked_request_acts_as_no_user_in_every_form() {
    let server = Server::start().await;
    let body = stolen().to_string();
    for head in [
        "POST /eventmatch HTTP/1.1\r\nwaypost-agent: delivery\r\nhttp-remote-user: boss",
        "POST /eventmatch HTTP/1.1\r\nWAYPOST-AGENT:\r\nHttp-Remote-User: boss",
        "POST /eventmatch HTTP/1.1\r\nwaypost-agent: a\r\nhttp-remote-user: boss\r\nwaypost-agent: b",
        "POST http://localhost/eventmatch HTTP/1.1\r\nwaypost-agent: delivery",
        "POST /eventmatch HTTP/1.0\r\nwaypost-agent: delivery",
    ] {
        let mut connection = RawConnection::open(&server.url).await;
        let head = format!(
            "{head}\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        connection.write(head + &body).await;
        let refused = connection.reply().await.unwrap().refused(401);
        refused.says("speaks for no user");
    }
    for path in ["/events", "/eventmatch", "/", "/scriptlog", "/plugins"] {
        server.send(Method::GET, path, &[("waypost-agent", "delivery")], "").await.refused(401);
    }
    server.send(Method::GET, "/healthz", &[("waypost-agent", "delivery")], "").await.ok();
    nothing_was_made(&server).await;
}
