//! What requests for users and plugins must not do: name a user, or reach this service itself.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{PoisonError, RwLock};

use http::HeaderName;
use rustix::io::Errno;

use super::headers::{self, HeaderPattern, Voice};

/// The rules for requests that are sent on others' behalf.
#[derive(Debug)]
pub struct Guard {
    /// Where this service is served.
    own: RwLock<Vec<SocketAddr>>,
    user_header: HeaderName,
    further: Vec<HeaderPattern>,
}

impl Default for Guard {
    fn default() -> Self {
        Self::new(HeaderName::from_static("http-remote-user"), Vec::new())
    }
}

impl Guard {
    /// Makes a guard that keeps back `user_header`, and lets plugins set `further` headers besides the usual ones.
    pub fn new(user_header: HeaderName, further: Vec<HeaderPattern>) -> Self {
        Self { own: RwLock::default(), user_header, further }
    }

    /// Names an address at which this service is served: no target leads there from now on.
    pub fn serves_at(&self, address: SocketAddr) {
        let (address, mut own) =
            (canonical(address), self.own.write().unwrap_or_else(PoisonError::into_inner));
        if !own.contains(&address) {
            own.push(address);
        }
    }

    /// Tells whether a connection to `to` would reach this service, however the address is written; also where that
    /// cannot be found out.
    pub fn is_own(&self, to: SocketAddr) -> bool {
        self.try_is_own(to).unwrap_or(true)
    }

    /// Does what [`Self::is_own`] does.
    ///
    /// # Errors
    /// When it cannot be found out: this machine has no descriptor for the question.
    pub(super) fn try_is_own(&self, to: SocketAddr) -> io::Result<bool> {
        let to = canonical(to);
        let own = self.own.read().unwrap_or_else(PoisonError::into_inner);
        for served in own.iter().filter(|served| served.port() == to.port()) {
            if leads_to(served.ip(), to)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Tells whether a URL's host and port are this service's by their text alone: an address, or `localhost`.
    pub fn is_own_by_text(&self, host: &str, port: u16) -> bool {
        match literal(host) {
            Some(address) => self.is_own(SocketAddr::new(address, port)),
            None => {
                let name = host.trim_end_matches('.').to_ascii_lowercase();
                let is_local = name == "localhost" || name.ends_with(".localhost");
                let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
                is_local && loopback.iter().any(|address| self.is_own(SocketAddr::new(*address, port)))
            }
        }
    }

    /// Checks a header that a plugin wants to set.
    ///
    /// # Errors
    /// Says why it is not a plugin's to set.
    pub fn check_header(&self, name: &HeaderName, voice: Voice) -> Result<(), &'static str> {
        if headers::is_same(name.as_str(), self.user_header.as_str()) {
            return Err("it says who is asking, and a plugin speaks for nobody");
        }
        headers::check(name.as_str(), voice, &self.further)
    }
}

/// Returns the address that a URL's host is, if it is one.
pub(super) fn literal(host: &str) -> Option<IpAddr> {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host).parse().ok()
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

    fn serving_at(address: &str) -> Guard {
        let guard = Guard::default();
        guard.serves_at(address.parse().unwrap());
        guard
    }

    fn is_own(guard: &Guard, to: &str) -> bool {
        guard.is_own(to.parse().unwrap())
    }

    /// A subscription's target was the service's own `/eventmatch`, which trusted the request because of its address.
    #[test]
    fn the_services_own_address_is_known_in_each_form() {
        let guard = serving_at("127.0.0.1:8070");
        for own in ["127.0.0.1:8070", "[::ffff:127.0.0.1]:8070", "0.0.0.0:8070", "[::]:8070"] {
            assert!(is_own(&guard, own), "{own}");
        }
        for other in ["127.0.0.1:8071", "127.0.0.2:8070", "[::1]:8070", "192.0.2.1:8070"] {
            assert!(!is_own(&guard, other), "{other}");
        }
        assert!(!is_own(&Guard::default(), "127.0.0.1:8070"), "a service without a listener has none");
    }

    #[test]
    fn a_listener_at_every_address_is_reached_by_each_of_the_machine() {
        let guard = serving_at("0.0.0.0:8070");
        for own in ["127.0.0.1:8070", "127.9.9.9:8070", "0.0.0.0:8070", "[::ffff:127.0.0.1]:8070"] {
            assert!(is_own(&guard, own), "{own}");
        }
        for other in ["192.0.2.1:8070", "127.0.0.1:80", "[::1]:8070", "[2001:db8::1]:8070"] {
            assert!(!is_own(&guard, other), "{other}");
        }
        let guard = serving_at("[::]:8070");
        for own in ["[::1]:8070", "127.0.0.1:8070", "[::ffff:127.0.0.1]:8070", "0.0.0.0:8070"] {
            assert!(is_own(&guard, own), "{own}");
        }
        assert!(!is_own(&guard, "[2001:db8::1]:8070"));
    }

    #[test]
    fn a_url_may_say_so_itself() {
        let guard = serving_at("127.0.0.1:8070");
        for own in ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "[::ffff:7f00:1]", "0.0.0.0"] {
            assert!(guard.is_own_by_text(own, 8070), "{own}");
            assert!(!guard.is_own_by_text(own, 8071), "{own}");
        }
        for other in ["example.org", "localhost.example", "127.0.0.2", "[::1]"] {
            assert!(!guard.is_own_by_text(other, 8070), "{other}");
        }
    }

    #[test]
    fn the_user_header_is_nobodys_however_it_is_written() {
        let guard = Guard::new(HeaderName::from_static("x-request-id"), vec!["x-*".parse().unwrap()]);
        for voice in [Voice::Output, Voice::Request] {
            for name in ["X-Request-ID", "x_request_id", "x-request_id"] {
                let refused = guard.check_header(&name.parse().unwrap(), voice);
                assert!(refused.unwrap_err().contains("who is asking"), "{name}");
            }
        }
    }
}
