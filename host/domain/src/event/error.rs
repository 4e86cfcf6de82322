//! Why a request is no CloudEvent, in words for its producer.

/// The most members of a batch that an error lists.
pub const BATCH_ERRORS_MAX: usize = 100;

/// The kind of a mistake; `waypost::http` derives the status from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeErrorKind {
    /// The content type stands for no form that Waypost reads.
    UnsupportedMediaType,
    /// The body or a header cannot be parsed: JSON, UTF-8, quotes.
    Malformed,
    /// It can be parsed, but an attribute is missing or wrong.
    Invalid,
}

/// A request that holds no valid event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    /// The kind of the mistake.
    pub kind: DecodeErrorKind,
    /// The JSON pointer of the member that is wrong; a header is named in the message alone.
    pub pointer: Option<String>,
    /// What is wrong, and what to do.
    pub message: String,
    /// For a batch: pointer and message of its bad members, the first [`BATCH_ERRORS_MAX`] of them.
    pub members: Vec<(String, String)>,
}

impl DecodeError {
    pub(super) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(DecodeErrorKind::UnsupportedMediaType, None, message)
    }

    pub(super) fn malformed(message: impl Into<String>) -> Self {
        Self::new(DecodeErrorKind::Malformed, None, message)
    }

    pub(super) fn invalid(pointer: Option<String>, message: impl Into<String>) -> Self {
        Self::new(DecodeErrorKind::Invalid, pointer, message)
    }

    fn new(kind: DecodeErrorKind, pointer: Option<String>, message: impl Into<String>) -> Self {
        Self { kind, pointer, message: message.into(), members: Vec::new() }
    }

    /// Joins the errors of a batch of `size` members; `errors` are by index, and not empty.
    pub(super) fn batch(size: usize, errors: Vec<(usize, Self)>) -> Self {
        let bad = errors.len();
        let members: Vec<_> = errors
            .into_iter()
            .take(BATCH_ERRORS_MAX)
            .map(|(i, error)| (format!("/{i}{}", error.pointer.unwrap_or_default()), error.message))
            .collect();
        let first =
            members.first().map(|(pointer, message)| (pointer.clone(), format!("at {pointer}: {message}")));
        let (pointer, first) = first.unwrap_or_default();
        let message =
            format!("{bad} of {size} events in the batch are not valid, so none was taken; {first}");
        Self { members, ..Self::invalid(Some(pointer), message) }
    }
}
