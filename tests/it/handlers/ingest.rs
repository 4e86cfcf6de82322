//! A scripted ingest service: it accepts bundles, keeps them, and reports the states of their jobs.
//!
//! By default it accepts every bundle, and its job is done at once.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read as _;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::harness::{Gate, accept, wait_until};

/// The id of the first job; the next ones follow.
const FIRST_JOB: u64 = 101;

/// What happens to one upload.
pub(crate) enum OnUpload {
    /// It is accepted.
    Take,
    /// It is read, and answered with this status and body.
    Answer(u16, &'static str),
    /// It is answered with this status and body, and not read.
    AnswerAtOnce(u16, &'static str),
    /// The connection is dropped after this many bytes of it.
    Drop(usize),
    /// It is read and accepted only when the gate is open.
    Stall(Gate),
}

/// What happens to one poll of a job's state.
pub(crate) enum OnState {
    /// The job is at this task, with this many percent done.
    Working(&'static str, u8),
    /// The job has failed for this reason.
    Failed(&'static str),
    /// The job has failed at this task for this reason.
    FailedAt(&'static str, String),
    /// The job is unknown.
    Unknown,
    /// It is answered with this status and body.
    Answer(u16, &'static str),
    /// The connection is dropped.
    Drop,
}

/// A bundle that was accepted.
#[derive(Clone, Debug)]
pub(crate) struct Upload {
    pub(crate) job: u64,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What is in a bundle.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// The members' names, in their order.
    pub(crate) members: Vec<String>,
    /// The contents of the files, by their paths below `data/`.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// The rows of `metadata.txt`.
    pub(crate) rows: Vec<Value>,
}

#[derive(Default)]
struct State {
    on_upload: VecDeque<OnUpload>,
    on_state: VecDeque<OnState>,
    basic: Option<String>,
    attempts: usize,
    uploads: Vec<Upload>,
    /// Bodies that are not read: if one were dropped, hyper would close its connection, and the answer could be
    /// lost on the way.
    unread: Vec<Incoming>,
    asked: Vec<String>,
}

/// The scripted service.
pub(crate) struct Ingest {
    port: u16,
    state: Arc<Mutex<State>>,
    _tasks: JoinSet<()>,
}

impl Ingest {
    /// Starts a service on a free port.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::<Mutex<State>>::default();
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&state);
        tasks.spawn(accept(listener, move |request| answer(request, Arc::clone(&shared))));
        Self { port, state, _tasks: tasks }
    }

    /// Returns the URL for bundles.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/upload", self.port)
    }

    /// Returns the URL for jobs' states.
    pub(crate) fn status_url(&self) -> String {
        format!("http://127.0.0.1:{}/get_state", self.port)
    }

    /// Scripts the next uploads, in order.
    pub(crate) fn on_upload(&self, script: impl IntoIterator<Item = OnUpload>) {
        self.state.lock().unwrap().on_upload.extend(script);
    }

    /// Scripts the next polls of states, in order.
    pub(crate) fn on_state(&self, script: impl IntoIterator<Item = OnState>) {
        self.state.lock().unwrap().on_state.extend(script);
    }

    /// Scripts the next polls of states, and drops the rest of an earlier script.
    pub(crate) fn on_state_anew(&self, script: impl IntoIterator<Item = OnState>) {
        self.state.lock().unwrap().on_state = script.into_iter().collect();
    }

    /// Answers 401 to all other credentials from now on.
    pub(crate) fn knows_only(&self, name: &str, password: &str) {
        let basic = format!("Basic {}", STANDARD.encode(format!("{name}:{password}")));
        self.state.lock().unwrap().basic = Some(basic);
    }

    /// Returns how many uploads were begun.
    pub(crate) fn attempts(&self) -> usize {
        self.state.lock().unwrap().attempts
    }

    /// Returns the bundles that were accepted, in order.
    pub(crate) fn uploads(&self) -> Vec<Upload> {
        self.state.lock().unwrap().uploads.clone()
    }

    /// Returns the jobs whose states were polled, in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.state.lock().unwrap().asked.clone()
    }

    /// Waits until this many uploads were begun.
    pub(crate) async fn wait_for_attempts(&self, count: usize) {
        wait_until("an upload has begun", async || (self.attempts() >= count).then_some(())).await;
    }

    /// Waits until states were polled this many times.
    pub(crate) async fn wait_for_questions(&self, count: usize) {
        wait_until("a state is asked for", async || (self.asked().len() >= count).then_some(())).await;
    }
}

impl Upload {
    /// Unpacks the bundle, and checks it against its metadata: names, sizes and hash sums.
    pub(crate) fn bundle(&self) -> Bundle {
        let (mut members, mut files, mut metadata) = (Vec::new(), BTreeMap::new(), None);
        let mut archive = tar::Archive::new(&*self.body);
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            assert!(entry.header().entry_type().is_file(), "{name}");
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            match name.strip_prefix("data/") {
                Some(path) => drop(files.insert(path.to_owned(), bytes)),
                None => metadata = Some((name.clone(), bytes)),
            }
            members.push(name);
        }
        let (last, metadata) = metadata.expect("a bundle has metadata");
        assert_eq!((last.as_str(), members.last()), ("metadata.txt", Some(&last)));
        let bundle = Bundle { members, files, rows: serde_json::from_slice(&metadata).unwrap() };
        bundle.verify();
        bundle
    }
}

impl Bundle {
    /// Returns the rows of a table.
    pub(crate) fn rows_of(&self, table: &str) -> Vec<&Value> {
        self.rows.iter().filter(|row| row["destinationTable"] == table).collect()
    }

