//! `/.well-known/jwks.json`: the public keys with which this service signs deliveries. Anyone may read them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, header};
use waypost_api::v1;

use super::Api;
use waypost_secrets::signing::PublicKey;

/// Shows the public keys with which this service signs deliveries
#[utoipa::path(get, path = "/.well-known/jwks.json", operation_id = "read_public_keys",
    tag = "Service",
    responses((status = 200, description = "The keys", body = v1::Jwks)))]
pub(super) async fn read(State(api): State<Arc<Api>>) -> ([(HeaderName, &'static str); 1], Json<v1::Jwks>) {
    let PublicKey { kid, x } = api.service_key.public_key();
    let word = str::to_owned;
    let key =
        v1::Jwk { kty: word("OKP"), crv: word("Ed25519"), usage: word("sig"), alg: word("EdDSA"), kid, x };
    ([(header::CACHE_CONTROL, "public, max-age=300")], Json(v1::Jwks { keys: vec![key] }))
}
