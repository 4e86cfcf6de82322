//! The part of a URL behind `?`.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// What a path takes behind `?`.
pub(super) trait Takes: DeserializeOwned {
    /// All of it, with examples, for whoever wrote something else.
    const TAKES: &'static str;
}

/// The parameters of a request; a wrong or unknown one is refused with what the path takes.
#[derive(Debug)]
pub(super) struct Parameters<T>(pub(super) T);

impl<T: Takes, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(rejection) => {
                let reason = rejection.body_text();
                let reason =
                    reason.rsplit_once("query string: ").map_or(reason.as_str(), |(_, reason)| reason);
                let query = parts.uri.query().unwrap_or_default();
                let detail = format!("`?{query}` is not understood: {reason}; this path takes {}", T::TAKES);
                Err(ApiError::bad_request(detail))
            }
        }
    }
}
