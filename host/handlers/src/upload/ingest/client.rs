//! The ingest service's two requests: `POST` of a bundle, `GET` of a job's state.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use http::header::CONTENT_TYPE;
use reqwest::{RequestBuilder, Response, Url};
use serde::Deserialize;
use serde_json::Value;

use super::pack::{Bundle, TarBody};
use crate::excerpt::excerpt;
use crate::meter::Meter;
use crate::output::Output;
use crate::places::IngestAuth;
use crate::upload::{Error, Origin};
use crate::work;
use waypost_domain::{Secret, json};
use waypost_net::tls::ClientCertificate;
use waypost_net::{self as net, Version};

/// The longest that the service may make no progress: read nothing of a bundle, or send no answer.
const IDLE: Duration = Duration::from_secs(60);
/// The most bytes of an answer that are read, and the most characters that an error keeps.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
const ANSWER_SHOWN_CHARS: usize = 1024;
/// The task that is a job's last.
const LAST_TASK: &str = "ingest metadata";
/// The tasks that validate the bundle itself: the same bundle would fail there again.
const LASTING_TASKS: [&str; 2] = ["load metadata", "Policy Validation"];

/// The answer to an upload.
#[derive(Deserialize)]
struct JobAnswer {
    job_id: Value,
}

/// The answer to a request for a job's state.
#[derive(Deserialize)]
struct StatusAnswer {
    state: String,
    task: Option<String>,
    task_percent: Option<Value>,
    /// Why it failed: often a traceback.
    exception: Option<Value>,
}

impl StatusAnswer {
    /// Returns the reason of a failure, where it gives one.
    fn reason(&self) -> Option<String> {
        let text = self.exception.as_ref()?.as_str()?;
        (!text.trim().is_empty()).then(|| excerpt(text, ANSWER_SHOWN_CHARS))
    }
}

/// The progress of a job.
pub(super) enum State {
    /// It is done.
    Done,
    /// It is not done; the answer.
    Going(String),
}

/// The client of one service.
pub(super) struct Client {
    http: reqwest::Client,
    url: Url,
    status_url: Url,
    shown_url: String,
    shown_status_url: String,
    basic: Option<(String, Secret)>,
    idle: Duration,
}

impl Client {
    /// Makes a client, and reads its credentials.
    pub(super) fn new(
        url: Url,
        status_url: Url,
        auth: &IngestAuth,
        connect_timeout: Duration,
    ) -> Result<Self, Error> {
        let (mut basic, mut certificate) = (None, None);
        match auth {
            IngestAuth::None => {}
            IngestAuth::Basic { username, password_file } => {
                let what = "password of the ingest service";
                let password = secret(what, password_file, |bytes| {
                    let mut text = String::from_utf8(bytes)?;
                    text.truncate(without_line_break(&text).len());
                    Ok(Secret::from(text))
                })?;
                basic = Some((username.clone(), password));
            }
            IngestAuth::Certificate { pem_file } => {
                let what = "client certificate with its key for the ingest service";
                let read = |bytes: Vec<u8>| Ok(ClientCertificate::from_pem(&bytes)?);
                certificate = Some(secret(what, pem_file, read)?);
            }
        }
        // Each upload has a connection of its own, which is closed when the upload is given up. No idle connection is
        // kept for uploads, because the service may be about to close it and an upload cannot be repeated safely.
        let http = net::service(Version::Http1, certificate, |client| {
            client.connect_timeout(connect_timeout).pool_max_idle_per_host(0)
        });
        let http = http.map_err(Error::Client)?;
        let (shown_url, shown_status_url) =
            (net::without_credentials(&url), net::without_credentials(&status_url));
        Ok(Self { http, url, status_url, shown_url, shown_status_url, basic, idle: IDLE })
    }

    /// Returns the URL that bundles are sent to, for messages.
    pub(super) fn url(&self) -> &str {
        &self.shown_url
    }

    /// Returns the URL that states are read from, for messages.
    pub(super) fn status_url(&self) -> &str {
        &self.shown_status_url
    }

