//! Accepting for the scripted servers: each connection runs in its own task, until the acceptor is dropped.

use std::error::Error;
use std::future::Future;

use http::Response;
use hyper::Request;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Answers all requests with `answer`; its error closes the connection.
pub(crate) async fn accept<F, R, B, E>(listener: TcpListener, answer: F)
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Result<Response<B>, E>> + Send,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let serve = move |stream| {
        let service = service_fn(answer.clone());
        async move { drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await) }
    };
    each(listener, serve).await;
}

/// Serves each connection of a listener on a port that the system chooses, until the tasks are dropped; returns the port.
pub(crate) async fn serve_each<F, R>(serve: F) -> (u16, JoinSet<()>)
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, mut tasks) = (listener.local_addr().unwrap().port(), JoinSet::new());
    tasks.spawn(each(listener, serve));
    (port, tasks)
}

async fn each<F, R>(listener: TcpListener, serve: F)
where
    F: Fn(TcpStream) -> R,
    R: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(serve(stream));
        while connections.try_join_next().is_some() {}
    }
}
