//! What a program made, to where it belongs: a local folder, Pacifica's ingest service, or a follow-up event.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::Url;

use super::meter::Meter;
use super::output::Output;
use crate::domain::handler::{HandlerName, Uploaded};
use crate::domain::parts::Transaction;
use crate::domain::{DeliveryId, Event, EventId};

/// Where outputs go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Nowhere: they go with the run's folder.
    Nowhere,
    /// Each into a folder of its own below this one, as a bundle: `data/…` and `metadata.txt`.
    Local(PathBuf),
    /// To an ingest service.
    Ingest {
        /// Where a bundle is POSTed.
        url: Url,
        /// Where its state is asked for, with `?job_id=N`.
        status_url: Url,
        /// Who is asking.
        auth: IngestAuth,
        /// The longest that ingesting may take after the upload. Default 1 h.
        timeout: Duration,
    },
    /// Into a folder, named in a follow-up event that is accepted like any other.
    Events {
        /// The folder; a handler that fetches from it finds the files.
        folder: PathBuf,
        /// The event's type.
        ty: String,
    },
}

/// How an ingest service knows who is asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IngestAuth {
    /// It does not.
    None,
    /// By name and password.
    Basic {
        /// The name.
        username: String,
        /// The file with the password; a line break at its end does not count.
        password_file: PathBuf,
    },
    /// By a client certificate.
    Certificate {
        /// The PEM file with the certificate and its key.
        pem_file: PathBuf,
    },
}

/// What an upload belongs to.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The event.
    pub event: Event,
    /// Its id in the log.
    pub event_id: EventId,
    /// Its transaction.
    pub transaction: Transaction,
    /// Which handler ran.
    pub handler: HandlerName,
    /// The run's id.
    pub run: DeliveryId,
}

/// Accepts a follow-up event and returns its id in the log, or why not.
pub type Accept = Arc<dyn Fn(Event) -> BoxFuture<'static, Result<EventId, String>> + Send + Sync>;

/// Why an output was not uploaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {}

/// Uploads outputs.
#[derive(Clone)]
pub struct Uploader {}

impl Uploader {
    /// Makes an uploader. `accept` takes follow-up events.
    ///
    /// # Errors
    /// When a password or certificate cannot be read, or the HTTP client cannot be made.
    pub fn new(destination: &Destination, connect_timeout: Duration, accept: Accept) -> Result<Self, Error> {
        let _ = (destination, connect_timeout, accept);
        unimplemented!()
    }

    /// Uploads one output. `notes` is a folder of this upload's own that outlasts a crash: what is in it lets the next
    /// try go on where this one ended (such as the number of an ingest job). Dropping the future ends the work.
    ///
    /// # Errors
    /// When it did not arrive; trying again is always safe.
    pub async fn upload(
        &self,
        output: &Output,
        origin: &Origin,
        notes: &Path,
        meter: &Arc<Meter>,
    ) -> Result<Uploaded, Error> {
        let _ = (output, origin, notes, meter);
        unimplemented!()
    }
}
