//! Waypost's REST API, as far as the bench needs it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const JSON: &str = "application/json";
const WASM: &str = "application/wasm";
/// The header that names the user, and the user of most requests.
const USER_HEADER: &str = "http-remote-user";
pub(crate) const USER: &str = "bench";

/// One keep-alive connection; ends when dropped.
pub(crate) struct Rest {
    host: String,
    sender: SendRequest<Full<Bytes>>,
    _connection: JoinSet<hyper::Result<()>>,
}

impl Rest {
    /// Connects to Waypost at `address`.
    pub(crate) async fn connect(address: SocketAddr) -> Result<Self> {
        let stream =
            TcpStream::connect(address).await.with_context(|| format!("failed to connect to {address}"))?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        Ok(Self { host: address.to_string(), sender, _connection: tasks })
    }

    /// Creates a subscription.
    pub(crate) async fn subscribe(&mut self, name: &str, jsonpath: &str, target_url: &str) -> Result<()> {
        self.create(json!({ "name": name, "jsonpath": jsonpath, "target_url": target_url })).await.map(drop)
    }

    /// Creates a subscription from its JSON; returns its UUID.
    pub(crate) async fn create(&mut self, subscription: Value) -> Result<String> {
        self.create_as(USER, subscription).await
    }

    /// Creates a subscription of a user.
    pub(crate) async fn create_as(&mut self, user: &str, subscription: Value) -> Result<String> {
        let body = subscription.to_string().into();
        let (status, answer) = self.send_as(user, "POST", "/eventmatch", JSON, body).await?;
        let text = String::from_utf8_lossy(&answer);
        ensure!(status == StatusCode::OK, "POST /eventmatch with {subscription}: {status}: {text}");
        member(&answer, "uuid")
    }

    /// Makes a token; returns it.
    pub(crate) async fn token(&mut self, wanted: Value) -> Result<String> {
        let (status, answer) = self.send("POST", "/tokens", JSON, wanted.to_string().into()).await?;
        ensure!(status.is_success(), "POST /tokens: {status}: {}", String::from_utf8_lossy(&answer));
        member(&answer, "token")
    }

    /// Uploads a module; returns its digest.
    pub(crate) async fn upload(&mut self, wasm: Bytes) -> Result<String> {
        let (status, answer) = self.send("POST", "/plugins", WASM, wasm).await?;
        ensure!(status.is_success(), "POST /plugins: {status}: {}", String::from_utf8_lossy(&answer));
        member(&answer, "digest")
    }

    /// Gives a subscription a module.
    pub(crate) async fn put_plugin(&mut self, uuid: &str, wasm: Bytes) -> Result<()> {
        let path = format!("/eventmatch/{uuid}/plugin");
        let (status, answer) = self.send("PUT", &path, WASM, wasm).await?;
        ensure!(status.is_success(), "PUT {path}: {status}: {}", String::from_utf8_lossy(&answer));
        Ok(())
    }

    /// Begins a job of a subscription.
    pub(crate) async fn begin(&mut self, path: &str, wanted: Value) -> Result<()> {
        let (status, answer) = self.send("POST", path, JSON, wanted.to_string().into()).await?;
        ensure!(status.is_success(), "POST {path}: {status}: {}", String::from_utf8_lossy(&answer));
        Ok(())
    }

    /// Purges the events that are older than this.
    #[expect(
        clippy::disallowed_methods,
        reason = "the bench uses Waypost from outside, and has no clock of its own"
    )]
    pub(crate) async fn purge(&mut self, age: Duration) -> Result<()> {
        let path = format!("/events?before={}", Timestamp::now() - age);
        let (status, answer) = self.send("DELETE", &path, JSON, Bytes::new()).await?;
        ensure!(status.is_success(), "DELETE {path}: {status}: {}", String::from_utf8_lossy(&answer));
        Ok(())
    }

    /// GETs a path.
    pub(crate) async fn get(&mut self, path: &str) -> Result<StatusCode> {
        Ok(self.send("GET", path, JSON, Bytes::new()).await?.0)
    }

    /// Sends an event; returns its id in the log.
    pub(crate) async fn receive(&mut self, event: &Value) -> Result<String> {
        let (status, answer) = self.send("POST", "/receive", JSON, event.to_string().into()).await?;
        let text = String::from_utf8_lossy(&answer).into_owned();
        ensure!(status == StatusCode::OK, "POST /receive: {status}: {text}");
        Ok(text)
    }

    /// GETs a path that answers JSON.
    pub(crate) async fn json(&mut self, path: &str) -> Result<Value> {
        self.json_as(USER, path).await
    }

    /// GETs a path that answers JSON, as a user.
    pub(crate) async fn json_as(&mut self, user: &str, path: &str) -> Result<Value> {
        let (status, answer) = self.send_as(user, "GET", path, JSON, Bytes::new()).await?;
        ensure!(status == StatusCode::OK, "GET {path}: {status}: {}", String::from_utf8_lossy(&answer));
        serde_json::from_slice(&answer).with_context(|| format!("GET {path} answers no JSON"))
    }

    async fn send(
        &mut self,
        method: &str,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes)> {
        self.send_as(USER, method, path, content_type, body).await
    }

    async fn send_as(
        &mut self,
        user: &str,
        method: &str,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes)> {
        let request =
            Request::builder().method(method).uri(path).header(HOST, &self.host).header(USER_HEADER, user);
        let request = request.header(CONTENT_TYPE, content_type).body(Full::from(body))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await.with_context(|| format!("{method} {path}"))?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
}

fn member(answer: &[u8], name: &str) -> Result<String> {
    let answer: Value = serde_json::from_slice(answer).context("the answer is no JSON")?;
    answer[name].as_str().map(str::to_owned).with_context(|| format!("no `{name}` in {answer}"))
}
