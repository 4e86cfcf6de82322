//! The mark of what Waypost sends for others.
//!
//! A user or a plugin chose some of the request's bytes, and it comes from an address that other services may trust. So
//! a Waypost takes neither the user header nor the default user from it, whatever the mark says.

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// The header; its value says which part of Waypost has sent the request.
pub const MARK: HeaderName = HeaderName::from_static("waypost-agent");

/// The part of Waypost that sends a request on others' behalf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agent {
    /// A delivery to a subscription's target.
    Delivery,
    /// A plugin's own request.
    Plugin,
    /// The own request of a handler's program.
    Handler,
    /// A question to the policy server, or a handler's cart or upload.
    Service,
}

impl Agent {
    /// Returns the mark's value.
    pub fn value(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Delivery => "delivery",
            Self::Plugin => "plugin",
            Self::Handler => "handler",
            Self::Service => "service",
        })
    }
}

/// Marks a request and replaces any mark that is there. Must be the last change to its headers.
pub fn mark(headers: &mut HeaderMap, agent: Agent) {
    headers.insert(MARK, agent.value());
}

/// Tells whether a request was sent by a Waypost for others. The mark's value does not count, nor how often it is there.
pub fn is_marked(headers: &HeaderMap) -> bool {
    headers.contains_key(MARK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_replaces_all_that_a_guest_has_put_there() {
        let mut headers = HeaderMap::new();
        assert!(!is_marked(&headers));
        for value in ["", "boss"] {
            headers.append("Waypost-AGENT", HeaderValue::from_static(value));
        }
        assert!(is_marked(&headers));
        mark(&mut headers, Agent::Plugin);
        let values: Vec<_> = headers.get_all(MARK).iter().collect();
        assert_eq!(values, ["plugin"]);
    }
}
