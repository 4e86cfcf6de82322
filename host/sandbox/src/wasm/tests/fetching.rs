//! Guests that ask for something by HTTP.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use waypost_domain::plugin::LogLine;

/// A server that answers each connection's first request with the same bytes, or never. It ends when it is dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    heads: Arc<std::sync::Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(super) async fn answering(answer: Option<Vec<u8>>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::<std::sync::Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&heads);
        let serve = async move {
            let mut open = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 4096];
                let Ok(length) = stream.read(&mut head).await else { continue };
                seen.lock().unwrap().push(String::from_utf8_lossy(&head[..length]).into_owned());
                if let Some(answer) = &answer {
                    // A client that has read enough hangs up.
                    drop(stream.write_all(answer).await);
                }
                open.push(stream);
            }
        };
        #[expect(clippy::disallowed_methods, reason = "its owner is the server")]
        let task = tokio::spawn(serve);
        Self { address, heads, task }
    }

    /// Returns how each request began.
    pub(super) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns a sandbox whose plugins may call this machine, and have time for it.
fn local() -> Sandbox {
    Sandbox::with(&["127.0.0.0/8"], Limits { time: Duration::from_secs(10), ..Limits::default() })
}

pub(super) fn answer(head: &str, body: &[u8]) -> Option<Vec<u8>> {
    let head = format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    Some([head.as_bytes(), body].concat())
}

/// Runs the guest that fetches, with these hosts allowed.
async fn fetch(sandbox: &Sandbox, config: Value, allow: &[&str], purpose: Purpose) -> CallResult {
    let plugin = sandbox.load(waypost_guests::FETCH).await;
    let mut call = Call { purpose, ..call(&plugin, config) };
    let used = Arc::make_mut(&mut call.plugin);
    used.allow_hosts = allow.iter().map(|text| text.parse().unwrap()).collect();
    sandbox.host.run(plugin, call).await
}

fn notes(ran: &CallResult) -> Vec<&str> {
    let is_hosts = |line: &&LogLine| line.fields == [("by".to_owned(), "waypost".to_owned())];
    ran.run.logs.iter().filter(is_hosts).map(|line| line.message.as_str()).collect()
}

#[tokio::test]
async fn an_allowed_host_is_asked() {
    let sandbox = local();
    let server = Server::answering(answer("200 OK", b"hello")).await;
    let ran =
        fetch(&sandbox, json!({"url": server.url()}), &[&server.address.to_string()], Purpose::Deliver).await;
    assert_eq!(skipped(&ran), "200, 5 bytes");
    assert!(notes(&ran).is_empty());
}

#[tokio::test]
async fn a_host_that_is_not_allowed_is_refused_with_the_grant_to_add() {
    let sandbox = Sandbox::shared();
    let ran =
        fetch(&sandbox, json!({"url": "https://evil.example/?secret"}), &["good.example"], Purpose::Deliver)
            .await;
    assert_eq!(skipped(&ran), "ErrorCode::HttpRequestDenied");
    assert_eq!(notes(&ran), ["HTTP request to evil.example refused: add \"evil.example\" to allow_hosts"]);
}

#[tokio::test]
pub(super) async fn a_redirect_to_a_host_that_is_not_allowed_is_refused() {
    let sandbox = local();
    let hidden = Server::answering(answer("200 OK", b"secret")).await;
    let location = format!("302 Found\r\nlocation: {}", hidden.url());
    let server = Server::answering(answer(&location, b"")).await;
    let ran =
        fetch(&sandbox, json!({"url": server.url()}), &[&server.address.to_string()], Purpose::Deliver).await;
    assert_eq!(skipped(&ran), "ErrorCode::HttpRequestDenied");
    let address = hidden.address;
    assert_eq!(notes(&ran), [format!("HTTP request to {address} refused: add \"{address}\" to allow_hosts")]);
}

#[tokio::test]
async fn an_address_that_is_not_public_is_refused_however_it_is_written() {
    let sandbox = Sandbox::shared();
    let server = Server::answering(answer("200 OK", b"secret")).await;
    let port = server.address.port();
    for host in ["127.0.0.1", "localhost", "2130706433", "[::ffff:7f00:1]"] {
        let host = format!("{host}:{port}");
        let ran =
            fetch(&sandbox, json!({"url": format!("http://{host}/")}), &[&host], Purpose::Deliver).await;
        assert_eq!(skipped(&ran), "ErrorCode::HttpRequestDenied", "{host}");
        let [note] = &notes(&ran)[..] else { panic!("{:?}", ran.run.logs) };
        assert!(note.starts_with(&format!("HTTP request to {host} refused: its address ")), "{note}");
        assert!(note.contains(" is not public, and the operator has not opened its network"), "{note}");
    }
}

#[tokio::test]
async fn a_server_that_never_answers_costs_the_call_its_time() {
    let sandbox = Sandbox::with(&["127.0.0.0/8"], Limits::default());
    let server = Server::answering(None).await;
    let ran =
        fetch(&sandbox, json!({"url": server.url()}), &[&server.address.to_string()], Purpose::Deliver).await;
    assert_eq!(failure(&ran), "plugin: time limit of 250 ms");
}

#[tokio::test]
async fn a_response_ends_at_its_limit() {
    let sandbox = local();
    let server = Server::answering(answer("200 OK", &vec![0; 5 << 20])).await;
    let allow = server.address.to_string();
    let ran = fetch(&sandbox, json!({"url": server.url()}), &[&allow], Purpose::Deliver).await;
    let limit = "HTTP response limit of 4 MiB in one call";
    assert_eq!(notes(&ran), [format!("the response of {allow} was cut: {limit}")]);
}

#[tokio::test]
async fn requests_are_counted() {
    let sandbox = Sandbox::shared();
    let config = json!({"url": "https://evil.example/", "times": 40});
    let ran = fetch(&sandbox, config, &[], Purpose::Deliver).await;
    assert_eq!(skipped(&ran), "ErrorCode::HttpRequestDenied");
    assert_eq!(notes(&ran).len(), 17);
    assert_eq!(notes(&ran)[16], "HTTP request refused: the limit is 16 requests in one call");
}

#[tokio::test]
async fn a_trial_sends_nothing_that_changes_something() {
    let sandbox = local();
    let server = Server::answering(answer("200 OK", b"")).await;
    let allow = server.address.to_string();
    let config = json!({"url": server.url(), "method": "POST"});
    let ran = fetch(&sandbox, config.clone(), &[&allow], Purpose::Try).await;
    assert_eq!(skipped(&ran), "ErrorCode::HttpRequestDenied");
    let reason = "a dry run sends only GET and HEAD, and this is POST";
    assert_eq!(notes(&ran), [format!("HTTP request to {allow} refused: {reason}")]);
    let ran = fetch(&sandbox, config, &[&allow], Purpose::Deliver).await;
    assert_eq!(skipped(&ran), "200, 0 bytes");
}
