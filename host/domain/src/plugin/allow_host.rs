//! Which hosts a plugin may call.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One grant of outbound HTTP: `host`, `host:port`, `*.domain`, each with or without `http://` or `https://` before it.
///
/// Without a port it grants only the scheme's own: 80 for http, 443 for https. `*.domain` grants every name below the
/// domain, and not the domain itself. It is written in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AllowHost {
    scheme: Option<Scheme>,
    name: Name,
    port: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Scheme {
    Http,
    Https,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Name {
    /// A name or an address; an IPv6 address in brackets, as in a URL.
    One(String),
    /// Every name that ends in `.` and this.
    Below(String),
}

/// Why a text grants no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllowHostError {
    /// It is empty.
    #[error("is empty: write a host, like `example.org`, `example.org:8443` or `*.example.org`")]
    Empty,
    /// It has another scheme.
    #[error("has a scheme that is neither `http://` nor `https://`")]
    Scheme,
    /// It continues after the host.
    #[error("goes on behind the host: a grant has no path, query or user, only `scheme://host:port`")]
    Rest,
    /// The port is no number from 1 to 65535.
    #[error("has no valid port: it is a number from 1 to 65535")]
    Port,
    /// It has a `*` elsewhere than as the whole first label, or nothing behind it.
    #[error("has a `*` that is not the whole first label: write `*.example.org`")]
    Wildcard,
    /// It is no host name and no address.
    #[error("is no host name and no address: names are ASCII (a name with other letters in its `xn--` form)")]
    Name,
}

