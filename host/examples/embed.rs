//! Waypost nested in an application's own server.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::Request;
use axum::routing::get;
use tokio::net::TcpListener;
use waypost::{Caller, Waypost};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let waypost = Waypost::in_memory().served_at(address).open().await?;

    // The application knows its users, and says who is asking.
    let events = waypost.http().layer(axum::middleware::map_request(|mut request: Request| async move {
        request.extensions_mut().insert(Caller("ann".to_owned()));
        request
    }));
    let app = Router::new().route("/", get(|| async { "my application" })).nest("/events", events);
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::select! {
        ended = async { axum::serve(listener, app).await } => ended?,
        dead = waypost.failed() => Err(dead)?,
        asked = ask(address) => println!("{}", asked?),
    }
    waypost.shutdown(std::time::Duration::from_secs(1)).await;
    Ok(())
}

/// Asks as a client would, which the embedding application has no need of.
async fn ask(address: SocketAddr) -> Result<String, Box<dyn std::error::Error>> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    let request = format!("GET /events/me HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"ann\""), "{answer}");
    Ok(answer)
}
