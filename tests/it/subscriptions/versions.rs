//! Versions of subscriptions: lost updates are refused, and what is known is not sent again (RFC 9110 §13).

use http::Method;
use serde_json::json;

use crate::harness::Server;

/// Two people read a subscription, and both change it: the second took back what the first had changed.
#[tokio::test]
async fn a_change_of_a_version_that_is_no_longer_the_newest_is_refused() {
    let server = Server::start().await;
    let uuid = server.subscribe(json!({"name": "first", "target_url": "http://127.0.0.1:9/"})).await;
    let path = format!("/eventmatch/{uuid}");
    let put = async |tag: &str, body: serde_json::Value| {
        let headers = [("content-type", "application/json"), ("if-match", tag)];
        server.send(Method::PUT, &path, &headers, body.to_string()).await
    };
    let read = server.get(&path).await.ok();
    let first = read.header("etag").to_owned();
    assert!(first.starts_with('"') && first.ends_with('"'), "{first}");

    let changed = put(&first, json!({"name": "second"})).await.ok();
    let second = changed.header("etag").to_owned();
    assert_ne!(first, second);
    put(&first, json!({"name": "lost"})).await.refused(412).says(&second);
    let headers = [("if-match", first.as_str())];
    server.send(Method::DELETE, &path, &headers, "").await.refused(412);
    server.send(Method::DELETE, &format!("{path}/plugin"), &headers, "").await.refused(412);
    server.send(Method::POST, &format!("{path}/rotate-secret"), &headers, "").await.refused(412);
    assert_eq!(server.get(&path).await.json()["name"], "second");

    // One of several is enough, and `*` is any.
    put(&format!("{first}, {second}"), json!({"name": "third"})).await.ok();
    put("*", json!({"name": "fourth"})).await.ok();
    // Of those who do not ask, the last one wins, as before.
    server.put(&path, &json!({"name": "fifth"})).await.ok();
    assert_eq!(server.get(&path).await.json()["name"], "fifth");
}

/// Of many who change one version at once, one succeeds.
#[tokio::test]
async fn of_changes_at_once_with_one_version_one_succeeds() {
    let server = Server::start().await;
    let uuid = server.subscribe(json!({"name": "first", "target_url": "http://127.0.0.1:9/"})).await;
    let path = format!("/eventmatch/{uuid}");
    let tag = server.get(&path).await.header("etag").to_owned();
    let put = async |number: u32| {
        let headers = [("content-type", "application/json"), ("if-match", tag.as_str())];
        let body = json!({"name": format!("by {number}")}).to_string();
        server.send(Method::PUT, &path, &headers, body).await.status
    };
    let statuses = futures_util::future::join_all((0..8).map(put)).await;
    let count = |status| statuses.iter().filter(|found| **found == status).count();
    assert_eq!((count(200), count(412)), (1, 7), "{statuses:?}");
}

#[tokio::test]
async fn what_a_client_knows_is_not_sent_again() {
    let server = Server::start().await;
    let uuid = server.subscribe(json!({"name": "first", "target_url": "http://127.0.0.1:9/"})).await;
    let path = format!("/eventmatch/{uuid}");
    let tag = server.get(&path).await.header("etag").to_owned();
    let get = async |tag: &str| server.send(Method::GET, &path, &[("if-none-match", tag)], "").await;
    let known = get(&tag).await;
    assert_eq!((known.status, known.text().as_str(), known.header("etag")), (304, "", tag.as_str()));
    server.put(&path, &json!({"name": "second"})).await.ok();
    assert_eq!(get(&tag).await.status, 200);
    let head = server.send(Method::HEAD, &path, &[], "").await;
    assert_eq!((head.status, head.text().as_str()), (200, ""));
    assert_ne!(head.header("etag"), tag);
}
