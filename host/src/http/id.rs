//! Ids in paths.

use std::fmt::Debug;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Path};
use axum::http::StatusCode;
use axum::http::request::Parts;

use super::error::ApiError;

/// The UUID in a path; anything else is refused with `REFUSAL`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Id<T, const REFUSAL: u16 = 400>(pub(super) T);

impl<T, S, const REFUSAL: u16> FromRequestParts<S> for Id<T, REFUSAL>
where
    T: FromStr + Send,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let refuse = |text: &str| {
            let status =
                StatusCode::from_u16(REFUSAL).expect("the refusals written in this crate are statuses");
            ApiError::new(status, format!("`{text}` is not a UUID"))
        };
        let text = Path::<String>::from_request_parts(parts, state).await;
        let Ok(Path(text)) = text else { return Err(refuse("the last part of the path")) };
        text.parse().map(Self).map_err(|_| refuse(&text))
    }
}
