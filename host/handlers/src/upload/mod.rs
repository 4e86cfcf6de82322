//! Uploads what a program made: to a local folder, Pacifica's ingest service, or a follow-up event.
//!
//! An upload may be interrupted at any point, by a crash or by dropping its future, and is then retried as a whole.
//! It becomes visible as a whole or not at all, and a repeat replaces it.
//!
//! - `local`: bundles in a folder; `ingest`: bundles to a service; `events`: files in a folder, and an event
//!   of them.
//! - `folder`: a folder that appears at once; `source`: files as they are read; `rows`: their metadata; `notes`: what
//!   one try leaves for the next.

mod error;
mod events;
mod folder;
#[cfg(feature = "pacifica")]
mod ingest;
mod local;
mod notes;
mod rows;
mod source;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use self::events::Events;
#[cfg(feature = "pacifica")]
use self::ingest::Ingest;
use super::meter::{Meter, Phase};
use super::output::Output;
use super::places::Destination;
use waypost_domain::handler::{HandlerName, UploadSummary};
use waypost_domain::parts::Transaction;
use waypost_domain::{DeliveryId, Event, EventId};
use waypost_runtime::clock;

pub use error::{Error, Refusal};
pub use events::{CHAIN_ATTRIBUTE, CHAIN_MAX};

/// The event and the run that an upload belongs to.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The event.
    pub event: Event,
    /// Its id in the log.
    pub event_id: EventId,
    /// Who sent it; follow-up events get the same sender.
    pub sender: String,
    /// Its transaction.
    pub transaction: Transaction,
    /// Which handler ran.
    pub handler: HandlerName,
    /// The run's id.
    pub run: DeliveryId,
}

/// Accepts a follow-up event with a given sender and returns its id in the log.
pub type Accept = Arc<dyn Fn(Event, String) -> BoxFuture<'static, Result<EventId, Refusal>> + Send + Sync>;

/// Uploads outputs.
#[derive(Clone)]
pub struct Uploader(Kind);

#[derive(Clone)]
enum Kind {
    Nowhere,
    Local(Arc<Path>),
    #[cfg(feature = "pacifica")]
    Ingest(Arc<Ingest>),
    Events(Arc<Events>),
}

impl Uploader {
    /// Makes an uploader. `accept` takes follow-up events.
    ///
    /// # Errors
    /// When a password or certificate cannot be read, or the HTTP client cannot be made.
    pub fn new(destination: &Destination, connect_timeout: Duration, accept: Accept) -> Result<Self, Error> {
        Ok(Self(match destination {
            Destination::Nowhere => Kind::Nowhere,
            Destination::Local(folder) => Kind::Local(Arc::from(folder.as_path())),
            #[cfg(feature = "pacifica")]
            Destination::Ingest { url, status_url, auth, timeout } => {
                let ingest = Ingest::new(url.clone(), status_url.clone(), auth, *timeout, connect_timeout)?;
                Kind::Ingest(Arc::new(ingest))
            }
            #[cfg(not(feature = "pacifica"))]
            Destination::Ingest { .. } => return Err(Error::NoIngest),
            Destination::Events { folder, ty } => {
                Kind::Events(Arc::new(Events { folder: folder.clone(), ty: ty.clone(), accept }))
            }
        }))
    }

    /// Uploads one output. `notes` is a folder of this upload's own that survives a crash: its content (such as the
    /// number of an ingest job) lets the next try continue. Dropping the future ends the work.
    ///
    /// # Errors
    /// When it did not arrive. Trying again is always safe; [`Error::is_lasting`] tells whether it can succeed.
    pub async fn upload(
        &self,
        output: &Arc<Output>,
        origin: &Arc<Origin>,
        notes: &Path,
        meter: &Arc<Meter>,
    ) -> Result<UploadSummary, Error> {
        let (files, bytes) = (output.files.len() as u64, output.bytes());
        meter.enter(Phase::Uploading, clock::now(), files, bytes);
        let place = match &self.0 {
            Kind::Nowhere => "nowhere".to_owned(),
            Kind::Local(folder) => local::upload(folder, output, origin, meter).await?,
            #[cfg(feature = "pacifica")]
            Kind::Ingest(ingest) => ingest.upload(output, origin, notes, meter).await?,
            Kind::Events(events) => events.upload(output, origin, notes, meter).await?,
        };
        Ok(UploadSummary { output: output.name.clone(), files, bytes, place })
    }
}
