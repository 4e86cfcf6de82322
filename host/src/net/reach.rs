//! Which addresses a client may connect to.

use std::error::Error;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use ipnet::IpNet;

use super::addresses::is_open;
use super::error::Refused;
use super::guard::Guard;

/// Why there is no connection.
pub(super) type Failure = Box<dyn Error + Send + Sync>;

/// Which addresses a client may connect to.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    /// Refuses the addresses of this service itself.
    guard: Option<Arc<Guard>>,
    /// The networks besides public addresses; all addresses where it is absent.
    networks: Option<Arc<[IpNet]>>,
}

impl Reach {
    /// For the operator's requests: anywhere.
    pub(crate) const ANYWHERE: Self = Self { guard: None, networks: None };

    /// For users' requests: anywhere but to this service itself.
    pub(crate) fn elsewhere(guard: Arc<Guard>) -> Self {
        Self { guard: Some(guard), networks: None }
    }

    /// For plugins' requests: to public addresses, and to the operator's networks.
    pub(crate) fn public(guard: Arc<Guard>, networks: &[IpNet]) -> Self {
        Self { guard: Some(guard), networks: Some(networks.into()) }
    }

    /// Checks an address before a connection is made to it.
    ///
    /// # Errors
    /// [`Refused`] if it is not allowed; another error if this machine cannot tell, or has no route there.
    pub(super) fn check(&self, to: SocketAddr) -> Result<(), Failure> {
        if let Some(networks) = &self.networks
            && !is_open(to.ip(), networks)
        {
            return Err(Refused::NotPublic(to.ip()).into());
        }
        if let Some(guard) = &self.guard
            && guard.try_is_own(to)?
        {
            return Err(Refused::Own(to).into());
        }
        if has_way(to) {
            Ok(())
        } else {
            Err(format!("this machine has no address to reach {to} from").into())
        }
    }
}

/// Tells whether this machine has an address from which another one can be reached. Where IPv6 is switched off, it has
/// none for IPv6. Connecting would then fail as it does when all ports are in use (`EADDRNOTAVAIL`), which counts as a
/// shortage.
fn has_way(to: SocketAddr) -> bool {
    if to.ip().to_canonical().is_ipv4() {
        return true;
    }
    // Sends nothing: connecting a UDP socket only looks up the route.
    let asked = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).and_then(|socket| socket.connect(to));
    match asked {
        Ok(()) => true,
        Err(error) => error.kind() != io::ErrorKind::AddrNotAvailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where IPv6 was switched off, deliveries to a target with an IPv6 address were held forever, as if ports were
    /// short.
    #[test]
    fn ipv4_needs_no_look_for_a_way_in_whichever_form_it_comes() {
        for to in ["192.0.2.1:1", "127.0.0.1:1", "[::ffff:127.0.0.1]:1"] {
            assert!(has_way(to.parse().unwrap()), "{to}");
        }
        let has_ipv6 = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
        assert_eq!(has_way("[::1]:1".parse().unwrap()), has_ipv6);
        assert_eq!(Reach::ANYWHERE.check("[::1]:1".parse().unwrap()).is_ok(), has_ipv6);
    }
}
