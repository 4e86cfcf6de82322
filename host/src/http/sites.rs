//! Pages of other sites: one layer before all routes refuses the requests that a browser sends for them.
//!
//! Any page that a user opens can send requests from the user's browser, which reaches a Waypost on the same machine,
//! where the default user is an admin. The browser says which page asks (`Sec-Fetch-Site`, `Origin`) and under which name
//! (`Host`). The name is needed because of DNS rebinding: to the browser, a page whose own name points at this machine has
//! the same origin as Waypost. CORS is never granted, so no page can send Waypost a header of its own choice.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::future::Either;
use tower::{Layer, Service};

use super::body;
use super::error::ApiError;
use waypost_runtime::foreign;

/// Fetch Metadata (W3C), which pages cannot set themselves.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// The most characters of a header that an error repeats.
const SHOWN_MAX: usize = 100;

/// Which host names requests may use, and which pages may send them.
#[derive(Clone, Debug, Default)]
pub struct Sites {
    /// Host names besides `localhost` and addresses, in lower case: `name`, `*.name` for all below it, `*` for any.
    pub hosts: Vec<String>,
    /// Origins whose pages may send requests, as browsers write them: `https://portal.example`.
    pub origins: Vec<String>,
    /// Whether only this machine can reach the listener. Then any other name is that of a rebinding page.
    pub is_local: bool,
}

impl Sites {
    /// Returns why a request is refused, if it is.
    fn refuse(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<ApiError> {
        // Checked first: to the browser, a rebinding page has our own origin, so it may send any header.
        if self.is_local || !self.hosts.is_empty() {
            let named = headers.get_all(HOST).iter().map(HeaderValue::as_bytes);
            let mut named = named.chain(uri.authority().map(|authority| authority.as_str().as_bytes()));
            if let Some(foreign) = named.find(|host| !self.is_own(host)) {
                return Some(misdirected(foreign));
            }
        }
        let mut fetch_sites = headers.get_all(FETCH_SITE).iter();
        let mut origins = headers.get_all(ORIGIN).iter();
        let is_trusted = match (headers.contains_key(FETCH_SITE), headers.contains_key(ORIGIN)) {
            (true, has_origin) => {
                fetch_sites.all(|site| matches!(site.as_bytes(), b"same-origin" | b"none"))
                    || has_origin && origins.all(|origin| self.trusts(origin))
            }
            // Over plain HTTP to another machine, browsers send no `Sec-Fetch-Site`.
            (false, true) => origins.all(|origin| self.trusts(origin) || is_same(origin, uri, headers)),
            (false, false) => true,
        };
        if is_trusted || has_token(headers) || is_visit(method, uri, headers) {
            return None;
        }
        Some(cross_site(headers))
    }

    /// Tells whether a `Host` names this Waypost.
    fn is_own(&self, host: &[u8]) -> bool {
        let Some((host, _)) = std::str::from_utf8(host).ok().and_then(split) else { return false };
        match address(host) {
            // A page can request these addresses. They lead to this machine, but browsers treat them as another one and
            // send no `Sec-Fetch-Site`.
            Some(address) => !(self.is_local && is_disguised(address)),
            None => is_unregistrable(host) || self.hosts.iter().any(|own| covers(own, host)),
        }
    }

    fn trusts(&self, origin: &HeaderValue) -> bool {
        self.origins.iter().any(|trusted| trusted.as_bytes() == origin.as_bytes())
    }
}

/// Splits `host:port`. Brackets stay.
fn split(authority: &str) -> Option<(&str, Option<u16>)> {
    let end = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let (host, port) = match authority[end..].rfind(':') {
        Some(colon) => (&authority[..end + colon], &authority[end + colon + 1..]),
        None => (authority, ""),
    };
    let port = if port.is_empty() { None } else { Some(port.parse().ok()?) };
    Some((host, port))
}

fn address(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

/// Tells whether an address leads to this machine without saying so: `0.0.0.0`, `::`, `::ffff:127.0.0.1`.
fn is_disguised(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_unspecified(),
        IpAddr::V6(address) => address.is_unspecified() || address.to_ipv4_mapped().is_some(),
    }
}

/// Tells whether a host is a name that no attacker can register: `localhost` and names below it (RFC 6761
/// §6.3), an empty one, or `127.1`, as curl writes it; no name ends in a number (WHATWG URL, "ends in a
/// number"). A dot at the end is not skipped: Firefox does not treat `localhost.` as this machine and sends
/// no `Sec-Fetch-Site` to it.
fn is_unregistrable(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_number = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
    host.is_empty() || last.eq_ignore_ascii_case("localhost") || is_number
}

fn covers(own: &str, host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    match own.strip_prefix('*') {
        Some("") => true,
        Some(domain) => {
            let start = host.len().checked_sub(domain.len()).filter(|start| *start > 0);
            let end = start.and_then(|start| host.get(start..));
            end.is_some_and(|end| end.eq_ignore_ascii_case(domain))
        }
        None => own.eq_ignore_ascii_case(host),
    }
}

/// Tells whether an origin is that of the request itself. Only the browser knows the scheme, because a proxy
/// may terminate TLS.
fn is_same(origin: &HeaderValue, uri: &Uri, headers: &HeaderMap) -> bool {
    let own = uri.authority().map(http::uri::Authority::as_str);
    let own = own.or_else(|| headers.get(HOST).and_then(|host| host.to_str().ok()));
    let page = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    let (Some(own), Some((scheme, page))) = (own.and_then(split), page) else { return false };
    let default = if scheme == "https" { 443 } else { 80 };
    split(page).is_some_and(|page| {
        page.0.eq_ignore_ascii_case(own.0) && page.1.unwrap_or(default) == own.1.unwrap_or(default)
    })
}

/// Tells whether a request has a token, which a browser does not send for a page of another site.
fn has_token(headers: &HeaderMap) -> bool {
    let scheme = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().get(..7));
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "))
}

