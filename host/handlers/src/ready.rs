//! A handler that is ready to run: its program loaded, its clients made.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::definition::{Definition, Program};
use super::fetch::{self, Fetcher};
use super::program::{Call, Closure, Component, Native, ProgramResult, Run, Shortage, Supervisors};
use super::upload::{self, Accept, Uploader};
use waypost_domain::HandlerName;
use waypost_engine::directory::Route;
use waypost_matching::{Filter, FilterError};
use waypost_sandbox::{Host, Refused};

/// Why a handler cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Two have the same name.
    #[error("two handlers have the name `{0}`: each needs one of its own")]
    Name(HandlerName),
    /// Its filter does not parse.
    #[error("failed to parse the filter of the handler `{name}`")]
    Filter {
        /// Which.
        name: HandlerName,
        /// Why not.
        source: FilterError,
    },
    /// Its component cannot be read.
    #[error("failed to read the component {} of the handler `{name}`", path.display())]
    Read {
        /// Which.
        name: HandlerName,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Its component is not accepted.
    #[error("failed to load the component {} of the handler `{name}`", path.display())]
    Component {
        /// Which.
        name: HandlerName,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Refused,
    },
    /// A native program needs the `waypost` program, which supervises it.
    #[error(
        "the handler `{0}` is a native command, which the `waypost` program supervises: name that program \
         (plugin_compiler)"
    )]
    NoSupervisor(HandlerName),
    /// This machine lacks something that a run needs, such as a folder.
    #[error("the handler `{name}` cannot run here now: {reason}")]
    Shortage {
        /// Which.
        name: HandlerName,
        /// What is missing.
        reason: String,
    },
    /// The client that fetches cannot be made.
    #[error("failed to prepare the fetch of the handler `{name}`")]
    Fetch {
        /// Which.
        name: HandlerName,
        /// Why not.
        source: fetch::Error,
    },
    /// The client that uploads cannot be made.
    #[error("failed to prepare the upload of the handler `{name}`")]
    Upload {
        /// Which.
        name: HandlerName,
        /// Why not.
        source: upload::Error,
    },
}

/// What handlers need.
#[derive(Clone)]
pub struct Deps {
    /// Where components run.
    pub host: Arc<Host>,
    /// Starts the supervisors of native programs.
    pub waypost: Option<Supervisors>,
    /// The longest that connecting to a cart or an ingest service may take.
    pub connect_timeout: Duration,
    /// Accepts follow-up events.
    pub accept: Accept,
}

/// A handler that is ready to run.
pub(super) struct Handler {
    pub(super) definition: Definition,
    pub(super) fetcher: Fetcher,
    pub(super) uploader: Uploader,
    pub(super) program: Loaded,
}

/// A program that is ready to run.
pub(super) enum Loaded {
    /// In the sandbox.
    Component(Component),
    /// As a process.
    Native(Native),
    /// In this process.
    Closure(Closure),
}

impl Handler {
    /// Loads a handler's program and makes its clients.
    pub(super) async fn load(definition: Definition, deps: &Deps) -> Result<Self, Error> {
        let name = || definition.name.clone();
        let fetcher = Fetcher::new(&definition.source, deps.connect_timeout)
            .map_err(|source| Error::Fetch { name: name(), source })?;
        let accept = Arc::clone(&deps.accept);
        let uploader = Uploader::new(&definition.destination, deps.connect_timeout, accept)
            .map_err(|source| Error::Upload { name: name(), source })?;
        let program = match &definition.program {
            Program::Component { path, allow_hosts } => {
                let wasm = tokio::fs::read(path).await;
                let wasm = wasm.map_err(|source| Error::Read { name: name(), path: path.clone(), source })?;
                let host = Arc::clone(&deps.host);
                let loaded = Component::load(host, wasm.into(), allow_hosts).await;
                Loaded::Component(loaded.map_err(|source| Error::Component {
                    name: name(),
                    path: path.clone(),
                    source,
                })?)
            }
            Program::Command { command, environment } => {
                let waypost = deps.waypost.clone().ok_or_else(|| Error::NoSupervisor(name()))?;
                let environment = environment.iter().map(|(name, value)| (name.clone(), value.clone()));
                let (command, environment) = (command.clone(), environment.collect());
                Loaded::Native(Native { waypost, command, environment })
            }
            Program::Closure(closure) => Loaded::Closure(closure.clone()),
        };
        Ok(Self { definition, fetcher, uploader, program })
    }
}

/// Does everything that the start of the service does with a handler, and drops the result.
///
/// # Errors
/// When it cannot be used.
pub async fn check(definition: Definition, deps: &Deps) -> Result<(), Error> {
    Handler::load(definition, deps).await.map(drop)
}

impl Loaded {
    /// Runs the program. Dropping the future ends it.
    ///
    /// # Errors
    /// When this machine lacks something that the program needs.
    pub(super) async fn run(
        &self,
        call: &Call,
        closures: impl FnOnce() -> Run,
    ) -> Result<ProgramResult, Shortage> {
        match self {
            Self::Component(component) => component.run(call).await,
            Self::Native(native) => native.run(call).await,
            Self::Closure(closure) => Ok(closure.run(closures(), call).await),
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
