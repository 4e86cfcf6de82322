//! A scripted HTTP server that records its requests: a subscription's target, or a policy server.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde_json::Value;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{accept, wait_until};

/// A complete request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// The path and query, as sent.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) at: Instant,
}

impl Request {
    /// Returns a header's value, empty where it is absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn webhook_id(&self) -> &str {
        self.header("webhook-id")
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Returns the producer's id of the event in the body, of any version.
    pub(crate) fn event_id(&self) -> String {
        let event = self.json();
        event["eventID"].as_str().or(event["id"].as_str()).unwrap().to_owned()
    }
}

/// What a target does with one request.
#[derive(Clone)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    gate: Option<Gate>,
    drops: bool,
}

impl Answer {
    /// Answers with this status.
    pub(crate) fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new(), gate: None, drops: false }
    }

    /// Closes the connection without an answer.
    pub(crate) fn drop_connection() -> Self {
        Self { drops: true, ..Self::status(500) }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn body(self, body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..self }
    }

    /// Hangs until the gate lets it pass.
    pub(crate) fn after(self, gate: &Gate) -> Self {
        Self { gate: Some(gate.clone()), ..self }
    }
}

/// A gate that answers wait for.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Semaphore>);

impl Gate {
    /// Makes a gate that lets nothing pass.
    pub(crate) fn closed() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Lets everything pass from now on.
    pub(crate) fn open(&self) {
        self.0.close();
    }

    pub(crate) async fn pass(&self) {
        // A closed semaphore is an open gate.
        if let Ok(permit) = self.0.acquire().await {
            permit.forget();
        }
    }
}

type Script = Box<dyn FnMut(&Request) -> Answer + Send>;

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    scripts: HashMap<String, Script>,
    in_flight: HashMap<String, usize>,
    peak: HashMap<String, usize>,
}

/// The server. A path without a script answers 200.
pub(crate) struct Target {
    port: u16,
    state: Arc<Mutex<State>>,
    _tasks: JoinSet<()>,
}

impl Target {
    /// Starts a target on a port that the system chooses.
    pub(crate) async fn start() -> Self {
        Reserved::new().open()
    }

    fn serve(listener: TcpListener) -> Self {
        let port = listener.local_addr().unwrap().port();
        let state = Arc::<Mutex<State>>::default();
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&state);
        tasks.spawn(accept(listener, move |request| answer(request, Arc::clone(&shared))));
        Self { port, state, _tasks: tasks }
    }

    /// Returns the URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Lets a function answer a path.
    pub(crate) fn script(&self, path: &str, script: impl FnMut(&Request) -> Answer + Send + 'static) {
        self.state.lock().unwrap().scripts.insert(path.to_owned(), Box::new(script));
    }

    /// Gives a path the same answer every time.
    pub(crate) fn always(&self, path: &str, answer: Answer) {
        self.script(path, move |_| answer.clone());
    }

    /// Answers a path with these in turn, then with 200.
    pub(crate) fn answers(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        let mut answers: Vec<_> = answers.into_iter().collect();
        answers.reverse();
        self.script(path, move |_| answers.pop().unwrap_or_else(|| Answer::status(200)));
    }

    /// Makes a path hang until the returned gate is opened; it then answers 200.
    pub(crate) fn hang(&self, path: &str) -> Gate {
        let gate = Gate::closed();
        self.always(path, Answer::status(200).after(&gate));
        gate
    }

    /// Answers the first `count` requests of a path with 200, and then makes it hang like [`Self::hang`].
    pub(crate) fn hang_after(&self, path: &str, mut count: usize) -> Gate {
        let gate = Gate::closed();
        let held = gate.clone();
        self.script(path, move |_| {
            let hangs = count == 0;
            count = count.saturating_sub(1);
            if hangs { Answer::status(200).after(&held) } else { Answer::status(200) }
        });
        gate
    }

    /// Returns the requests to a path so far, in order of arrival.
    pub(crate) fn requests(&self, path: &str) -> Vec<Request> {
        let state = self.state.lock().unwrap();
        state.requests.iter().filter(|request| bare(&request.path) == path).cloned().collect()
    }

    /// Returns the requests to all paths.
    pub(crate) fn all(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }

    /// Returns the most requests that a path had unanswered at once.
    pub(crate) fn peak(&self, path: &str) -> usize {
        self.state.lock().unwrap().peak.get(path).copied().unwrap_or(0)
    }

    /// Waits until a path has got `count` requests, and returns all of them.
    pub(crate) async fn wait_for(&self, path: &str, count: usize) -> Vec<Request> {
        wait_until(&format!("{path} has {count} requests"), async || {
            let state = self.state.lock().unwrap();
            let got = state.requests.iter().filter(|request| bare(&request.path) == path);
            (got.count() >= count).then_some(())
        })
        .await;
        self.requests(path)
    }
}

/// A port that is bound but not listened on: connections are refused.
pub(crate) struct Reserved {
    socket: TcpSocket,
    port: u16,
}

impl Reserved {
    pub(crate) fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = socket.local_addr().unwrap().port();
        Self { socket, port }
    }

    /// Returns the URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Begins to listen.
    pub(crate) fn open(self) -> Target {
        Target::serve(self.socket.listen(1024).unwrap())
    }
}

fn bare(path: &str) -> &str {
    path.split('?').next().unwrap_or_default()
}

/// The error that makes hyper close a connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the script drops this connection")]
struct Dropped;

async fn answer(
    request: hyper::Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Full<Bytes>>, Dropped> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Err(Dropped) };
    let path = head.uri.path_and_query().map_or("", |path| path.as_str()).to_owned();
    let request = Request {
        method: head.method,
        path,
        headers: head.headers,
        body: body.to_bytes(),
        at: Instant::now(),
    };
    let _under_way = UnderWay::begin(bare(&request.path), &state);
    let answer = {
        let mut state = state.lock().unwrap();
        let answer = state.scripts.get_mut(bare(&request.path)).map(|script| script(&request));
        state.requests.push(request);
        answer.unwrap_or_else(|| Answer::status(200))
    };
    if let Some(gate) = &answer.gate {
        gate.pass().await;
    }
    if answer.drops {
        return Err(Dropped);
    }
    let mut response = Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::new(answer.body)).unwrap())
}

/// Counts a request as long as it has no answer and its client is connected.
struct UnderWay {
    path: String,
    state: Arc<Mutex<State>>,
}

impl UnderWay {
    fn begin(path: &str, state: &Arc<Mutex<State>>) -> Self {
        let mut counts = state.lock().unwrap();
        let now = counts.in_flight.entry(path.to_owned()).or_default();
        *now += 1;
        let now = *now;
        let peak = counts.peak.entry(path.to_owned()).or_default();
        *peak = now.max(*peak);
        Self { path: path.to_owned(), state: Arc::clone(state) }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(now) = self.state.lock().unwrap().in_flight.get_mut(&self.path) {
            *now -= 1;
        }
    }
}
