//! Where a client may connect to, and which addresses it tries.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use url::Host;

use super::error::{Failure, Refused};
use super::guard::Guard;
use super::mark::Agent;
use super::pattern;
use super::proxy::Proxy;
use super::resolver::Resolver;
use waypost_runtime::chain;

/// Where a client may connect to.
#[derive(Clone, Debug)]
pub struct Reach(Option<(Arc<Guard>, Agent)>);

/// What would become of a request's connection, as far as it can be told without making one.
#[derive(Debug)]
pub enum Preview {
    /// It must not be made.
    Refused(Refused),
    /// It is the proxy's, which resolves the name and judges its addresses.
    Proxy(String),
    /// One of these addresses would be connected to, unless it is refused.
    Addresses(Vec<(IpAddr, Option<Refused>)>),
    /// There is no address, for this reason.
    Unresolved(String),
}

impl Reach {
    /// For the operator's requests: anywhere.
    pub(crate) const ANYWHERE: Self = Self(None);

    /// For requests of this part on others' behalf: where the guard lets them.
    pub fn guarded(guard: Arc<Guard>, agent: Agent) -> Self {
        Self(Some((guard, agent)))
    }

    /// Returns what its requests go through.
    pub(super) fn proxy(&self) -> Option<Arc<Proxy>> {
        self.0.as_ref().and_then(|(guard, _)| guard.proxy().cloned())
    }

    /// Returns what resolves its names: those of users have lookups of their own.
    pub(super) fn resolver(&self) -> Resolver {
        self.0.as_ref().map_or_else(Resolver::default, |(guard, _)| guard.resolver().clone())
    }

    /// Judges a request's host and port by their text.
    ///
    /// # Errors
    /// [`Refused`], or what keeps this machine from telling.
    pub(super) fn check_text(&self, host: &str, port: u16) -> Result<(), Failure> {
        self.0.as_ref().map_or(Ok(()), |(guard, agent)| guard.check_text(*agent, host, port))
    }

    /// Returns the addresses of a host that may be connected to, each with the port.
    ///
    /// # Errors
    /// When there are none; [`Refused`] if there are others.
    pub(super) async fn addresses(
        &self,
        resolver: &Resolver,
        host: &str,
        port: u16,
    ) -> Result<Vec<SocketAddr>, Failure> {
        let domain = match Host::parse(host) {
            Ok(Host::Ipv4(address)) => return self.open(None, &[address.into()], port),
            Ok(Host::Ipv6(address)) => return self.open(None, &[address.into()], port),
            Ok(Host::Domain(domain)) => pattern::name(&domain),
            Err(_) if self.0.is_some() => return Err(Refused::NoHost(host.to_owned()).into()),
            Err(_) => host.to_owned(),
        };
        if let Some((guard, _)) = &self.0 {
            guard.check_name(&domain, port)?;
        }
        self.open(Some(&domain), &resolver.addresses(&asked(host, &domain)).await?, port)
    }

    /// Leaves out what must not be connected to.
    fn open(&self, name: Option<&str>, found: &[IpAddr], port: u16) -> Result<Vec<SocketAddr>, Failure> {
        let (mut open, mut failures) = (Vec::new(), Vec::new());
        for address in found {
            let to = SocketAddr::new(*address, port);
            match self.check(name, to) {
                Ok(()) => open.push(to),
                Err(failure) => failures.push(failure),
            }
        }
        // What this machine could not tell may be open, so it comes before a refusal, and that before a missing route.
        let weighty = failures.iter().position(|failure| failure.is::<io::Error>());
        let weighty = weighty.or_else(|| failures.iter().position(|failure| failure.is::<Refused>()));
        match open.is_empty() && !failures.is_empty() {
            true => Err(failures.swap_remove(weighty.unwrap_or(0))),
            false => Ok(open),
        }
    }

    /// Checks an address before a connection is made to it.
    fn check(&self, name: Option<&str>, to: SocketAddr) -> Result<(), Failure> {
        if let Some((guard, agent)) = &self.0 {
            guard.check(*agent, name, to)?;
        }
        if has_way(to) {
            Ok(())
        } else {
            Err(format!("this machine has no address to reach {to} from").into())
        }
    }
}

impl Guard {
    /// Says what would become of a connection for `agent`; resolves a name for that.
    pub async fn preview(&self, agent: Agent, host: &str, port: u16) -> Preview {
        if let Err(refused) = self.check_url(agent, host, port) {
            return Preview::Refused(refused);
        }
        if let Some(proxy) = self.proxy() {
            return Preview::Proxy(proxy.to_string());
        }
        let domain = match Host::parse(host) {
            Ok(Host::Ipv4(address)) => return Preview::Addresses(vec![(address.into(), None)]),
            Ok(Host::Ipv6(address)) => return Preview::Addresses(vec![(address.into(), None)]),
            Ok(Host::Domain(domain)) => pattern::name(&domain),
            Err(_) => return Preview::Refused(Refused::NoHost(host.to_owned())),
        };
        let judged = |address: &IpAddr| {
            let failure = self.check(agent, Some(&domain), SocketAddr::new(*address, port)).err();
            (*address, failure.and_then(|failure| failure.downcast().ok()).map(|refused| *refused))
        };
        match self.resolver().addresses(&asked(host, &domain)).await {
            Ok(found) if found.is_empty() => Preview::Unresolved(format!("{domain} has no address")),
            Ok(found) => Preview::Addresses(found.iter().map(judged).collect()),
            Err(failure) => Preview::Unresolved(chain::text(&*failure)),
        }
    }
}

/// Returns what the system is asked for: a dot at the end keeps it from looking in other domains.
fn asked(host: &str, domain: &str) -> String {
    let dot = if host.ends_with('.') { "." } else { "" };
    format!("{domain}{dot}")
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
        assert_eq!(Reach::ANYWHERE.check(None, "[::1]:1".parse().unwrap()).is_ok(), has_ipv6);
    }
}
