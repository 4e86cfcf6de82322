//! The identity of a request: the user header, if it comes from a trusted address and the request was not sent by a
//! Waypost on others' behalf.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::HeaderName;
use axum::http::request::Parts;
use ipnet::IpNet;

use super::Api;
use super::error::ApiError;
use crate::net::{MARK, is_marked};

/// The sender of events that another Waypost has forwarded. No user has this name.
const NOBODY: &str = "";

/// How a request's user is found.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The header with the user's name.
    pub user_header: HeaderName,
    /// The user of a request without the header.
    pub default_user: String,
    /// The networks whose user header is trusted.
    pub trusted: Vec<IpNet>,
    /// The users who may see everything.
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

/// The sender of events: a user, or no user if another Waypost forwards them.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    /// The name.
    pub(super) name: String,
}

impl Identity {
    fn user(&self, address: IpAddr, parts: &Parts) -> Result<User, ApiError> {
        if is_marked(&parts.headers) {
            return Err(ApiError::unauthorized(format!(
                "a Waypost has sent this request for others (the header {MARK}): it speaks for no user, and only /receive takes it"
            )));
        }
        self.named(address, parts)
    }

    fn sender(&self, address: IpAddr, parts: &Parts) -> Result<Sender, ApiError> {
        // Its address must still be a trusted one. Its user header is ignored.
        if is_marked(&parts.headers) {
            return self.believe(address.to_canonical()).map(|()| Sender { name: NOBODY.to_owned() });
        }
        self.named(address, parts).map(|user| Sender { name: user.name })
    }

    fn believe(&self, address: IpAddr) -> Result<(), ApiError> {
        if self.trusted.iter().any(|network| network.contains(&address)) {
            return Ok(());
        }
        Err(ApiError::unauthorized(format!(
            "requests from {address} carry no identity here: only those from trusted_proxies do"
        )))
    }

    fn named(&self, address: IpAddr, parts: &Parts) -> Result<User, ApiError> {
        self.believe(address.to_canonical())?;
        let mut values = parts.headers.get_all(&self.user_header).iter();
        let value = values.next();
        if values.next().is_some() {
            // A proxy that adds its header without removing the client's: the two cannot be told apart.
            return Err(ApiError::bad_request(format!(
                "the header {} stands there more than once: let the proxy replace it",
                self.user_header
            )));
        }
        let name = match value {
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
        api.identity.user(address(parts)?, parts)
    }
}

impl FromRequestParts<Arc<Api>> for Sender {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        api.identity.sender(address(parts)?, parts)
    }
}

fn address(parts: &Parts) -> Result<IpAddr, ApiError> {
    let address = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    let ConnectInfo(address) =
        address.ok_or_else(|| ApiError::unauthorized("the request's address is unknown"))?;
    Ok(address.ip())
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use axum::response::IntoResponse;

    use super::*;

    fn identity() -> Identity {
        Identity {
            user_header: HeaderName::from_static("http-remote-user"),
            default_user: "nobody".to_owned(),
            trusted: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
            admins: vec!["root".to_owned()],
        }
    }

    fn parts(headers: &[(&str, &[u8])]) -> Parts {
        let mut request = Request::new(());
        for (name, value) in headers {
            let name = HeaderName::try_from(*name).unwrap();
            request.headers_mut().append(name, axum::http::HeaderValue::from_bytes(value).unwrap());
        }
        request.into_parts().0
    }

    fn user(address: &str, headers: &[(&str, &[u8])]) -> Result<(String, bool), u16> {
        let found = identity().user(address.parse().unwrap(), &parts(headers));
        found.map(|user| (user.name, user.is_admin)).map_err(|error| error.into_response().status().as_u16())
    }

    fn sender(address: &str, headers: &[(&str, &[u8])]) -> Result<String, u16> {
        let found = identity().sender(address.parse().unwrap(), &parts(headers));
        found.map(|sender| sender.name).map_err(|error| error.into_response().status().as_u16())
    }

    /// A delivery to `/eventmatch` created a subscription for the user that its plugin named, or for the default user.
    #[test]
    fn what_a_waypost_sends_is_from_nobody() {
        for mark in [&b"delivery"[..], b"", b"\xff"] {
            for name in ["waypost-agent", "Waypost-Agent"] {
                let root = ("http-remote-user", &b"root"[..]);
                assert_eq!(user("127.0.0.1", &[(name, mark), root]), Err(401));
                assert_eq!(user("127.0.0.1", &[root, (name, mark), (name, mark)]), Err(401));
                assert_eq!(user("127.0.0.1", &[(name, mark)]), Err(401));
                assert_eq!(sender("127.0.0.1", &[(name, mark), root]), Ok(String::new()));
                assert_eq!(sender("192.0.2.1", &[(name, mark)]), Err(401));
            }
        }
        assert_eq!(sender("127.0.0.1", &[("http-remote-user", b"alice")]), Ok("alice".to_owned()));
        assert_eq!(sender("127.0.0.1", &[("http-remote-user", b"")]), Ok("nobody".to_owned()));
    }

    fn named(name: &str) -> Result<(String, bool), u16> {
        Ok((name.to_owned(), false))
    }

    #[test]
    fn the_header_counts_and_nothing_else() {
        assert_eq!(user("127.0.0.1", &[("Http-Remote-User", b"alice")]), named("alice"));
        assert_eq!(user("127.0.0.1", &[("http-remote-user", b" alice ")]), named("alice"));
        assert_eq!(user("127.0.0.1", &[("http-remote-user", "Zo\u{eb}".as_bytes())]), named("Zo\u{eb}"));
        assert_eq!(user("127.0.0.1", &[("remote-user", b"alice"), ("x-user", b"bob")]), named("nobody"));
        assert_eq!(user("127.0.0.1", &[("http-remote-user", b"root")]), Ok(("root".to_owned(), true)));
        assert_eq!(user("127.0.0.1", &[("http-remote-user", b"Root")]), named("Root"));
    }

    #[test]
    fn without_a_name_it_is_the_default_user() {
        assert_eq!(user("127.9.9.9", &[]), named("nobody"));
        assert_eq!(user("::1", &[]), named("nobody"));
        assert_eq!(user("127.0.0.1", &[("http-remote-user", b"  ")]), named("nobody"));
    }

    #[test]
    fn only_trusted_addresses_are_believed_however_they_are_written() {
        for untrusted in ["192.0.2.1", "::2", "::ffff:192.0.2.1"] {
            assert_eq!(user(untrusted, &[("http-remote-user", b"alice")]), Err(401), "{untrusted}");
            assert_eq!(user(untrusted, &[]), Err(401), "{untrusted}");
        }
        // How a dual-stack listener sees 127.0.0.1.
        assert_eq!(user("::ffff:127.0.0.1", &[("http-remote-user", b"alice")]), named("alice"));
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        for bad in [&b"."[..], b"..", b"\xff"] {
            assert_eq!(user("127.0.0.1", &[("http-remote-user", bad)]), Err(400), "{bad:?}");
        }
    }

    /// The first of two headers counted. Behind a proxy that adds its own, a client could name any user.
    #[test]
    fn two_names_are_nobody() {
        assert_eq!(
            user("127.0.0.1", &[("http-remote-user", b"root"), ("http-remote-user", b"mallory")]),
            Err(400)
        );
    }
}
