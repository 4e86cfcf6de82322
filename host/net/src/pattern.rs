//! The entries of `allow_targets` and `deny_targets`: which targets each one names.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use url::Host;

use super::addresses::embedded;

/// One entry: a network (`10.0.0.0/8`), an address, a host name, or `*.suffix` for every name below one; each with or
/// without a port behind it (`10.0.0.0/8:8080`, `[fd00::/8]:8080`). Without a port it names every port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TargetPattern {
    what: What,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum What {
    Network(IpNet),
    /// A name in its ASCII form, in lower case, without a dot at the end.
    Name(String),
    /// Every name that ends in `.` and this.
    Below(String),
}

/// Why a text names no targets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetPatternError {
    /// It is none of the forms.
    #[error("expected {FORM}, found `{0}`")]
    Form(String),
    /// It goes on behind the host, or has a scheme before it.
    #[error("expected a host without a scheme, a path or a user ({FORM}), found `{0}`")]
    Rest(String),
    /// The port is no number from 1 to 65535.
    #[error("expected a port from 1 to 65535 behind the last colon, found `{0}`")]
    Port(String),
    /// The address of the network has bits outside of it.
    #[error("expected the network `{network}`, found `{found}`, which is an address within it")]
    Bits {
        /// What is written.
        found: String,
        /// The network that it lies in.
        network: IpNet,
    },
}

const FORM: &str = "a network, an address, a host name or `*.suffix`, each with or without `:port`, such as \
    `10.0.0.0/8`, `10.1.2.3:8080`, `[fd00::1]:8080`, `intra.example` or `*.intra.example:443`";

impl TargetPattern {
    /// Names the addresses of a network, on every port.
    pub fn network(network: IpNet) -> Self {
        Self { what: What::Network(canonical(network)), port: None }
    }

