//! Which headers a subscription's owner may add to its requests, and whose values are secrets.
//!
//! More is allowed than to plugins (`headers`): an owner knows the target, and a target asks for headers that no list has.
//! What frames the request, what Waypost says itself, and what names a user or a proxy is nobody's to set.

use super::headers::HOP_BY_HOP;

/// Says why a header is not an owner's to set. `_` counts as `-`, as servers that keep headers as CGI does take it.
pub(super) fn check(name: &str) -> Result<(), &'static str> {
    let name = name.to_ascii_lowercase().replace('_', "-");
    let name = name.as_str();
    let reason = match name {
        name if HOP_BY_HOP.contains(&name) => "it is the connection's",
        "host" => "it is the target's, which the URL names",
        "user-agent" => "it says who sends, and that is Waypost",
        name if name.starts_with("content-") => "it says what the body is, which the event decides",
        name if name.starts_with("webhook-") => "it is Waypost's word that the delivery is genuine",
        name if name.starts_with("ce-") => "it is an attribute of the event",
        name if name.starts_with("waypost-") => "it is Waypost's own",
        name if name.starts_with("sec-") || name == "origin" => "it is a browser's",
        "via" | "x-real-ip" | "x-client-ip" | "true-client-ip" | "x-cluster-client-ip" => PROXY,
        name if name.contains("forwarded") => PROXY,
        name if ["remote-user", "auth-request", "authenticated-user"]
            .iter()
            .any(|part| name.contains(part)) =>
        {
            PROXY
        }
        "x-http-method-override"
        | "x-http-method"
        | "x-method-override"
        | "x-original-url"
        | "x-rewrite-url" => "it makes another request of this one",
        _ => return Ok(()),
    };
    Err(reason)
}

const PROXY: &str = "it is a proxy's word about who is asking";

/// Parts of names that say that the value is a secret.
const SECRETS: [&str; 12] = [
    "auth",
    "bearer",
    "cookie",
    "credential",
    "jwt",
    "key",
    "passphrase",
    "password",
    "secret",
    "session",
    "signature",
    "token",
];

/// Tells whether a header's value is a secret, by its name in lower case.
pub fn is_secret(name: &str) -> bool {
    SECRETS.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_speaks_for_others_is_refused() {
        for name in [
            "host",
            "connection",
            "transfer-encoding",
            "te",
            "upgrade",
            "content-type",
            "Content-Length",
            "content_encoding",
            "webhook-id",
            "webhook_signature",
            "webhook-request-origin",
            "ce-id",
            "waypost-agent",
            "WAYPOST_AGENT",
            "user-agent",
            "forwarded",
            "x-forwarded-user",
            "x-remote-user",
            "http-remote-user",
            "via",
            "x-http-method-override",
            "sec-fetch-site",
            "origin",
        ] {
            assert!(check(name).is_err(), "{name}");
        }
        for name in ["authorization", "cookie", "x-api-key", "x-anything", "accept", "traceparent", "x-event"]
        {
            assert_eq!(check(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_name_tells_whether_the_value_is_a_secret() {
        for name in ["authorization", "x-api-key", "private-token", "cookie", "x-client-secret", "x-password"]
        {
            assert!(is_secret(name), "{name}");
        }
        for name in ["accept", "x-team", "traceparent"] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
