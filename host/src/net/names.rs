//! Resolves names for reqwest's clients by the rule of this module, and leaves out addresses that this machine has no
//! route to. Where IPv6 is switched off, connecting to such an address fails in the same way as when all ports are in
//! use, so a service at `localhost` that is down would look like a shortage of this machine.

use std::net::SocketAddr;

use hyper_util::client::legacy::connect::dns;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tower::Service as _;

use super::connector::Resolver;
use super::reach::Reach;

/// The port with which the route to an address is looked up: reqwest does not say which one it will connect to.
const PORT: u16 = 80;

/// Resolves names for one client.
pub(super) struct Names(Resolver);

impl Names {
    /// Makes a resolver of names that lead where `reach` lets them.
    pub(super) fn new(reach: Reach) -> Self {
        Self(Resolver::new(reach, PORT))
    }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let mut resolver = self.0.clone();
        Box::pin(async move {
            let name: dns::Name = name.as_str().parse()?;
            let found = resolver.call(name).await?;
            let addresses: Addrs = Box::new(found.map(without_port));
            Ok(addresses)
        })
    }
}

/// For 0, reqwest takes the port of the URL or that of its scheme.
fn without_port(mut address: SocketAddr) -> SocketAddr {
    address.set_port(0);
    address
}