    fn verify(&self) {
        let rows = self.rows_of("Files");
        assert_eq!(rows.len(), self.files.len(), "{rows:?}");
        for row in rows {
            let [subdir, name] = [&row["subdir"], &row["name"]].map(|text| text.as_str().unwrap());
            let path = if subdir.is_empty() { name.to_owned() } else { format!("{subdir}/{name}") };
            // The original strips a leading `data/`, since the members' names have it.
            let path = path.strip_prefix("data/").map(str::to_owned).unwrap_or(path);
            let bytes = &self.files[&path];
            let sum: String = Sha1::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!((&row["hashtype"], &row["hashsum"]), (&json!("sha1"), &json!(sum)), "{path}");
            assert_eq!(row["size"], bytes.len(), "{path}");
        }
    }
}

/// The error that makes hyper close a connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the script drops this connection")]
struct Dropped;

type Answer = Result<Response<Full<Bytes>>, Dropped>;

async fn answer(request: hyper::Request<Incoming>, state: Arc<Mutex<State>>) -> Answer {
    let given = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let wanted = state.lock().unwrap().basic.clone();
    if wanted.is_some() && given != wanted {
        // Closing while a body is under way could lose the answer.
        drop(request.into_body().collect().await);
        return reply(401, "who are you?");
    }
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/upload") => upload(request, &state).await,
        (&Method::GET, "/get_state") => {
            let query = request.uri().query().unwrap_or_default();
            tell(query.strip_prefix("job_id=").expect("a job is asked for"), &state)
        }
        _ => reply(404, "there is nothing here"),
    }
}

async fn upload(request: hyper::Request<Incoming>, state: &Mutex<State>) -> Answer {
    let (head, mut body) = request.into_parts();
    let script = {
        let mut state = state.lock().unwrap();
        state.attempts += 1;
        state.on_upload.pop_front().unwrap_or(OnUpload::Take)
    };
    let limit = match &script {
        OnUpload::Drop(bytes) => *bytes,
        OnUpload::Take | OnUpload::Answer(..) => usize::MAX,
        OnUpload::AnswerAtOnce(status, text) => {
            state.lock().unwrap().unread.push(body);
            return reply(*status, text);
        }
        OnUpload::Stall(gate) => {
            gate.pass().await;
            usize::MAX
        }
    };
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Err(Dropped) };
        bytes.extend_from_slice(frame.data_ref().unwrap());
        if bytes.len() >= limit {
            return Err(Dropped);
        }
    }
    if let OnUpload::Answer(status, text) = script {
        return reply(status, text);
    }
    let mut state = state.lock().unwrap();
    let job = FIRST_JOB + state.uploads.len() as u64;
    state.uploads.push(Upload { job, headers: head.headers, body: bytes.into() });
    drop(state);
    told(&job.to_string(), "OK", "UPLOADING", 0, "")
}

fn tell(job: &str, state: &Mutex<State>) -> Answer {
    let mut state = state.lock().unwrap();
    state.asked.push(job.to_owned());
    let is_known = state.uploads.iter().any(|upload| upload.job.to_string() == job);
    match state.on_state.pop_front() {
        Some(OnState::Drop) => Err(Dropped),
        Some(OnState::Answer(status, text)) => reply(status, text),
        Some(OnState::Working(task, percent)) => told(job, "OK", task, percent, ""),
        Some(OnState::Failed(reason)) => told(job, "FAILED", "ingest files", 0, reason),
        Some(OnState::FailedAt(task, reason)) => told(job, "FAILED", task, 0, &reason),
        None if is_known => told(job, "OK", "ingest metadata", 100, ""),
        Some(OnState::Unknown) | None => reply(404, &format!("job ID {job} does not exist.")),
    }
}

/// Answers like the original, in which the percentage is a string.
fn told(job: &str, state: &str, task: &str, percent: u8, exception: &str) -> Answer {
    let answer = json!({
        "job_id": job.parse::<u64>().unwrap(),
        "state": state,
        "task": task,
        "task_percent": format!("{percent}.00000"),
        "updated": "2018-04-05 17:31:00",
        "created": "2018-04-05 17:31:00",
        "exception": exception,
    });
    reply(200, &answer.to_string())
}

fn reply(status: u16, text: &str) -> Answer {
    Ok(Response::builder().status(status).body(Full::new(Bytes::copy_from_slice(text.as_bytes()))).unwrap())
}
