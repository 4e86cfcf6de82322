//! Pages of other sites: one layer before all routes refuses what a browser sends for them.
//!
//! Who opens a page of somebody else lends it his browser, which reaches a Waypost on the same machine, where the default
//! user is an admin. The browser says for whose page it asks (`Sec-Fetch-Site`, `Origin`) and under which name (`Host`):
//! a page whose own name was pointed at this machine (DNS rebinding) counts as Waypost's own for the browser. CORS is
//! never granted, so no page can send another site a header of its own choice.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::future::Either;
use tower::{Layer, Service};

use super::body;
use super::error::ApiError;
use crate::foreign;

/// Fetch Metadata (W3C), which pages cannot set themselves.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// The most characters of a foreign header in an answer.
const SHOWN_MAX: usize = 100;

/// Under which names requests may come, and which pages may send them.
#[derive(Clone, Debug, Default)]
pub struct Sites {
    /// Host names besides `localhost` and addresses, in lower case: `name`, `*.name` for all below it, `*` for any.
    pub hosts: Vec<String>,
    /// Origins whose pages may send requests, as browsers write them: `https://portal.example`.
    pub origins: Vec<String>,
    /// Whether only this machine reaches the listener. Then every other name is a rebinding page's.
    pub is_local: bool,
}

impl Sites {
    /// Returns why a request is refused, if it is.
    fn refuse(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<ApiError> {
        // First: a rebinding page counts as our own for its browser, which lets it send any header.
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
            // Over plain HTTP to another machine, browsers say nothing of the site.
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
            // A page can ask for these: they lead here, but browsers take them for another machine and say nothing of
            // the site.
            Some(address) => !(self.is_local && is_disguised(address)),
            None => is_nobodys(host) || self.hosts.iter().any(|own| covers(own, host)),
        }
    }

    fn trusts(&self, origin: &HeaderValue) -> bool {
        self.origins.iter().any(|trusted| trusted.as_bytes() == origin.as_bytes())
    }
}

