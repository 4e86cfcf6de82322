//! Versions of subscriptions in requests and responses: `ETag`, `If-Match`, `If-None-Match` (RFC 9110 §8.8.3, §13.1).
//!
//! The version is the position of the write that made it, which differs for each change, one that nothing shows included.
//! What a response shows besides, such as the state of a breaker, is in its tag, too; a change need not name it.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use utoipa::IntoParams;

use super::Api;
use super::error::ApiError;
use waypost_store::Position;

/// Which versions a request may change: all, or those that its `If-Match` lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IfMatch(Option<String>);

/// The header of [`IfMatch`], for OpenAPI.
#[derive(IntoParams)]
#[into_params(parameter_in = Header, names("If-Match"))]
#[expect(dead_code, reason = "only its description is used")]
pub(super) struct IfMatchHeader(
    /// The `ETag` of the version that you know: a change of another one is refused with 412.
    Option<String>,
);

/// The header of [`IfNoneMatch`], for OpenAPI.
#[derive(IntoParams)]
#[into_params(parameter_in = Header, names("If-None-Match"))]
#[expect(dead_code, reason = "only its description is used")]
pub(super) struct IfNoneMatchHeader(
    /// The `ETag` of the version that you know: 304 says that there is no other one.
    Option<String>,
);

/// Which versions the client has already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct IfNoneMatch(Option<String>);

/// Returns the tag of a version, with what is shown besides it, if anything is.
fn tag(version: Position, besides: &str) -> String {
    match besides {
        "" => format!("\"{}\"", version.0),
        _ => format!("\"{}-{}\"", version.0, HEXLOWER.encode(&Sha256::digest(besides)[..8])),
    }
}

/// Tells whether a list of tags has one that `is_wanted`; `*` is each.
fn lists(list: &str, is_wanted: impl Fn(&str) -> bool) -> bool {
    list.split(',').map(str::trim).any(|listed| listed == "*" || is_wanted(listed))
}

/// Tells whether a tag is of this version, whatever was shown besides it.
fn is_of(tag: &str, version: Position) -> bool {
    let inner = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    let inner = inner.map(|inner| inner.split_once('-').map_or(inner, |(version, _)| version));
    inner.is_some_and(|inner| inner == version.0.to_string())
}

/// Joins the values of a header that may be split over several lines (RFC 9110 §5.2).
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<_> =
        headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default()).collect();
    (!values.is_empty()).then(|| values.join(","))
}

impl IfMatch {
    /// Refuses to change a version that the request does not name. Tags are compared strongly, so a weak one
    /// (`W/"…"`) names none.
    pub(super) fn check(&self, version: Position) -> Result<(), ApiError> {
        match &self.0 {
            Some(list) if !lists(list, |tag| is_of(tag, version)) => Err(ApiError::changed_since(format!(
                "the subscription has been changed since: its version is {} now; GET it, and change that one",
                tag(version, "")
            ))),
            Some(_) | None => Ok(()),
        }
    }
}

impl IfNoneMatch {
    /// Answers that the client has this version with what is shown besides, if it does.
    pub(super) fn not_modified(&self, version: Position, besides: &str) -> Option<Response> {
        let (list, tag) = (self.0.as_ref()?, tag(version, besides));
        // Here a weak tag is as good as a strong one.
        let is_known = lists(&list.replace("W/", ""), |listed| listed == tag);
        is_known.then(|| with_tags(StatusCode::NOT_MODIFIED.into_response(), version, besides))
    }
}

/// Adds the version to a response.
pub(super) fn with_tag(response: Response, version: Position) -> Response {
    with_tags(response, version, "")
}

/// Adds the version to a response that shows something besides.
pub(super) fn with_tags(mut response: Response, version: Position, besides: &str) -> Response {
    let tag = HeaderValue::try_from(tag(version, besides)).expect("digits in quotes are a header value");
    response.headers_mut().insert(header::ETAG, tag);
    response
}

impl FromRequestParts<Arc<Api>> for IfMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, Infallible> {
        Ok(Self(joined(&parts.headers, &header::IF_MATCH)))
    }
}

impl FromRequestParts<Arc<Api>> for IfNoneMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, Infallible> {
        Ok(Self(joined(&parts.headers, &header::IF_NONE_MATCH)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_strong_tag_of_the_version_or_a_star_matches() {
        let if_match = |list: &str| IfMatch(Some(list.to_owned())).check(Position(7)).is_ok();
        assert!([r#""7""#, r#""6", "7""#, "*", r#" "7" "#].iter().all(|list| if_match(list)));
        assert!(["", "7", r#""70""#, r#"W/"7""#].iter().all(|list| !if_match(list)));
        assert!(IfMatch::default().check(Position(7)).is_ok());
        let knows = |list: &str| IfNoneMatch(Some(list.to_owned())).not_modified(Position(7), "").is_some();
        assert!(knows(r#"W/"7""#) && knows(r#""7""#) && !knows(r#""8""#));
        assert!(IfNoneMatch::default().not_modified(Position(7), "").is_none());
        let held = tag(Position(7), "held");
        assert!(if_match(&held) && !if_match(&tag(Position(8), "held")) && !if_match("\"-7\""));
        assert!(!knows(&held) && tag(Position(7), "open") != held);
        let again = IfNoneMatch(Some(held)).not_modified(Position(7), "held").unwrap();
        assert_eq!(again.headers()[header::ETAG], tag(Position(7), "held"));
    }
}
