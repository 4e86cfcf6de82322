//! The address guard with an operator's settings. `net` and `service` test the meaning of each address.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Reserved, Server, Target, event, event_1_0, run, wait_until};

fn to(url: &str) -> Value {
    json!({"name": "n", "jsonpath": "$", "target_url": url})
}

#[tokio::test]
async fn users_on_other_machines_reach_only_public_addresses_until_the_operator_opens_more() {
    let target = Target::start().await;
    let (url, port) = (target.url("/t"), target.url("").rsplit(':').next().unwrap().to_owned());
    let server = Server::wide(&[]).await;
    let refused = server.post("/eventmatch", &to(&url)).await.refused(422).at("/target_url");
    refused.says("the address 127.0.0.1 is not public (loopback, 127.0.0.0/8)").says("allow_targets");
    let uuid = server.subscribe(json!({"target_url": "http://target.example/"})).await;
    server
        .put(&format!("/eventmatch/{uuid}"), &json!({"target_url": url}))
        .await
        .refused(422)
        .at("/target_url");
    assert_eq!(server.subscription(&uuid).await["target_url"], "http://target.example/");
    // The guard does not check a change of anything else.
    server.update(&uuid, &json!({"name": "other", "target_url": "http://target.example/"})).await;

    let named = format!("http://localhost:{port}/t");
    for (entry, url) in [
        ("10.0.0.0/8,127.0.0.0/8", &url),
        ("127.0.0.1", &url),
        (&format!("127.0.0.1:{port}"), &url),
        (&format!("localhost:{port}"), &named),
        ("localhost", &named),
    ] {
        let server = Server::wide(&["--allow-targets", entry]).await;
        let uuid = server.subscribe(json!({"target_url": url})).await;
        let id = server.receive(&event("a")).await;
        server.delivery_in(&id, &uuid, "delivered").await;
    }
    let other = Server::wide(&["--allow-targets", "127.0.0.1:1,other.localhost"]).await;
    for url in [&url, &named] {
        other.post("/eventmatch", &to(url)).await.refused(422).at("/target_url");
    }
    assert_eq!(target.all().len(), 5);
}

/// A denied target used to be retried for three days.
#[tokio::test]
async fn a_target_that_is_denied_later_is_a_dead_letter_at_once_with_the_reason() {
    let target = Target::start().await;
    let allow = "allow_targets = [\"127.0.0.0/8\"]\n";
    let mut server = Server::configured(allow, |_| {}).await;
    let url = target.url("/t");
    let uuid = server.subscribe(json!({"target_url": url})).await;
    let id = server.receive(&event("a")).await;
    server.delivery_in(&id, &uuid, "delivered").await;

    let deny = format!("{allow}deny_targets = [\"127.0.0.0/8\", \"*.secret.example\"]\n");
    std::fs::write(server.folder().join("waypost.toml"), deny).unwrap();
    server.restart().await;
    let address = url.trim_start_matches("http://").trim_end_matches("/t").to_owned();
    let why = format!("{address} is refused by `127.0.0.0/8` in the setting deny_targets");
    let headers = [("content-type", "application/cloudevents+json")];
    let path = format!("/eventmatch/{uuid}/test");
    let tried = server.send(Method::POST, &path, &headers, event_1_0("1").to_string()).await.ok().json();
    assert_eq!(tried["target"], json!({"verdict": "refused", "reason": why, "addresses": []}));
    let id = server.receive(&event("b")).await;
    let delivery = server.delivery_in(&id, &uuid, "dead").await;
    let reason = delivery["reason"].as_str().unwrap();
    assert_eq!(reason, format!("the request was not sent: {why}"));
    assert_eq!(delivery["attempts"].as_array().unwrap().len(), 1, "{delivery}");
    assert_eq!(server.disabled(&uuid).await["error"], reason);
    for url in ["http://127.0.0.1:9/", "http://0x7f.1:9/", "https://a.Secret.example./"] {
        server.post("/eventmatch", &to(url)).await.refused(422).at("/target_url").says("deny_targets");
    }
    assert_eq!(target.all().len(), 1);
}

