//! A handler that is ready to run: its program loaded, its clients made.

use std::sync::Arc;
use std::time::Duration;

use super::definition::{Definition, Program};
use super::error::Error;
use super::fetch::Fetcher;
use super::program::{Call, Closure, Component, Native, ProgramResult, Run, Shortage, Supervisors};
use super::upload::{Accept, Uploader};
use waypost_sandbox::Host;

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
