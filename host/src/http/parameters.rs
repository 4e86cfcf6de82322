//! The query string of a URL, and the links to further pages.

use std::convert::Infallible;
use std::num::NonZeroUsize;

use axum::extract::{FromRequestParts, OriginalUri, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use super::error::ApiError;

/// The parameters of a request. A wrong or unknown one is refused, and the error lists those that the path accepts.
#[derive(Debug)]
pub(super) struct Parameters<T>(pub(super) T);

impl<T: DeserializeOwned + IntoParams, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(rejection) => {
                let reason = rejection.body_text();
                let reason =
                    reason.rsplit_once("query string: ").map_or(reason.as_str(), |(_, reason)| reason);
                // The message of serde names the Rust type.
                let reason = reason.replace("a nonzero usize", "a number from 1 on");
                let query = parts.uri.query().unwrap_or_default();
                let hint = plus::<T>(query).unwrap_or_default();
                let detail =
                    format!("`?{query}` is not understood: {reason}{hint}; this path takes {}", all::<T>());
                Err(ApiError::bad_request(detail))
            }
        }
    }
}

/// Lists all parameters of a path, with what they mean.
fn all<T: IntoParams>() -> String {
    let texts = T::into_params(|| None).into_iter().map(|parameter| match parameter.description {
        Some(meaning) => format!("`{}` ({})", parameter.name, meaning.trim_end_matches('.')),
        None => format!("`{}`", parameter.name),
    });
    let texts: Vec<_> = texts.collect();
    texts.join(", ")
}

/// Explains a literal `+`: in a query string it means a space (WHATWG URL §5.1).
fn plus<T: DeserializeOwned>(query: &str) -> Option<&'static str> {
    let meant = format!("/?{}", query.replace('+', "%2B")).parse().ok()?;
    let is_it = query.contains('+') && Query::<T>::try_from_uri(&meant).is_ok();
    is_it.then_some(" (a `+` after the `?` is a space: write `%2B`)")
}

/// Returns the part of a list that a request asks for: `limit` of it, behind the one with the id `after`. With it comes the
/// id to go on behind, if more follows. `None` where nothing has the id `after`.
pub(super) fn part<T, I: PartialEq>(
    mut all: Vec<T>,
    limit: Option<NonZeroUsize>,
    after: Option<I>,
    id: impl Fn(&T) -> I,
) -> Option<(Vec<T>, Option<I>)> {
    if let Some(after) = after {
        let place = all.iter().position(|one| id(one) == after)?;
        all.drain(..=place);
    }
    let limit = limit.map_or(usize::MAX, NonZeroUsize::get);
    let more = all.len() > limit;
    all.truncate(limit);
    let last = all.last().filter(|_| more).map(id);
    Some((all, last))
}

/// Refuses an `after` that is not in the list.
pub(super) fn after_nothing() -> ApiError {
    ApiError::bad_request("`after` has to be one of the list")
}

/// The path of a request as the client sees it: with the prefix below which the routes are nested.
pub(super) struct Here(String);

impl Here {
    /// Returns the path, without a slash at its end.
    pub(super) fn path(&self) -> &str {
        &self.0
    }

    /// Returns the path with this query: the link to another page.
    pub(super) fn with(&self, query: &impl Serialize) -> String {
        let query = serde_urlencoded::to_string(query).expect("parameters are texts and numbers");
        format!("{}?{query}", self.0)
    }

    /// Returns the header with the link to the next page (RFC 8288 §3), for lists whose body has no place for it.
    pub(super) fn link(&self, next: Option<impl Serialize>) -> HeaderMap {
        let link = next.map(|query| format!("<{}>; rel=\"next\"", self.with(&query)));
        let link = link.and_then(|link| HeaderValue::try_from(link).ok());
        link.into_iter().map(|link| (header::LINK, link)).collect()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Here {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let OriginalUri(uri) = OriginalUri::from_request_parts(parts, state).await?;
        let path = uri.path();
        Ok(Self(path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(path).to_owned()))
    }
}
