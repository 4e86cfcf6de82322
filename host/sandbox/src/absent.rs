//! The sandbox of a program that was built without one: nothing is compiled, nothing runs, and each call says so.

use std::collections::HashSet;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::call::{Call, CallResult};
use super::error::{Error, Refused};
use super::limits::Limits;
use super::problem::Problem;
use super::program::{CommandCall, CommandEnd};
use super::settings::Settings;
use waypost_domain::PluginDigest;
use waypost_domain::plugin::{Failure, Manifest, Report};

/// A loaded module. There is none.
pub struct Plugin(Infallible);

/// A program that is ready to run. There is none.
pub struct Command(Infallible);

/// Says of each module that this program cannot run it.
pub struct Host {
    limits: Limits,
}

impl Plugin {
    /// Returns which module it is.
    pub fn digest(&self) -> PluginDigest {
        match self.0 {}
    }

    /// Tells whether it may keep state.
    pub fn uses_state(&self) -> bool {
        match self.0 {}
    }

    /// Tells whether it exports `policy`.
    pub fn has_policy(&self) -> bool {
        match self.0 {}
    }

    /// Tells whether it exports `transform`.
    pub fn has_transform(&self) -> bool {
        match self.0 {}
    }
}

impl Host {
    /// Makes a host that runs nothing.
    pub fn new(settings: Settings) -> Self {
        Self { limits: settings.limits }
    }

    /// Returns the limits of each call.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Refuses a module.
    ///
    /// # Errors
    /// Always.
    pub async fn admit(&self, _user: &str, _wasm: Bytes) -> Result<Report, Refused> {
        Err(Error::Absent.into())
    }

    /// Refuses a module.
    ///
    /// # Errors
    /// Always.
    pub async fn load(
        &self,
        _digest: PluginDigest,
        _wasm: impl Future<Output = Result<Bytes, Refused>> + Send,
    ) -> Result<Arc<Plugin>, Arc<Refused>> {
        Err(Arc::new(Error::Absent.into()))
    }

    /// Calls a plugin, of which there is none.
    pub async fn run(&self, plugin: Arc<Plugin>, _call: Call) -> CallResult {
        match plugin.0 {}
    }

    /// Calls a plugin, of which there is none.
    ///
    /// # Errors
    /// Never.
    pub async fn run_here(&self, plugin: &Plugin, _call: Call) -> Result<CallResult, Error> {
        match plugin.0 {}
    }

    /// Checks the configuration of a plugin, of which there is none.
    ///
    /// # Errors
    /// Never.
    pub async fn check_config(
        &self,
        _user: &str,
        plugin: &Arc<Plugin>,
        _manifest: Option<&Manifest>,
        _config: &Map<String, Value>,
    ) -> Result<Vec<Problem>, Failure> {
        match plugin.0 {}
    }

    /// Refuses a program.
    ///
    /// # Errors
    /// Always.
    pub async fn load_command(&self, _wasm: Bytes) -> Result<Arc<Command>, Refused> {
        Err(Error::Absent.into())
    }

    /// Runs a program, of which there is none.
    pub async fn run_command(&self, command: &Arc<Command>, _call: CommandCall) -> CommandEnd {
        match command.0 {}
    }

    /// Removes nothing.
    ///
    /// # Errors
    /// Never.
    pub fn sweep(&self, _wanted: &HashSet<PluginDigest>, _grace: Duration) -> Result<(), Error> {
        Ok(())
    }

    /// Removes nothing.
    ///
    /// # Errors
    /// Never.
    pub async fn discard(&self, _digest: PluginDigest) -> Result<(), Error> {
        Ok(())
    }

    /// Returns how many bytes of disk the machine code takes: none.
    ///
    /// # Errors
    /// Never.
    pub fn kept_bytes(&self) -> Result<u64, Error> {
        Ok(0)
    }

    /// Tells whether a module's machine code is here: it is not.
    pub fn has(&self, _digest: PluginDigest) -> bool {
        false
    }
}
