//! Pacifica's ingest service: a bundle is POSTed, and its job watched until it is done.
//!
//! `pack` makes the bundle while it is sent, and `client` makes the requests. This module keeps the order: it notes
//! what has been uploaded, so that the next try watches the job instead of uploading again.

mod client;
mod pack;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use self::client::{Client, State};
use super::error::is_passing;
use super::notes::Note;
use super::{Error, Origin};
use crate::meter::Meter;
use crate::output::Output;
use crate::places::IngestAuth;
use crate::work;

/// The note with the job.
const JOB: &str = "job.json";
/// The pause between two requests for a job's state: it doubles up to a tenth of the time waited so far, but
/// at least to one second and at most to ten.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_SHORT: Duration = Duration::from_secs(1);
const PAUSE_LONG: Duration = Duration::from_secs(10);

/// What the next try needs to know of a job.
#[derive(Serialize, Deserialize)]
struct Job {
    /// Where its state is read: a job at another URL is ignored.
    status_url: String,
    /// Its id, a number or a text.
    job_id: Value,
}

/// Uploads to one service.
pub(super) struct Ingest {
    client: Client,
    timeout: Duration,
}

impl Ingest {
    /// Makes an uploader.
    pub(super) fn new(
        url: Url,
        status_url: Url,
        auth: &IngestAuth,
        timeout: Duration,
        connect_timeout: Duration,
    ) -> Result<Self, Error> {
        Ok(Self { client: Client::new(url, status_url, auth, connect_timeout)?, timeout })
    }

    /// Uploads an output, waits until it is ingested, and returns which job that was.
    pub(super) async fn upload(
        &self,
        output: &Arc<Output>,
        origin: &Arc<Origin>,
        notes: &Path,
        meter: &Arc<Meter>,
    ) -> Result<String, Error> {
        let note = Note::new(notes, JOB);
        let noted = note.clone();
        let known = work::run(move |_| noted.read::<Job>()).await?;
        if let Some(job) = known.filter(|job| job.status_url == self.client.status_url()) {
            match self.watch(&job.job_id).await {
                Ok(()) => return Ok(self.place(&job.job_id)),
                Err(error @ (Error::Failed { .. } | Error::UnknownJob { .. })) => {
                    tracing::info!(%error, "an output is uploaded again");
                }
                Err(error) => return Err(error),
            }
        }
        let job_id = self.client.post(output, origin, meter).await?;
        let job = Job { status_url: self.client.status_url().to_owned(), job_id: job_id.clone() };
        work::run(move |_| note.write(&job)).await?;
        self.watch(&job_id).await?;
        Ok(self.place(&job_id))
    }

    /// Waits until a job is done. A failure to read its state does not end the wait.
    async fn watch(&self, job: &Value) -> Result<(), Error> {
        let begin = Instant::now();
        let end = begin + self.timeout;
        let (mut said, mut trouble) = (String::new(), None);
        let mut pause = PAUSE_FIRST;
        loop {
            match tokio::time::timeout_at(end, self.client.state(job)).await {
                Ok(Ok(State::Done)) => return Ok(()),
                Ok(Ok(State::Going(answer))) => (said, trouble) = (answer, None),
                Ok(Err(error)) if is_trouble(&error) => trouble = Some(Box::new(error)),
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
            if Instant::now() + pause >= end {
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min((begin.elapsed() / 10).clamp(PAUSE_SHORT, PAUSE_LONG));
        }
        Err(Error::Timeout {
            url: self.client.status_url().to_owned(),
            job: client::text(job),
            timeout: self.timeout,
            answer: if said.is_empty() { "nothing".to_owned() } else { said },
            source: trouble,
        })
    }

    fn place(&self, job: &Value) -> String {
        format!("ingest job {} at {}", client::text(job), self.client.url())
    }
}

fn is_trouble(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } => true,
        Error::Refused { status, .. } => is_passing(*status),
        _ => false,
    }
}
