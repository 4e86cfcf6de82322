//! An event's files into a folder: from a local folder, or from Pacifica's cart service.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;

use super::meter::Meter;
use crate::domain::handler::Fetched;
use crate::domain::parts::File;

/// Where an event's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nothing is fetched.
    Nothing,
    /// Below this folder, at `subdir/name`.
    Local(PathBuf),
    /// At a cart service.
    Cart {
        /// Its address: carts are made below it.
        url: Url,
        /// The longest that staging may take. Default 180 s.
        timeout: Duration,
    },
}

/// How much one fetch may be.
#[derive(Clone, Copy, Debug)]
pub struct FetchLimits {
    /// The most files (`download_files_max`).
    pub files_max: usize,
    /// The most bytes (`download_bytes_max`).
    pub bytes_max: u64,
}

/// Why files were not fetched.
#[derive(Debug, thiserror::Error)]
pub enum Error {}

/// Fetches files.
#[derive(Clone, Debug)]
pub struct Fetcher {}

impl Fetcher {
    /// Makes a fetcher.
    ///
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn new(source: &Source, connect_timeout: Duration) -> Result<Self, Error> {
        let _ = (source, connect_timeout);
        unimplemented!()
    }

    /// Fetches files into an empty folder, each at its own path, with its size and hash sum verified. Dropping the
    /// future ends the work; what is in the folder then is the caller's to remove, as after an error.
    ///
    /// # Errors
    /// When a file is missing, is not what the event says, or a limit stands in the way.
    pub async fn fetch(
        &self,
        files: &[File],
        download: &Path,
        limits: FetchLimits,
        meter: &Arc<Meter>,
    ) -> Result<Fetched, Error> {
        let _ = (files, download, limits, meter);
        unimplemented!()
    }
}
