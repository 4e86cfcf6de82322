//! Where the files of a run come from, and where its outputs go.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

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

/// Where outputs go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Nowhere: they are removed with the run's folder.
    Nowhere,
    /// Each into a folder of its own below this one, as a bundle: `data/…` and `metadata.txt`.
    Local(PathBuf),
    /// To an ingest service.
    Ingest {
        /// Where a bundle is POSTed.
        url: Url,
        /// Where its state is asked for, with `?job_id=N`.
        status_url: Url,
        /// How to authenticate.
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

/// How to authenticate with an ingest service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IngestAuth {
    /// Not at all.
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
