//! A target that answers byte by byte as its script says, to do what a well-behaved server never does.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::wait_until;

/// What a raw target does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Sends these bytes, and waits for the next request.
    Answer(Vec<u8>),
    /// Sends these bytes and closes the connection.
    Last(Vec<u8>),
    /// Sends these bytes, and then nothing more on the open connection.
    Stall(Vec<u8>),
    /// Sends these bytes, one a second, and then nothing more.
    Trickle(Vec<u8>),
    /// Sends these bytes, and then those again and again for as long as it can.
    Endless(Vec<u8>, Vec<u8>),
}

/// A request, and the number of its connection, from 0.
#[derive(Clone, Debug)]
pub(crate) struct RawRequest {
    pub(crate) connection: usize,
    pub(crate) head: String,
}

impl RawRequest {
    /// Returns a header's value, empty where it is absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }

    /// Returns the first line.
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }
}

type Script = Box<dyn FnMut(&RawRequest) -> Act + Send>;

/// The server; it records only complete requests.
pub(crate) struct RawTarget {
    port: u16,
    requests: Arc<Mutex<Vec<RawRequest>>>,
    _tasks: JoinSet<()>,
}

impl RawTarget {
    /// Starts a target on a port that the system chooses.
    pub(crate) async fn start(script: impl FnMut(&RawRequest) -> Act + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::<Mutex<Vec<RawRequest>>>::default();
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Box::new(script)));
        let mut tasks = JoinSet::new();
        let seen = Arc::clone(&requests);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, connection, Arc::clone(&script), Arc::clone(&seen)));
            }
        });
        Self { port, requests, _tasks: tasks }
    }

    /// Starts a target that does the same for each request.
    pub(crate) async fn always(act: Act) -> Self {
        Self::start(move |_| act.clone()).await
    }

    /// Returns where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Returns what arrived so far, in order.
    pub(crate) fn requests(&self) -> Vec<RawRequest> {
        self.requests.lock().unwrap().clone()
    }

    /// Waits until `count` requests have arrived, and returns all.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<RawRequest> {
        wait_until(&format!("{count} requests have arrived"), async || {
            (self.requests.lock().unwrap().len() >= count).then_some(())
        })
        .await;
        self.requests()
    }
}

async fn serve(
    mut stream: TcpStream,
    connection: usize,
    script: Arc<Mutex<Script>>,
    seen: Arc<Mutex<Vec<RawRequest>>>,
) {
    let mut unread = Vec::new();
    while let Some(head) = request(&mut stream, &mut unread).await {
        let request = RawRequest { connection, head };
        let act = script.lock().unwrap()(&request);
        seen.lock().unwrap().push(request);
        let (bytes, goes_on) = match act {
            Act::Answer(bytes) => (bytes, true),
            Act::Last(bytes) => (bytes, false),
            Act::Stall(bytes) => {
                drop(stream.write_all(&bytes).await);
                std::future::pending().await
            }
            Act::Trickle(bytes) => {
                let mut second = tokio::time::interval(Duration::from_secs(1));
                for byte in bytes {
                    second.tick().await;
                    if stream.write_all(&[byte]).await.is_err() {
                        return;
                    }
                }
                std::future::pending().await
            }
            Act::Endless(first, again) => {
                drop(stream.write_all(&first).await);
                while stream.write_all(&again).await.is_ok() {}
                return;
            }
        };
        if stream.write_all(&bytes).await.is_err() || !goes_on {
            return;
        }
    }
}

/// Reads a request with its body, and returns its head; `None` at the end of the connection.
async fn request(stream: &mut TcpStream, unread: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = unread.windows(4).position(|end| end == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&unread[..end]).into_owned();
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().unwrap())
            });
            let whole = end + 4 + length.unwrap_or(0);
            if unread.len() >= whole {
                unread.drain(..whole);
                return Some(head);
            }
        }
        if !matches!(stream.read_buf(unread).await, Ok(1..)) {
            return None;
        }
    }
}
