//! A CloudEvent of any version, kept as it was received.
//!
//! Other forms are derived on demand: [`Event::json`] for filters and policy, [`encode()`] for a target. The received
//! bytes never change, so that a number keeps its text (`1.10`, `1e5`) from producer to target.

mod attribute;
mod canonical;
mod check;
mod decode;
mod encode;
mod error;
mod json;
mod names;
mod percent;
mod raw;
mod strict;
#[cfg(test)]
mod tests;
mod time;
mod view;

use std::fmt;

use bytes::Bytes;

pub use canonical::{Canonical, Payload};
pub use decode::{EventBody, decode};
pub use encode::{ContentMode, EventFormat, Form, Outgoing, StructuredType, encode};
pub use error::{BATCH_ERRORS_MAX, DecodeError, DecodeErrorKind};
pub use json::Attributes;

/// The CloudEvents version that an event declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpecVersion {
    /// 0.1, with `cloudEventsVersion` and camelCase attributes: what Pacifica's services send.
    V0_1,
    /// 0.2.
    V0_2,
    /// 0.3.
    V0_3,
    /// 1.0 (and 1.0.x, which do not change the attribute's text).
    V1_0,
}

impl SpecVersion {
    /// Returns the text of `specversion` (or `cloudEventsVersion`).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_1 => "0.1",
            Self::V0_2 => "0.2",
            Self::V0_3 => "0.3",
            Self::V1_0 => "1.0",
        }
    }
}

impl fmt::Display for SpecVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An event's bytes as they were received over HTTP (CloudEvents HTTP protocol binding).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Attributes and data in one JSON object. A batch is split into these.
    Structured {
        /// The request's `Content-Type`, where there was one; a batch's members get `application/cloudevents+json`.
        content_type: Option<String>,
        /// The JSON object.
        body: Bytes,
    },
    /// Attributes in `ce-` headers, data in the body.
    Binary {
        /// Attribute names in lower case without `ce-`, decoded values, in the order received.
        attributes: Vec<(String, String)>,
        /// The request's `Content-Type`, which is the event's `datacontenttype`.
        content_type: Option<String>,
        /// The body, untouched.
        data: Bytes,
    },
}

/// A valid CloudEvent: its wire form and the attributes that every version requires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    spec_version: SpecVersion,
    id: String,
    source: String,
    ty: String,
    wire: Wire,
}

impl Event {
    /// Decodes one structured event of any version from its JSON.
    ///
    /// # Errors
    /// When the JSON is no event; the error tells its author what is wrong.
    pub fn from_json(json: impl Into<Bytes>) -> Result<Self, DecodeError> {
        decode::one(Some("application/cloudevents+json"), json.into())
    }

    /// Rebuilds an event that [`decode()`] made before, without checking it again: the store uses it for its rows.
    pub fn from_parts(spec_version: SpecVersion, id: String, source: String, ty: String, wire: Wire) -> Self {
        Self { spec_version, id, source, ty, wire }
    }

    /// Returns the version that the event declares.
    pub fn spec_version(&self) -> SpecVersion {
        self.spec_version
    }

    /// Returns the producer's id (`eventID` in 0.1).
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the source, a URI reference.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Returns the type (`eventType` in 0.1).
    pub fn ty(&self) -> &str {
        &self.ty
    }

    /// Returns the event as it was received.
    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Returns how many bytes of wire form the event holds.
    pub fn size(&self) -> usize {
        match &self.wire {
            Wire::Structured { body, .. } => body.len(),
            Wire::Binary { attributes, data, .. } => {
                data.len() + attributes.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
            }
        }
    }
}
