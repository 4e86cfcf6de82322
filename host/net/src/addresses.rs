//! Which addresses are public, and what the others are: by IANA's registries of special-purpose addresses (RFC 6890),
//! <https://www.iana.org/assignments/iana-ipv4-special-registry>,
//! <https://www.iana.org/assignments/iana-ipv6-special-registry>.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// What an address is that is not public, in words and as the range that it lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Special {
    words: &'static str,
    range: IpNet,
    /// The IPv4 address that an IPv6 address stands for.
    embedded: Option<Ipv4Addr>,
}

impl fmt::Display for Special {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(embedded) = self.embedded {
            write!(f, "it stands for {embedded}: ")?;
        }
        write!(f, "{}, {}", self.words, self.range)
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8, words: &'static str) -> (Ipv4Net, &'static str) {
    (Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length), words)
}

const fn v6(segments: [u16; 8], length: u8, words: &'static str) -> (Ipv6Net, &'static str) {
    let [a, b, c, d, e, f, g, h] = segments;
    (Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), length), words)
}

/// What is not public in IPv4.
const SPECIAL_V4: [(Ipv4Net, &str); 16] = [
    v4(0, 0, 0, 0, 8, "this network"),
    v4(10, 0, 0, 0, 8, "private"),
    v4(100, 64, 0, 0, 10, "behind a carrier's NAT"),
    v4(127, 0, 0, 0, 8, "loopback"),
    // The metadata of clouds is at 169.254.169.254.
    v4(169, 254, 0, 0, 16, "link-local"),
    v4(168, 63, 129, 16, 32, "the host of an Azure machine"),
    v4(172, 16, 0, 0, 12, "private"),
    v4(192, 0, 0, 0, 24, "reserved for protocols"),
    v4(192, 0, 2, 0, 24, "documentation"),
    v4(192, 88, 99, 0, 24, "the old relays of 6to4"),
    v4(192, 168, 0, 0, 16, "private"),
    v4(198, 18, 0, 0, 15, "benchmarks"),
    v4(198, 51, 100, 0, 24, "documentation"),
    v4(203, 0, 113, 0, 24, "documentation"),
    v4(224, 0, 0, 0, 4, "multicast"),
    v4(240, 0, 0, 0, 4, "reserved"),
];

/// What is not public in IPv6, the narrower range first. What stands for a public IPv4 address is an exception.
const SPECIAL_V6: [(Ipv6Net, &str); 15] = [
    v6([0; 8], 128, "unspecified"),
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128, "loopback"),
    v6([0; 8], 96, "IPv4-compatible"),
    v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96, "IPv4-translated"),
    // RFC 8215.
    v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, "the NAT64 of a local network"),
    v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64, "discarded"),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, "Teredo"),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, "reserved for protocols"),
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, "documentation"),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, "documentation"),
    v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16, "segment routing"),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, "private"),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, "link-local"),
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, "site-local"),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, "multicast"),
];
/// All that is assigned to hosts of the internet is in here.
const GLOBAL: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
const ALL_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0);

/// Returns what an address is that is not public, or nothing where it is: reachable from anywhere.
///
/// An IPv6 address that stands for an IPv4 one and is translated on the way (mapped, NAT64, 6to4, ISATAP) is as public
/// as that.
pub(super) fn special(address: IpAddr) -> Option<Special> {
    match address.to_canonical() {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address),
    }
}

fn special_v4(address: Ipv4Addr) -> Option<Special> {
    let found = SPECIAL_V4.iter().find(|(range, _)| range.contains(&address))?;
    Some(Special { words: found.1, range: found.0.into(), embedded: None })
}

fn special_v6(address: Ipv6Addr) -> Option<Special> {
    if let Some(embedded) = translated(address) {
        return special_v4(embedded).map(|special| Special { embedded: Some(embedded), ..special });
    }
    let special = |words, range| Some(Special { words, range: IpNet::V6(range), embedded: None });
    match SPECIAL_V6.iter().find(|(range, _)| range.contains(&address)) {
        Some((range, words)) => special(words, *range),
        None if GLOBAL.contains(&address) => None,
        None => special("not assigned", ALL_V6),
    }
}

