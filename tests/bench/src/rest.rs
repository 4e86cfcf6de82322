//! Waypost's REST API, as far as the bench needs it.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

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
        let body = json!({ "name": name, "jsonpath": jsonpath, "target_url": target_url }).to_string();
        let (status, answer) = self.send("POST", "/eventmatch", body).await?;
        let answer = String::from_utf8_lossy(&answer);
        ensure!(status == StatusCode::OK, "POST /eventmatch with {jsonpath}: {status}: {answer}");
        Ok(())
    }

    /// GETs a path.
    pub(crate) async fn get(&mut self, path: &str) -> Result<StatusCode> {
        Ok(self.send("GET", path, String::new()).await?.0)
    }

    async fn send(&mut self, method: &str, path: &str, body: String) -> Result<(StatusCode, Bytes)> {
        let request = Request::builder().method(method).uri(path).header(HOST, &self.host);
        let request = request.header(CONTENT_TYPE, "application/json").body(Full::from(body))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await.with_context(|| format!("{method} {path}"))?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
}
