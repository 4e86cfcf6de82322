//! Error responses. Only this module chooses status codes for errors.
//!
//! The body has Pacifica's fields (`status`, `message`) and problem+json's (`type`, `title`, `detail`), with a JSON
//! pointer where one field is wrong. The cause goes to the log and never to the client.

use std::borrow::Cow;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use waypost_api::v1;

use crate::identity::Refusal;
use waypost_domain::event::{DecodeError, DecodeErrorKind};
use waypost_engine::directory;
use waypost_engine::intake;
use waypost_engine::modules;
use waypost_matching::FilterError;
use waypost_runtime::chain;
use waypost_sandbox as plugin;
use waypost_sandbox::{Problem, Refused};
use waypost_store as store;
use waypost_store::Counted;

/// An error response.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    detail: String,
    pointer: Option<String>,
    errors: Vec<Part>,
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

/// What kind of error one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The request is wrong.
    Invalid,
    /// There is no such thing for this user.
    NotFound,
    /// Something else is under way, or there is too much already.
    Conflict,
    /// It cannot be done now.
    Unavailable,
}

/// One of several errors.
#[derive(Clone, Debug)]
struct Part {
    pointer: String,
    detail: String,
}

impl ApiError {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), pointer: None, errors: Vec::new(), header: None }
    }

    /// Returns what is wrong.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// Returns what kind of error it is, for callers that are not clients of HTTP.
    pub(crate) fn kind(&self) -> Kind {
        match self.status {
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => Kind::NotFound,
            StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS => Kind::Conflict,
            status if status.is_server_error() => Kind::Unavailable,
            _ => Kind::Invalid,
        }
    }

    /// Returns the pointer to the wrong field.
    pub(crate) fn pointer(&self) -> Option<&str> {
        self.pointer.as_deref()
    }

    /// Adds a header.
    pub(super) fn with(self, name: HeaderName, value: HeaderValue) -> Self {
        Self { header: Some(Box::new((name, value))), ..self }
    }

    /// A temporary failure, after which a retry may succeed.
    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// A request that the path does not accept.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// A field that is wrong; `pointer` is its JSON pointer.
    pub(super) fn field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: Some(pointer.into()), ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail) }
    }

    /// A request that is understood, and cannot be done as it is.
    pub(super) fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    /// The request has no valid identity.
    pub(super) fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
    }

    /// Something that this user may not do or see.
    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// Unknown, or not this user's.
    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// A request that conflicts with the current state.
    pub(super) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// A body whose type, or coding, is not accepted.
    pub(super) fn unsupported(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
    }

    /// A change of another version than the request names.
    pub(super) fn changed_since(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, detail)
    }

    /// A method that the path does not have.
    pub(super) fn no_method(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, detail)
    }

    /// A request for another host.
    pub(super) fn misdirected(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::MISDIRECTED_REQUEST, detail)
    }

    /// A request that comes too fast.
    pub(super) fn too_fast(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, detail)
    }

    /// Something of ours that cannot be read.
    pub(super) fn damaged(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    /// A request that hyper could not read, with the status that it has chosen.
    pub(super) fn unreadable(status: StatusCode, is_tls: bool) -> Self {
        let detail = match status {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                "the request has more than 100 headers, or they are larger than 400 KiB"
            }
            StatusCode::URI_TOO_LONG => "the URL of the request is too long",
            _ if is_tls => "this is TLS, and Waypost speaks plain HTTP: use `http://`",
            _ => {
                "the request line or a header is not valid HTTP: in a URL, spaces, characters beyond ASCII, `<`, `>`, \
                 `\"` and the like must be percent-encoded (`%20`)"
            }
        };
        Self::new(status, detail)
    }

    pub(super) fn too_large(what: &str, limit: usize, key: &str) -> Self {
        let detail = format!("{what} is larger than {limit} bytes (the setting {key})");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    pub(super) fn too_slow(milliseconds: u128) -> Self {
        let detail =
            format!("the body did not arrive within {milliseconds} ms (the setting body_timeout_ms)");
        Self::new(StatusCode::REQUEST_TIMEOUT, detail)
    }
}

/// When to try again where the data folder is full.
const FULL_RETRY_SECONDS: &str = "60";

/// The longest detail and the longest pointer of a response, in bytes. They repeat names from the request,
/// which may be as long as its body.
const TEXT_BYTES_MAX: usize = 4 * 1024;

