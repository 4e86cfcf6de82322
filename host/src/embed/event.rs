//! Events that a program makes.

use serde_json::{Map, Value};
use uuid::Uuid;

use waypost_domain::Event;
use waypost_engine::intake;
use waypost_runtime::{chain, clock};

/// A CloudEvent 1.0 to publish. It gets an id and the time of its making, unless you set others.
#[derive(Clone, Debug)]
#[must_use = "an event is sent once it is published"]
pub struct NewEvent(Map<String, Value>);

/// Why events were not published. Nothing of them is kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// One is not a valid CloudEvent.
    #[error("{0}")]
    Invalid(String),
    /// One is larger than events may be.
    #[error("an event has {bytes} bytes, and the most are {most} (the setting event_bytes_max)")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// The most.
        most: usize,
    },
    /// They cannot be taken now: the disk is full, or too much waits. Try again later.
    #[error("{0}")]
    Unavailable(String),
}

impl NewEvent {
    /// Makes an event of this type, from this source (a URI reference).
    pub fn new(ty: &str, source: &str) -> Self {
        let members = [
            ("specversion", "1.0".to_owned()),
            ("id", Uuid::now_v7().to_string()),
            ("type", ty.to_owned()),
            ("source", source.to_owned()),
            ("time", clock::text(clock::now())),
        ];
        Self(members.map(|(name, value)| (name.to_owned(), value.into())).into_iter().collect())
    }

    /// Sets its id, which with the source is unique: a repeat within `dedup_window` is the same event.
    pub fn id(self, id: &str) -> Self {
        self.attribute("id", id)
    }

    /// Sets what it is about, within its source.
    pub fn subject(self, subject: &str) -> Self {
        self.attribute("subject", subject)
    }

    /// Sets an attribute, or an extension attribute.
    pub fn attribute(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// Sets its data, which filters look into.
    pub fn data(self, data: impl Into<Value>) -> Self {
        self.attribute("data", data)
    }
}

impl TryFrom<NewEvent> for Event {
    type Error = PublishError;

    fn try_from(event: NewEvent) -> Result<Self, PublishError> {
        let event = Self::from_json(Value::Object(event.0).to_string());
        event.map_err(|error| PublishError::Invalid(chain::text(&error)))
    }
}

/// An [`Event`] is one already.
impl From<std::convert::Infallible> for PublishError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl PublishError {
    /// Returns why the intake did not take events.
    pub(super) fn refused(error: intake::Error) -> Self {
        match error {
            intake::Error::Match { .. } | intake::Error::Reserved { .. } | intake::Error::Sender => {
                Self::Invalid(chain::text(&error))
            }
            intake::Error::TooMuch { .. }
            | intake::Error::Busy { .. }
            | intake::Error::Behind { .. }
            | intake::Error::Full { .. }
            | intake::Error::Log { .. } => Self::Unavailable(chain::text(&error)),
        }
    }
}

/// Checks what `/receive` checks of a body.
pub(super) fn check(events: &[Event], most: usize) -> Result<(), PublishError> {
    match events.iter().map(Event::size).find(|bytes| *bytes > most) {
        Some(bytes) => Err(PublishError::TooLarge { bytes, most }),
        None => Ok(()),
    }
}
