//! A scripted cart service that records its requests.
//!
//! By default it behaves like Pacifica's: a cart holds the ordered files that the service has, is ready at once, and is
//! gone when it is deleted. Methods script everything else, before or during requests.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Method, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::harness::{Request, accept};

/// How much of a tar is sent at once.
const PIECE_BYTES: usize = 64 * 1024;

type Body = UnsyncBoxBody<Bytes, Broken>;

/// Makes hyper close a connection.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the script breaks this connection")]
struct Broken;

/// The service. It ends when it is dropped.
pub(crate) struct Cart {
    port: u16,
    state: Arc<Mutex<State>>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Bytes>,
    /// The paths of the files that each cart must hold, by the cart's path.
    carts: HashMap<String, Vec<String>>,
    requests: Vec<Request>,
    refusal: Option<(StatusCode, String)>,
    staging: usize,
    lost_polls: usize,
    failure: Option<String>,
    tar: Option<Bytes>,
    cut: Option<(usize, Cut)>,
    bundles: bool,
}

/// What happens in the middle of a tar.
#[derive(Clone, Copy)]
enum Cut {
    Break,
    Stall,
    End,
}

impl Cart {
    /// Starts a service without files.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::<Mutex<State>>::default();
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&state);
        tasks.spawn(accept(listener, move |request| answer(request, Arc::clone(&shared))));
        Self { port, state, _tasks: tasks }
    }

    /// Returns its URL, below which carts are created.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/carts", self.port)
    }

    /// Adds files: paths and contents.
    pub(crate) fn serving<'a>(self, files: impl IntoIterator<Item = (&'a str, impl Into<Bytes>)>) -> Self {
        let files = files.into_iter().map(|(path, content)| (path.to_owned(), content.into()));
        self.with(|state| state.files.extend(files))
    }

    /// Returns the rows of an event with all files, as Pacifica's metadata service writes them.
    pub(crate) fn rows(&self) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        state.files.iter().enumerate().map(|(i, (path, content))| row(i + 1, path, content)).collect()
    }

    /// Answers orders with this status instead.
    pub(crate) fn refusing(self, status: u16, body: &str) -> Self {
        self.with(|state| state.refusal = Some((StatusCode::from_u16(status).unwrap(), body.to_owned())))
    }

    /// Answers the first `polls` polls of a cart's state with `staging`.
    pub(crate) fn staging(self, polls: usize) -> Self {
        self.with(|state| state.staging = polls)
    }

    /// Closes the connection at the first `polls` polls of a cart's state.
    pub(crate) fn losing_polls(self, polls: usize) -> Self {
        self.with(|state| state.lost_polls = polls)
    }

    /// Lets staging fail with this message.
    pub(crate) fn failing(self, message: &str) -> Self {
        self.with(|state| state.failure = Some(message.to_owned()))
    }

    /// Packs carts as soon as they are staged (`bundle_task`): members are then below the cart's id.
    pub(crate) fn bundling(self) -> Self {
        self.with(|state| state.bundles = true)
    }

    /// Sends these bytes as the tar of every cart.
    pub(crate) fn sending(self, tar: impl Into<Bytes>) -> Self {
        self.with(|state| state.tar = Some(tar.into()))
    }

    /// Breaks the connection after this many bytes of a tar.
    pub(crate) fn breaking_after(self, bytes: usize) -> Self {
        self.with(|state| state.cut = Some((bytes, Cut::Break)))
    }

    /// Stops sending after this many bytes of a tar, and keeps the connection open.
    pub(crate) fn stalling_after(self, bytes: usize) -> Self {
        self.with(|state| state.cut = Some((bytes, Cut::Stall)))
    }

    /// Sends whole tars again.
    pub(crate) fn whole_again(self) -> Self {
        self.with(|state| state.cut = None)
    }

    /// Ends the body after this many bytes of a tar, as if it were complete.
    pub(crate) fn ending_after(self, bytes: usize) -> Self {
        self.with(|state| state.cut = Some((bytes, Cut::End)))
    }

    fn with(self, change: impl FnOnce(&mut State)) -> Self {
        change(&mut self.state.lock().unwrap());
        self
    }

    /// Returns all requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }

    /// Returns the methods of all requests so far, without consecutive repeats.
    pub(crate) fn methods(&self) -> String {
        let mut methods: Vec<_> = self.requests().iter().map(|request| request.method.to_string()).collect();
        methods.dedup();
        methods.join(" ")
    }

    /// Returns how many carts were ordered and not yet deleted.
    pub(crate) fn open_carts(&self) -> usize {
        self.state.lock().unwrap().carts.len()
    }
}

