//! Uploaded modules: kept in the store, compiled by the sandbox, referred to by subscriptions.
//!
//! A module is known by its digest. It stays while a subscription refers to it, and for [`GRACE`] after its upload. The
//! store keeps its wasm; its machine code is a cache and is compiled again when it is gone. The disk space of a module
//! counts for the users whose subscriptions refer to it, or, if there are none, for its recent uploaders ([`Room`]).

mod holders;
mod storage;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::Mutex;

use waypost_domain::plugin::Failure;
use waypost_domain::{Action, Actor, AuditEntry, PluginDigest, PluginUse};
use waypost_runtime::chain;
use waypost_runtime::fair_semaphore::{FairPermit, FairSemaphore};
use waypost_sandbox::{self as plugin, Host, Plugin, Problem, Refused};
use waypost_store::{self as store, Module, Store};

use storage::Need;
pub use storage::{GRACE, GRACE_WHEN_FULL, Room};

/// The most uploads under way at once, those that wait for the compiler included: each holds a module in memory.
pub const UPLOADS_MAX: usize = 8;
/// The most of one user's, those that wait for a place included.
pub const USER_UPLOADS_MAX: usize = 2;
/// The longest that an upload waits for a place.
const UPLOAD_WAIT_MAX: Duration = Duration::from_secs(10);

/// Why a module is not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not accepted.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The disk quota of all modules is used up.
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
    /// The user's disk quota is used up.
    #[error(
        "there is no room for {bytes} bytes more of yours: the modules that your subscriptions refer to or that you have \
         just uploaded may take {most} bytes with their machine code (the setting plugin_user_storage_bytes_max)"
    )]
    UserFull {
        /// What it takes.
        bytes: u64,
        /// What all of the user's may take.
        most: u64,
    },
    /// The user has as many modules as may be.
    #[error(
        "you have {most} modules that your subscriptions refer to or that you have just uploaded, as many as may be (the \
         setting user_modules_max)"
    )]
    UserTooMany {
        /// The most.
        most: u32,
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
    /// The user's disk quota is used up.
    #[error(
        "there is no room for this module's {bytes} bytes: those that your subscriptions refer to may take {most} bytes \
         with their machine code (the setting plugin_user_storage_bytes_max)"
    )]
    UserFull {
        /// What it takes.
        bytes: u64,
        /// What all of the user's may take.
        most: u64,
    },
    /// The user has as many modules as may be.
    #[error("your subscriptions refer to {most} modules, as many as may be (the setting user_modules_max)")]
    UserTooMany {
        /// The most.
        most: u32,
    },
    /// The plugin could not say whether its configuration is right.
    #[error("{}", .0.reason())]
    Failed(Failure),
    /// The store does not work now.
    #[error("failed to read the module")]
    Store(#[source] store::Error),
}

/// The turn of a user whose subscription comes to refer to a module: until it is written, the user's other subscriptions
/// wait.
pub struct Referring {
    _turn: FairPermit,
}

/// The uploaded modules.
pub struct Modules {
    store: Arc<Store>,
    host: Arc<Host>,
    /// Held from the check of the quota until the module is stored.
    storing: Mutex<()>,
    /// Each user has one configuration checked at once.
    checking: FairSemaphore,
    room: Room,
    uploading: FairSemaphore,
}

/// What an upload led to.
#[derive(Clone, Debug, PartialEq)]
pub enum UploadResult {
    /// A module that was not there.
    New(Module),
    /// One that was: it counts as uploaded now.
    Known(Module),
}

impl UploadResult {
    /// Returns the module.
    pub fn module(&self) -> &Module {
        match self {
            Self::New(module) | Self::Known(module) => module,
        }
    }
}

impl Modules {
    /// Makes the modules of a store, run by `host`.
    pub fn new(store: Arc<Store>, host: Arc<Host>, room: Room) -> Self {
        let storing = Mutex::new(());
        let (checking, uploading) =
            (FairSemaphore::new(usize::MAX, 1), FairSemaphore::new(UPLOADS_MAX, USER_UPLOADS_MAX));
        Self { store, host, storing, checking, room, uploading }
    }

    /// Returns where they run.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Begins an upload of a user; to be asked before a module is read into memory. Waits a little where many are under
    /// way.
    ///
    /// # Errors
    /// When too many are under way.
    pub async fn turn(&self, user: &str) -> Result<FairPermit, Error> {
        let taking = self.uploading.take_among(user, 1, USER_UPLOADS_MAX);
        let turn = tokio::time::timeout(UPLOAD_WAIT_MAX, taking).await;
        let turn = turn.map_err(|_| Error::Busy { most: UPLOADS_MAX })?;
        turn.ok_or(Error::TooMany { most: USER_UPLOADS_MAX })
    }

