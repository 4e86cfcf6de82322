//! Handlers of a program that embeds Waypost: Rust closures, as the Dispatcher's library has event handlers.

use std::future::Future;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::definition::{Definition, Program, Selection};
use super::program::{Answer, Closure, Run};
use waypost_domain::FilterDialect;
use waypost_matching::{Filter, FilterError};

/// Collects handlers that are closures.
#[derive(Clone, Debug, Default)]
pub struct Router(Vec<Definition>);

impl Router {
    /// Makes a router without handlers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a handler for the events that the filter matches and no earlier handler has taken; set everything else in
    /// the [`Definition`] that this returns.
    ///
    /// Pending runs are stored under the handler's name, also across restarts. Until you set a name, it is derived from
    /// the filter's text.
    ///
    /// # Errors
    /// When the filter parses in neither dialect.
    pub fn route<F, R>(&mut self, filter: &str, handler: F) -> Result<&mut Definition, FilterError>
    where
        F: Fn(Run) -> R + Send + Sync + 'static,
        R: Future<Output = Answer> + Send + 'static,
    {
        let dialect = FilterDialect::default();
        Filter::parse(filter, dialect)?;
        let sum = Sha256::digest(filter.as_bytes());
        let name = HEXLOWER.encode(&sum[..6]);
        let name = format!("route-{name}").parse().expect("hexadecimal digits make a name");
        let mut definition = Definition::new(name, Program::Closure(Closure::new(handler)));
        definition.filter = Some(Selection { text: filter.to_owned(), dialect });
        self.0.push(definition);
        Ok(self.0.last_mut().expect("it has just been added"))
    }

    /// Returns the handlers, in the order in which events are matched.
    pub fn into_handlers(self) -> Vec<Definition> {
        self.0
    }
}
