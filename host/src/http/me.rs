//! `/me`: the user of the request, as Waypost identifies it.

use axum::Json;
use serde_json::{Value, json};

use crate::identity::User;
use waypost_domain::Scope;
use waypost_runtime::clock;

/// `GET /me`
pub(super) async fn read(user: User) -> Json<Value> {
    Json(json!({
        "user": user.name,
        "admin": user.is_admin(),
        "via": user.via.name(),
        "token": user.via.token().map(|id| id.to_string()),
        "scopes": user.scopes.iter().map(Scope::name).collect::<Vec<_>>(),
        "expires": user.expires.map(clock::text),
        "address": user.address.to_string(),
    }))
}
