//! A cart service and an ingest service in one, on its own thread: it serves [`Files`], and discards what it receives.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as Poller, Poll};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::files::Files;

/// One bundle that was received.
#[derive(Clone, Copy)]
pub(crate) struct Upload {
    /// When its first and its last bytes arrived.
    pub(crate) first: Instant,
    pub(crate) last: Instant,
    pub(crate) bytes: u64,
}

/// Both services; they end when this is dropped.
pub(crate) struct Depot {
    address: SocketAddr,
    upload: Arc<Mutex<Option<Upload>>>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Depot {
    /// Starts both on one free port.
    pub(crate) fn start(files: Files) -> Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").context("failed to bind the depot")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let upload = Arc::<Mutex<Option<Upload>>>::default();
        let (end, ended) = oneshot::channel();
        let noted = Arc::clone(&upload);
        let serving = move || {
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("the runtime has I/O");
                tokio::select! {
                    () = serve(listener, &files, &noted) => {}
                    _ended = ended => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("depot".into()).spawn(serving)?;
        Ok(Self { address, upload, end: Some(end), thread: Some(thread) })
    }

    /// Returns the members of a `[[handler]]` that fetches and uploads here.
    pub(crate) fn toml(&self) -> String {
        let Self { address, .. } = self;
        format!(
            "fetch = {{ cart = \"http://{address}/carts\" }}\n\
             upload = {{ ingest = \"http://{address}/upload\", status = \"http://{address}/state\" }}\n"
        )
    }

    /// Takes the last bundle that was received.
    pub(crate) fn take_upload(&self) -> Option<Upload> {
        self.upload.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Depot {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

async fn serve(listener: TcpListener, files: &Files, upload: &Arc<Mutex<Option<Upload>>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _peer)) = accepted else { continue };
                stream.set_nodelay(true).ok();
                let (files, upload) = (files.clone(), Arc::clone(upload));
                let service = service_fn(move |request| answer(request, files.clone(), Arc::clone(&upload)));
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
            Some(_closed) = connections.join_next() => {}
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    files: Files,
    upload: Arc<Mutex<Option<Upload>>>,
) -> Result<Response<Pieces>, hyper::Error> {
    let (head, mut body) = request.into_parts();
    let (is_upload, mut taken) = (head.uri.path() == "/upload", None);
    while let Some(frame) = body.frame().await {
        let (now, bytes) = (Instant::now(), frame?.data_ref().map_or(0, Bytes::len) as u64);
        let taken = taken.get_or_insert(Upload { first: now, last: now, bytes: 0 });
        (taken.last, taken.bytes) = (now, taken.bytes + bytes);
    }
    if is_upload {
        *upload.lock().unwrap_or_else(PoisonError::into_inner) = taken;
        return Ok(text(StatusCode::OK, r#"{"job_id": 1}"#));
    }
    Ok(match (head.method, head.uri.path()) {
        (Method::GET, "/state") => {
            text(StatusCode::OK, r#"{"state": "OK", "task": "ingest metadata", "task_percent": 100}"#)
        }
        (Method::POST, _) => text(StatusCode::CREATED, "{}"),
        (Method::HEAD, _) => {
            let mut ready = text(StatusCode::NO_CONTENT, "");
            ready.headers_mut().insert("x-pacifica-status", hyper::header::HeaderValue::from_static("ready"));
            ready
        }
        (Method::GET, _) => Response::new(Pieces(Box::new(files.tar()))),
        _ => text(StatusCode::OK, "{}"),
    })
}

fn text(status: StatusCode, text: &'static str) -> Response<Pieces> {
    let mut response = Response::new(Pieces(Box::new(std::iter::once(Bytes::from_static(text.as_bytes())))));
    *response.status_mut() = status;
    response
}

/// A body whose pieces are all available at once.
struct Pieces(Box<dyn Iterator<Item = Bytes> + Send>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _poller: &mut Poller<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.next().map(|piece| Ok(Frame::data(piece))))
    }
}
