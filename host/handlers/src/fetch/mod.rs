//! Fetches an event's files into a folder: from a local folder, or from Pacifica's cart service.
//!
//! `plan` checks the list of files before anything is transferred; `copy` writes one file after another, and hashes it
//! on the way. The files come from `local`, or from `cart` (the service's protocol), whose tar goes through `stream` to
//! `unpack`, where `member` checks each header. A fetch has one blocking thread, which ends soon after the fetch is
//! dropped.

mod error;
mod plan;

mod copy;
mod hash;

mod local;

#[cfg(feature = "pacifica")]
mod cart;
#[cfg(feature = "pacifica")]
mod member;
#[cfg(feature = "pacifica")]
mod stream;
#[cfg(feature = "pacifica")]
mod unpack;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use error::{ArchivePosition, CartError, Error, LocalError, TarError};

use self::copy::Copier;
use self::plan::Plan;
use super::definition::HandlerLimits;
use super::meter::{Meter, Phase};
use super::places::Source;
use super::work;
use waypost_domain::handler::FetchSummary;
use waypost_domain::parts::File;
use waypost_runtime::clock;

/// The limits of one fetch.
#[derive(Clone, Copy, Debug)]
pub struct FetchLimits {
    /// The most files (`download_files_max`).
    pub files_max: usize,
    /// The most bytes (`download_bytes_max`).
    pub bytes_max: u64,
}

impl FetchLimits {
    /// Returns the limits of a handler's fetches.
    pub(super) fn of(limits: &HandlerLimits) -> Self {
        Self { files_max: limits.download_files_max, bytes_max: limits.download_bytes_max }
    }
}

/// Fetches files.
#[derive(Clone, Debug)]
pub struct Fetcher(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Nothing,
    Local(PathBuf),
    #[cfg(feature = "pacifica")]
    Cart(cart::Service),
}

impl Fetcher {
    /// Makes a fetcher.
    ///
    /// # Errors
    /// When the HTTP client cannot be made, or carts cannot be made below the URL.
    pub fn new(source: &Source, connect_timeout: Duration) -> Result<Self, Error> {
        Ok(Self(match source {
            Source::Nothing => Kind::Nothing,
            Source::Local(folder) => Kind::Local(folder.clone()),
            #[cfg(feature = "pacifica")]
            Source::Cart { url, timeout } => Kind::Cart(cart::Service::new(url, *timeout, connect_timeout)?),
            #[cfg(not(feature = "pacifica"))]
            Source::Cart { .. } => return Err(Error::NoCarts),
        }))
    }

    /// Fetches files into an empty folder, each at its own path, with its size and hash sum verified. Dropping the
    /// future ends the work; the caller removes what is in the folder then, as after an error.
    ///
    /// When the future is dropped, the blocking thread may be about to create one more file. It never creates the
    /// folder itself, so that a removed folder does not come back.
    ///
    /// # Errors
    /// When a file is missing, differs from what the event says, or exceeds a limit.
    pub async fn fetch(
        &self,
        files: &[File],
        download: &Path,
        limits: FetchLimits,
        meter: &Arc<Meter>,
    ) -> Result<FetchSummary, Error> {
        let begun = Instant::now();
        if files.is_empty() || matches!(self.0, Kind::Nothing) {
            meter.enter(Phase::Fetching, clock::now(), 0, 0);
            return Ok(FetchSummary { files: 0, bytes: 0, took: begun.elapsed() });
        }
        let plan = Plan::of(files, limits)?;
        let count = files.len() as u64;
        meter.enter(Phase::Fetching, clock::now(), count, plan.bytes);
        let bytes = match &self.0 {
            Kind::Nothing => 0,
            Kind::Local(folder) => copy_from(folder.clone(), plan, download, limits, meter).await?,
            #[cfg(feature = "pacifica")]
            Kind::Cart(service) => service.fetch(files, plan, download, limits, meter).await?,
        };
        Ok(FetchSummary { files: count, bytes, took: begun.elapsed() })
    }
}

async fn copy_from(
    folder: PathBuf,
    plan: Plan,
    download: &Path,
    limits: FetchLimits,
    meter: &Arc<Meter>,
) -> Result<u64, Error> {
    let (download, meter) = (download.to_owned(), Arc::clone(meter));
    work::run(move |stop| {
        let mut copier = Copier::new(download, limits, meter, stop);
        local::copy(&folder, &plan.wanted, &mut copier).map(|()| copier.bytes())
    })
    .await
}
