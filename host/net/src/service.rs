//! The client for services that the operator names (policy, carts, ingest), and for the command line.

use std::error::Error as StdError;
use std::io;

use http::HeaderMap;
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Url};
use rustls::ClientConfig;

use super::error::find;
use super::mark::{Agent, mark};
use super::names::Names;
use super::reach::Reach;
use super::tls::{self, ClientCertificate};

/// The most headers of an answer.
const HEADERS_MAX: usize = 256;

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// TLS.
    #[error("failed to set up TLS")]
    Tls(#[source] rustls::Error),
    /// What was to be trusted are no authorities.
    #[error("failed to read the authorities")]
    Authorities(#[source] Box<dyn StdError + Send + Sync>),
    /// The rest.
    #[error("failed to set up the HTTP client")]
    Client(#[source] reqwest::Error),
}

/// Which versions of HTTP a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Those that both sides know.
    Any,
    /// HTTP/1.1: each request under way has a connection of its own.
    Http1,
}

/// Begins a client by the rule of this module, for requests that its user sends in their own name.
///
/// # Errors
/// When TLS cannot be set up.
pub fn builder() -> Result<ClientBuilder, SetUpError> {
    by_rule(Version::Any, tls::anonymous, Reach::ANYWHERE)
}

/// Begins one as [`builder`] does that trusts the authorities of a PEM file alone.
///
/// # Errors
/// When the file holds none, or TLS cannot be set up.
pub fn builder_trusting(pem: &[u8]) -> Result<ClientBuilder, SetUpError> {
    let tls = tls::of_target(None, Some(pem)).map_err(|error| SetUpError::Authorities(error.into()))?;
    by_rule(Version::Any, || Ok(tls), Reach::ANYWHERE)
}

/// Makes a client for what Waypost sends, after `set` has said how long it waits for what.
///
/// # Errors
/// When TLS or the client cannot be set up.
pub fn service(
    version: Version,
    certificate: Option<ClientCertificate>,
    set: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> Result<Client, SetUpError> {
    let mut headers = HeaderMap::new();
    mark(&mut headers, Agent::Service);
    let tls = || certificate.map_or_else(tls::anonymous, tls::certified);
    let builder = by_rule(version, tls, Reach::ANYWHERE)?
        .default_headers(headers)
        .user_agent(concat!("waypost/", env!("CARGO_PKG_VERSION")));
    set(builder).build().map_err(SetUpError::Client)
}

fn by_rule(
    version: Version,
    tls: impl FnOnce() -> Result<ClientConfig, rustls::Error>,
    reach: Reach,
) -> Result<ClientBuilder, SetUpError> {
    let mut tls = tls().map_err(SetUpError::Tls)?;
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    let builder = Client::builder()
        .dns_resolver(Names::new(reach))
        .no_proxy()
        .redirect(Policy::none())
        .http1_allow_spaces_after_header_name_in_responses(true)
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .http1_ignore_invalid_headers_in_responses(true)
        .http1_max_headers(HEADERS_MAX);
    let builder = match version {
        Version::Any => {
            tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            builder
        }
        Version::Http1 => builder.http1_only(),
    };
    Ok(builder.tls_backend_preconfigured(tls))
}

/// Returns a URL for a text that people read.
pub fn without_credentials(url: &Url) -> String {
    let mut url = url.clone();
    match url.set_username("").and_then(|()| url.set_password(None)) {
        // A URL that cannot have credentials has none.
        Ok(()) | Err(()) => url.into(),
    }
}

/// Tells whether a connection ended before there was an answer, as one does that was kept for too long.
pub fn is_broken_off(error: &reqwest::Error) -> bool {
    let by_hyper =
        |error: &hyper::Error| error.is_incomplete_message() || error.is_canceled() || error.is_closed();
    let by_system = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
    };
    let error: &(dyn StdError + 'static) = error;
    find(error).is_some_and(by_hyper) || find(error).is_some_and(by_system)
}

/// Tells whether there was an answer that is no HTTP.
pub fn is_no_http(error: &reqwest::Error) -> bool {
    find::<hyper::Error>(error).is_some_and(hyper::Error::is_parse)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, UdpSocket};
    use std::sync::Arc;

    use super::*;
    use crate::Refused;
    use waypost_runtime::shortage;

    async fn asked(reach: Reach) -> reqwest::Error {
        tls::install_provider();
        let client = by_rule(Version::Any, tls::anonymous, reach).unwrap().build().unwrap();
        // The system reserves this port, and nothing listens there.
        client.get("http://localhost:1/").send().await.unwrap_err()
    }

    /// Where IPv6 was switched off, a service at `localhost` that was down was waited for forever, as if ports were
    /// short: the last address that was tried was `[::1]`.
    #[tokio::test]
    async fn a_name_leads_to_addresses_alone_that_are_in_reach() {
        let refused = asked(Reach::guarded(Arc::default(), Agent::Plugin)).await;
        assert!(matches!(find::<Refused>(&refused), Some(Refused::NotPublic { .. })), "{refused:?}");
        let down = asked(Reach::ANYWHERE).await;
        let has_ipv6 = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
        assert!(!shortage::is_behind(&down), "IPv6: {has_ipv6}, {down:?}");
    }
}
