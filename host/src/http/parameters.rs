//! The query string of a URL.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// The query parameters of a path.
pub(super) trait QueryDoc: DeserializeOwned {
    /// All parameters, with examples, for the error about an unknown one.
    const DOC: &'static str;
}

/// The parameters of a request. A wrong or unknown one is refused, and the error lists those that the path accepts.
#[derive(Debug)]
pub(super) struct Parameters<T>(pub(super) T);

impl<T: QueryDoc, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
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
                    format!("`?{query}` is not understood: {reason}{hint}; this path takes {}", T::DOC);
                Err(ApiError::bad_request(detail))
            }
        }
    }
}

/// Explains a literal `+`: in a query string it means a space (WHATWG URL §5.1).
fn plus<T: DeserializeOwned>(query: &str) -> Option<&'static str> {
    let meant = format!("/?{}", query.replace('+', "%2B")).parse().ok()?;
    let is_it = query.contains('+') && Query::<T>::try_from_uri(&meant).is_ok();
    is_it.then_some(" (a `+` after the `?` is a space: write `%2B`)")
}

/// For paths without parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoParameters {}

impl QueryDoc for NoParameters {
    const DOC: &'static str = "none";
}
