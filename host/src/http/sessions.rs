//! `/sessions`: for browsers, which cannot keep a token as safely as a cookie that scripts cannot read. A
//! session is begun with a token, has its rights, and ends with it.

use std::num::NonZeroUsize;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64URL_NOPAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;
use waypost_api::v1;

use super::Api;
use super::error::ApiError;
use super::id::Id;
use super::parameters::{Here, Parameters, after_nothing, part};
use crate::identity::{SESSION_MAX, User, secret};
use waypost_domain::{Action, AuditEntry, SecretHash, Token, TokenId, Via};
use waypost_runtime::clock;

/// Begins a browser's session
///
/// With a token, in the header `authorization`. The response sets the cookie.
#[utoipa::path(post, path = "/sessions", operation_id = "begin_session",
    tag = "Access",
    responses((status = 201, description = "The session", body = v1::Session)))]
pub(super) async fn begin(State(api): State<Arc<Api>>, user: User) -> Result<Response, ApiError> {
    let Via::Token(of) = user.via else {
        let detail = "a session is begun with a token: send `Authorization: Bearer wp_…`";
        return Err(ApiError::bad_request(detail));
    };
    let (now, secret) = (clock::now(), BASE64URL_NOPAD.encode(&secret()));
    let end = now.checked_add(SESSION_MAX).unwrap_or(Timestamp::MAX);
    let session = Token {
        id: TokenId::from_uuid(uuid::Uuid::new_v4()),
        name: String::new(),
        user: user.name.clone(),
        scopes: user.scopes,
        hash: SecretHash::of(&secret),
        created: now,
        by: user.name.clone(),
        expires: Some(user.expires.map_or(end, |expires| expires.min(end))),
        session_of: Some(of),
    };
    let note = AuditEntry::new(Action::SessionBegin, session.id, &user.actor(), now).of(&user.name);
    let shown = show(&session, None);
    if !api.store.put_token(session, note).await? {
        return Err(ApiError::unauthorized("this token was revoked just now"));
    }
    let cookie = cookie(&api, &secret, SESSION_MAX.as_secs());
    Ok((StatusCode::CREATED, [(header::SET_COOKIE, cookie)], Json(shown)).into_response())
}

/// Which sessions to list.
#[derive(Debug, Deserialize, Serialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// How many to list, from 1 on: all unless it is set.
    #[param(value_type = Option<u64>, nullable = false, minimum = 1)]
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<NonZeroUsize>,
    /// The UUID of one in the list: only those after it.
    #[param(value_type = Option<Uuid>, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<TokenId>,
}

/// Lists your sessions, or for an admin all, oldest first
///
/// The header `Link` leads to the next page.
#[utoipa::path(get, path = "/sessions", operation_id = "list_sessions",
    tag = "Access", params(Page),
    responses((status = 200, description = "The sessions", body = Vec<v1::Session>)))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    user: User,
    here: Here,
    Parameters(page): Parameters<Page>,
) -> Result<(HeaderMap, Json<Vec<v1::Session>>), ApiError> {
    let all = api.identity.tokens().all().into_iter();
    let sessions = all.filter(|known| known.token.session_of.is_some() && may_end(&user, &known.token));
    let mut sessions: Vec<_> = sessions.collect();
    sessions.sort_by_key(|known| (known.token.created, known.token.id));
    let part = part(sessions, page.limit, page.after, |known| known.token.id);
    let (sessions, last) = part.ok_or_else(after_nothing)?;
    let next = last.map(|last| Page { after: Some(last), ..page });
    Ok((here.link(next), Json(sessions.iter().map(|known| show(&known.token, known.used())).collect())))
}

/// Ends the session that the request uses
#[utoipa::path(delete, path = "/sessions", operation_id = "end_own_session",
    tag = "Access",
    responses((status = 204, description = "It is ended")))]
pub(super) async fn end_own(State(api): State<Arc<Api>>, user: User) -> Result<Response, ApiError> {
    let Via::Session(id) = user.via else {
        return Err(ApiError::bad_request(
            "this request has no session: DELETE /sessions/{id} ends another one",
        ));
    };
    remove(&api, &user, id).await?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie(&api, "", 0))]).into_response())
}

/// Ends a session
#[utoipa::path(delete, path = "/sessions/{id}", operation_id = "end_session",
    tag = "Access",
    responses((status = 204, description = "It is ended")))]
pub(super) async fn end(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<TokenId>,
) -> Result<StatusCode, ApiError> {
    remove(&api, &user, id).await.map(|()| StatusCode::NO_CONTENT)
}

async fn remove(api: &Api, user: &User, id: TokenId) -> Result<(), ApiError> {
    let known = api.identity.tokens().get(id);
    let known = known.filter(|known| known.token.session_of.is_some() && may_end(user, &known.token));
    let none = || ApiError::not_found(format!("there is no session {id} that you may end"));
    let whose = &known.ok_or_else(none)?.token.user;
    let note = AuditEntry::new(Action::SessionEnd, id, &user.actor(), clock::now()).of(whose);
    if api.store.remove_token(id, Some(note)).await? { Ok(()) } else { Err(none()) }
}

fn may_end(user: &User, session: &Token) -> bool {
    user.is_admin() || session.user == user.name
}

/// Writes the cookie. Browsers keep one with the prefix `__Host-` only if it has `Secure`, and send it nowhere else
/// (RFC 6265bis §4.1.3.2).
fn cookie(api: &Api, secret: &str, seconds: i64) -> HeaderValue {
    let name = api.identity.cookie();
    let secure = if name.starts_with("__Host-") { "; Secure" } else { "" };
    let text = format!("{name}={secret}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    let mut cookie = HeaderValue::try_from(text).expect("base64 fits into a header");
    cookie.set_sensitive(true);
    cookie
}

fn show(session: &Token, used: Option<Timestamp>) -> v1::Session {
    v1::Session {
        id: session.id.uuid(),
        user: session.user.clone(),
        token: session.session_of.map(TokenId::uuid),
        created: session.created.into(),
        expires: session.expires.map(v1::Time),
        last_used: used.map(v1::Time),
    }
}
