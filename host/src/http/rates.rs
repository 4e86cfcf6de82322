//! Limits how many requests a second one address may send, and one user.
//!
//! Each may send one second's worth at once, and then at this rate
//! ([GCRA](https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm)). A request counts towards its address
//! before anything else is checked, and towards its user once that is known.
//!
//! - Requests from this machine do not count, neither towards an address nor towards a user: local programs
//!   have other ways to keep it busy, and somebody who tries Waypost out needs no such setting.
//! - Requests that a trusted proxy forwards count towards the address that it names. If it names none, they
//!   count towards their users only, because all clients behind the proxy share its address.
//! - The addresses of one IPv6 /64 network count together: a client that has one of them can use them all.
//!
//! The memory is bounded: when there are too many keys, the least recently used ones are forgotten, and start
//! with a full allowance. A client with tens of thousands of networks has as many times the limit, but others
//! are not refused because of it.

use std::hash::{BuildHasher as _, RandomState};
use std::mem;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use axum::http::header;
use axum::http::request::Parts;
use foldhash::HashMap;
use governor::clock::{Clock as _, MonotonicClock};
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;

use super::error::ApiError;
use crate::identity::Asker;

/// The most keys of a generation. The two generations of both limiters take two megabytes.
const KEYS_MAX: usize = 28_000;

/// The most requests a second; 0 for no limit.
#[derive(Clone, Copy, Debug)]
pub struct PerSecond {
    /// From one address.
    pub address: u32,
    /// Of one user.
    pub user: u32,
}

/// Counts recent requests.
#[derive(Debug)]
pub struct Rates {
    addresses: Option<Limiter>,
    users: Option<Limiter>,
    /// Keys are hashes with a secret seed, so that no client can choose a name that collides with another.
    hasher: RandomState,
}

impl Rates {
    /// Makes the limits.
    pub fn new(most: PerSecond) -> Self {
        let limiter = |key, most| NonZeroU32::new(most).map(|most| Limiter::new(key, most));
        Self {
            addresses: limiter("address_requests_per_second", most.address),
            users: limiter("user_requests_per_second", most.user),
            hasher: RandomState::new(),
        }
    }

    /// Counts a request towards its address, or refuses it.
    pub(super) fn count(&self, asker: Asker) -> Result<(), ApiError> {
        let (Some(limiter), Asker::Address(address)) = (&self.addresses, asker) else { return Ok(()) };
        limiter.count(self.hasher.hash_one(network(address)), format_args!("from {address}"))
    }

