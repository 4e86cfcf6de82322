//! Headers that tell browsers that every response is data, not a page, whatever an event, a target or a
//! program has put into it.
//!
//! No response is HTML, and `nosniff` keeps browsers from treating one as HTML. If a browser shows one all
//! the same, it loads and runs nothing (`Content-Security-Policy`), and other sites can neither frame nor
//! embed it. A route that serves pages sets its own headers, which are kept.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;

/// Nothing is loaded and no script runs. `connect-src` is for people who send requests from the console of
/// their browser's developer tools.
const POLICY: &str = "default-src 'none'; connect-src 'self'; frame-ancestors 'none'";

/// The headers of every response. They cost no allocation except their slots in the map.
static HEADERS: [(HeaderName, HeaderValue); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

/// Sent over TLS only (RFC 6797 §7.2 forbids it over plain HTTP): browsers use TLS for the next year.
static TRANSPORT: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Adds the headers to a response, except those that it already has.
pub(super) fn inform(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.reserve(HEADERS.len());
    for (name, value) in &HEADERS {
        headers.entry(name).or_insert_with(|| value.clone());
    }
    response
}

/// Adds `Strict-Transport-Security` to a response that is sent over TLS.
pub(super) fn require_tls(response: &mut Response) {
    response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, TRANSPORT.clone());
}

/// Returns the headers as lines, for a response that is written by hand.
pub(super) fn lines() -> String {
    let line = |(name, value): &(HeaderName, HeaderValue)| {
        format!("{name}: {}\r\n", value.to_str().expect("these are ASCII"))
    };
    HEADERS.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn headers_of_the_response_are_kept() {
        let own = Response::builder().header("content-security-policy", "default-src 'self'");
        let informed = inform(own.body(Body::empty()).unwrap());
        assert_eq!(informed.headers()["content-security-policy"], "default-src 'self'");
        assert_eq!(informed.headers()["x-content-type-options"], "nosniff");
        assert_eq!(informed.headers().len(), HEADERS.len());
        assert_eq!(lines().lines().count(), HEADERS.len());
    }
}