    /// Uploads an output as a bundle, which is packed on the way, and returns the id of its job.
    pub(super) async fn post(
        &self,
        output: &Arc<Output>,
        origin: &Arc<Origin>,
        meter: &Arc<Meter>,
    ) -> Result<Value, Error> {
        let bundle = Bundle::new(Arc::clone(output), Arc::clone(origin));
        let size = bundle.size();
        let (body, sender) = TarBody::new(size);
        let taken = body.taken();
        let meter = Arc::clone(meter);
        let packing = work::run(move |stop| bundle.pack(stop, &meter, sender));
        let request = self.http.post(self.url.clone()).header(CONTENT_TYPE, "application/octet-stream");
        let request = self.authorized(request).body(reqwest::Body::wrap(body));
        let exchange = async {
            match exchange(request, &self.shown_url).await {
                // The cause may be on this side: then the service has only seen a truncated body.
                Err(Error::Unreachable { url, source }) => match packing.await {
                    Ok(()) | Err(Error::Stopped) => Err(match taken.load(Ordering::Relaxed) {
                        0 => Error::Unreachable { url, source },
                        sent => Error::BrokenOff { url, sent, size, source },
                    }),
                    Err(reason) => Err(reason),
                },
                Err(error) => Err(error),
                Ok(answer) => packing.await.map(|()| answer),
            }
        };
        let answer = tokio::select! {
            answer = exchange => answer?,
            () = standstill(&taken, self.idle) => {
                return Err(Error::Idle { url: self.shown_url.clone(), waited: self.idle });
            }
        };
        let begun = json::read::<JobAnswer>(&answer).ok().map(|begun| begun.job_id);
        begun.filter(|job| job.is_number() || job.is_string()).ok_or_else(|| Error::Answer {
            url: self.shown_url.clone(),
            expected: "job: `{\"job_id\": …}`",
            answer: shown(&answer),
        })
    }

    /// Asks for the state of a job.
    pub(super) async fn state(&self, job: &Value) -> Result<State, Error> {
        let mut url = self.status_url.clone();
        url.query_pairs_mut().append_pair("job_id", &text(job));
        let request = self.authorized(self.http.get(url).timeout(self.idle));
        let url = self.shown_status_url.clone();
        let answer = match exchange(request, &url).await {
            Err(Error::Refused { url, status: StatusCode::NOT_FOUND, answer }) => {
                return Err(Error::UnknownJob { url, job: text(job), answer });
            }
            answer => answer?,
        };
        let Ok(told) = json::read::<StatusAnswer>(&answer) else {
            let expected = "state of a job: `{\"state\": …, \"task\": …, \"task_percent\": …}`";
            return Err(Error::Answer { url, expected, answer: shown(&answer) });
        };
        match told.state.as_str() {
            "FAILED" => {
                let reason = told.reason().unwrap_or_else(|| shown(&answer));
                let task = told.task.unwrap_or_default();
                let is_lasting = LASTING_TASKS.iter().any(|lasting| task.eq_ignore_ascii_case(lasting));
                let answer = match task.as_str() {
                    "" => reason,
                    task => format!("in the task `{task}`: {reason}"),
                };
                Err(Error::Failed { url, job: text(job), answer, is_lasting })
            }
            "OK" if told.task.as_deref() == Some(LAST_TASK) && is_whole(told.task_percent.as_ref()) => {
                Ok(State::Done)
            }
            _ => Ok(State::Going(shown(&answer))),
        }
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.basic {
            Some((username, password)) => {
                let password = password.expose_str().expect("it was read as a text");
                request.basic_auth(username, Some(password))
            }
            None => request,
        }
    }
}

/// Returns a job's id, as it is written in a query.
pub(super) fn text(job: &Value) -> String {
    job.as_str().map_or_else(|| job.to_string(), str::to_owned)
}

fn secret<T>(
    what: &'static str,
    path: &Path,
    parse: impl FnOnce(Vec<u8>) -> Result<T, Box<dyn std::error::Error + Send + Sync>>,
) -> Result<T, Error> {
    let read = fs::read(path).map_err(Into::into).and_then(parse);
    read.map_err(|source| Error::Secret { what, path: path.to_owned(), source })
}

fn without_line_break(text: &str) -> &str {
    let line = text.strip_suffix('\n').unwrap_or(text);
    line.strip_suffix('\r').unwrap_or(line)
}

