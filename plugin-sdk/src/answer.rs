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
/// Never. It returns a `Result` so that it can end [`Filter::evaluate`](crate::Filter::evaluate).
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

/// A body that is sent unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    /// Its `Content-Type`.
    pub content_type: String,
    /// Further headers. Only those on the host's list are allowed (`accept`, `idempotency-key`, `x-api-key`, `x-plugin-*`,
    /// …), which the operator may extend; any other fails the call with an error that names it. None of them identifies
    /// the sender.
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
    /// When the value cannot be written as JSON.
    pub fn json(value: &(impl Serialize + ?Sized)) -> Result<Self> {
        Ok(Self::raw("application/json", Payload::json(value)?))
    }

    /// Adds a header to a raw body. An event stays unchanged: it has extension attributes instead.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        if let Self::Raw(raw) = &mut self {
            raw.headers.push((name.into(), value.into()));
        }
        self
    }
}
