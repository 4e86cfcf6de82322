//! The `auth` of a body: checked, and its secret sealed at once. From here on, the secret is opened only to
//! be sent.

use serde::Deserialize;
use serde_json::{Map, Value};
use waypost_api::v1;

use super::dotted;
use crate::http::error::ApiError;
use crate::http::sending::show_oauth2;
use waypost_domain::subscription::{CREDENTIALS, PASSWORD};
use waypost_domain::{Auth, Sealed, Secret};

/// The form of `auth`; members that are left out stay unchanged.
#[derive(Deserialize)]
struct AuthBody {
    #[serde(rename = "type")]
    kind: Option<String>,
    basic: Option<BasicBody>,
    header: Option<HeaderBody>,
}

#[derive(Default, Deserialize)]
struct BasicBody {
    username: Option<String>,
    password: Option<Secret>,
}

#[derive(Default, Deserialize)]
struct HeaderBody {
    #[serde(rename = "type")]
    scheme: Option<String>,
    credentials: Option<Secret>,
}

/// Returns the member as REST shows it, without its secret.
pub(super) fn show(auth: &Auth) -> v1::Auth {
    match auth {
        Auth::None => v1::Auth::default(),
        Auth::Basic { username, .. } => v1::Auth {
            kind: Some(v1::AuthKind::Basic),
            basic: Some(v1::AuthBasic { username: username.clone(), password: None }),
            ..v1::Auth::default()
        },
        Auth::Header { scheme, .. } => v1::Auth {
            kind: Some(v1::AuthKind::Header),
            header: Some(v1::AuthHeader { scheme: scheme.clone(), credentials: None }),
            ..v1::Auth::default()
        },
        Auth::OAuth2(oauth2) => v1::Auth {
            kind: Some(v1::AuthKind::OAuth2),
            oauth2: Some(show_oauth2(oauth2)),
            ..v1::Auth::default()
        },
    }
}

/// Reads `auth`. A secret that is left out stays the known one; `seal` seals a new one under its name.
///
/// # Errors
/// Names the first member that is missing or wrong, never its value.
pub(super) fn take(
    value: Value,
    known: &Auth,
    seal: impl Fn(&'static str, Secret) -> Sealed,
) -> Result<Auth, ApiError> {
    if value.is_null() || value.as_object().is_some_and(Map::is_empty) {
        return Ok(Auth::None);
    }
    let body = AuthBody::deserialize(value).map_err(|_| {
        ApiError::field("/auth", "`auth` must be an object with `type` \"basic\", \"header\" or \"oauth2\"")
    })?;
    match body.kind.as_deref() {
        Some("basic") => {
            let (user, sealed) = match known {
                Auth::Basic { username, password } => (Some(username.clone()), Some(password.clone())),
                Auth::None | Auth::Header { .. } | Auth::OAuth2(_) => (None, None),
            };
            let basic = body.basic.unwrap_or_default();
            let username = text(basic.username.or(user), "/auth/basic/username")?;
            if username.contains(':') {
                return Err(ApiError::field("/auth/basic/username", "a user name must not contain a colon"));
            }
            let password = secret(basic.password, "/auth/basic/password")?.map(|given| seal(PASSWORD, given));
            Ok(Auth::Basic { username, password: required(password.or(sealed), "/auth/basic/password")? })
        }
        Some("header") => {
            let (kind, sealed) = match known {
                Auth::Header { scheme, credentials } => (Some(scheme.clone()), Some(credentials.clone())),
                Auth::None | Auth::Basic { .. } | Auth::OAuth2(_) => (None, None),
            };
            let header = body.header.unwrap_or_default();
            let scheme = text(header.scheme.or(kind), "/auth/header/type")?;
            refuse_blank(&scheme, "/auth/header/type")?;
            let credentials = secret(header.credentials, "/auth/header/credentials")?;
            if let Some(credentials) = &credentials {
                refuse_blank(credentials.expose_str().unwrap_or_default(), "/auth/header/credentials")?;
            }
            let credentials = credentials.map(|given| seal(CREDENTIALS, given));
            Ok(Auth::Header {
                scheme,
                credentials: required(credentials.or(sealed), "/auth/header/credentials")?,
            })
        }
        _ => Err(ApiError::field("/auth/type", "`auth.type` must be \"basic\", \"header\" or \"oauth2\"")),
    }
}

fn required<T>(value: Option<T>, pointer: &str) -> Result<T, ApiError> {
    value.ok_or_else(|| ApiError::field(pointer, format!("`{}` is missing", dotted(&pointer[1..]))))
}

/// Checks a text that becomes part of a header.
fn text(value: Option<String>, pointer: &str) -> Result<String, ApiError> {
    let text = required(value, pointer)?;
    refuse_controls(&text, pointer)?;
    Ok(text)
}

/// Checks a secret that becomes part of a header.
fn secret(value: Option<Secret>, pointer: &str) -> Result<Option<Secret>, ApiError> {
    if let Some(secret) = &value {
        refuse_controls(secret.expose_str().unwrap_or_default(), pointer)?;
    }
    Ok(value)
}

/// Refuses control characters, which field values must not have (RFC 9110 §5.5).
fn refuse_controls(text: &str, pointer: &str) -> Result<(), ApiError> {
    match text.chars().any(char::is_control) {
        true => {
            Err(ApiError::field(pointer, "line breaks and other control characters are not allowed here"))
        }
        false => Ok(()),
    }
}

/// Refuses a blank part of a header: without it, the rest is not a valid header.
fn refuse_blank(text: &str, pointer: &str) -> Result<(), ApiError> {
    match text.trim().is_empty() {
        true => Err(ApiError::field(pointer, format!("`{}` is blank", dotted(&pointer[1..])))),
        false => Ok(()),
    }
}
