//! A program that is Rust code of the embedding program.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{Call, ProgramResult};
use waypost_domain::handler::Exit;
use waypost_domain::parts::Parts;
use waypost_domain::{Event, EventId};
use waypost_runtime::chain;

/// What a closure is called with.
#[derive(Clone, Debug)]
pub struct Run {
    /// The event.
    pub event: Event,
    /// Its id in the log.
    pub id: EventId,
    /// The transaction, files and key-values that its data describe.
    pub parts: Parts,
    /// 1 for the first attempt.
    pub attempt: u32,
    pub(crate) folder: PathBuf,
}

impl Run {
    /// Returns the folder with the event's files, each at its own path.
    pub fn download(&self) -> PathBuf {
        self.folder.join("download")
    }

    /// Returns the folder for what is to be uploaded, with its key-values in `kvp.csv`.
    pub fn output(&self) -> PathBuf {
        self.folder.join("output")
    }

    /// Returns the run's folder, which is removed with the run.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// What a closure answers: an error fails the run.
pub type Answer = Result<(), Box<dyn Error + Send + Sync>>;

/// A closure that runs on events.
#[derive(Clone)]
pub struct Closure(Arc<dyn Fn(Run) -> BoxFuture<'static, Answer> + Send + Sync>);

impl Closure {
    /// Wraps a closure.
    pub fn new<F, R>(closure: F) -> Self
    where
        F: Fn(Run) -> R + Send + Sync + 'static,
        R: Future<Output = Answer> + Send + 'static,
    {
        Self(Arc::new(move |run| Box::pin(closure(run))))
    }

    /// Calls it; a panic fails only the run.
    pub(crate) async fn run(&self, run: Run, call: &Call) -> ProgramResult {
        let calling = AssertUnwindSafe(async { (self.0)(run).await }).catch_unwind();
        let time = call.limits.time;
        ProgramResult::silent(match tokio::time::timeout(time, calling).await {
            Ok(Ok(Ok(()))) => Exit::Code(0),
            Ok(Ok(Err(error))) => Exit::Failed(chain::text(&*error)),
            Ok(Err(_)) => Exit::Failed("the closure panicked (its text is on stderr)".to_owned()),
            Err(_) => Exit::timed_out(time),
        })
    }
}

impl fmt::Debug for Closure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Closure")
    }
}

/// Closures are equal when they are the same one.
impl PartialEq for Closure {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Closure {}