/// Splits `host:port`. Brackets stay, a dot at the end goes.
fn split(authority: &str) -> Option<(&str, Option<u16>)> {
    let end = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let (host, port) = match authority[end..].rfind(':') {
        Some(colon) => (&authority[..end + colon], &authority[end + colon + 1..]),
        None => (authority, ""),
    };
    let port = if port.is_empty() { None } else { Some(port.parse().ok()?) };
    Some((host.strip_suffix('.').unwrap_or(host), port))
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

/// Tells whether no stranger can own a name: `localhost` and what is below it (RFC 6761 §6.3), nothing at all, and
/// `127.1`, as curl writes it; no name ends in a number (WHATWG URL, "ends in a number").
fn is_nobodys(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    last.eq_ignore_ascii_case("localhost") || last.bytes().all(|byte| byte.is_ascii_digit())
}

fn covers(own: &str, host: &str) -> bool {
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

/// Tells whether an origin is that of the request itself. Only the browser knows the scheme: a proxy may have taken TLS off.
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

/// Tells whether a request has a token, which a browser sends for no page of another site.
fn has_token(headers: &HeaderMap) -> bool {
    let scheme = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().get(..7));
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "))
}

/// Tells whether somebody follows a link to a page of ours: the page that he leaves sees nothing of the answer. Handlers
/// are started by GET as well, and that no link does.
fn is_visit(method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
    let says = |name, value: &str| headers.get(name).is_some_and(|found| found == value);
    matches!(*method, Method::GET | Method::HEAD)
        && !uri.path().starts_with("/dispatch/")
        && says(FETCH_MODE, "navigate")
        && says(FETCH_DEST, "document")
}

fn misdirected(host: &[u8]) -> ApiError {
    let detail = format!(
        "`{}` is no name of this Waypost: put it into the setting allowed_hosts if it is one (a web page could have \
         pointed its own name here)",
        shown(host)
    );
    ApiError::new(StatusCode::MISDIRECTED_REQUEST, detail)
}

fn cross_site(headers: &HeaderMap) -> ApiError {
    let page = match headers.get(ORIGIN) {
        Some(origin) => format!("a page of `{}`", shown(origin.as_bytes())),
        None => "a page of another site".to_owned(),
    };
    ApiError::forbidden(format!(
        "cross-site: {page} must not ask this of Waypost in your name (if it may, put its origin into the setting \
         allowed_origins)"
    ))
}

fn shown(header: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(header).chars().take(SHOWN_MAX).collect();
    foreign::line(&text).into_owned()
}

/// The layer: what it refuses reaches no route.
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
mod tests {
    use super::*;

    /// Returns the status with which a request is refused, or 200.
    fn status(sites: &Sites, request: &str, headers: &[(&str, &str)]) -> u16 {
        let (method, path) = request.split_once(' ').unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        let refused = sites.refuse(&method.parse().unwrap(), &path.parse().unwrap(), &map);
        refused.map_or(200, |refused| refused.into_response().status().as_u16())
    }

    fn sites(hosts: &[&str], origins: &[&str], is_local: bool) -> Sites {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Sites { hosts: owned(hosts), origins: owned(origins), is_local }
    }

    #[test]
    fn on_loopback_only_names_that_no_stranger_owns_are_taken() {
        let local = sites(&["waypost.example", "*.lab.example"], &[], true);
        let host = |host| status(&local, "GET /events", &[("host", host)]);
        for own in [
            "localhost",
            "LOCALHOST:8070",
            "localhost.",
            "a.localhost",
            "127.0.0.1:8070",
            "127.9.9.9",
            "[::1]:8070",
            "192.0.2.1",
            "127.1:8070",
            "Waypost.Example",
            "waypost.example.:443",
            "a.b.lab.example",
            "",
        ] {
            assert_eq!(host(own), 200, "{own}");
        }
        for foreign in [
            "evil.example:8070",
            "localhost.evil.example",
            "xlocalhost",
            "waypost.example.evil",
            "lab.example",
            "evil-lab.example",
            "127.0.0.1.evil.example",
            "[::1].evil.example",
            "[::1",
            "localhost:http",
            "a@localhost:x",
            "0.0.0.0:8070",
            "[::]:8070",
            "[::ffff:127.0.0.1]:8070",
            "[::ffff:7f00:1]",
        ] {
            assert_eq!(host(foreign), 421, "{foreign}");
        }
        assert_eq!(status(&local, "GET /events", &[]), 200, "HTTP/1.0 has no host");
        assert_eq!(status(&local, "GET /events", &[("host", "localhost"), ("host", "evil.example")]), 421);
        assert_eq!(status(&local, "GET http://evil.example/events", &[("host", "localhost")]), 421);
        assert_eq!(status(&sites(&["*"], &[], true), "GET /events", &[("host", "evil.example")]), 200);
    }

    #[test]
    fn elsewhere_names_are_taken_unless_they_are_configured() {
        let host = |sites: &Sites, host| status(sites, "POST /receive", &[("host", host)]);
        assert_eq!(host(&sites(&[], &[], false), "waypost.svc.cluster.local:8070"), 200);
        assert_eq!(host(&sites(&[], &[], false), "0.0.0.0:8070"), 200);
        assert_eq!(host(&sites(&["waypost.example"], &[], false), "evil.example"), 421);
        assert_eq!(host(&sites(&["waypost.example"], &[], false), "10.0.0.7:8070"), 200);
    }

    #[test]
    fn no_header_of_a_page_helps_a_foreign_host() {
        let local = sites(&[], &["http://evil.example"], true);
        let headers = [
            ("host", "evil.example"),
            ("origin", "http://evil.example"),
            ("authorization", "Bearer x"),
            ("sec-fetch-site", "same-origin"),
        ];
        assert_eq!(status(&local, "GET /events", &headers), 421);
    }

    #[test]
    fn the_browser_says_whose_page_asks() {
        let local = sites(&[], &["https://portal.example"], true);
        let asks = |request, site, more: &[(&str, &str)]| {
            status(&local, request, &[&[("host", "127.0.0.1:8070"), ("sec-fetch-site", site)], more].concat())
        };
        for own in ["same-origin", "none"] {
            assert_eq!(asks("POST /receive", own, &[("origin", "http://127.0.0.1:8070")]), 200);
            assert_eq!(asks("GET /dispatch/add/1", own, &[]), 200);
        }
        for other in ["same-site", "cross-site", "", "Same-Origin", "other"] {
            for request in [
                "POST /receive",
                "GET /events",
                "GET /dispatch/add/1",
                "OPTIONS /receive",
                "DELETE /events/1",
            ] {
                assert_eq!(asks(request, other, &[]), 403, "{other} {request}");
            }
            assert_eq!(asks("POST /receive", other, &[("origin", "http://localhost:9000")]), 403);
            assert_eq!(asks("POST /receive", other, &[("origin", "https://portal.example")]), 200);
        }
        let mixed =
            [("host", "localhost"), ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")];
        assert_eq!(status(&local, "POST /receive", &mixed), 403);
    }

    #[test]
    fn a_link_may_be_followed_but_starts_nothing() {
        let local = sites(&[], &[], true);
        let follow = |request, mode, dest| {
            let headers =
                [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", mode), ("sec-fetch-dest", dest)];
            status(&local, request, &headers)
        };
        assert_eq!(follow("GET /events/1", "navigate", "document"), 200);
        assert_eq!(follow("GET /dispatch/add/1", "navigate", "document"), 403);
        assert_eq!(follow("POST /receive", "navigate", "document"), 403);
        assert_eq!(follow("GET /events/1", "navigate", "iframe"), 403);
        assert_eq!(follow("GET /events/1", "no-cors", "script"), 403);
    }

    /// Browsers send `Sec-Fetch-Site` to this machine and over TLS only.
    #[test]
    fn without_fetch_metadata_the_origin_must_be_our_own() {
        let wide = sites(&[], &["https://portal.example"], false);
        let asks = |host, origin| status(&wide, "POST /receive", &[("host", host), ("origin", origin)]);
        for (host, own) in [
            ("waypost.lan:8070", "http://waypost.lan:8070"),
            ("waypost.lan", "http://waypost.lan"),
            ("waypost.lan:80", "http://waypost.lan"),
            ("Waypost.lan", "https://waypost.lan"),
            ("waypost.lan:443", "https://waypost.lan"),
            ("[fd00::1]:8070", "http://[fd00::1]:8070"),
            ("waypost.lan:8070", "https://portal.example"),
        ] {
            assert_eq!(asks(host, own), 200, "{host} {own}");
        }
        for (host, other) in [
            ("waypost.lan:8070", "http://evil.example"),
            ("waypost.lan:8070", "http://waypost.lan"),
            ("waypost.lan", "http://waypost.lan:8070"),
            ("waypost.lan", "http://waypost.lan.evil.example"),
            ("waypost.lan", "null"),
            ("waypost.lan", ""),
            ("waypost.lan", "https://portal.example.evil"),
        ] {
            assert_eq!(asks(host, other), 403, "{host} {other}");
        }
        assert_eq!(status(&wide, "POST /receive", &[("host", "waypost.lan")]), 200, "no browser");
        let both = [("host", "a"), ("origin", "http://a"), ("origin", "http://evil.example")];
        assert_eq!(status(&wide, "POST /receive", &both), 403);
        assert_eq!(
            status(&wide, "POST http://a/receive", &[("host", "evil"), ("origin", "http://evil")]),
            403
        );
    }

    #[test]
    fn a_token_is_no_pages() {
        let wide = sites(&[], &[], false);
        let asks = |token| {
            status(&wide, "POST /receive", &[("host", "a"), ("origin", "http://b"), ("authorization", token)])
        };
        assert_eq!(asks("Bearer x"), 200);
        assert_eq!(asks("bearer x"), 200);
        assert_eq!(asks("Basic eDp4"), 403);
    }
}