    /// Takes a module, and says what it is. Dropping the future may leave its machine code behind for [`GRACE`].
    ///
    /// # Errors
    /// When it is not accepted or cannot be kept.
    pub async fn upload(&self, wasm: Bytes, actor: &Actor, now: Timestamp) -> Result<UploadResult, Error> {
        let (by, hashed) = (actor.user.as_str(), wasm.clone());
        let hashing = tokio::task::spawn_blocking(move || PluginDigest::of(&hashed));
        let digest = hashing.await.expect("hashing does not panic");
        let bytes = wasm.len() as u64;
        if let Some(known) = self.module(digest).await.map_err(Error::Store)?
            && self.host.has(digest)
        {
            let _storing = self.storing.lock().await;
            let own = known.report.bytes + known.report.compiled_bytes;
            self.make_room(by, digest, Need { own, more: 0 }, now).await?;
            return self.again(known, wasm, actor, now).await;
        }
        // The quota is checked before compiling, for the wasm alone, and again after compiling, with the machine code.
        self.make_room(by, digest, Need { own: bytes, more: bytes }, now).await?;
        let report = self.host.admit(by, wasm.clone()).await?;
        let _storing = self.storing.lock().await;
        if let Some(known) = self.module(digest).await.map_err(Error::Store)? {
            return self.again(Module { report, ..known }, wasm, actor, now).await;
        }
        let need = Need { own: bytes + report.compiled_bytes, more: bytes };
        if let Err(full) = self.make_room(by, digest, need, now).await {
            self.host.discard(digest).await.map_err(Error::Folder)?;
            return Err(full);
        }
        let module = Module::new(report, by, now);
        self.put(module.clone(), wasm, actor).await?;
        Ok(UploadResult::New(module))
    }

    /// Stores a known module again, with its new upload time.
    async fn again(
        &self,
        known: Module,
        wasm: Bytes,
        by: &Actor,
        now: Timestamp,
    ) -> Result<UploadResult, Error> {
        let module = holders::uploaded_again(known, &by.user, now);
        self.put(module.clone(), wasm, by).await?;
        Ok(UploadResult::Known(module))
    }

    async fn put(&self, module: Module, wasm: Bytes, by: &Actor) -> Result<(), Error> {
        let note = AuditEntry::new(Action::ModuleUpload, module.report.digest, by, module.uploaded);
        self.store.put_module(module, wasm, Some(note)).await.map_err(Error::Store)
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
                Err(error) => Err(plugin::Error::Bytes { reason: chain::text(&error) }.into()),
            }
        };
        self.host.load(digest, wasm).await.map_err(|refused| match &*refused {
            Refused::Host(error) => Failure::Host(chain::text(error)),
            Refused::TooExpensive(_) | Refused::SchemaTooExpensive(_) | Refused::TriedLately { .. } => {
                Failure::Limit(refused.to_string())
            }
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

    /// Checks the plugin that a user's subscription asks for. Hold the result until the subscription is written. The module
    /// may be removed meanwhile: the store refuses the subscription then.
    ///
    /// # Errors
    /// When there is no such module, its configuration is wrong, or it is more than the user may have.
    pub async fn refer(&self, user: &str, wanted: &PluginUse) -> Result<Referring, Wrong> {
        let turn = self.checking.take(user, 1).await;
        self.check_in_turn(user, wanted).await?;
        let module = self.module(wanted.digest).await.map_err(Wrong::Store)?;
        self.afford(user, &module.ok_or(Wrong::Unknown(wanted.digest))?).await?;
        Ok(Referring { _turn: turn })
    }

    /// Checks what a user's subscription wants of a plugin.
    ///
    /// # Errors
    /// When there is no such module, or its configuration is wrong.
    pub async fn check(&self, user: &str, wanted: &PluginUse) -> Result<(), Wrong> {
        let _turn = self.checking.take(user, 1).await;
        self.check_in_turn(user, wanted).await
    }

    async fn check_in_turn(&self, user: &str, wanted: &PluginUse) -> Result<(), Wrong> {
        let module = self.module(wanted.digest).await.map_err(Wrong::Store)?;
        let module = module.ok_or(Wrong::Unknown(wanted.digest))?;
        let plugin = self.plugin(wanted.digest).await.map_err(Wrong::Failed)?;
        let manifest = module.report.manifest.as_ref();
        let problems = self.host.check_config(user, &plugin, manifest, &wanted.config).await;
        let problems = problems.map_err(Wrong::Failed)?;
        if problems.is_empty() { Ok(()) } else { Err(Wrong::Config(problems)) }
    }
}