/// Tells whether a user follows a link to a page of ours. The page with the link cannot read the response. Handlers can
/// be started by GET as well, and a link must not do that.
fn is_visit(method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
    let says = |name, value: &str| headers.get(name).is_some_and(|found| found == value);
    matches!(*method, Method::GET | Method::HEAD)
        && !uri.path().starts_with("/dispatch/")
        && says(FETCH_MODE, "navigate")
        && says(FETCH_DEST, "document")
}

fn misdirected(host: &[u8]) -> ApiError {
    let detail = format!(
        "`{}` is not a name of this Waypost: add it to the setting allowed_hosts if it should be (a web page could have \
         pointed its own name here)",
        shown(host)
    );
    ApiError::misdirected(detail)
}

fn cross_site(headers: &HeaderMap) -> ApiError {
    let page = match headers.get(ORIGIN) {
        Some(origin) => format!("a page of `{}`", shown(origin.as_bytes())),
        None => "a page of another site".to_owned(),
    };
    ApiError::forbidden(format!(
        "cross-site: {page} must not ask this of Waypost in your name (if it may, add its origin to the setting \
         allowed_origins)"
    ))
}

fn shown(header: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(header).chars().take(SHOWN_MAX).collect();
    foreign::line(&text).into_owned()
}

/// The layer. Requests that it refuses reach no route.
#[derive(Clone, Debug)]
pub(super) struct Guard(pub(super) Arc<Sites>);

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner, sites: Arc::clone(&self.0) }
    }
}

/// Routes behind the layer.
#[derive(Clone, Debug)]
pub(super) struct Guarded<S> {
    inner: S,
    sites: Arc<Sites>,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response>,
    S::Error: Send,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Either<S::Future, Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self.sites.refuse(request.method(), request.uri(), request.headers()) {
            None => Either::Left(self.inner.call(request)),
            Some(refusal) => Either::Right(Box::pin(async move {
                tracing::debug!(path = request.uri().path(), "a web page's request is refused");
                body::drain(request.into_body()).await;
                Ok(refusal.into_response())
            })),
        }
    }
}

#[cfg(test)]
mod tests;
