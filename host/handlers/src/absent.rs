//! Handlers of a program that was built without them: none can be configured, and no run starts.

use std::time::Duration;

use jiff::Timestamp;

use super::definition::Definition;
use super::dispatch::DispatchError;
use super::error::Error;
use super::meter::Progress;
use waypost_domain::{EventId, HandlerName, Holder, RecipientId};

/// The handler stage, which has nothing to do.
pub struct Runs(());

impl Runs {
    /// Refuses handlers.
    ///
    /// # Errors
    /// When there is one.
    pub fn start(definitions: &[Definition]) -> Result<Self, Error> {
        match definitions.first() {
            None => Ok(Self(())),
            Some(handler) => Err(Error::Absent(handler.name.clone())),
        }
    }

    /// Starts nothing.
    ///
    /// # Errors
    /// Always: there is no such handler.
    pub async fn dispatch(&self, name: &str, _: Vec<String>, _: &str) -> Result<EventId, DispatchError> {
        Err(DispatchError::Unknown(name.to_owned()))
    }

    /// Returns the handlers: none.
    pub fn handlers(&self) -> impl Iterator<Item = &Definition> {
        std::iter::empty()
    }

    /// Returns the name of a handler, of which there is none.
    pub fn name(&self, _: RecipientId) -> Option<&HandlerName> {
        None
    }

    /// Returns the progress of a run, of which there is none.
    pub fn progress(&self, _: EventId, _: RecipientId) -> Option<Progress> {
        None
    }

    /// Returns what runs are held by: nothing.
    pub fn hold(&self, _: RecipientId) -> Option<(Holder, Timestamp)> {
        None
    }

    /// Has nothing to wait for.
    pub async fn stop(&self, _: Duration) {}
}