    /// Tells whether it names a host by its name, given as [`name`] returns it.
    pub(super) fn names(&self, name: &str, port: u16) -> bool {
        let is_named = match &self.what {
            What::Network(_) => false,
            What::Name(own) => own == name,
            What::Below(suffix) => {
                name.strip_suffix(suffix.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
        };
        is_named && self.is_for(port)
    }

    /// Tells whether it names an address, which may be written as IPv4 within IPv6 (mapped) alone.
    pub(super) fn has(&self, to: SocketAddr) -> bool {
        self.is_for(to.port()) && self.contains(to.ip().to_canonical())
    }

    /// Tells whether it names an address, or an IPv4 address that this one holds in any form.
    pub(super) fn has_in_any_form(&self, to: SocketAddr) -> bool {
        self.has(to)
            || self.is_for(to.port()) && embedded(to.ip()).any(|address| self.contains(address.into()))
    }

    fn contains(&self, address: IpAddr) -> bool {
        match &self.what {
            What::Network(network) => network.contains(&address),
            What::Name(_) | What::Below(_) => false,
        }
    }

    fn is_for(&self, port: u16) -> bool {
        self.port.is_none_or(|only| only == port)
    }
}

/// Returns a host's name in the form of [`TargetPattern`].
pub(super) fn name(domain: &str) -> String {
    domain.strip_suffix('.').unwrap_or(domain).to_ascii_lowercase()
}

/// A network of mapped addresses is one of IPv4, which is how addresses are compared.
fn canonical(network: IpNet) -> IpNet {
    match (network, network.addr().to_canonical()) {
        (IpNet::V6(within), IpAddr::V4(address)) if within.prefix_len() >= 96 => {
            Ipv4Net::new(address, within.prefix_len() - 96).map_or(network, IpNet::V4)
        }
        _ => network,
    }
}

impl FromStr for TargetPattern {
    type Err = TargetPatternError;

    fn from_str(text: &str) -> Result<Self, TargetPatternError> {
        if text.contains("//") || text.contains(['?', '#', '@', '\\']) {
            return Err(TargetPatternError::Rest(text.to_owned()));
        }
        let (host, port) = split_port(text)?;
        let what =
            what(host).map_err(|error| error.unwrap_or_else(|| TargetPatternError::Form(text.to_owned())))?;
        Ok(Self { what, port })
    }
}

/// Splits `host:port`, where an IPv6 address or network with a port stands in brackets.
fn split_port(text: &str) -> Result<(&str, Option<u16>), TargetPatternError> {
    let (host, rest) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest),
        // With two colons it is an address of IPv6.
        None if text.matches(':').count() > 1 => (text, ""),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    if rest.is_empty() {
        return Ok((host, None));
    }
    let digits = rest.strip_prefix(':').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let port = digits.and_then(|digits| digits.parse().ok()).filter(|port| *port != 0);
    port.map(|port| (host, Some(port))).ok_or_else(|| TargetPatternError::Port(text.to_owned()))
}

/// Reads a host, or returns what is wrong with it where that is more than its form.
fn what(host: &str) -> Result<What, Option<TargetPatternError>> {
    if host.contains('/') {
        let network: IpNet = host.parse().map_err(|_| None)?;
        if network.trunc() != network {
            let (found, network) = (host.to_owned(), network.trunc());
            return Err(Some(TargetPatternError::Bits { found, network }));
        }
        return Ok(What::Network(canonical(network)));
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(What::Network(address.to_canonical().into()));
    }
    match host.strip_prefix("*.") {
        Some(suffix) => Ok(What::Below(domain(suffix).ok_or(None)?)),
        // An address may be written in another way (`0x7f.1`), as in a URL.
        None => match Host::parse(host) {
            Ok(Host::Ipv4(address)) => Ok(What::Network(IpAddr::V4(address).into())),
            Ok(Host::Domain(_)) => Ok(What::Name(domain(host).ok_or(None)?)),
            Ok(Host::Ipv6(_)) | Err(_) => Err(None),
        },
    }
}

fn domain(text: &str) -> Option<String> {
    let Ok(Host::Domain(domain)) = Host::parse(text) else { return None };
    let domain = name(&domain);
    let is_label = |label: &str| {
        let is_char = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(is_char)
    };
    (domain.len() <= 253 && domain.split('.').all(is_label)).then_some(domain)
}

impl fmt::Display for TargetPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = match &self.what {
            // A network of one is written as its address.
            What::Network(network) if network.prefix_len() == network.max_prefix_len() => {
                network.addr().to_string()
            }
            What::Network(network) => network.to_string(),
            What::Name(name) => name.clone(),
            What::Below(suffix) => format!("*.{suffix}"),
        };
        match (&self.what, self.port) {
            (_, None) => f.write_str(&host),
            (What::Network(IpNet::V6(_)), Some(port)) => write!(f, "[{host}]:{port}"),
            (_, Some(port)) => write!(f, "{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> TargetPattern {
        text.parse().unwrap()
    }

    #[test]
    fn a_pattern_is_written_as_it_is_read() {
        for (text, written) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.0/8:8080", "10.0.0.0/8:8080"),
            ("10.1.2.3", "10.1.2.3"),
            ("10.1.2.3/32:80", "10.1.2.3:80"),
            ("0x7f.1:80", "127.0.0.1:80"),
            ("2130706433", "127.0.0.1"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("[::1]:80", "[::1]:80"),
            ("fd00::/8", "fd00::/8"),
            ("[fd00::/8]:443", "[fd00::/8]:443"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3", "10.1.2.3"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("Intra.Example.", "intra.example"),
            ("intra", "intra"),
            ("a_b.example:8080", "a_b.example:8080"),
            ("größe.example", "xn--gre-6ka8i.example"),
            ("*.Intra.example:443", "*.intra.example:443"),
        ] {
            assert_eq!(pattern(text).to_string(), written, "{text}");
            assert_eq!(pattern(written), pattern(text), "{text}");
        }
    }

    #[test]
    fn what_names_no_target_says_what_is_expected() {
        for (text, error) in [
            (
                "",
                "expected a network, an address, a host name or `*.suffix`, each with or without `:port`, such as",
            ),
            ("*", "found `*`"),
            ("*.", "found `*.`"),
            ("a.*.b", "found `a.*.b`"),
            ("*a.b", "found `*a.b`"),
            ("a b", "found `a b`"),
            ("10.0.0.0/33", "found `10.0.0.0/33`"),
            ("*.10.0.0.1", "found `*.10.0.0.1`"),
            ("256.1.1.1", "found `256.1.1.1`"),
            ("intra.example/8", "found `intra.example/8`"),
            ("[::1", "found `[::1`"),
            ("http://a", "expected a host without a scheme, a path or a user"),
            ("me@a", "expected a host without a scheme, a path or a user"),
            ("a:0", "expected a port from 1 to 65535 behind the last colon, found `a:0`"),
            ("a:+1", "expected a port from 1 to 65535"),
            ("a:", "expected a port from 1 to 65535"),
            ("10.0.0.0/8:65536", "expected a port from 1 to 65535"),
            ("[::1]80", "expected a port from 1 to 65535"),
            ("10.1.2.3/8", "expected the network `10.0.0.0/8`, found `10.1.2.3/8`"),
        ] {
            let found = text.parse::<TargetPattern>().unwrap_err().to_string();
            assert!(found.contains(error), "{text}: {found}");
        }
    }

    #[test]
    fn a_pattern_names_its_names_on_its_port() {
        for (text, name, port, expected) in [
            ("intra.example", "intra.example", 80, true),
            ("intra.example", "a.intra.example", 80, false),
            ("intra.example:80", "intra.example", 443, false),
            ("*.intra.example", "a.b.intra.example", 443, true),
            ("*.intra.example", "intra.example", 443, false),
            ("*.intra.example", ".intra.example", 443, false),
            ("*.intra.example", "evilintra.example", 443, false),
            ("10.0.0.0/8", "10.0.0.1", 80, false),
        ] {
            assert_eq!(pattern(text).names(name, port), expected, "{text} {name}:{port}");
        }
    }

    #[test]
    fn a_pattern_names_its_addresses_on_its_port() {
        for (text, to, has, in_any_form) in [
            ("10.0.0.0/8", "10.1.2.3:80", true, true),
            ("10.0.0.0/8", "[::ffff:10.1.2.3]:80", true, true),
            ("10.0.0.0/8", "[64:ff9b::a01:203]:80", false, true),
            ("10.0.0.0/8", "[2002:a01:203::]:80", false, true),
            ("10.0.0.0/8", "11.1.2.3:80", false, false),
            ("10.0.0.0/8:8080", "10.1.2.3:80", false, false),
            ("10.0.0.0/8:8080", "[64:ff9b::a01:203]:80", false, false),
            ("::/0", "10.1.2.3:80", false, false),
            ("[fd00::/8]:80", "[fd00::1]:80", true, true),
            ("intra.example", "10.1.2.3:80", false, false),
        ] {
            let to = to.parse().unwrap();
            assert_eq!(
                (pattern(text).has(to), pattern(text).has_in_any_form(to)),
                (has, in_any_form),
                "{text} {to}"
            );
        }
    }
}
