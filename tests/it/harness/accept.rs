//! Accepting for the scripted servers: each connection runs in its own task, until the acceptor is dropped.

use std::error::Error;
use std::future::Future;

use http::Response;
use hyper::Request;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Answers all requests with `answer`; its error closes the connection.
pub(crate) async fn accept<F, R, B, E>(listener: TcpListener, answer: F)
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Result<Response<B>, E>> + Send,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let answer = answer.clone();
        let connection = async move {
            let service = service_fn(answer);
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        };
        connections.spawn(connection);
        while connections.try_join_next().is_some() {}
    }
}
