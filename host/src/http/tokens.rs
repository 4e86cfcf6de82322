//! `/tokens`: the tokens with which programs and people identify themselves in each request. An admin makes
//! them, for any user; users see and revoke their own.

use std::num::NonZeroUsize;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::IntoParams;
use waypost_api::v1;

use super::error::ApiError;
use super::id::Id;
use super::idempotency::{IdempotencyKey, KeyHeader};
use super::parameters::{Here, Parameters, after_nothing, part};
use super::{Api, body, words};
use crate::identity::{User, secret};
use waypost_domain::access::{TOKEN_NAME_CHARS_MAX, token_text};
use waypost_domain::retry::parse_duration;
use waypost_domain::{Action, AuditEntry, Scope, Scopes, SecretHash, Token, TokenId};
use waypost_runtime::clock;
use waypost_store::KnownToken;

/// Whose tokens to list.
#[derive(Clone, Debug, Deserialize, Serialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Whose {
    /// Whose tokens to list; an admin sees everybody's.
    #[param(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// How many to list, from 1 on: all unless it is set.
    #[param(value_type = Option<u64>, nullable = false, minimum = 1)]
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<NonZeroUsize>,
    /// The UUID of one in the list: only those after it.
    #[param(value_type = Option<Uuid>, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<TokenId>,
}

/// Makes a token
///
/// The response has the token itself, of which only a hash is stored.
#[utoipa::path(post, path = "/tokens", operation_id = "create_token",
    tag = "Access", params(KeyHeader), request_body = v1::NewToken,
    responses((status = 201, description = "The token", body = v1::Token)))]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    user: User,
    key: IdempotencyKey,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<v1::Token>), ApiError> {
    let (body, _taken) = body::read(&headers, body, &api.limits.subscription).await?;
    let now = clock::now();
    let (mut token, secret) = (wanted(body::object(&headers, &body)?, now)?, secret());
    token.id = key.id("token", &user.name).map_or(token.id, TokenId::from_uuid);
    let text = token_text(&secret);
    (token.hash, token.by) = (SecretHash::of(&text), user.name.clone());
    let note = AuditEntry::new(Action::TokenCreate, token.id, &user.actor(), now).of(&token.user);
    let note = note.with("name", token.name.as_str()).with("scopes", token.scopes.to_string());
    if !api.store.put_token(token.clone(), note).await? {
        return Err(ApiError::conflict(format!(
            "this `Idempotency-Key` has made the token {}, which was shown then: if you do not have it, revoke it, and use \
             another key",
            token.id
        )));
    }
    let shown = v1::Token { token: Some(text), ..show(&token, None) };
    Ok((StatusCode::CREATED, Json(shown)))
}

/// Lists your tokens, or for an admin all, oldest first
///
/// The header `Link` leads to the next page.
#[utoipa::path(get, path = "/tokens", operation_id = "list_tokens",
    tag = "Access", params(Whose),
    responses((status = 200, description = "The tokens", body = Vec<v1::Token>)))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    user: User,
    here: Here,
    Parameters(whose): Parameters<Whose>,
) -> Result<(HeaderMap, Json<Vec<v1::Token>>), ApiError> {
    let all = api.identity.tokens().all().into_iter();
    let is_asked_for = |known: &Arc<KnownToken>| {
        known.token.session_of.is_none()
            && (user.is_admin() || known.token.user == user.name)
            && whose.user.as_ref().is_none_or(|whose| *whose == known.token.user)
    };
    let mut asked_for: Vec<_> = all.filter(is_asked_for).collect();
    asked_for.sort_by_key(|known| (known.token.created, known.token.id));
    let part = part(asked_for, whose.limit, whose.after, |known| known.token.id);
    let (tokens, last) = part.ok_or_else(after_nothing)?;
    let next = last.map(|last| Whose { after: Some(last), ..whose.clone() });
    Ok((here.link(next), Json(tokens.iter().map(|known| show(&known.token, known.used())).collect())))
}

/// Revokes a token, and ends the sessions that were begun with it
#[utoipa::path(delete, path = "/tokens/{id}", operation_id = "revoke_token",
    tag = "Access",
    responses((status = 204, description = "It is revoked")))]
pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<TokenId>,
) -> Result<StatusCode, ApiError> {
    let known = api.identity.tokens().get(id).filter(|known| known.token.session_of.is_none());
    let known = known.filter(|known| user.is_admin() || known.token.user == user.name);
    let none = || ApiError::not_found(format!("there is no token {id} that you may revoke"));
    let token = &known.ok_or_else(none)?.token;
    let note = AuditEntry::new(Action::TokenRevoke, id, &user.actor(), clock::now()).of(&token.user);
    let note = note.with("name", token.name.as_str());
    match api.store.remove_token(id, Some(note)).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(none()),
    }
}

/// Reads a token from a body. Its `hash` and `by` are still to be set.
pub(super) fn wanted(mut body: Map<String, Value>, now: Timestamp) -> Result<Token, ApiError> {
    let user = text(&mut body, "user")?.filter(|user| !user.is_empty());
    let user =
        user.ok_or_else(|| ApiError::field("/user", "`user` is missing: whom the token speaks for"))?;
    if matches!(user.as_str(), "." | "..") || user.trim() != user || user.contains(char::is_control) {
        return Err(ApiError::field("/user", format!("`{user}` cannot be a user's name")));
    }
    let name = text(&mut body, "name")?.unwrap_or_default();
    if name.chars().count() > TOKEN_NAME_CHARS_MAX {
        let detail = format!("`name` has more than {TOKEN_NAME_CHARS_MAX} characters");
        return Err(ApiError::field("/name", detail));
    }
    let scopes = match body.remove("scopes") {
        None | Some(Value::Null) => Scopes::USER,
        Some(Value::Array(names)) if !names.is_empty() => {
            names.iter().enumerate().map(|(place, name)| scope(place, name)).collect::<Result<_, _>>()?
        }
        Some(_) => {
            return Err(ApiError::field(
                "/scopes",
                "`scopes` must be a list of names, such as [\"receive\"]",
            ));
        }
    };
    let expires = text(&mut body, "expires")?.map(|text| end(&text, now)).transpose()?;
    if let Some(unknown) = body.keys().next() {
        let detail =
            format!("unknown member `{unknown}`: a token has `user`, `name`, `scopes` and `expires`");
        return Err(ApiError::bad_request(detail));
    }
    let id = TokenId::from_uuid(uuid::Uuid::new_v4());
    let (hash, by) = (SecretHash([0; 32]), String::new());
    Ok(Token { id, name, user, scopes, hash, created: now, by, expires, session_of: None })
}

fn text(body: &mut Map<String, Value>, name: &str) -> Result<Option<String>, ApiError> {
    match body.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(ApiError::field(format!("/{name}"), format!("`{name}` must be a string"))),
    }
}

fn scope(place: usize, name: &Value) -> Result<Scope, ApiError> {
    name.as_str().and_then(Scope::of).ok_or_else(|| {
        let names = Scope::ALL.map(Scope::name).join(", ");
        ApiError::field(format!("/scopes/{place}"), format!("`{name}` is not a scope: they are {names}"))
    })
}

/// Reads when a token expires: after a duration (`90d`), or at a time.
fn end(text: &str, now: Timestamp) -> Result<Timestamp, ApiError> {
    let after = parse_duration(text).map(|after| now.checked_add(after));
    let end = after.map_or_else(|| text.parse().ok(), Result::ok).filter(|end| *end > now);
    end.ok_or_else(|| {
        let detail =
            format!("`expires` is `{text}`: write a duration, such as \"90d\", or a time in the future");
        ApiError::field("/expires", detail)
    })
}

/// Returns a token as `GET /tokens` has it, without its secret.
pub fn show(token: &Token, used: Option<Timestamp>) -> v1::Token {
    v1::Token {
        id: token.id.uuid(),
        name: token.name.clone(),
        user: token.user.clone(),
        scopes: token.scopes.iter().map(words::scope).collect(),
        created: token.created.into(),
        by: token.by.clone(),
        expires: token.expires.map(v1::Time),
        last_used: used.map(v1::Time),
        token: None,
    }
}
