//! The operator's proxy (`http_proxy`), through which requests on others' behalf go.
//!
//! Plain HTTP is sent to it with the whole URL (RFC 9112 §3.2.2); for TLS it opens a tunnel by CONNECT (RFC 9110 §9.3.6).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{HeaderValue, PROXY_AUTHORIZATION};
use http::{Request, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use percent_encoding::percent_decode_str;
use tower::Service;
use url::{Host, Url};

use super::error::Failure;

/// The error of every tunnel, which hyper-util gives no name.
type TunnelError = <Tunnel<HttpConnector> as Service<Uri>>::Error;

/// A proxy, with its credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    uri: Uri,
    authorization: Option<HeaderValue>,
}

/// Why a text names no proxy. Its credentials are not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected `http://host:port` or `http://user:password@host:port`, without a path")]
pub struct ProxyError;

/// What went wrong at the proxy.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyFailure {
    /// There is no connection to it.
    #[error("the proxy at {proxy} (http_proxy) cannot be reached")]
    Away {
        /// Its host and port.
        proxy: String,
        /// Why.
        #[source]
        source: Failure,
    },
    /// It does not know us.
    #[error("the proxy at {proxy} (http_proxy) does not take its credentials")]
    Credentials {
        /// Its host and port.
        proxy: String,
    },
    /// It opens no tunnel to the target.
    #[error("the proxy at {proxy} (http_proxy) opened no connection to {to}")]
    NoTunnel {
        /// Its host and port.
        proxy: String,
        /// The target's host and port.
        to: String,
        /// What it said.
        #[source]
        source: TunnelError,
    },
}

impl Proxy {
    /// Returns its URL, without the credentials.
    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Returns the value of `Proxy-Authorization`.
    pub(super) fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// Shows a plain request who we are; for TLS the tunnel does. A guest's own header of this name is replaced.
    pub(super) fn authorize<B>(&self, request: &mut Request<B>) {
        request.headers_mut().remove(PROXY_AUTHORIZATION);
        if let Some(value) = &self.authorization
            && is_plain(request.uri())
        {
            request.headers_mut().insert(PROXY_AUTHORIZATION, value.clone());
        }
    }

    /// Tells whether it is on this machine, by what its URL says.
    pub(super) fn is_local(&self) -> bool {
        match self.uri.host().map(Host::parse) {
            Some(Ok(Host::Ipv4(address))) => address.is_loopback(),
            Some(Ok(Host::Ipv6(address))) => address.to_canonical().is_loopback(),
            Some(Ok(Host::Domain(name))) => name == "localhost",
            Some(Err(_)) | None => false,
        }
    }

    /// Says what a failed tunnel means.
    pub(super) fn failure(&self, error: TunnelError, to: &Uri) -> ProxyFailure {
        let proxy = self.to_string();
        match error {
            TunnelError::ConnectFailed(source) => ProxyFailure::Away { proxy, source },
            TunnelError::ProxyAuthRequired => ProxyFailure::Credentials { proxy },
            source @ (TunnelError::Io(_)
            | TunnelError::MissingHost
            | TunnelError::ProxyHeadersTooLong
            | TunnelError::TunnelUnexpectedEof
            | TunnelError::TunnelUnsuccessful) => {
                let to = to.authority().map(ToString::to_string).unwrap_or_default();
                ProxyFailure::NoTunnel { proxy, to, source }
            }
        }
    }
}

impl ProxyFailure {
    /// Tells whether every request fails like this, whatever its target is.
    pub(super) fn is_operators(&self) -> bool {
        match self {
            Self::Away { .. } | Self::Credentials { .. } => true,
            Self::NoTunnel { .. } => false,
        }
    }
}

/// Tells whether a request goes without TLS.
pub(super) fn is_plain(uri: &Uri) -> bool {
    uri.scheme_str() == Some("http")
}

impl FromStr for Proxy {
    type Err = ProxyError;

    fn from_str(text: &str) -> Result<Self, ProxyError> {
        let url: Url = text.parse().map_err(|_| ProxyError)?;
        let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(ProxyError);
        };
        if url.scheme() != "http" || !is_bare || port == 0 {
            return Err(ProxyError);
        }
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let (user, password) = (decoded(url.username()), decoded(url.password().unwrap_or_default()));
        let authorization = match user.is_empty() && password.is_empty() {
            true => None,
            false => {
                let pair = BASE64_STANDARD.encode(format!("{user}:{password}"));
                let mut value = HeaderValue::try_from(format!("Basic {pair}")).map_err(|_| ProxyError)?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let uri = format!("http://{host}:{port}/").parse().map_err(|_| ProxyError)?;
        Ok(Self { uri, authorization })
    }
}

/// Without the credentials.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.uri.authority().map_or("", |authority| authority.as_str()))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_host_and_a_port_and_keeps_its_credentials_to_itself() {
        let proxy: Proxy = "http://user:p%40ss@proxy.example:3128".parse().unwrap();
        assert_eq!(
            (proxy.to_string(), format!("{proxy:?}")),
            ("proxy.example:3128".into(), "Proxy(proxy.example:3128)".into())
        );
        assert_eq!(proxy.authorization().unwrap(), "Basic dXNlcjpwQHNz");
        assert_eq!(proxy.uri(), "http://proxy.example:3128/");
        assert_eq!("http://proxy.example".parse::<Proxy>().unwrap().to_string(), "proxy.example:80");
        for bad in [
            "",
            "proxy.example:3128",
            "https://proxy.example",
            "socks5://p:1",
            "http://p/x",
            "http://p:0",
            "http://p/?x",
        ] {
            assert_eq!(bad.parse::<Proxy>(), Err(ProxyError), "{bad}");
        }
    }

    #[test]
    fn a_proxy_is_local_by_its_own_address() {
        for (text, local) in [
            ("http://127.0.0.1:1", true),
            ("http://[::1]:1", true),
            ("http://localhost:1", true),
            ("http://10.0.0.1:1", false),
            ("http://proxy.example:1", false),
        ] {
            assert_eq!(text.parse::<Proxy>().unwrap().is_local(), local, "{text}");
        }
    }

    #[test]
    fn plain_requests_alone_show_the_credentials() {
        let proxy: Proxy = "http://user:pass@proxy.example:3128".parse().unwrap();
        for (uri, shown) in [("http://a/", true), ("https://a/", false)] {
            let mut request = Request::post(uri).header(PROXY_AUTHORIZATION, "guest").body(()).unwrap();
            proxy.authorize(&mut request);
            let value = request.headers().get(PROXY_AUTHORIZATION);
            assert_eq!(value.is_some_and(|value| value == "Basic dXNlcjpwYXNz"), shown, "{uri}");
            assert_eq!(value.is_some(), shown, "{uri}");
        }
    }
}