#[tokio::test]
async fn a_dry_run_shows_the_guards_verdict_on_each_address() {
    let server = Server::start().await;
    let headers = [("content-type", "application/cloudevents+json")];
    let tried = async |url: &str| {
        let uuid = server.subscribe(json!({"target_url": url})).await;
        let path = format!("/eventmatch/{uuid}/test");
        let tried = server.send(Method::POST, &path, &headers, event_1_0("1").to_string()).await.ok().json();
        tried["target"].clone()
    };
    let open = json!({"address": "127.0.0.1", "refused": null});
    assert_eq!(
        tried("http://127.0.0.1:9/").await,
        json!({"verdict": "allowed", "reason": null, "addresses": [open]})
    );
    let named = tried("http://localhost:9/").await;
    assert_eq!(named["verdict"], "allowed");
    assert!(named["addresses"].as_array().unwrap().contains(&open), "{named}");
    let none = tried("http://no-such-name.invalid/").await;
    assert_eq!((&none["verdict"], &none["addresses"]), (&json!("unavailable"), &json!([])));
}

#[tokio::test]
async fn deliveries_go_through_the_operators_proxy_after_the_guards_check() {
    let proxy = Target::start().await;
    let url = proxy.url("").replace("http://", "http://user:pass@");
    let server = Server::wide(&["--http-proxy", &url]).await;
    let uuid = server.subscribe(json!({"target_url": "http://target.example:8080/t"})).await;
    let id = server.receive(&event("a")).await;
    server.delivery_in(&id, &uuid, "delivered").await;
    let got = proxy.wait_for("/t", 1).await.remove(0);
    assert_eq!(
        (got.header("host"), got.header("proxy-authorization")),
        ("target.example:8080", "Basic dXNlcjpwYXNz")
    );
    for url in ["http://10.0.0.1/", "http://localhost/", "https://2130706433/"] {
        server.post("/eventmatch", &to(url)).await.refused(422).at("/target_url").says("is not public");
    }
    let story = server.story(&id).await.to_string() + &server.log();
    assert!(!story.contains("user:pass") && !story.contains("dXNlcjpwYXNz"), "{story}");
    assert_eq!(proxy.all().len(), 1);
}

/// A proxy that is down is not the target's failure: deliveries wait, and no attempt is counted.
#[tokio::test]
async fn a_proxy_that_is_down_is_not_charged_to_the_target() {
    let proxy = Reserved::new();
    let server = Server::with(&["--http-proxy", &proxy.url("")]).await;
    let fields = json!({"target_url": "http://target.example/t", "retry": "none"});
    let uuid = server.subscribe(fields).await;
    let id = server.receive(&event("a")).await;
    let held = wait_until("the delivery is held", async || {
        let delivery = server.delivery(&id, &uuid).await;
        // It has no reason while it is being attempted again.
        delivery["reason"].is_string().then_some(delivery)
    })
    .await;
    assert!(held["reason"].as_str().unwrap().contains("(http_proxy) cannot be reached"), "{held}");
    assert_eq!(held["attempts"], json!([]), "{held}");
    let proxy = proxy.open();
    server.delivery_in(&id, &uuid, "delivered").await;
    assert_eq!(proxy.requests("/t").len(), 1);
}

#[tokio::test]
async fn an_invalid_target_pattern_is_refused_with_what_is_expected() {
    for (flag, value, says) in [
        ("--allow-targets", "10.0.0.0/8,http://a", "found `http://a`"),
        ("--deny-targets", "10.1.2.3/8", "expected the network `10.0.0.0/8`, found `10.1.2.3/8`"),
        ("--deny-targets", "a:99999", "expected a port from 1 to 65535"),
        ("--http-proxy", "https://user:pass@proxy.example", "expected `http://host:port`"),
        ("--plugin-networks", "10.0.0.0/8", "is no longer a setting: `allow_targets` opens networks"),
    ] {
        let output = run(&["serve", flag, value], "").await;
        assert_ne!(output.code, 0);
        let key = flag.trim_start_matches('-').replace('-', "_");
        assert!(output.stderr.contains(&format!("`{key}`")) && output.stderr.contains(says), "{output:?}");
        assert!(!output.stderr.contains("pass@"), "{output:?}");
    }
    let help = run(&["serve", "--help"], "").await.stdout;
    assert!(help.contains("--allow-targets") && !help.contains("--plugin-networks"), "{help}");
}
