//! The target of every subscription: an HTTP server on its own thread that writes arrivals into the ledger.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::event::EventName;
use crate::ledger::Ledger;

/// What the sink does with a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Answers at once.
    Open,
    /// Reads it, and makes the sender wait for an answer.
    Held,
}

/// A running sink; ends when dropped.
pub(crate) struct Sink {
    address: SocketAddr,
    gate: Option<watch::Sender<Gate>>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// Starts a sink on a free port.
    pub(crate) fn start(ledger: Arc<Ledger>, gate: Gate) -> Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").context("failed to bind the sink")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (gate, gate_seen) = watch::channel(gate);
        let serving = move || {
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("the runtime has I/O");
                serve(listener, &ledger, gate_seen).await;
            });
        };
        let thread = std::thread::Builder::new().name("sink".into()).spawn(serving)?;
        Ok(Self { address, gate: Some(gate), thread: Some(thread) })
    }

    /// Returns the target URL of subscription `n`.
    pub(crate) fn url(&self, n: usize) -> String {
        format!("http://{}/s/{n}", self.address)
    }

    /// Opens or closes the gate; opening answers all that wait.
    pub(crate) fn set(&self, gate: Gate) {
        if let Some(sender) = &self.gate {
            sender.send_replace(gate);
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        drop(self.gate.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Serves until the gate's owner is dropped; the connections end with the set.
async fn serve(listener: TcpListener, ledger: &Arc<Ledger>, gate: watch::Receiver<Gate>) {
    let mut connections = JoinSet::new();
    let mut gone = gate.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _peer)) = accepted else { continue };
                stream.set_nodelay(true).ok();
                let (ledger, gate) = (Arc::clone(ledger), gate.clone());
                let service = service_fn(move |request| answer(request, Arc::clone(&ledger), gate.clone()));
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
            Some(_closed) = connections.join_next() => {}
            changed = gone.changed() => if changed.is_err() { return },
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    ledger: Arc<Ledger>,
    mut gate: watch::Receiver<Gate>,
) -> Result<Response<Empty<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let subscription = head.uri.path().strip_prefix("/s/").and_then(|n| n.parse().ok());
    let webhook_id = head.headers.get("webhook-id").map_or(b"".as_slice(), |id| id.as_bytes());
    ledger.arrive(subscription.unwrap_or(usize::MAX), EventName::find(&body), webhook_id);
    // An error means that the sink ends, and this connection with it.
    gate.wait_for(|&gate| gate == Gate::Open).await.ok();
    Ok(Response::new(Empty::new()))
}
