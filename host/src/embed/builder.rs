//! How a router is set up.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::Waypost;
#[cfg(feature = "handlers")]
use super::handlers::Handlers;
use super::policy::{self, Policy};
use crate::config::{Config, KEYS};
use crate::service::{self, Service};
use waypost_engine::policy::ProgramPolicy;
use waypost_handlers::Definition;

/// Sets up a [`Waypost`].
#[must_use = "a router runs once it is opened"]
pub struct Builder {
    /// `None` for a router in memory.
    folder: Option<PathBuf>,
    user: String,
    settings: Vec<(String, String)>,
    served_at: Option<SocketAddr>,
    policy: Option<Arc<dyn ProgramPolicy>>,
    handlers: Vec<Definition>,
}

/// Why a router cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no such setting.
    #[error("there is no setting `{0}`: `waypost serve --help` lists them")]
    UnknownSetting(String),
    /// A setting's value cannot be read.
    #[error("the setting `{key}` is `{value}`: {reason}")]
    Setting {
        /// The setting.
        key: String,
        /// The value.
        value: String,
        /// What it takes.
        reason: String,
    },
    /// The temporary folder cannot be made.
    #[error("failed to make a temporary folder")]
    Folder(#[source] std::io::Error),
    /// It cannot start: the folder is in use, a setting is out of its range, a file cannot be read, and the like.
    #[error("failed to start")]
    Start(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Builder {
    pub(super) fn in_folder(folder: PathBuf) -> Self {
        Self {
            folder: Some(folder),
            user: "program".to_owned(),
            settings: Vec::new(),
            served_at: None,
            policy: None,
            handlers: Vec::new(),
        }
    }

    pub(super) fn in_memory() -> Self {
        Self { folder: None, ..Self::in_folder(PathBuf::new()) }
    }

    /// Sets the user that the router speaks for. Default `program`.
    pub fn user(mut self, name: impl Into<String>) -> Self {
        self.user = name.into();
        self
    }

    /// Sets one of the settings that the binary has, by its key, in the form that a configuration file has:
    /// `.setting("retry_schedule", "1s,10s,1m")`. `host/docs/configuration.md` lists them. A later one replaces an earlier.
    pub fn setting(mut self, key: impl Into<String>, value: impl ToString) -> Self {
        self.settings.push((key.into(), value.to_string()));
        self
    }

    /// Says where the program serves [`Waypost::http`], so that no subscription's target and no plugin leads there.
    /// [`Waypost::serve`] knows it by itself.
    pub fn served_at(mut self, address: SocketAddr) -> Self {
        self.served_at = Some(address);
        self
    }

    /// Sets who may see which event. Without it, every user may see every event.
    pub fn policy(mut self, policy: impl Policy) -> Self {
        self.policy = Some(policy::of(policy));
        self
    }

    /// Sets the handlers: programs or closures that run on events' data files.
    #[cfg(feature = "handlers")]
    pub fn handlers(mut self, handlers: Handlers) -> Self {
        self.handlers = handlers.into_definitions();
        self
    }

    /// Opens the router. From then on it delivers what is pending.
    ///
    /// # Errors
    /// When a setting is not right, or the folder cannot be used.
    pub async fn open(self) -> Result<Waypost, OpenError> {
        let mut config = Config { handlers: self.handlers, ..Config::default() };
        for (key, value) in self.settings {
            let Some(known) = KEYS.iter().find(|known| known.name == key) else {
                return Err(OpenError::UnknownSetting(key));
            };
            if let Err(reason) = (known.set)(&mut config, &value) {
                return Err(OpenError::Setting { key, value, reason });
            }
        }
        let folder = match self.folder {
            Some(folder) => {
                config.data = folder;
                None
            }
            None => Some(tempfile::tempdir().map_err(OpenError::Folder)?),
        };
        let kept = match &folder {
            Some(folder) => {
                config.data = folder.path().to_owned();
                service::Kept::InMemory
            }
            None => service::Kept::OnDisk,
        };
        let parts = service::Parts { served_at: self.served_at, policy: self.policy, kept };
        let service = Service::open_with(config, parts).await?;
        Ok(Waypost::new(service, self.user, folder))
    }
}
