//! Who is asking: the user header, from those who may set it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::HeaderName;
use axum::http::request::Parts;
use ipnet::IpNet;

use super::Api;
use super::error::ApiError;

/// How a request's user is found.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The header with the user's name.
    pub user_header: HeaderName,
    /// Who a request without the header is from.
    pub default_user: String,
    /// The networks whose requests are believed.
    pub trusted: Vec<IpNet>,
    /// Who may see everything.
    pub admins: Vec<String>,
}

/// The user of a request.
#[derive(Clone, Debug)]
pub(super) struct User {
    /// The name.
    pub(super) name: String,
    /// Whether the whole log is open to this user.
    pub(super) is_admin: bool,
}

impl Identity {
    fn user(&self, address: IpAddr, parts: &Parts) -> Result<User, ApiError> {
        let address = address.to_canonical();
        if !self.trusted.iter().any(|network| network.contains(&address)) {
            return Err(ApiError::unauthorized(format!(
                "requests from {address} carry no identity here: only those from trusted_proxies do"
            )));
        }
        let name = match parts.headers.get(&self.user_header) {
            None => self.default_user.clone(),
            Some(value) => {
                let text = std::str::from_utf8(value.as_bytes());
                text.map_err(|_| {
                    ApiError::bad_request(format!("the header {} is not UTF-8", self.user_header))
                })?
                .trim()
                .to_owned()
            }
        };
        if matches!(name.as_str(), "." | "..") {
            return Err(ApiError::bad_request(format!(
                "`{name}` cannot be a user's name: no URL can hold it"
            )));
        }
        let name = if name.is_empty() { self.default_user.clone() } else { name };
        let is_admin = self.admins.contains(&name);
        Ok(User { name, is_admin })
    }
}

impl FromRequestParts<Arc<Api>> for User {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let ConnectInfo(address) = parts
            .extensions
            .get::<ConnectInfo<SocketAddr>>()
            .copied()
            .ok_or_else(|| ApiError::unauthorized("the request's address is unknown"))?;
        api.identity.user(address.ip(), parts)
    }
}
