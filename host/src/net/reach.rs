//! Which addresses a client may connect to.

use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::addresses::is_open;
use super::error::Refused;
use super::guard::Guard;

/// Which addresses a client may connect to.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    /// Whose own address is none of them.
    guard: Option<Arc<Guard>>,
    /// The networks besides public addresses; all addresses where it is absent.
    networks: Option<Arc<[IpNet]>>,
}

impl Reach {
    /// What the operator sends: anywhere.
    pub(crate) const ANYWHERE: Self = Self { guard: None, networks: None };

    /// What users send: anywhere but to this service itself.
    pub(crate) fn elsewhere(guard: Arc<Guard>) -> Self {
        Self { guard: Some(guard), networks: None }
    }

    /// What plugins send: to public addresses, and those of the operator's networks.
    pub(crate) fn public(guard: Arc<Guard>, networks: &[IpNet]) -> Self {
        Self { guard: Some(guard), networks: Some(networks.into()) }
    }

    /// Checks an address that a connection is about to be made to.
    pub(super) fn check(&self, to: SocketAddr) -> Result<(), Refused> {
        if let Some(networks) = &self.networks
            && !is_open(to.ip(), networks)
        {
            return Err(Refused::NotPublic(to.ip()));
        }
        match &self.guard {
            Some(guard) if guard.is_own(to) => Err(Refused::Own(to)),
            _ => Ok(()),
        }
    }
}
