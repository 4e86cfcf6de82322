//! Uploaded modules: kept in the store, compiled by the sandbox, referred to by subscriptions.
//!
//! A module is known by its digest. It stays while a subscription refers to it, and for [`GRACE`] after its upload.
//! Its bytes are the truth; machine code is made of them again whenever it is gone.

mod storage;
#[cfg(test)]
mod tests;
mod turns;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard};

use crate::chain;
use crate::domain::plugin::Failure;
use crate::domain::{PluginDigest, PluginUse};
use crate::plugin::{self, Host, Plugin, Problem, Refused};
use crate::store::{self, Module, Store};

pub use storage::{GRACE, GRACE_WHEN_FULL};
use turns::Turns;
pub use turns::{Turn, UPLOADS_MAX, USER_UPLOADS_MAX};

/// Why a module is not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not accepted.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// There is no room for it.
    #[error(
        "there is no room for {bytes} bytes more: modules and their machine code may take {most} bytes (the setting \
         plugin_storage_bytes_max), and subscriptions refer to what is there or it is new"
    )]
    Full {
        /// What it takes.
        bytes: u64,
        /// What all may take.
        most: u64,
    },
    /// Its user uploads too many at once.
    #[error("{most} modules of yours are being uploaded or compiled: wait for one of them")]
    TooMany {
        /// The most.
        most: usize,
    },
    /// All upload too many at once.
    #[error("{most} modules are being uploaded or compiled: try again")]
    Busy {
        /// The most.
        most: usize,
    },
    /// The folder of machine code does not work now.
    #[error("failed to tend the machine code of modules")]
    Folder(#[source] plugin::Error),
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

/// How many users can have a configuration checked at once, each one.
const CHECKING: usize = 64;

/// The uploaded modules.
pub struct Modules {
    store: Arc<dyn Store>,
    host: Arc<Host>,
    /// Held for reading while a subscription comes to refer to a module, for writing while unused ones are removed.
    referring: RwLock<()>,
    /// Held from the look for room until a module takes it.
    storing: Mutex<()>,
    /// Held by a user whose configuration is checked; by the user's hash, which nobody can foresee.
    checking: [Mutex<()>; CHECKING],
    users: RandomState,
    bytes_max: u64,
    turns: Turns,
}

/// What an upload led to.
#[derive(Clone, Debug, PartialEq)]
pub enum Uploaded {
    /// A module that was not there.
    New(Module),
    /// One that was: it counts as uploaded now.
    Known(Module),
}

impl Uploaded {
    /// Returns the module.
    pub fn module(&self) -> &Module {
        match self {
            Self::New(module) | Self::Known(module) => module,
        }
    }
}

impl Modules {
    /// Makes the modules of a store, run by `host`; with their machine code they take at most `bytes_max`.
    pub fn new(store: Arc<dyn Store>, host: Arc<Host>, bytes_max: u64) -> Self {
        let (referring, storing) = (RwLock::new(()), Mutex::new(()));
        let checking = std::array::from_fn(|_| Mutex::default());
        let (users, turns) = (RandomState::new(), Turns::default());
        Self { store, host, referring, storing, checking, users, bytes_max, turns }
    }

    /// Returns where they run.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Begins an upload of a user; to be asked before a module is read into memory.
    ///
    /// # Errors
    /// When too many are under way.
    pub fn turn(&self, user: &str) -> Result<Turn, Error> {
        self.turns.begin(user)
    }

    /// Takes a module, and says what it is. Dropping the future may leave its machine code behind for [`GRACE`].
    ///
    /// # Errors
    /// When it is not accepted or cannot be kept.
    pub async fn upload(&self, wasm: Bytes, by: &str, now: Timestamp) -> Result<Uploaded, Error> {
        let hashed = wasm.clone();
        let hashing = tokio::task::spawn_blocking(move || PluginDigest::of(&hashed));
        let digest = hashing.await.expect("hashing does not panic");
        if let Some(known) = self.module(digest).await.map_err(Error::Store)?
            && self.host.has(digest)
        {
            let module = Module { uploaded: now, by: by.to_owned(), ..known };
            self.put(module.clone(), wasm).await?;
            return Ok(Uploaded::Known(module));
        }
        // Before it is compiled, at least for itself; then with its machine code, which is there by now.
        self.make_room(wasm.len() as u64, now).await?;
        let report = self.host.admit(wasm.clone()).await?;
        let module = Module { report, uploaded: now, by: by.to_owned() };
        let _storing = self.storing.lock().await;
        let is_known = self.module(digest).await.map_err(Error::Store)?.is_some();
        if !is_known && let Err(full) = self.make_room(wasm.len() as u64, now).await {
            self.host.discard(digest).await.map_err(Error::Folder)?;
            return Err(full);
        }
        self.put(module.clone(), wasm).await?;
        Ok(if is_known { Uploaded::Known(module) } else { Uploaded::New(module) })
    }

    async fn put(&self, module: Module, wasm: Bytes) -> Result<(), Error> {
        // Whoever removes what is unused must not have seen the old time.
        let _referring = self.referring.read().await;
        self.store.put_module(module, wasm).await.map_err(Error::Store)
    }

    /// Returns what is known of all modules.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn list(&self) -> Result<Vec<Module>, store::Error> {
        self.store.modules().await
    }

    /// Returns a module's bytes.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn bytes(&self, digest: PluginDigest) -> Result<Option<Bytes>, store::Error> {
        self.store.module_bytes(digest).await
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
                Ok(None) => {
                    let reason = format!("there is no module {digest} any more");
                    Err(plugin::Error::Bytes { reason }.into())
                }
                Err(error) => Err(plugin::Error::Bytes { reason: chain::of(&error) }.into()),
            }
        };
        self.host.load(digest, wasm).await.map_err(|refused| match &*refused {
            Refused::Host(error) => Failure::Host(chain::of(error)),
            Refused::TooExpensive(_) => Failure::Limit(refused.to_string()),
            // It was accepted once: this Waypost is another one.
            Refused::NotAComponent(_)
            | Refused::TooLarge { .. }
            | Refused::Precompiled
            | Refused::Invalid(_)
            | Refused::DoesNotFit { .. }
            | Refused::DoesNotLoad(_)
            | Refused::DoesNotStart(_)
            | Refused::Metadata(_) => Failure::Trap(refused.to_string()),
        })
    }

    /// Waits until no other configuration of a user is checked: a schema can be made to take seconds, and nobody shall
    /// wait behind many of one user's.
    pub async fn checks_of(&self, user: &str) -> MutexGuard<'_, ()> {
        let place = self.users.hash_one(user) % self.checking.len() as u64;
        self.checking[usize::try_from(place).unwrap_or_default()].lock().await
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