    /// Counts a request towards its user, or refuses it. Anonymous requests, such as those of other Wayposts,
    /// have no user.
    pub(super) fn count_user(&self, parts: &Parts, user: &str) -> Result<(), ApiError> {
        let is_here = parts.extensions.get::<Asker>() == Some(&Asker::Here);
        match &self.users {
            Some(limiter) if !is_here && !user.is_empty() => {
                limiter.count(self.hasher.hash_one(user), format_args!("of the user `{user}`"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Returns the network of one client: an IPv4 address, or the upper half of an IPv6 address.
pub(super) fn network(address: IpAddr) -> (bool, u64) {
    match address {
        IpAddr::V4(address) => (false, u32::from(address).into()),
        IpAddr::V6(address) => (true, upper_half(address)),
    }
}

fn upper_half(address: Ipv6Addr) -> u64 {
    u64::try_from(u128::from(address) >> 64).expect("half of 128 bits are 64")
}

/// The limit of one kind of keys.
#[derive(Debug)]
struct Limiter {
    limiter: RateLimiter<u64, Generations, MonotonicClock>,
    setting: &'static str,
    most: NonZeroU32,
}

impl Limiter {
    fn new(setting: &'static str, most: NonZeroU32) -> Self {
        let limiter = RateLimiter::new(Quota::per_second(most), Generations::default(), MonotonicClock);
        Self { limiter, setting, most }
    }

    fn count(&self, key: u64, whose: std::fmt::Arguments<'_>) -> Result<(), ApiError> {
        let Err(until) = self.limiter.check_key(&key) else { return Ok(()) };
        let wait = until.wait_time_from(self.limiter.clock().now()).max(Duration::from_nanos(1));
        let seconds = wait.as_nanos().div_ceil(Duration::from_secs(1).as_nanos());
        let (most, setting) = (self.most, self.setting);
        let detail = format!(
            "more than {most} requests a second have come {whose} (the setting {setting}): slow down"
        );
        let refusal = ApiError::too_fast(detail);
        let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
        Err(refusal.with(header::RETRY_AFTER, seconds.into()))
    }
}

/// When each recent key may send again: the keys since the last change of generations, and those of the
/// generation before.
#[derive(Debug, Default)]
struct Generations(Mutex<Maps>);

#[derive(Debug, Default)]
struct Maps {
    young: HashMap<u64, Nanos>,
    old: HashMap<u64, Nanos>,
}

impl Maps {
    fn get(&self, key: u64) -> Option<Nanos> {
        self.young.get(&key).or_else(|| self.old.get(&key)).copied()
    }

    fn put(&mut self, key: u64, next: Nanos) {
        if self.young.len() >= KEYS_MAX && !self.young.contains_key(&key) {
            mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(key, next);
    }
}

impl StateStore for Generations {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut generations = self.0.lock();
        let known = generations.get(*key);
        let decided = decide(known);
        // A refused request counts as recent too, so that its key is not forgotten before others.
        let next = decided.as_ref().map_or(known, |(_, next)| Some(*next));
        if let Some(next) = next {
            generations.put(*key, next);
        }
        decided.map(|(decided, _)| decided)
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use axum::response::IntoResponse as _;

    use super::*;

    fn rates(address: u32, user: u32) -> Rates {
        Rates::new(PerSecond { address, user })
    }

    fn from(address: &str) -> Asker {
        Asker::Address(address.parse().unwrap())
    }

    fn parts(asker: Asker) -> Parts {
        Request::builder().extension(asker).body(Body::empty()).unwrap().into_parts().0
    }

    #[tokio::test]
    async fn an_address_over_its_limit_is_told_which_and_when_to_come_again() {
        let rates = rates(2, 0);
        rates.count(from("192.0.2.1")).unwrap();
        rates.count(from("192.0.2.1")).unwrap();
        let refusal = rates.count(from("192.0.2.1")).unwrap_err().into_response();
        assert_eq!(refusal.status(), 429);
        assert_eq!(refusal.headers()["retry-after"], "1");
        let body = axum::body::to_bytes(refusal.into_body(), usize::MAX).await.unwrap();
        let text = String::from_utf8_lossy(&body);
        assert!(text.contains("192.0.2.1 (the setting address_requests_per_second)"), "{text}");
        rates.count(from("192.0.2.2")).unwrap();
    }

    #[test]
    fn the_addresses_of_one_network_of_ipv6_count_together() {
        let rates = rates(1, 0);
        rates.count(from("2001:db8::1")).unwrap();
        assert!(rates.count(from("2001:db8::ffff:2")).is_err());
        rates.count(from("2001:db8:0:1::1")).unwrap();
        // An IPv4 address is not the IPv6 network with the same number.
        rates.count(from("0:0:c000:201::1")).unwrap();
        rates.count(from("192.0.2.1")).unwrap();
    }

    #[test]
    fn this_machine_is_not_counted_and_a_silent_proxys_users_are() {
        let rates = rates(1, 1);
        for _ in 0..3 {
            rates.count(Asker::Here).unwrap();
            rates.count(Asker::Behind).unwrap();
            rates.count_user(&parts(Asker::Here), "ann").unwrap();
            rates.count_user(&parts(Asker::Behind), "").unwrap();
        }
        for asker in [Asker::Behind, from("192.0.2.1")] {
            let user = format!("{asker:?}");
            rates.count_user(&parts(asker), &user).unwrap();
            assert!(rates.count_user(&parts(asker), &user).is_err());
        }
    }

    #[test]
    fn zero_is_any_number() {
        let rates = rates(0, 0);
        for _ in 0..100 {
            rates.count(from("192.0.2.1")).unwrap();
            rates.count_user(&parts(from("192.0.2.1")), "ann").unwrap();
        }
    }

    #[test]
    fn a_bounded_number_of_keys_is_remembered_and_active_ones_stay() {
        let states = Generations::default();
        let ask =
            |key: u64| states.measure_and_replace(&key, |known| Ok::<_, ()>((known, Nanos::from(key + 1))));
        for key in 0..3 * KEYS_MAX as u64 {
            assert_eq!(ask(key), Ok(None));
            if key % 10_000 == 0 {
                let refused: Result<(), _> = states.measure_and_replace(&7, Err);
                assert_eq!(refused.unwrap_err().is_some(), key > 7, "it keeps sending, and is refused");
            }
        }
        let two = states.0.lock();
        assert!(two.young.len() <= KEYS_MAX && two.old.len() <= KEYS_MAX);
        assert_eq!(two.get(8), None, "it has not sent for long");
    }
}
