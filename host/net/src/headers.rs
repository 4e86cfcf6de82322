//! Which headers a plugin may set: those of a fixed list, and those that the operator adds.
//!
//! Services trust headers that name the user (`x-forwarded-user`, `remote-user`, and more than can be listed) when the
//! request comes from their own network, as a plugin's requests do. So a header that is not known to be harmless is
//! refused.

use std::fmt;
use std::str::FromStr;

use http::HeaderName;

/// Headers that do not name a user.
const HARMLESS: [&str; 42] = [
    // What is wanted in return (RFC 9110 §12.5, RFC 7240).
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "prefer",
    "priority",
    "range",
    // On which condition (RFC 9110 §13).
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    // What the body is (RFC 9110 §8, RFC 9530).
    "content-digest",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-location",
    "content-md5",
    "digest",
    "etag",
    "last-modified",
    "link",
    "repr-digest",
    // Caches and time.
    "cache-control",
    "date",
    "pragma",
    // Which request it is.
    "idempotency-key",
    "x-idempotency-key",
    "x-request-id",
    "x-correlation-id",
    "traceparent",
    "tracestate",
    // Keys, which a plugin has by its configuration.
    "api-key",
    "x-api-key",
    "x-goog-api-key",
    "private-token",
    "x-gotify-key",
    // Messages of ntfy, and their author.
    "title",
    "tags",
    "x-priority",
    "x-title",
    "x-made-by",
];

/// The same by the beginnings of their names; `x-plugin-` is for whatever a plugin and its target agree about.
const HARMLESS_PREFIXES: [&str; 5] = ["x-plugin-", "x-amz-", "x-github-", "x-gitlab-", "x-slack-"];

/// Headers between two hops, and those that say how the body is framed (RFC 9110 §7.6.1).
pub(super) const HOP_BY_HOP: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What a header is set for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    /// A raw output, which Waypost sends to the subscription's target.
    Output,
    /// A request of the plugin's own, to a host that it is allowed to call.
    Request,
}

/// A header, or all whose names begin alike: `x-acme-key`, `x-acme-*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderPattern {
    /// In lower case.
    name: String,
    is_prefix: bool,
}

/// Why a text names no header that the operator can let plugins set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderPatternError {
    /// It is no name.
    #[error("expected a header's name, such as `x-acme-key` or `x-acme-*`, found `{0}`")]
    Name(String),
    /// No setting can allow it.
    #[error("`{0}` is never a plugin's to set: {1}")]
    Never(String, &'static str),
}

impl FromStr for HeaderPattern {
    type Err = HeaderPatternError;

    fn from_str(text: &str) -> Result<Self, HeaderPatternError> {
        let (name, is_prefix) = match text.strip_suffix('*') {
            Some(start) => (start, true),
            None => (text, false),
        };
        let parsed = HeaderName::from_bytes(name.as_bytes());
        let name = parsed.map_err(|_| HeaderPatternError::Name(text.to_owned()))?.as_str().to_owned();
        if !is_prefix && let Some(reason) = never(&name, Voice::Request) {
            return Err(HeaderPatternError::Never(name, reason));
        }
        Ok(Self { name, is_prefix })
    }
}

impl fmt::Display for HeaderPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name, if self.is_prefix { "*" } else { "" })
    }
}

impl HeaderPattern {
    fn covers(&self, name: &str) -> bool {
        if self.is_prefix { name.starts_with(&self.name) } else { name == self.name }
    }
}

/// Checks a header by its name in lower case.
pub(super) fn check(name: &str, voice: Voice, further: &[HeaderPattern]) -> Result<(), &'static str> {
    if let Some(reason) = never(name, voice) {
        return Err(reason);
    }
    let is_of_the_request =
        matches!(name, "authorization" | "content-type" | "content-length" | "user-agent")
            || name.starts_with("ce-");
    if voice == Voice::Request && is_of_the_request
        || HARMLESS.contains(&name)
        || HARMLESS_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || further.iter().any(|pattern| pattern.covers(name))
    {
        return Ok(());
    }
    Err("the operator has not allowed it (the setting plugin_headers)")
}

