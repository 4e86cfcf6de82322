//! Resolves names for reqwest's clients by the rule of this module, and leaves out addresses that this machine has no
//! route to. Where IPv6 is switched off, connecting to such an address fails in the same way as when all ports are in
//! use, so a service at `localhost` that is down would look like a shortage of this machine.

use std::net::SocketAddr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::reach::Reach;
use super::resolver::Resolver;

/// The port with which the route to an address is looked up: reqwest does not say which one it will connect to.
const PORT: u16 = 80;

/// Resolves names for one client. Addresses in a URL do not come here, so it guards nothing by itself.
pub(super) struct Names {
    reach: Reach,
    resolver: Resolver,
}

impl Names {
    /// Makes a resolver of names that lead where `reach` lets them.
    pub(super) fn new(reach: Reach) -> Self {
        Self { resolver: reach.resolver(), reach }
    }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let (reach, resolver) = (self.reach.clone(), self.resolver.clone());
        Box::pin(async move {
            let found = reach.addresses(&resolver, name.as_str(), PORT).await?;
            let addresses: Addrs = Box::new(found.into_iter().map(without_port));
            Ok(addresses)
        })
    }
}

/// For 0, reqwest takes the port of the URL or that of its scheme.
fn without_port(mut address: SocketAddr) -> SocketAddr {
    address.set_port(0);
    address
}
