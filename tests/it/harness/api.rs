//! A REST client, and assertions on its answers.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use super::{merged, wait_until};

/// A filter that matches all events of producers.
const EVERYTHING: &str = "$[?!match($.type, 'io[.]waypost[.].*')]";

/// The REST interface as one user sees it.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) url: String,
    user: Option<String>,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An error answer that follows the contract.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) detail: String,
    pub(crate) pointer: Option<String>,
    pub(crate) errors: Vec<Value>,
}

impl Api {
    pub(crate) fn new(url: String) -> Self {
        Self { url, user: None, client: Client::builder(TokioExecutor::new()).build_http() }
    }

    /// Returns the same interface for a user named in `Http-Remote-User`.
    pub(crate) fn user(&self, name: &str) -> Self {
        Self { user: Some(name.to_owned()), ..self.clone() }
    }

    /// Sends one request; an `Err` means that no complete answer came back.
    pub(crate) async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Reply, String> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        if let Some(user) = &self.user {
            request = request.header("http-remote-user", user);
        }
        let exchange = async {
            let reply = self.client.request(request.body(Full::new(body.into())).unwrap()).await;
            let (head, body) = reply.map_err(|error| format!("{error:?}"))?.into_parts();
            let body = body.collect().await.map_err(|error| format!("{error:?}"))?.to_bytes();
            Ok(Reply { status: head.status.as_u16(), headers: head.headers, body })
        };
        tokio::time::timeout(Duration::from_secs(120), exchange)
            .await
            .map_err(|_| "no answer in 120 s".to_owned())?
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        self.try_send(method, path, headers, body).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.send(Method::DELETE, path, &[], Bytes::new()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::POST, path, &[("content-type", "application/json")], body.to_string()).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::PUT, path, &[("content-type", "application/json")], body.to_string()).await
    }

    /// Creates a subscription to everything but what Waypost tells its operators (the default user is an admin), with these
    /// additional fields, and returns its UUID.
    pub(crate) async fn subscribe(&self, fields: Value) -> String {
        let everything = json!({"name": "everything", "jsonpath": EVERYTHING});
        let reply = self.post("/eventmatch", &merged(everything, fields)).await;
        reply.ok().json()["uuid"].as_str().unwrap().to_owned()
    }

    /// Returns one subscription.
    pub(crate) async fn subscription(&self, uuid: &str) -> Value {
        self.get(&format!("/eventmatch/{uuid}")).await.ok().json()
    }

    /// Updates one subscription and returns it.
    pub(crate) async fn update(&self, uuid: &str, fields: &Value) -> Value {
        self.put(&format!("/eventmatch/{uuid}"), fields).await.ok().json()
    }

    /// Posts an event and returns its id.
    pub(crate) async fn receive(&self, event: &Value) -> String {
        self.receive_as("application/json", event.to_string()).await.ok().text()
    }

    /// Posts a body to `/receive`.
    pub(crate) async fn receive_as(&self, content_type: &str, body: impl Into<Bytes>) -> Reply {
        self.send(Method::POST, "/receive", &[("content-type", content_type)], body).await
    }

    /// Returns an event's story.
    pub(crate) async fn story(&self, id: &str) -> Value {
        self.get(&format!("/events/{id}")).await.ok().json()
    }

    /// Returns one subscription's part of an event's story.
    pub(crate) async fn delivery(&self, id: &str, subscription: &str) -> Value {
        let story = self.story(id).await;
        let mut deliveries = story["deliveries"].as_array().unwrap().iter();
        let delivery = deliveries.find(|delivery| delivery["subscription"] == subscription);
        delivery.unwrap_or_else(|| panic!("{subscription} has no delivery in {story}")).clone()
    }

    /// Waits until one delivery is in this state, and returns it.
    pub(crate) async fn delivery_in(&self, id: &str, subscription: &str, state: &str) -> Value {
        wait_until(&format!("the delivery of {id} to {subscription} is {state}"), async || {
            let delivery = self.delivery(id, subscription).await;
            (delivery["state"] == state).then_some(delivery)
        })
        .await
    }

    /// Waits until a subscription is disabled, and returns it.
    pub(crate) async fn disabled(&self, uuid: &str) -> Value {
        wait_until(&format!("{uuid} is disabled"), async || {
            let subscription = self.subscription(uuid).await;
            (!subscription["disabled"].is_null()).then_some(subscription)
        })
        .await
    }

    /// Waits until `/status/{id}` answers this.
    pub(crate) async fn status_is(&self, id: &str, status: &str) {
        wait_until(&format!("the status of {id} is {status}"), async || {
            (self.get(&format!("/status/{id}")).await.ok().json() == status).then_some(())
        })
        .await;
    }
}

impl Reply {
    /// Asserts that the answer is 200.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.status, 200, "{}", self.text());
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns a header's value, empty where it is absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Asserts that the answer is one of two errors that the contract allows.
    #[track_caller]
    pub(crate) fn refused_as(&self, one: u16, other: u16) -> Problem {
        self.refused(if self.status == one { one } else { other })
    }

    /// Asserts that the answer is the error `status` in the shape of the contract.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16) -> Problem {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), "application/json");
        let body = self.json();
        let reason = StatusCode::from_u16(status).unwrap().canonical_reason().unwrap();
        assert_eq!(body["status"], format!("{status} {reason}"), "{body}");
        assert_eq!(body["title"], reason, "{body}");
        assert_eq!(body["type"], "about:blank", "{body}");
        assert_eq!(body["message"], body["detail"], "{body}");
        let detail = body["detail"].as_str().unwrap().to_owned();
        assert!(!detail.is_empty() && !detail.contains("panicked"), "{body}");
        Problem {
            detail,
            pointer: body["pointer"].as_str().map(str::to_owned),
            errors: body["errors"].as_array().cloned().unwrap_or_default(),
        }
    }
}

impl Problem {
    /// Asserts the JSON pointer.
    #[track_caller]
    pub(crate) fn at(self, pointer: &str) -> Self {
        assert_eq!(self.pointer.as_deref(), Some(pointer), "{}", self.detail);
        self
    }

    /// Asserts that the JSON pointer names this field or a part of it.
    #[track_caller]
    pub(crate) fn within(self, pointer: &str) -> Self {
        let found = self.pointer.as_deref().unwrap_or_default();
        let inside = found.strip_prefix(pointer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        assert!(inside, "`{found}` is not within {pointer}: {}", self.detail);
        self
    }

    /// Asserts that the message contains this text.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.detail.contains(text), "`{text}` is not in: {}", self.detail);
        self
    }
}
