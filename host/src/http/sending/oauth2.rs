//! The credentials of `auth` of the type `oauth2`. Members that are left out stay unchanged.

use serde_json::{Map, Value};
use waypost_api::v1;

use super::{ApiError, wrong};
use crate::http::words;
use waypost_domain::sending::{ClientAuth, OAuth2, field};
use waypost_domain::{Auth, Secret, SubscriptionId, TargetUrl};
use waypost_net::{Agent, Guard};
use waypost_secrets::{Label, Vault};

/// The most characters of one member.
const CHARS_MAX: usize = 4 * 1024;

/// What a body says about `auth.oauth2`.
pub(super) struct OAuth2Body {
    token_url: Option<TargetUrl>,
    client_id: Option<String>,
    client_secret: Option<Secret>,
    client_auth: Option<ClientAuth>,
    scope: Option<Option<String>>,
    audience: Option<Option<String>>,
}

impl OAuth2Body {
    /// Takes `auth` out of a body if it is of this type.
    pub(super) fn take(body: &mut Map<String, Value>, guard: &Guard) -> Result<Option<Self>, ApiError> {
        let kind = body.get("auth").and_then(|auth| auth.get("type")).and_then(Value::as_str);
        if kind != Some("oauth2") {
            return Ok(None);
        }
        let mut auth = body.remove("auth").unwrap_or_default();
        let mut given = match auth.get_mut("oauth2").map(Value::take) {
            None => Map::new(),
            Some(Value::Object(given)) => given,
            Some(other) => return Err(wrong("auth/oauth2", "an object", &other)),
        };
        let token_url = required(&mut given, "token_url")?.map(|text| token_url(text, guard)).transpose()?;
        let client_auth = match required(&mut given, "client_auth")?.as_deref() {
            None => None,
            Some("basic") => Some(ClientAuth::Basic),
            Some("post") => Some(ClientAuth::Post),
            Some(_) => {
                let detail = "`auth.oauth2.client_auth` must be \"basic\" or \"post\"";
                return Err(ApiError::field("/auth/oauth2/client_auth", detail));
            }
        };
        Ok(Some(Self {
            token_url,
            client_id: required(&mut given, "client_id")?,
            client_secret: required(&mut given, "client_secret")?.map(Secret::from),
            client_auth,
            scope: text(&mut given, "scope")?,
            audience: text(&mut given, "audience")?,
        }))
    }

    pub(super) fn apply(&self, known: &Auth, id: SubscriptionId, vault: &Vault) -> Result<OAuth2, ApiError> {
        let known = match known {
            Auth::OAuth2(known) => Some(&**known),
            Auth::None | Auth::Basic { .. } | Auth::Header { .. } => None,
        };
        let missing = |name: &str| {
            ApiError::field(format!("/auth/oauth2/{name}"), format!("`auth.oauth2.{name}` is missing"))
        };
        let seal = |secret| vault.seal(Label::new(field::CLIENT_SECRET, id.uuid()), secret);
        let token_url = self.token_url.clone().or_else(|| Some(known?.token_url.clone()));
        let token_url = token_url.ok_or_else(|| missing("token_url"))?;
        // A secret is only for the server that it was given for.
        let is_moved = known.is_some_and(|known| !is_same_server(&known.token_url, &token_url));
        let known_secret = known.filter(|_| !is_moved).map(|known| known.client_secret.clone());
        let client_secret = self.client_secret.as_ref().map(seal).or(known_secret);
        let client_id = self.client_id.clone().or_else(|| Some(known?.client_id.clone()));
        Ok(OAuth2 {
            token_url,
            client_id: client_id.ok_or_else(|| missing("client_id"))?,
            client_secret: client_secret.ok_or_else(|| missing("client_secret"))?,
            client_auth: self.client_auth.or_else(|| Some(known?.client_auth)).unwrap_or_default(),
            scope: self.scope.clone().unwrap_or_else(|| known?.scope.clone()),
            audience: self.audience.clone().unwrap_or_else(|| known?.audience.clone()),
        })
    }
}

fn is_same_server(one: &TargetUrl, other: &TargetUrl) -> bool {
    let scheme = |url: &TargetUrl| url.uri().ok().and_then(|uri| uri.scheme_str().map(str::to_owned));
    one.host_and_port() == other.host_and_port() && scheme(one) == scheme(other)
}

fn token_url(text: String, guard: &Guard) -> Result<TargetUrl, ApiError> {
    let refused = |detail: String| ApiError::field("/auth/oauth2/token_url", detail);
    let url =
        TargetUrl::try_from(text).map_err(|error| refused(format!("`auth.oauth2.token_url` {error}")))?;
    let judged =
        url.host_and_port().map_or(Ok(()), |(host, port)| guard.check_url(Agent::Delivery, host, port));
    match judged {
        Ok(()) => Ok(url),
        Err(judgement) => Err(refused(format!("`auth.oauth2.token_url` must not lead there: {judgement}"))),
    }
}

/// Takes a string; it may be left out, but not null.
fn required(given: &mut Map<String, Value>, name: &str) -> Result<Option<String>, ApiError> {
    match text(given, name)? {
        Some(None) => Err(wrong(&format!("auth/oauth2/{name}"), "a string", &Value::Null)),
        Some(Some(text)) if text.is_empty() => {
            Err(ApiError::field(format!("/auth/oauth2/{name}"), format!("`auth.oauth2.{name}` is empty")))
        }
        Some(Some(text)) => Ok(Some(text)),
        None => Ok(None),
    }
}

/// Takes a string, or null.
fn text(given: &mut Map<String, Value>, name: &str) -> Result<Option<Option<String>>, ApiError> {
    let path = format!("auth/oauth2/{name}");
    match given.remove(name) {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(Value::String(text)) => {
            if text.chars().count() > CHARS_MAX || text.chars().any(char::is_control) {
                let detail =
                    format!("it must have at most {CHARS_MAX} characters, and no control characters");
                return Err(ApiError::field(format!("/{path}"), detail));
            }
            Ok(Some(Some(text)))
        }
        Some(other) => Err(wrong(&path, "a string", &other)),
    }
}

/// Returns the member `auth` as REST shows it.
pub(in crate::http) fn show(oauth2: &OAuth2) -> v1::AuthOAuth2 {
    v1::AuthOAuth2 {
        token_url: oauth2.token_url.as_str().to_owned(),
        client_id: oauth2.client_id.clone(),
        client_secret: None,
        client_auth: Some(words::client_auth(oauth2.client_auth)),
        scope: oauth2.scope.clone(),
        audience: oauth2.audience.clone(),
    }
}