/// Returns the row of a file.
pub(crate) fn row(id: usize, path: &str, content: &[u8]) -> Value {
    let (subdir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let sum = Sha1::digest(content).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    json!({"destinationTable": "Files", "_id": id, "name": name, "subdir": subdir, "size": content.len(),
        "hashtype": "sha1", "hashsum": sum, "mimetype": "text/plain"})
}

/// Returns a tar of members below `data/`, as Python's `tarfile` makes it.
pub(crate) fn tar_of<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    tar_below("data", files)
}

fn tar_below<'a>(below: &str, files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut folder = tar::Header::new_gnu();
    folder.set_entry_type(tar::EntryType::Directory);
    folder.set_size(0);
    tar.append_data(&mut folder, format!("{below}/"), &b""[..]).unwrap();
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("{below}/{path}"), content).unwrap();
    }
    tar.into_inner().unwrap()
}

async fn answer(
    request: hyper::Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Body>, Broken> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Err(Broken) };
    let path = head.uri.path_and_query().map_or("", |path| path.as_str()).to_owned();
    let (cart, query) = (head.uri.path().to_owned(), head.uri.query().unwrap_or_default().to_owned());
    let (body, at) = (body.to_bytes(), Instant::now());
    let mut state = state.lock().unwrap();
    let order = body.clone();
    state.requests.push(Request { method: head.method.clone(), path, headers: head.headers, body, at });
    match head.method {
        Method::POST => Ok(state.order(cart, &order)),
        Method::HEAD => state.look(&cart),
        Method::GET => Ok(state.send(&cart, &query)),
        Method::DELETE if state.carts.remove(&cart).is_some() => Ok(reply(200, r#"{"message": "deleted"}"#)),
        _ => Ok(reply(404, "")),
    }
}

impl State {
    fn order(&mut self, cart: String, order: &[u8]) -> Response<Body> {
        if let Some((status, body)) = &self.refusal {
            return reply(status.as_u16(), body);
        }
        let order: Value = serde_json::from_slice(order).unwrap();
        let paths =
            order["fileids"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap().to_owned());
        self.carts.insert(cart, paths.collect());
        reply(201, r#"{"message": "Cart Processing has begun"}"#)
    }

    fn look(&mut self, cart: &str) -> Result<Response<Body>, Broken> {
        if self.lost_polls > 0 {
            self.lost_polls -= 1;
            return Err(Broken);
        }
        let (status, state, message) = match &self.failure {
            _ if !self.carts.contains_key(cart) => (404, "error", "No cart with this uid found"),
            Some(failure) => (500, "error", failure.as_str()),
            None if self.staging > 0 => {
                self.staging -= 1;
                (204, "staging", "")
            }
            None => (204, "ready", ""),
        };
        let mut response = reply(status, "");
        response.headers_mut().insert("x-pacifica-status", state.parse().unwrap());
        response.headers_mut().insert("x-pacifica-message", message.parse().unwrap());
        Ok(response)
    }

    fn send(&self, cart: &str, query: &str) -> Response<Body> {
        let Some(paths) = self.carts.get(cart).filter(|_| query == "filename=data") else {
            return reply(404, "");
        };
        let tar = self.tar.clone().unwrap_or_else(|| {
            let files = paths.iter().filter_map(|path| Some((path.as_str(), &**self.files.get(path)?)));
            let own = cart.rsplit('/').next().unwrap_or_default();
            tar_below(if self.bundles { own } else { "data" }, files).into()
        });
        let (end, cut) = self.cut.unwrap_or((tar.len(), Cut::End));
        let pieces = (0..end).step_by(PIECE_BYTES).map(|at| tar.slice(at..end.min(at + PIECE_BYTES)));
        let pieces: Vec<_> = pieces.map(|piece| Ok(Frame::data(piece))).collect();
        let pieces = stream::iter(pieces);
        let body = match cut {
            Cut::End => StreamBody::new(pieces).boxed_unsync(),
            Cut::Break => StreamBody::new(pieces.chain(stream::once(broken()))).boxed_unsync(),
            Cut::Stall => StreamBody::new(pieces.chain(stream::pending())).boxed_unsync(),
        };
        Response::new(body)
    }
}

/// Breaks a connection, after a pause for the data sent before: hyper drops what it has not written yet.
async fn broken() -> Result<Frame<Bytes>, Broken> {
    for _ in 0..2000 {
        tokio::task::yield_now().await;
    }
    Err(Broken)
}

fn reply(status: u16, body: &str) -> Response<Body> {
    let body = http_body_util::Full::new(Bytes::from(body.to_owned())).map_err(|never| match never {});
    Response::builder().status(status).body(body.boxed_unsync()).unwrap()
}
