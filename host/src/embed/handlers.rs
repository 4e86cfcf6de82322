//! Handlers of a program: closures on the data files of events.

use std::future::Future;

use waypost_domain::handler::HandlerName;
use waypost_handlers::{Answer, Definition, Destination, Router, Run, Source};
use waypost_runtime::chain;

/// The handlers of a router, in the order in which their filters are tried: an event goes to the first that matches.
///
/// ```no_run
/// use waypost::{Destination, Handlers, Source, Waypost};
///
/// # async fn embed() -> Result<(), Box<dyn std::error::Error>> {
/// let handlers = Handlers::new()
///     .on("count", "$.data[?@.destinationTable == 'Files']", |run| async move {
///         let lines = format!("files,{}\n", run.parts.files.len());
///         std::fs::write(run.output().join("count.csv"), lines)?;
///         Ok(())
///     })?
///     .source(Source::Local("/data".into()))
///     .destination(Destination::Local("/results".into()));
/// let waypost = Waypost::builder("/var/lib/mine/events").handlers(handlers).open().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "handlers run once a router has them"]
pub struct Handlers(Vec<Definition>);

/// Why a handler cannot be added.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddHandler {
    /// Its filter does not parse.
    #[error("{0}")]
    Filter(String),
    /// Its name is not one.
    #[error("the name `{name}` is not one of a handler: {reason}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Handlers {
    /// Makes a list without handlers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a handler. `name` is what pending runs are stored under, also across restarts.
    ///
    /// # Errors
    /// When the name or the filter is not right.
    pub fn on<F, R>(mut self, name: &str, filter: &str, handler: F) -> Result<Self, AddHandler>
    where
        F: Fn(Run) -> R + Send + Sync + 'static,
        R: Future<Output = Answer> + Send + 'static,
    {
        let name: HandlerName = name.parse().map_err(|error: <HandlerName as std::str::FromStr>::Err| {
            AddHandler::Name { name: name.to_owned(), reason: error.to_string() }
        })?;
        let mut router = Router::new();
        router.route(filter, handler).map_err(|error| AddHandler::Filter(chain::text(&error)))?.name = name;
        self.0.extend(router.into_handlers());
        Ok(self)
    }

    /// Sets where the last handler's data files come from.
    pub fn source(mut self, source: Source) -> Self {
        self.0.iter_mut().rev().take(1).for_each(|last| last.source = source.clone());
        self
    }

    /// Sets where the last handler's results go.
    pub fn destination(mut self, destination: Destination) -> Self {
        self.0.iter_mut().rev().take(1).for_each(|last| last.destination = destination.clone());
        self
    }

    pub(super) fn into_definitions(self) -> Vec<Definition> {
        self.0
    }
}
