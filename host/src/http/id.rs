//! Ids in paths.

use std::fmt::Debug;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use super::error::ApiError;

/// The UUID in a path; anything else is refused as a malformed request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Id<T>(pub(super) T);

/// The UUID of a task; anything else is refused as Pacifica's Dispatcher does.
#[derive(Clone, Copy, Debug)]
pub(super) struct TaskId<T>(pub(super) T);

/// The UUID of a run; anything else is unknown, as for Pacifica's Dispatcher-K8s.
#[derive(Clone, Copy, Debug)]
pub(super) struct RunId<T>(pub(super) T);

/// Reads the last part of the path.
async fn read<T: FromStr, S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
    refused: impl Fn(String) -> ApiError,
) -> Result<T, ApiError> {
    let refused = |text: &str| refused(format!("`{text}` is not a UUID"));
    let text = Path::<String>::from_request_parts(parts, state).await;
    let Ok(Path(text)) = text else { return Err(refused("the last part of the path")) };
    text.parse().map_err(|_| refused(&text))
}

macro_rules! ids {
    ($($name:ident: $refused:path;)+) => {$(
        impl<T: FromStr + Send, S: Send + Sync> FromRequestParts<S> for $name<T> {
            type Rejection = ApiError;

            async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
                read(parts, state, $refused).await.map(Self)
            }
        }
    )+};
}

ids! {
    Id: ApiError::bad_request;
    TaskId: ApiError::unprocessable;
    RunId: ApiError::not_found;
}
