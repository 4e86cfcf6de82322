//! What a plugin may be: any subset of these, named in [`export!`](crate::export).

use serde::de::DeserializeOwned;

use crate::answer::{Decision, Output, Verdict};
use crate::context::Context;
use crate::error::Result;
use crate::event::Event;

/// Does this subscription want this event?
pub trait Filter {
    /// Says whether the event is delivered.
    ///
    /// # Errors
    /// As [`Error`](crate::Error) says.
    fn evaluate(event: &Event, context: &Context) -> Result<Verdict>;
}

/// May this user see this event? Asked before [`Filter`] and [`Transform`].
pub trait Policy {
    /// Says whether the event may go to this target, for the user of the context.
    ///
    /// # Errors
    /// As [`Error`](crate::Error) says. After any of them the event is not sent, since the policy has not allowed it.
    fn decide(event: &Event, target: &str, context: &Context) -> Result<Decision>;
}

/// Replaces what is sent.
pub trait Transform {
    /// Returns what is sent: nothing (the event is skipped), or up to 64 outputs, each of which is sent by itself.
    ///
    /// # Errors
    /// As [`Error`](crate::Error) says.
    fn apply(event: Event, context: &Context) -> Result<Vec<Output>>;
}

/// What the plugin is, and how it is configured: the interface `metadata`.
pub trait Describe {
    /// Describes the plugin. Called when it is uploaded, without a configuration or state.
    fn describe() -> Manifest;

    /// Checks a configuration that the manifest's schema accepts, when a subscription is created or changed.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    fn check_config(config: &str) -> Result<(), Vec<Problem>> {
        let _ = config;
        Ok(())
    }
}

/// What a plugin says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it does, in a sentence.
    pub description: String,
    /// The JSON Schema (2020-12) of its configuration.
    pub config_schema: Option<String>,
    /// The hosts that it would like to call: only a request, shown beside the subscription's `allow_hosts`.
    pub wanted_hosts: Vec<String>,
}

impl Manifest {
    /// Adds the JSON Schema of the configuration: `include_str!("../config.schema.json")`.
    #[must_use]
    pub fn with_config_schema(mut self, schema: impl Into<String>) -> Self {
        self.config_schema = Some(schema.into());
        self
    }

    /// Adds a host that the plugin would like to call.
    #[must_use]
    pub fn with_wanted_host(mut self, host: impl Into<String>) -> Self {
        self.wanted_hosts.push(host.into());
        self
    }
}

/// Makes a [`Manifest`](crate::Manifest) from the name, version and description in the plugin's `Cargo.toml`.
#[macro_export]
macro_rules! manifest {
    () => {
        $crate::Manifest {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            description: env!("CARGO_PKG_DESCRIPTION").to_owned(),
            ..Default::default()
        }
    };
}

/// What is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// A JSON pointer into it: `/projects/1`, or nothing for the whole.
    pub at: String,
    /// What is wrong there.
    pub message: String,
}

impl Problem {
    /// Returns a problem at a JSON pointer.
    pub fn new(at: impl Into<String>, message: impl Into<String>) -> Self {
        Self { at: at.into(), message: message.into() }
    }

    /// Reads a configuration, for [`Describe::check_config`].
    ///
    /// # Errors
    /// The one problem that serde found.
    pub fn or_config<T: DeserializeOwned>(config: &str) -> Result<T, Vec<Self>> {
        serde_json::from_str(config).map_err(|error| vec![Self::new("", error.to_string())])
    }
}
