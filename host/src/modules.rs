//! Uploaded modules: kept in the store, compiled by the sandbox, referred to by subscriptions.
//!
//! A module is known by its digest. It stays while a subscription refers to it, and for [`GRACE`] after its upload.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{RwLock, RwLockReadGuard};

use crate::chain;
use crate::domain::plugin::Failure;
use crate::domain::{PluginDigest, PluginUse};
use crate::plugin::{Host, Plugin, Problem, Refused};
use crate::store::{self, Module, Store};

/// How long a module that no subscription refers to stays after its upload.
pub const GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// Why a module is not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not accepted.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// There is no room for it; a sentence with the setting.
    #[error("{0}")]
    Full(String),
    /// The store does not work now.
    #[error("failed to store the module")]
    Store(#[source] store::Error),
}

/// What is wrong with the plugin of a subscription.
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    /// There is no such module.
    #[error("there is no module {0}: upload it first, with POST /plugins")]
    Unknown(PluginDigest),
    /// Its configuration is wrong.
    #[error("the configuration is wrong")]
    Config(Vec<Problem>),
    /// The plugin could not say whether its configuration is right.
    #[error("{}", .0.reason())]
    Failed(Failure),
    /// The store does not work now.
    #[error("failed to read the module")]
    Store(#[source] store::Error),
}

/// Held while a subscription comes to refer to a module, which stays until then.
#[derive(Debug)]
pub struct Referring<'a>(#[expect(dead_code, reason = "it is there to be dropped")] RwLockReadGuard<'a, ()>);

/// The uploaded modules.
pub struct Modules {
    store: Arc<dyn Store>,
    host: Arc<Host>,
    /// Held for reading while a subscription comes to refer to a module, for writing while unused ones are removed.
    referring: RwLock<()>,
}

impl Modules {
    /// Makes the modules of a store, run by `host`.
    pub fn new(store: Arc<dyn Store>, host: Arc<Host>) -> Self {
        Self { store, host, referring: RwLock::new(()) }
    }

    /// Returns where they run.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Takes a module, and says what it is.
    ///
    /// # Errors
    /// When it is not accepted or cannot be kept.
    pub async fn upload(&self, wasm: Bytes, by: &str, now: Timestamp) -> Result<Module, Error> {
        let report = self.host.admit(wasm.clone()).await?;
        let module = Module { report, uploaded: now, by: by.to_owned() };
        self.store.put_module(module.clone(), wasm).await.map_err(Error::Store)?;
        Ok(module)
    }

    /// Returns what is known of a module.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn module(&self, digest: PluginDigest) -> Result<Option<Module>, store::Error> {
        self.store.module(digest).await
    }

    /// Returns a module ready to run.
    ///
    /// # Errors
    /// Says why it cannot be run now.
    pub async fn plugin(&self, digest: PluginDigest) -> Result<Arc<Plugin>, Failure> {
        let wasm = async {
            match self.store.module_bytes(digest).await {
                Ok(Some(wasm)) => Ok(wasm),
                Ok(None) => Err(Refused::Invalid(format!("there is no module {digest} any more"))),
                Err(error) => Err(Refused::Invalid(chain::of(&error))),
            }
        };
        self.host.load(digest, wasm).await.map_err(|error| Failure::Host(chain::of(&*error)))
    }

    /// Checks what a subscription wants of a plugin, whose module then stays until the guard is dropped: hold it until
    /// the subscription is written.
    ///
    /// # Errors
    /// When there is no such module, or its configuration is wrong.
    pub async fn refer(&self, wanted: &PluginUse) -> Result<Referring<'_>, Wrong> {
        self.check(wanted).await?;
        // Not earlier: while one waits for the lock to remove, nobody else comes in.
        let referring = Referring(self.referring.read().await);
        let is_there = self.module(wanted.digest).await.map_err(Wrong::Store)?.is_some();
        if is_there { Ok(referring) } else { Err(Wrong::Unknown(wanted.digest)) }
    }

    /// Checks what a subscription wants of a plugin.
    ///
    /// # Errors
    /// When there is no such module, or its configuration is wrong.
    pub async fn check(&self, wanted: &PluginUse) -> Result<(), Wrong> {
        let module = self.module(wanted.digest).await.map_err(Wrong::Store)?;
        let module = module.ok_or(Wrong::Unknown(wanted.digest))?;
        let plugin = self.plugin(wanted.digest).await.map_err(Wrong::Failed)?;
        let manifest = module.report.manifest.as_ref();
        let problems =
            self.host.check_config(&plugin, manifest, &wanted.config).await.map_err(Wrong::Failed)?;
        if problems.is_empty() { Ok(()) } else { Err(Wrong::Config(problems)) }
    }
}
