//! `/dispatch/{handler}/{argument}/…`: starts a handler and returns the id of its run's event.

use std::sync::Arc;

use axum::extract::State;
use axum::http::Method;
use axum::http::request::Parts;
use axum::response::Response;
use percent_encoding::percent_decode_str;

use super::Api;
use super::error::ApiError;
use super::receive::{answer, prefers_json};
use crate::identity::User;
use waypost_handlers::DispatchError;

/// The most arguments of one run.
const ARGUMENTS_MAX: usize = 256;

/// Starts a handler without arguments
#[utoipa::path(method(get, post), path = "/dispatch/{handler}", operation_id = "dispatch",
    tag = "Pacifica",
    responses((status = 200, description = "The id of the run's event",
        content((String = "text/plain"), (String = "application/json")))))]
pub(super) async fn dispatch(
    State(api): State<Arc<Api>>,
    user: User,
    request: Parts,
) -> Result<Response, ApiError> {
    start(&api, &user, &request).await
}

/// Starts a handler with arguments
///
/// A `/` within an argument is written `%2F`; one at the end of the path does not count.
#[utoipa::path(method(get, post), path = "/dispatch/{handler}/{arguments}", operation_id = "dispatch_with_arguments",
    tag = "Pacifica",
    responses((status = 200, description = "The id of the run's event",
        content((String = "text/plain"), (String = "application/json")))))]
pub(super) async fn dispatch_with(
    State(api): State<Arc<Api>>,
    user: User,
    request: Parts,
) -> Result<Response, ApiError> {
    start(&api, &user, &request).await
}

async fn start(api: &Api, user: &User, request: &Parts) -> Result<Response, ApiError> {
    if request.method == Method::HEAD {
        // The router passes HEAD on as GET, but a HEAD request is not meant to start a program.
        return Err(ApiError::no_method("HEAD starts no handler: send GET or POST"));
    }
    let path = request.uri.path().strip_prefix("/dispatch/").unwrap_or_default();
    let path = path.strip_suffix('/').unwrap_or(path);
    let mut parts = path.split('/').map(decode).collect::<Result<Vec<_>, _>>()?;
    let name = parts.remove(0);
    if parts.len() > ARGUMENTS_MAX {
        return Err(ApiError::bad_request(format!("a run takes at most {ARGUMENTS_MAX} arguments")));
    }
    let id = api.runs.dispatch(&name, parts, &user.name).await?;
    Ok(answer(&[id], false, prefers_json(&request.headers)))
}

fn decode(part: &str) -> Result<String, ApiError> {
    let text = percent_decode_str(part).decode_utf8();
    let text = text.map_err(|_| ApiError::bad_request(format!("the argument `{part}` is not UTF-8")))?;
    match text.contains('\0') {
        true => Err(ApiError::bad_request(format!("the argument `{part}` contains a NUL"))),
        false => Ok(text.into_owned()),
    }
}

impl From<DispatchError> for ApiError {
    fn from(error: DispatchError) -> Self {
        match error {
            DispatchError::Unknown(_) => Self::not_found(error.to_string()),
            DispatchError::Accept(error) => error.into(),
        }
    }
}