/// Cuts a text that is too long, and says so.
fn bounded(text: &str) -> Cow<'_, str> {
    let bytes = text.len();
    match bytes > TEXT_BYTES_MAX {
        false => Cow::Borrowed(text),
        true => {
            let kept = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
            Cow::Owned(format!("{kept}… (cut: it has {bytes} bytes)"))
        }
    }
}

impl ApiError {
    /// Returns the body.
    pub(super) fn body(&self) -> v1::Problem {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let detail = bounded(&self.detail).into_owned();
        let part = |part: &Part| v1::ProblemPart {
            pointer: bounded(&part.pointer).into_owned(),
            detail: bounded(&part.detail).into_owned(),
        };
        v1::Problem {
            status: format!("{} {title}", self.status.as_u16()),
            message: detail.clone(),
            kind: "about:blank".to_owned(),
            title: title.to_owned(),
            detail,
            pointer: self.pointer.as_deref().map(|pointer| bounded(pointer).into_owned()),
            errors: self.errors.iter().map(part).collect(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Some(header) = self.header {
            response.headers_mut().insert(header.0, header.1);
        }
        response
    }
}

impl From<DecodeError> for ApiError {
    fn from(error: DecodeError) -> Self {
        let status = match error.kind {
            DecodeErrorKind::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            DecodeErrorKind::Malformed => StatusCode::BAD_REQUEST,
            DecodeErrorKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        };
        let errors = error.members.into_iter().map(|(pointer, detail)| Part { pointer, detail }).collect();
        Self { pointer: error.pointer, errors, ..Self::new(status, error.message) }
    }
}

impl From<FilterError> for ApiError {
    /// Names the column, what was expected there, and what the author probably meant.
    fn from(error: FilterError) -> Self {
        Self::field("/jsonpath", format!("`jsonpath` does not parse: {error}"))
    }
}

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> Self {
        match &error {
            store::Error::Unavailable { .. }
            | store::Error::Uncertain
            | store::Error::TooLarge { .. }
            | store::Error::Busy { .. }
            | store::Error::Damaged { .. } => {
                tracing::error!(error = chain::text(&error), "the store failed");
            }
            // A user's limit and a shutdown are not failures of the store.
            store::Error::Quota { .. }
            | store::Error::TooMany { .. }
            | store::Error::TooManyTokens { .. }
            | store::Error::Closed => {}
        }
        match error {
            store::Error::Unavailable { .. } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the store cannot write now (is the disk full?); nothing of this request was stored: try again",
            ),
            store::Error::Uncertain => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the journal has not answered: this request may have been accepted, or may still be accepted",
            ),
            store::Error::TooLarge { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
            store::Error::Busy { .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, format!("{error}: try again"))
            }
            store::Error::Quota { .. }
            | store::Error::TooManyTokens { .. }
            | store::Error::TooMany { counted: Counted::Subscriptions, .. } => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, error.to_string())
            }
            // A recovery that ends makes room for another.
            store::Error::TooMany { counted: Counted::Recoveries, .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, error.to_string())
            }
            store::Error::Closed => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "the service is stopping: try again")
            }
            store::Error::Damaged { .. } => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "a record of the store is damaged; the service's log says which",
            ),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let status = match &refusal {
            Refusal::Twice(_) | Refusal::NotText(_) | Refusal::Name(_) => StatusCode::BAD_REQUEST,
            Refusal::Scope { .. } | Refusal::NoAdmin { .. } => StatusCode::FORBIDDEN,
            Refusal::Marked
            | Refusal::Untrusted { .. }
            | Refusal::Unknown { .. }
            | Refusal::Expired { .. }
            | Refusal::Credentials
            | Refusal::NoBrowser
            | Refusal::TokenNeeded
            | Refusal::Signature(_) => StatusCode::UNAUTHORIZED,
        };
        let error = Self::new(status, refusal.to_string());
        match status {
            // RFC 9110 §11.6.1.
            StatusCode::UNAUTHORIZED => {
                error.with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"waypost\""))
            }
            _ => error,
        }
    }
}

impl From<directory::Error> for ApiError {
    fn from(error: directory::Error) -> Self {
        match error {
            directory::Error::Filter(error) => error.into(),
            directory::Error::Store(error) => error.into(),
            directory::Error::NoModule(_) => Self::field("/plugin/digest", error.to_string()),
            directory::Error::Exists(_) => Self::conflict(error.to_string()),
        }
    }
}

