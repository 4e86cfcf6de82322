//! What a plugin answers.

use serde::Serialize;

use crate::error::Result;
use crate::event::{Event, Payload};

/// Does the subscription want the event?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Deliver,
    /// It does not; the reason is shown in the event's story.
    Skip(String),
}

/// Returns [`Verdict::Deliver`].
///
/// # Errors
/// Never: it is a `Result` so that it can be the last word of [`Filter::evaluate`](crate::Filter::evaluate).
pub fn deliver() -> Result<Verdict> {
    Ok(Verdict::Deliver)
}

/// Returns [`Verdict::Skip`].
///
/// # Errors
/// Never: see [`deliver`].
pub fn skip(reason: impl Into<String>) -> Result<Verdict> {
    Ok(Verdict::Skip(reason.into()))
}

/// May the user see the event?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Allow,
    /// No; the reason is shown in the event's story.
    Deny(String),
}

/// Returns [`Decision::Allow`].
///
/// # Errors
/// Never: see [`deliver`].
pub fn allow() -> Result<Decision> {
    Ok(Decision::Allow)
}

/// Returns [`Decision::Deny`].
///
/// # Errors
/// Never: see [`deliver`].
pub fn deny(reason: impl Into<String>) -> Result<Decision> {
    Ok(Decision::Deny(reason.into()))
}

/// Something to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// An event, encoded as the subscription wants it.
    Event(Event),
    /// Exactly this body.
    Raw(Raw),
}

/// A body that is sent as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    /// Its `Content-Type`.
    pub content_type: String,
    /// Further headers: those of the host's list (`accept`, `idempotency-key`, `x-api-key`, `x-plugin-*`, …), to which its
    /// operator may add. None says who is asking; another one fails the call, by its name.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Payload,
}

impl Output {
    /// Returns an event to send.
    pub fn event(event: Event) -> Self {
        Self::Event(event)
    }

    /// Returns a body of any content type.
    pub fn raw(content_type: impl Into<String>, body: Payload) -> Self {
        Self::Raw(Raw { content_type: content_type.into(), headers: Vec::new(), body })
    }

    /// Returns a value as a body of `application/json`.
    ///
    /// # Errors
    /// When the value has no form in JSON.
    pub fn json(value: &(impl Serialize + ?Sized)) -> Result<Self> {
        Ok(Self::raw("application/json", Payload::json(value)?))
    }

    /// Adds a header to a raw body; an event has extension attributes instead, and stays as it is.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        if let Self::Raw(raw) = &mut self {
            raw.headers.push((name.into(), value.into()));
        }
        self
    }
}