/// Sends a request and returns the beginning of the response body if the status is a success.
async fn exchange(request: RequestBuilder, url: &str) -> Result<Vec<u8>, Error> {
    let unreachable =
        |source: reqwest::Error| Error::Unreachable { url: url.to_owned(), source: source.without_url() };
    let mut response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    if !status.is_success() {
        let (mut answer, response) = (Vec::new(), reqwest::Body::from(response));
        let _missing = net::beginning(response, ANSWER_BYTES_MAX, &mut answer, std::future::pending()).await;
        return Err(Error::Refused { url: url.to_owned(), status, answer: shown(&answer) });
    }
    read(&mut response).await.map_err(unreachable)
}

async fn read(response: &mut Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut answer = Vec::new();
    while let Some(piece) = response.chunk().await? {
        let room = ANSWER_BYTES_MAX - answer.len();
        answer.extend_from_slice(&piece[..piece.len().min(room)]);
        if answer.len() == ANSWER_BYTES_MAX {
            break;
        }
    }
    Ok(answer)
}

/// Returns an answer as text on one line; a long one is cut in the middle.
fn shown(answer: &[u8]) -> String {
    excerpt(&String::from_utf8_lossy(answer), ANSWER_SHOWN_CHARS)
}

/// Tells whether a percentage is 100: a number, or a text as `100.00000`.
fn is_whole(percent: Option<&Value>) -> bool {
    let percent = percent.and_then(|value| value.as_f64().or_else(|| value.as_str()?.trim().parse().ok()));
    percent.is_some_and(|percent| (100.0..101.0).contains(&percent))
}

/// Resolves when no more bytes were taken for some time.
async fn standstill(taken: &AtomicU64, idle: Duration) {
    /// The precision of that time.
    const LOOKS: u32 = 10;
    let (mut before, mut still) = (0, 0);
    while still < LOOKS {
        tokio::time::sleep(idle / LOOKS).await;
        let now = taken.load(Ordering::Relaxed);
        still = if now == before { still + 1 } else { 0 };
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use waypost_domain::parts::Transaction;
    use waypost_domain::{DeliveryId, Event, EventId};

    /// A service that accepts connections but never reads from them.
    #[tokio::test]
    async fn a_service_that_makes_no_progress_is_given_up() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url: Url = format!("http://{}/upload", listener.local_addr().unwrap()).parse().unwrap();
        let waited = Duration::from_millis(100);
        let mut client = Client::new(url.clone(), url, &IngestAuth::None, waited).unwrap();
        client.idle = waited;
        let output =
            Output { place: 0, name: "output".to_owned(), files: Vec::new(), key_values: Vec::new() };
        let origin = Origin {
            event: Event::from_json(r#"{"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}"#)
                .unwrap(),
            event_id: EventId::NIL,
            sender: "me".to_owned(),
            transaction: Transaction::default(),
            handler: "any".parse().unwrap(),
            run: DeliveryId::NIL,
        };
        let meter = Arc::new(Meter::new(waypost_runtime::clock::now()));
        let error = client.post(&Arc::new(output), &Arc::new(origin), &meter).await.unwrap_err();
        assert!(matches!(error, Error::Idle { .. }), "{error}");
        assert!(error.to_string().ends_with("/upload made no progress for 100ms"), "{error}");
    }

    #[test]
    fn a_percentage_is_a_number_or_a_text() {
        for whole in [json!(100), json!(100.0), json!("100"), json!("100.00000")] {
            assert!(is_whole(Some(&whole)), "{whole}");
        }
        for other in [json!(99.9), json!("0"), json!("all"), json!(null), json!("1000")] {
            assert!(!is_whole(Some(&other)), "{other}");
        }
        assert!(!is_whole(None));
    }

    #[test]
    fn errors_show_no_secrets_and_little_of_an_answer() {
        let url = "https://me:secret@ingest.example/upload?a=1".parse().unwrap();
        assert_eq!(net::without_credentials(&url), "https://ingest.example/upload?a=1");
        assert_eq!(shown(" a\n\tb ".as_bytes()), "a b");
        assert_eq!(shown(&[b'x'; 5000]).chars().count(), ANSWER_SHOWN_CHARS);
    }
}