impl AllowHost {
    /// Tells whether it grants a request, given the parts of its URL. The port is the one that is connected to.
    pub fn grants(&self, scheme: &str, host: &str, port: u16) -> bool {
        let host = match bracketed(host) {
            Some(address) => format!("[{address}]"),
            None => host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase(),
        };
        let is_named = match &self.name {
            Name::One(name) => *name == host,
            Name::Below(domain) => {
                host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
        };
        let Some(scheme) = Scheme::of(scheme) else { return false };
        is_named
            && self.scheme.is_none_or(|only| only == scheme)
            && port == self.port.unwrap_or_else(|| scheme.port())
    }

    /// Tells whether all that `other` grants is granted by this too.
    pub fn covers(&self, other: &Self) -> bool {
        // No name begins with `*`: it stands for every name below the domain.
        let host = match &other.name {
            Name::One(name) => name.clone(),
            Name::Below(domain) => format!("*.{domain}"),
        };
        let mut schemes = [Scheme::Http, Scheme::Https].into_iter();
        schemes.all(|scheme| {
            other.scheme.is_some_and(|only| only != scheme)
                || self.grants(scheme.as_str(), &host, other.port.unwrap_or_else(|| scheme.port()))
        })
    }
}

impl Scheme {
    fn of(text: &str) -> Option<Self> {
        match text {
            text if text.eq_ignore_ascii_case("http") => Some(Self::Http),
            text if text.eq_ignore_ascii_case("https") => Some(Self::Https),
            _ => None,
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl FromStr for AllowHost {
    type Err = AllowHostError;

    fn from_str(text: &str) -> Result<Self, AllowHostError> {
        let (scheme, rest) = match text.split_once("://") {
            None => (None, text),
            Some((scheme, rest)) => (Some(Scheme::of(scheme).ok_or(AllowHostError::Scheme)?), rest),
        };
        if rest.contains(['/', '?', '#', '@', '\\']) {
            return Err(AllowHostError::Rest);
        }
        let (host, port) = split_port(rest)?;
        let name = name(&host.to_ascii_lowercase())?;
        Ok(Self { scheme, name, port })
    }
}

/// Splits `host:port`, where the host may be an IPv6 address in brackets.
fn split_port(text: &str) -> Result<(&str, Option<u16>), AllowHostError> {
    let host_end = match text.starts_with('[') {
        true => text.find(']').map(|end| end + 1).ok_or(AllowHostError::Name)?,
        false => text.find(':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at(host_end);
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        // `+80` parses as a number, and `::1` has no brackets.
        Some(digits) if digits.contains(':') => return Err(AllowHostError::Name),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().ok().filter(|port| *port != 0).ok_or(AllowHostError::Port)?)
        }
        Some(_) => return Err(AllowHostError::Port),
        None => return Err(AllowHostError::Name),
    };
    Ok((host, port))
}

/// Returns the address of `[::1]`, so that all its spellings are one.
fn bracketed(host: &str) -> Option<Ipv6Addr> {
    host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

fn name(host: &str) -> Result<Name, AllowHostError> {
    if let Some(address) = bracketed(host) {
        return Ok(Name::One(format!("[{address}]")));
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let (domain, is_below) = match host.strip_prefix("*.") {
        Some(domain) => (domain, true),
        None => (host, false),
    };
    let is_label_char = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(is_label_char);
    match domain {
        "" if is_below => Err(AllowHostError::Wildcard),
        "" => Err(AllowHostError::Empty),
        domain if domain.contains('*') => Err(AllowHostError::Wildcard),
        domain if domain.len() > 253 || !domain.split('.').all(is_label) => Err(AllowHostError::Name),
        domain if is_below => Ok(Name::Below(domain.to_owned())),
        domain => Ok(Name::One(domain.to_owned())),
    }
}

impl fmt::Display for AllowHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(scheme) = self.scheme {
            write!(f, "{}://", scheme.as_str())?;
        }
        match &self.name {
            Name::One(name) => f.write_str(name)?,
            Name::Below(domain) => write!(f, "*.{domain}")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl Serialize for AllowHost {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AllowHost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(|error| serde::de::Error::custom(format_args!("`{text}` {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_reads_what_it_writes() {
        for text in
            ["example.org", "example.org:8443", "http://a", "https://a:1", "*.a.b", "[::1]:80", "127.0.0.1"]
        {
            assert_eq!(text.parse::<AllowHost>().unwrap().to_string(), text);
        }
        assert_eq!("HTTPS://Example.ORG.".parse::<AllowHost>().unwrap().to_string(), "https://example.org");
        let json = serde_json::to_string(&["a".parse::<AllowHost>().unwrap()]).unwrap();
        assert_eq!(json, r#"["a"]"#);
        let error = serde_json::from_str::<Vec<AllowHost>>(r#"["ftp://a"]"#).unwrap_err().to_string();
        assert!(error.starts_with("`ftp://a` has a scheme that is neither"), "{error}");
    }

    #[test]
    fn what_is_no_grant_says_what_is_expected() {
        for (text, error) in [
            ("", AllowHostError::Empty),
            ("http://", AllowHostError::Empty),
            (":80", AllowHostError::Empty),
            ("ftp://a", AllowHostError::Scheme),
            ("http://a/", AllowHostError::Rest),
            ("user@a", AllowHostError::Rest),
            ("a:0", AllowHostError::Port),
            ("a:65536", AllowHostError::Port),
            ("a:+80", AllowHostError::Port),
            ("a:", AllowHostError::Port),
            ("*", AllowHostError::Wildcard),
            ("*.", AllowHostError::Wildcard),
            ("a.*.b", AllowHostError::Wildcard),
            ("*a.b", AllowHostError::Wildcard),
            ("::1", AllowHostError::Name),
            ("[::1", AllowHostError::Name),
            ("[::1]x", AllowHostError::Name),
            ("[x]", AllowHostError::Name),
            ("bücher.example", AllowHostError::Name),
            ("a b", AllowHostError::Name),
            ("a..b", AllowHostError::Name),
        ] {
            assert_eq!(text.parse::<AllowHost>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_grant_is_for_its_scheme_its_port_and_its_names() {
        let grants =
            |grant: &str, scheme, host, port| grant.parse::<AllowHost>().unwrap().grants(scheme, host, port);
        assert!(grants("example.org", "https", "Example.org", 443));
        assert!(grants("example.org", "http", "example.org.", 80));
        assert!(!grants("example.org", "https", "example.org", 8443));
        assert!(!grants("example.org", "http", "example.org", 443));
        assert!(!grants("example.org", "https", "a.example.org", 443));
        assert!(!grants("example.org", "ftp", "example.org", 443));
        assert!(grants("example.org:8443", "https", "example.org", 8443));
        assert!(!grants("https://example.org", "http", "example.org", 80));
        assert!(grants("*.example.org", "https", "a.b.example.org", 443));
        assert!(!grants("*.example.org", "https", "example.org", 443));
        assert!(!grants("*.example.org", "https", ".example.org", 443));
        assert!(!grants("*.example.org", "https", "evilexample.org", 443));
        assert!(grants("[0:0::1]:1", "http", "[::1]", 1));
        assert!(grants("[::FFFF:127.0.0.1]:1", "http", "[::ffff:7f00:1]", 1));
    }
}