/// Returns the IPv4 address that packets to an IPv6 address end up at, where the form of it says so.
fn translated(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        // NAT64 (RFC 6052).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(join(high, low)),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => Some(join(high, low)),
        // ISATAP (RFC 5214), within any prefix of the internet's.
        [first, _, _, _, 0 | 0x200, 0x5efe, high, low] if first & 0xe000 == 0x2000 => Some(join(high, low)),
        _ => None,
    }
}

/// Returns every IPv4 address that an IPv6 address holds in some form, whether or not packets are translated to it.
pub(super) fn embedded(address: IpAddr) -> impl Iterator<Item = Ipv4Addr> {
    let found = match address.to_canonical() {
        IpAddr::V4(_) => [None, None],
        IpAddr::V6(address) => match address.segments() {
            // Compatible (RFC 4291 §2.5.5.1), translated (RFC 2765), and the NAT64 of a local network.
            [0, 0, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => {
                [Some(join(high, low)), None]
            }
            [0x64, 0xff9b, 1, _, _, _, high, low] => [Some(join(high, low)), None],
            // Teredo (RFC 4380): its server, and the client with its bits turned over.
            [0x2001, 0, high, low, _, _, own_high, own_low] => {
                [Some(join(high, low)), Some(join(!own_high, !own_low))]
            }
            _ => [translated(address), None],
        },
    };
    found.into_iter().flatten()
}

fn join(high: u16, low: u16) -> Ipv4Addr {
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Ipv4Addr::new(a, b, c, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_not_public() {
        for text in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.9",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::7f00:1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(special(text.parse().unwrap()).is_some(), "{text}");
        }
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
            "2002:101:101::1",
            "2001:200::1",
            "2606:4700::1111",
            "2a00::1",
            "3ffe::1",
        ] {
            assert_eq!(special(text.parse().unwrap()), None, "{text}");
        }
    }

    #[test]
    fn an_address_that_is_not_public_is_named_by_what_it_is() {
        for (text, shown) in [
            ("169.254.169.254", "link-local, 169.254.0.0/16"),
            ("10.1.2.3", "private, 10.0.0.0/8"),
            ("::ffff:10.1.2.3", "private, 10.0.0.0/8"),
            ("64:ff9b::7f00:1", "it stands for 127.0.0.1: loopback, 127.0.0.0/8"),
            ("2002:a00:1::1", "it stands for 10.0.0.1: private, 10.0.0.0/8"),
            ("2a00::5efe:c0a8:1", "it stands for 192.168.0.1: private, 192.168.0.0/16"),
            ("::1", "loopback, ::1/128"),
            ("::7f00:1", "IPv4-compatible, ::/96"),
            ("2001:0:a00:1::1", "Teredo, 2001::/32"),
            ("fd00:ec2::254", "private, fc00::/7"),
            ("4000::1", "not assigned, ::/0"),
        ] {
            assert_eq!(special(text.parse().unwrap()).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn every_form_shows_the_ipv4_address_that_it_holds() {
        for text in [
            "::192.0.2.1",
            "::ffff:0:192.0.2.1",
            "64:ff9b::192.0.2.1",
            "64:ff9b:1::192.0.2.1",
            "2002:c000:201::",
            "2a00::5efe:192.0.2.1",
            "2a00::200:5efe:192.0.2.1",
            "2001:0:c000:201::",
            "2001::3fff:fdfe",
        ] {
            let held: Vec<_> = embedded(text.parse().unwrap()).collect();
            assert!(held.contains(&Ipv4Addr::new(192, 0, 2, 1)), "{text}: {held:?}");
        }
        for text in ["192.0.2.1", "::ffff:192.0.2.1", "2a00::1"] {
            assert_eq!(embedded(text.parse().unwrap()).count(), 0, "{text}");
        }
    }
}
