//! The address guard in a whole service, with name servers that the tests script: what is refused when a subscription is
//! written, in a dry run, and when it is delivered to.

use std::net::IpAddr;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Method;
use serde_json::Value;
use tempfile::TempDir;

use super::delivering::until;
use super::*;
use waypost_domain::{Activity, State, SubscriptionId};
use waypost_net::testing::{CLOSED, is_untouched, name_server};
use waypost_net::{Resolver, Rules};

/// Opens a service with this guard.
async fn guarded(folder: &TempDir, guard: Guard) -> Service {
    let config = config(folder.path(), false);
    let store = open_store(&config).await.unwrap();
    Box::pin(Service::start(config, Vec::new(), store, Arc::new(guard), None)).await.unwrap()
}

async fn rest(service: &Service, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
    let content_type =
        if path.ends_with("/test") { "application/cloudevents+json" } else { "application/json" };
    let request = Request::builder().method(method).uri(path).header("host", "localhost");
    let request = request.header("content-type", content_type);
    let request = request.extension(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 1))));
    let answer = service.router().oneshot(request.body(Body::from(body.to_string())).unwrap()).await.unwrap();
    let status = answer.status();
    let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

/// Creates a subscription as a program does, which is not asked about its target before it is delivered to.
async fn subscribe(service: &Service, url: &str) -> SubscriptionId {
    let (user, name) = ("anonymous".to_owned(), "n".to_owned());
    let subscription = Subscription::new(user, name, "$".to_owned(), url.parse().unwrap(), clock::now());
    let id = subscription.id;
    service.directory().create(subscription).await.unwrap();
    id
}

/// Returns what a dry run says about the target.
async fn tried(service: &Service, id: SubscriptionId) -> Value {
    let event = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "t"});
    let (status, body) = rest(service, Method::POST, &format!("/eventmatch/{id}/test"), &event).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    body["target"].clone()
}

/// Accepts an event, and returns the states of its deliveries once none is pending.
async fn settled(service: &Service, is_over: impl Fn(&State) -> bool) -> Vec<(SubscriptionId, State)> {
    let id = service.accept(vec![event("a")], "ann").await.unwrap().remove(0);
    until("all are over", async || {
        let story = service.story(id).await.unwrap().unwrap();
        let states = story.deliveries.into_iter();
        let states: Vec<_> =
            states.map(|delivery| (delivery.recipient.subscription_id(), delivery.state)).collect();
        states.iter().all(|(_, state)| is_over(state)).then_some(states)
    })
    .await
}

#[tokio::test]
async fn what_is_not_public_is_refused_when_it_is_written_tried_and_delivered_to() {
    let folder = tempfile::tempdir().unwrap();
    let service = guarded(&folder, Guard::default()).await;
    let known = subscribe(&service, "http://target.example/").await;
    for (host, address) in CLOSED {
        let address = address.parse::<IpAddr>().unwrap().to_string();
        let url = format!("http://{host}:9/");
        let body = json!({"name": "n", "jsonpath": "$", "target_url": url});
        for (method, path) in
            [(Method::POST, "/eventmatch".to_owned()), (Method::PUT, format!("/eventmatch/{known}"))]
        {
            let (status, refused) = rest(&service, method, &path, &body).await;
            assert_eq!(
                (status.as_u16(), &refused["pointer"]),
                (422, &json!("/target_url")),
                "{url}: {refused}"
            );
            let detail = refused["detail"].as_str().unwrap();
            let says = format!("the address {address} is not public (");
            assert!(
                detail.contains(&says) && detail.contains("the setting allow_targets"),
                "{url}: {detail}"
            );
        }
    }
    assert_eq!(service.directory().of_user("anonymous").len(), 1);
    service.directory().change(known, |known| Some(known.deleted(clock::now()))).await.unwrap();

    let mut addresses = std::collections::HashMap::new();
    for (host, address) in CLOSED {
        let id = subscribe(&service, &format!("http://{host}:9/")).await;
        let target = tried(&service, id).await;
        let reason = target["reason"].as_str().unwrap();
        assert!(target["verdict"] == "refused" && reason.contains("is not public"), "{host}: {target}");
        addresses.insert(id, address.parse::<IpAddr>().unwrap());
    }
    let states = settled(&service, |state| matches!(state, State::Dead { .. })).await;
    assert_eq!(states.len(), CLOSED.len());
    for (id, state) in states {
        let State::Dead { reason, .. } = state else { panic!("{state:?}") };
        let says = format!("the request was not sent: the address {} is not public (", addresses[&id]);
        assert!(reason.starts_with(&says) && reason.contains("the setting allow_targets"), "{reason}");
        until("the subscription says why", async || {
            let activity = service.directory().get(id).unwrap().activity.clone();
            matches!(activity, Activity::Disabled { error: Some(error), .. } if error == reason).then_some(())
        })
        .await;
    }
    service.close().await;
}

/// Its name server answers with a public address while people look, and with this machine's when it is delivered to.
#[tokio::test]
async fn a_target_whose_address_changes_gets_nothing() {
    let (folder, listener) = (tempfile::tempdir().unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let answers = [[1, 1, 1, 1], [127, 0, 0, 1]].map(|address| vec![IpAddr::from(address)]);
    let service = guarded(&folder, Guard::default().resolving(name_server(answers.to_vec()))).await;
    let url = format!("http://rebind.example:{}/", listener.local_addr().unwrap().port());
    let body = json!({"name": "n", "jsonpath": "$", "target_url": url});
    let (status, created) = rest(&service, Method::POST, "/eventmatch", &body).await;
    assert_eq!(status, StatusCode::OK, "{created}");
    let id = created["uuid"].as_str().unwrap().parse().unwrap();
    let seen = json!([{"address": "1.1.1.1", "refused": null}]);
    assert_eq!(tried(&service, id).await, json!({"verdict": "allowed", "reason": null, "addresses": seen}));
    let states = settled(&service, |state| matches!(state, State::Dead { .. })).await;
    let [(_, State::Dead { reason, .. })] = &states[..] else { panic!("{states:?}") };
    assert!(reason.contains("the address 127.0.0.1 is not public"), "{reason}");
    assert!(is_untouched(&listener), "0 connections arrive");
    service.close().await;
}

#[tokio::test]
async fn a_dry_run_judges_every_address_of_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let addresses = ["1.1.1.1", "10.0.0.1", "10.9.9.9"].map(|address| address.parse().unwrap());
    let rules = Rules { allow: vec!["10.0.0.1".parse().unwrap()], ..Rules::default() };
    let guard = Guard::default().resolving(name_server(vec![addresses.to_vec()])).with(rules);
    let service = guarded(&folder, guard).await;
    let id = subscribe(&service, "http://many.example/").await;
    let target = tried(&service, id).await;
    let of = |place: usize| target["addresses"][place]["refused"].clone();
    assert_eq!((&target["verdict"], of(0), of(1)), (&json!("allowed"), Value::Null, Value::Null), "{target}");
    assert!(of(2).as_str().unwrap().contains("10.9.9.9 is not public"), "{target}");
    service.close().await;
}

#[tokio::test]
async fn a_target_without_an_address_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let resolver = Resolver::scripted(|_| Err(std::io::Error::other("no such name")));
    let service = guarded(&folder, Guard::default().resolving(resolver)).await;
    let id = subscribe(&service, "http://none.example/").await;
    assert_eq!(tried(&service, id).await["verdict"], "unavailable");
    let is_retrying = |state: &State| state.name() == "retrying";
    assert_eq!(settled(&service, is_retrying).await.len(), 1);
    service.close().await;
}