impl From<modules::Error> for ApiError {
    fn from(error: modules::Error) -> Self {
        match error {
            modules::Error::Refused(refused) => refused.into(),
            modules::Error::Full { .. }
            | modules::Error::UserFull { .. }
            | modules::Error::UserTooMany { .. } => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, error.to_string())
            }
            modules::Error::TooMany { .. } => Self::new(StatusCode::TOO_MANY_REQUESTS, error.to_string()),
            modules::Error::Busy { .. } => Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            modules::Error::Folder(error) => Refused::Host(error).into(),
            modules::Error::Store(error) => error.into(),
        }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::TooLarge { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, refused.to_string()),
            Refused::NotAComponent(_) => Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, refused.to_string()),
            Refused::Precompiled
            | Refused::DoesNotLoad(_)
            | Refused::DoesNotStart(_)
            | Refused::Invalid(_)
            | Refused::TooExpensive(_)
            | Refused::SchemaTooExpensive(_)
            | Refused::TriedLately { .. }
            | Refused::DoesNotFit { .. }
            | Refused::Metadata(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, refused.to_string()),
            Refused::Host(error) => {
                tracing::error!(error = chain::text(&error), "failed to accept a module");
                let status = match error {
                    plugin::Error::Folder { .. } => StatusCode::SERVICE_UNAVAILABLE,
                    plugin::Error::Absent => StatusCode::NOT_IMPLEMENTED,
                    plugin::Error::Engine { .. }
                    | plugin::Error::Threads(_)
                    | plugin::Error::NoCompiler
                    | plugin::Error::Bytes { .. }
                    | plugin::Error::Compiler { .. } => StatusCode::INTERNAL_SERVER_ERROR,
                };
                Self::new(status, error.to_string())
            }
        }
    }
}

impl From<modules::Wrong> for ApiError {
    fn from(wrong: modules::Wrong) -> Self {
        let detail = wrong.to_string();
        match wrong {
            modules::Wrong::Unknown(_) => Self::field("/plugin/digest", detail),
            modules::Wrong::Config(problems) => {
                let part = |problem: Problem| Part {
                    pointer: format!("/plugin/config{}", problem.at),
                    detail: problem.message,
                };
                let errors: Vec<_> = problems.into_iter().map(part).collect();
                let first = errors.first().map(|first| (first.pointer.clone(), first.detail.clone()));
                let (pointer, detail) = first.unwrap_or_else(|| ("/plugin/config".to_owned(), detail));
                Self { errors, ..Self::field(pointer, format!("`plugin.config` is wrong: {detail}")) }
            }
            modules::Wrong::UserFull { .. } | modules::Wrong::UserTooMany { .. } => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, detail)
            }
            modules::Wrong::Failed(_) => Self::field("/plugin", detail),
            modules::Wrong::Store(error) => error.into(),
        }
    }
}

impl From<intake::Error> for ApiError {
    fn from(error: intake::Error) -> Self {
        match error {
            intake::Error::Match { index, ref source } => {
                let detail = format!("event {index} of the request: {}", chain::text(source));
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
            }
            intake::Error::Reserved { .. } => Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
            intake::Error::Sender => Self::bad_request(error.to_string()),
            intake::Error::TooMuch { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
            intake::Error::Busy { .. } | intake::Error::Behind { .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
            }
            intake::Error::Full { .. } => {
                let wait = HeaderValue::from_static(FULL_RETRY_SECONDS);
                Self::new(StatusCode::INSUFFICIENT_STORAGE, error.to_string()).with(header::RETRY_AFTER, wait)
            }
            intake::Error::Log { source } => source.into(),
        }
    }
}

/// Answers requests to unknown paths.
pub(super) async fn unknown_path(uri: Uri) -> ApiError {
    ApiError::not_found(format!("there is nothing at {}", uri.path()))
}

/// Answers requests with a method that the path does not have; axum adds `Allow`.
pub(super) async fn unknown_method(method: Method, uri: Uri) -> ApiError {
    ApiError::no_method(format!("{} has no method {method}", uri.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_is_behind_says_when_to_retry_and_names_the_setting() {
        let error = ApiError::from(intake::Error::Behind { max: 7 });
        assert!(error.detail.contains("backlog_max"), "{}", error.detail);
        let response = error.into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }

    /// A member with a name of one megabyte was repeated three times in the response.
    #[tokio::test]
    async fn what_an_error_repeats_is_bounded() {
        let response = ApiError::field("p".repeat(1 << 20), "ü".repeat(1 << 20)).into_response();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        assert!(body.len() < 4 * TEXT_BYTES_MAX, "{} bytes", body.len());
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert!(body["detail"].as_str().unwrap().ends_with("ü… (cut: it has 2097152 bytes)"), "{body}");
        assert_eq!(bounded("short"), "short");
    }
}
