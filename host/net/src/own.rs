//! Which addresses lead to this service itself.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{PoisonError, RwLock};

use rustix::io::Errno;

/// Where this service is served.
#[derive(Debug, Default)]
pub(super) struct Own(RwLock<Vec<SocketAddr>>);

impl Own {
    /// Adds an address.
    pub(super) fn serves_at(&self, address: SocketAddr) {
        let (address, mut own) = (canonical(address), self.0.write().unwrap_or_else(PoisonError::into_inner));
        if !own.contains(&address) {
            own.push(address);
        }
    }

    /// Tells whether a connection to `to` would reach this service, however the address is written.
    ///
    /// # Errors
    /// When it cannot be found out: this machine has no descriptor for the question.
    pub(super) fn has(&self, to: SocketAddr) -> io::Result<bool> {
        let to = canonical(to);
        let own = self.0.read().unwrap_or_else(PoisonError::into_inner);
        for served in own.iter().filter(|served| served.port() == to.port()) {
            if leads_to(served.ip(), to)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Tells whether only this machine reaches all addresses that are known.
    pub(super) fn is_local(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).iter().all(|served| served.ip().is_loopback())
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip if ip == address.ip() => address,
        ip => SocketAddr::new(ip, address.port()),
    }
}

/// Tells whether a listener at `own` gets what is sent to `to`.
fn leads_to(own: IpAddr, to: SocketAddr) -> io::Result<bool> {
    if own == to.ip() {
        return Ok(true);
    }
    if to.ip().is_unspecified() {
        // The system takes it for the loopback address.
        return Ok(own.is_loopback() || own.is_unspecified());
    }
    // One at `[::]` gets IPv4 as well.
    let gets_all = own.is_unspecified() && (own.is_ipv6() || to.is_ipv4());
    if gets_all { is_local(to) } else { Ok(false) }
}

/// Tells whether an address is this machine's, whose list of them changes while the service runs: one that packets to it
/// come from, or one that can be bound to.
fn is_local(address: SocketAddr) -> io::Result<bool> {
    Ok(address.ip().is_loopback() || is_own_source(address)? || is_bindable(address))
}

/// Sends nothing: connecting a UDP socket only looks up the route.
fn is_own_source(to: SocketAddr) -> io::Result<bool> {
    let any = if to.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = match UdpSocket::bind((any, 0)) {
        // A machine without this family of addresses has none of them.
        Err(error) if error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error()) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => return Ok(false),
        bound => bound?,
    };
    match socket.connect(to) {
        Ok(()) => Ok(socket.local_addr()?.ip() == to.ip()),
        // There is no route to it.
        Err(_) => Ok(false),
    }
}

fn is_bindable(mut address: SocketAddr) -> bool {
    address.set_port(0);
    let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
    // Where it is set, every address can be bound to.
    let setting = std::fs::read_to_string(format!("/proc/sys/net/{family}/ip_nonlocal_bind"));
    setting.is_ok_and(|setting| setting.trim() == "0") && UdpSocket::bind(address).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serving_at(address: &str) -> Own {
        let own = Own::default();
        own.serves_at(address.parse().unwrap());
        own
    }

    fn is_own(own: &Own, to: &str) -> bool {
        own.has(to.parse().unwrap()).unwrap()
    }

    /// A subscription's target was the service's own `/eventmatch`, which trusted the request because of its address.
    #[test]
    fn the_services_own_address_is_known_in_each_form() {
        let served = serving_at("127.0.0.1:8070");
        for own in ["127.0.0.1:8070", "[::ffff:127.0.0.1]:8070", "0.0.0.0:8070", "[::]:8070"] {
            assert!(is_own(&served, own), "{own}");
        }
        for other in ["127.0.0.1:8071", "127.0.0.2:8070", "[::1]:8070", "192.0.2.1:8070"] {
            assert!(!is_own(&served, other), "{other}");
        }
        assert!(!is_own(&Own::default(), "127.0.0.1:8070"), "a service without a listener has none");
    }

    #[test]
    fn a_listener_at_every_address_is_reached_by_each_of_the_machine() {
        let served = serving_at("0.0.0.0:8070");
        for own in ["127.0.0.1:8070", "127.9.9.9:8070", "0.0.0.0:8070", "[::ffff:127.0.0.1]:8070"] {
            assert!(is_own(&served, own), "{own}");
        }
        for other in ["192.0.2.1:8070", "127.0.0.1:80", "[::1]:8070", "[2001:db8::1]:8070"] {
            assert!(!is_own(&served, other), "{other}");
        }
        let served = serving_at("[::]:8070");
        for own in ["[::1]:8070", "127.0.0.1:8070", "[::ffff:127.0.0.1]:8070", "0.0.0.0:8070"] {
            assert!(is_own(&served, own), "{own}");
        }
        assert!(!is_own(&served, "[2001:db8::1]:8070"));
    }
}