/// Says why a header is not a plugin's to set, whatever the operator allows.
fn never(name: &str, voice: Voice) -> Option<&'static str> {
    match name {
        // The host makes the body as long as it says.
        "content-length" if voice == Voice::Request => None,
        name if HOP_BY_HOP.contains(&name) => Some("it is the connection's"),
        "host" => Some("it is the target's, which the URL names"),
        "cookie" => Some("it continues a browser's session"),
        "forwarded" | "via" | "x-real-ip" | "x-client-ip" | "true-client-ip" | "remote-user" => {
            Some("it is a proxy's word about who is asking")
        }
        "x-http-method-override"
        | "x-http-method"
        | "x-method-override"
        | "x-original-url"
        | "x-rewrite-url" => Some("it makes another request of this one"),
        name if name.starts_with("x-forwarded") => Some("it is a proxy's word about who is asking"),
        name if name.starts_with("waypost-") => Some("it is Waypost's own"),
        name if name.starts_with("sec-") || name == "origin" => Some("it is a browser's"),
        _ if voice == Voice::Request => None,
        "authorization" => Some("it is the subscription's `auth`"),
        "content-type" => Some("a raw body has a member of its own for it"),
        "user-agent" => Some("it says who sends, and that is Waypost"),
        name if name.starts_with("webhook-") => Some("it is Waypost's word that the delivery is genuine"),
        // A target would take the body for a CloudEvent, which it was not checked as.
        name if name.starts_with("ce-") => Some("an output that is a CloudEvent is an `event`"),
        _ => None,
    }
}

/// Tells whether two names are one to a server that keeps headers as CGI does, with `_` for `-`.
pub(super) fn is_same(name: &str, other: &str) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    name.len() == other.len() && name.bytes().zip(other.bytes()).all(|(one, two)| plain(one) == plain(two))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(name: &str) -> Result<(), &'static str> {
        check(name, Voice::Output, &[])
    }

    fn request(name: &str) -> Result<(), &'static str> {
        check(name, Voice::Request, &[])
    }

    /// A raw output with `http-remote-user: boss` made a subscription of boss's.
    #[test]
    fn what_speaks_of_who_is_asking_is_refused() {
        for name in [
            "http-remote-user",
            "http_remote_user",
            "remote-user",
            "x-remote-user",
            "x-user",
            "x-auth-request-user",
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-user",
            "x-real-ip",
            "via",
            "cookie",
            "x-http-method-override",
            "waypost-agent",
            "sec-fetch-site",
            "origin",
            "host",
            "connection",
            "te",
            "transfer-encoding",
            "anything",
        ] {
            assert!(output(name).is_err() && request(name).is_err(), "{name}");
        }
    }

    #[test]
    fn what_applications_need_is_allowed() {
        for name in [
            "accept",
            "prefer",
            "content-encoding",
            "idempotency-key",
            "x-api-key",
            "x-slack-signature",
            "x-plugin-anything",
            "x-made-by",
        ] {
            assert_eq!((output(name), request(name)), (Ok(()), Ok(())), "{name}");
        }
        for name in ["authorization", "content-type", "user-agent", "ce-id", "content-length"] {
            assert!(output(name).is_err(), "{name}: a delivery has its own");
            assert_eq!(request(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn the_operator_adds_to_the_list() {
        let further = ["X-Acme-*", "x-scope-orgid"].map(|text| text.parse().unwrap());
        for name in ["x-acme-key", "x-acme-", "x-scope-orgid"] {
            assert_eq!(check(name, Voice::Output, &further), Ok(()), "{name}");
        }
        assert!(check("x-scope-orgid-2", Voice::Output, &further).is_err());
        assert!(check("x-forwarded-for", Voice::Output, &["x-*".parse().unwrap()]).is_err());
        for never in ["Cookie", "waypost-agent", "x-forwarded-user"] {
            assert!(matches!(never.parse::<HeaderPattern>(), Err(HeaderPatternError::Never(..))), "{never}");
        }
        for bad in ["", "*", "a b"] {
            assert!(matches!(bad.parse::<HeaderPattern>(), Err(HeaderPatternError::Name(_))), "{bad}");
        }
        assert_eq!("X-Acme-*".parse::<HeaderPattern>().unwrap().to_string(), "x-acme-*");
    }
}
