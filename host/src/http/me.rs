//! `/me`: the user of the request, as Waypost identifies it.

use axum::Json;
use waypost_api::v1;

use super::words;
use crate::identity::User;
use waypost_domain::TokenId;

/// Shows who you are, and how Waypost knows
#[utoipa::path(get, path = "/me", operation_id = "who_am_i",
    tag = "Access", responses((status = 200, description = "You", body = v1::Me)))]
pub(super) async fn read(user: User) -> Json<v1::Me> {
    Json(v1::Me {
        admin: user.is_admin(),
        via: user.via.name().to_owned(),
        token: user.via.token().map(TokenId::uuid),
        scopes: user.scopes.iter().map(words::scope).collect(),
        expires: user.expires.map(v1::Time),
        address: user.address.to_string(),
        user: user.name,
    })
}
