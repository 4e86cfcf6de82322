//! The client address of a request: that of the peer, or the one that trusted proxies report.

use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, VIA};
use http::{HeaderMap, HeaderName};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Tells whether a request has a header that proxies add when they forward it.
pub(super) fn is_forwarded(headers: &HeaderMap) -> bool {
    [FORWARDED, X_FORWARDED_FOR, X_REAL_IP, VIA].iter().any(|name| headers.contains_key(name))
}

/// Returns the last address before the trusted proxies. Each proxy appends the address that it received the
/// request from; anything before that can be forged. `X-Forwarded-For` counts before `Forwarded` (RFC 7239):
/// most proxies write the first, and pass on the second as the client sent it.
pub(super) fn client(peer: IpAddr, headers: &HeaderMap, trusts: impl Fn(IpAddr) -> bool) -> IpAddr {
    if !trusts(peer) || !is_forwarded(headers) {
        return peer;
    }
    let (name, read): (_, fn(&str) -> Option<IpAddr>) = match headers.contains_key(X_FORWARDED_FOR) {
        true => (X_FORWARDED_FOR, of_text),
        false => (FORWARDED, of_forwarded),
    };
    let mut found = peer;
    for line in headers.get_all(name).iter().rev() {
        for element in line.to_str().unwrap_or_default().rsplit(',') {
            // An address that is hidden or unreadable ends the search.
            let Some(address) = read(element.trim()) else { return found };
            found = address;
            if !trusts(address) {
                return found;
            }
        }
    }
    found
}

/// Reads the `for` of an element of `Forwarded`.
fn of_forwarded(element: &str) -> Option<IpAddr> {
    let mut pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.eq_ignore_ascii_case("for"))?;
    of_text(value.trim_matches('"'))
}

/// Reads an address with or without a port; an IPv6 address with a port stands in brackets.
fn of_text(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address =
        bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))?;
    Some(IpAddr::to_canonical(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(peer: &str, lines: &[(&str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        let trusts = |address: IpAddr| address.is_loopback() || address.to_string().starts_with("10.");
        client(peer.parse().unwrap(), &headers, trusts).to_string()
    }

    #[test]
    fn the_last_address_before_the_trusted_proxies_counts() {
        let xff = "x-forwarded-for";
        for (lines, expected) in [
            (&[(xff, "203.0.113.5")][..], "203.0.113.5"),
            (&[(xff, "127.0.0.1, 203.0.113.5")], "203.0.113.5"),
            (&[(xff, "203.0.113.5, 10.0.0.2, 10.0.0.3")], "203.0.113.5"),
            (&[(xff, "198.51.100.1"), (xff, "203.0.113.5, 10.0.0.3")], "203.0.113.5"),
            (&[(xff, "203.0.113.5:4711")], "203.0.113.5"),
            (&[(xff, "[2001:db8::1]:80")], "2001:db8::1"),
            (&[(xff, "::ffff:203.0.113.5")], "203.0.113.5"),
            (&[(xff, "rubbish, 10.0.0.3")], "10.0.0.3"),
            (&[(xff, "")], "127.0.0.1"),
            (&[("forwarded", "for=192.0.2.9, for=\"[2001:db8::1]:1\";proto=https")], "2001:db8::1"),
            (&[("forwarded", "by=10.0.0.1; For=203.0.113.5")], "203.0.113.5"),
            (&[("forwarded", "for=127.0.0.1"), (xff, "192.0.2.9")], "192.0.2.9"),
            (&[("forwarded", "for=unknown")], "127.0.0.1"),
            (&[], "127.0.0.1"),
        ] {
            assert_eq!(found("127.0.0.1", lines), expected, "{lines:?}");
        }
        assert_eq!(found("203.0.113.1", &[(xff, "192.0.2.9")]), "203.0.113.1", "it is no proxy of ours");
    }
}
