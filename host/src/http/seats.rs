//! Limits the connections: a total that may be open at once, and a share of it for each address, so that one
//! client cannot take them all.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures_util::FutureExt as _;
use ipnet::IpNet;

use super::rates::network;
use waypost_runtime::fair_semaphore::{FairPermit, FairSemaphore};

/// An address may have one in so many connections.
const ADDRESS_SHARE: usize = 4;

/// The seats.
pub(super) struct Seats {
    places: FairSemaphore,
    max: usize,
    trusted: Arc<[IpNet]>,
    /// The number of the next connection from an address without a share.
    next: AtomicU64,
}

impl Seats {
    /// Makes `max` seats. This machine and the trusted networks may take all of them: many clients come
    /// through one proxy.
    pub(super) fn new(max: usize, trusted: Arc<[IpNet]>) -> Self {
        let places = FairSemaphore::new(max, max.div_ceil(ADDRESS_SHARE));
        Self { places, max, trusted, next: AtomicU64::new(0) }
    }

    /// Takes a seat for a connection from this address, or says why there is none.
    pub(super) fn take(&self, address: IpAddr) -> Result<FairPermit, String> {
        let (address, max) = (address.to_canonical(), self.max);
        let has_all = address.is_loopback() || self.trusted.iter().any(|network| network.contains(&address));
        let whose = match has_all {
            true => format!("#{}", self.next.fetch_add(1, Relaxed)),
            false => format!("{:?}", network(address)),
        };
        self.places.take(&whose, 1).now_or_never().ok_or_else(|| match self.places.of(&whose) {
            0 => format!("all {max} connections are in use (the setting connections_max): try again"),
            _ => format!(
                "this address has its share of the {max} connections (the setting connections_max): use fewer, or try again"
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One client without credentials held all connections by sending a request on each now and then.
    #[test]
    fn one_address_cannot_take_all_seats() {
        let seats = Seats::new(8, ["10.0.0.0/8".parse().unwrap()].into());
        let take = |address: &str| seats.take(address.parse().unwrap());
        let mut held = vec![take("192.0.2.1").unwrap(), take("192.0.2.1").unwrap()];
        let refused = take("192.0.2.1").err().unwrap();
        assert!(
            refused.contains("its share of the 8 connections (the setting connections_max)"),
            "{refused}"
        );
        held.push(take("2001:db8::1").unwrap());
        held.push(take("2001:db8::2").unwrap());
        assert!(take("2001:db8::3").is_err(), "the same network of 64 bits");
        // An address without a connection gets one of the rest, a proxy all of them.
        held.push(take("192.0.2.2").unwrap());
        assert!(take("192.0.2.2").is_err());
        held.extend(["10.0.0.1", "127.0.0.1", "::ffff:127.0.0.1"].map(|address| take(address).unwrap()));
        for address in ["10.0.0.1", "127.0.0.1", "192.0.2.3"] {
            let full = take(address).err().unwrap();
            assert!(full.contains("all 8 connections are in use"), "{full}");
        }
        held.pop();
        take("192.0.2.3").unwrap();
    }
}
