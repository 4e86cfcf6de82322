//! The operator's definition of a handler.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::error::Error;
use super::places::{Destination, Source};
#[cfg(feature = "programs")]
use super::program::Closure;
use waypost_domain::plugin::AllowHost;
use waypost_domain::{FilterDialect, HandlerName, RetrySchedule};
use waypost_engine::directory::Route;
use waypost_matching::Filter;

/// The default filter of a handler that is made of a script (Dispatcher-K8s): events whose key-value `do_processing` is
/// `True`.
pub const SCRIPT_FILTER: &str = r#"$.data[*][?(@.destinationTable = "TransactionKeyValue" and @.key = "do_processing" and @.value = "True")]"#;

/// The file in an output folder with its key-values: rows `key,value`, no header. It is not uploaded.
pub const KEY_VALUES_FILE: &str = "kvp.csv";

/// A handler, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name, unique among handlers. Its pending runs stay in the store while no handler has that name.
    pub name: HandlerName,
    /// Which events it gets, if any: an event goes to the first handler whose filter matches.
    pub filter: Option<Selection>,
    /// Whether `/dispatch/{name}/…` starts it.
    pub dispatch: bool,
    /// The program.
    pub program: Program,
    /// Its arguments; those of `/dispatch` follow them.
    pub arguments: Vec<String>,
    /// Where the event's files are fetched from.
    pub source: Source,
    /// Where its outputs go.
    pub destination: Destination,
    /// Its output folders. Default one, `output`.
    pub outputs: Vec<OutputFolder>,
    /// How many runs at once. Default 4.
    pub max_parallel: usize,
    /// Waits between runs that failed. Default `none`: a failed run is not repeated, as in Pacifica's Dispatcher.
    pub retry_schedule: RetrySchedule,
    /// Waits between uploads that failed; the program is not run again for that. Default `5s,1m,10m,1h`.
    pub upload_retry_schedule: RetrySchedule,
    /// How much a run may use.
    pub limits: HandlerLimits,
}

/// A filter that selects events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The filter's text.
    pub text: String,
    /// The filter's dialect.
    pub dialect: FilterDialect,
}

/// The program that a handler runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// A component for WASI 0.2 that exports `wasi:cli/run`, sandboxed.
    Component {
        /// The file.
        path: PathBuf,
        /// Where it may send HTTP requests to.
        allow_hosts: Vec<AllowHost>,
    },
    /// A native program: no shell, an explicit environment.
    Command {
        /// The program and its first arguments.
        command: Vec<String>,
        /// Environment variables, besides `PATH` and Waypost's own.
        environment: BTreeMap<String, String>,
    },
    /// Code of the program that embeds Waypost ([`Router`](super::Router)).
    #[cfg(feature = "programs")]
    Closure(Closure),
}

/// One output folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputFolder {
    /// Its path in the run's folder, of plain names.
    pub folder: String,
    /// The name of the file in it with its key-values: rows `key,value`. Default `kvp.csv`.
    pub key_values: String,
}

/// How much one run may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandlerLimits {
    /// The longest that the program may run. Default 1 h.
    pub timeout: Duration,
    /// The most memory, in bytes. Default 1 GiB for a component, and no limit for a native program.
    pub memory_bytes: Option<u64>,
    /// The most bytes that are fetched. Default 64 GiB.
    pub download_bytes_max: u64,
    /// The most files that are fetched. Default 100,000.
    pub download_files_max: usize,
    /// The most bytes that the output folders hold. Default 16 GiB.
    pub output_bytes_max: u64,
    /// The most files that the output folders hold. Default 100,000.
    pub output_files_max: usize,
    /// The most bytes of stdout and of stderr that are kept whole. Default 16 MiB.
    pub log_bytes_max: u64,
}

impl Definition {
    /// Makes a handler with the defaults of everything else.
    pub fn new(name: HandlerName, program: Program) -> Self {
        Self {
            name,
            filter: None,
            dispatch: false,
            program,
            arguments: Vec::new(),
            source: Source::Nothing,
            destination: Destination::Nowhere,
            outputs: vec![OutputFolder::new("output")],
            max_parallel: 4,
            retry_schedule: RetrySchedule::NONE,
            upload_retry_schedule: "5s,1m,10m,1h".parse().expect("it is a schedule"),
            limits: HandlerLimits::default(),
        }
    }

    /// Tells whether any output is kept after its run.
    pub(super) fn keeps_outputs(&self) -> bool {
        self.destination != Destination::Nowhere
    }
}

impl OutputFolder {
    /// Makes an output folder whose key-values are in `kvp.csv`.
    pub fn new(folder: &str) -> Self {
        Self { folder: folder.to_owned(), key_values: KEY_VALUES_FILE.to_owned() }
    }
}

impl Default for HandlerLimits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(60 * 60),
            memory_bytes: None,
            download_bytes_max: 64 << 30,
            download_files_max: 100_000,
            output_bytes_max: 16 << 30,
            output_files_max: 100_000,
            log_bytes_max: 16 << 20,
        }
    }
}

/// Parses the filters of handlers, and checks their names.
///
/// # Errors
/// When a filter does not parse, or two have one name.
pub fn routes(handlers: &[Definition]) -> Result<Vec<Route>, Error> {
    let mut names = HashSet::new();
    let mut routes = Vec::new();
    for handler in handlers {
        let name = || handler.name.clone();
        if !names.insert(&handler.name) {
            return Err(Error::Name(name()));
        }
        let Some(selection) = &handler.filter else { continue };
        let filter = Filter::parse(&selection.text, selection.dialect);
        let filter = filter.map_err(|source| Error::Filter { name: name(), source })?;
        routes.push(Route { recipient: handler.name.routed(), filter: Arc::new(filter) });
    }
    Ok(routes)
}
