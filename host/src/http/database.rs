//! `/db`: the store's file.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use waypost_api::v1;

use super::Api;
use super::error::ApiError;

/// Gives back the room that the database does not need
///
/// Nothing else is read or written meanwhile: requests and deliveries wait, about six seconds for each gigabyte that is left.
/// Smaller databases do it by themselves.
#[utoipa::path(post, path = "/db/compact", operation_id = "compact_database",
    tag = "Service",
    responses((status = 200, description = "How large the file was, and is", body = v1::Compaction)))]
pub(super) async fn compact(State(api): State<Arc<Api>>) -> Result<Json<v1::Compaction>, ApiError> {
    let before = api.store.disk().await?.file;
    api.store.compact().await?;
    Ok(Json(v1::Compaction { before, after: api.store.disk().await?.file }))
}
