//! How many requests a second one address may send, and one user.
//!
//! Each may send a second's worth at once, and then as many a second ([GCRA](https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm)).
//! A request counts for its address before anything else is asked of it, and for its user once that is known.
//!
//! - Requests from this machine itself do not count, neither for an address nor for a user: its programs have other ways to
//!   keep it busy, and the first session of a newcomer needs no such setting.
//! - Those that a trusted proxy forwards count for the address that it names. Where it names none, they count for their
//!   users alone: the proxy's own address is that of all who come through it.
//! - The addresses of one IPv6 network of 64 bits count together: who has one has all of them.
//!
//! The memory is bounded: those that have not asked for the longest are forgotten when there are too many, and start anew.
//! Who has tens of thousands of networks has as many times the limit, and nobody else is refused because of that.

use std::hash::{BuildHasher as _, RandomState};
use std::mem;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use foldhash::HashMap;
use governor::clock::{Clock as _, MonotonicClock};
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;

use super::error::ApiError;
use crate::identity::Asker;

/// How many keys a generation has. Both of both limiters take two megabytes.
const KEYS_MAX: usize = 28_000;

/// How many requests a second there may be; 0 for any number.
#[derive(Clone, Copy, Debug)]
pub struct PerSecond {
    /// Of one address.
    pub address: u32,
    /// Of one user.
    pub user: u32,
}

/// The requests that have come lately.
#[derive(Debug)]
pub struct Rates {
    addresses: Option<Limiter>,
    users: Option<Limiter>,
    /// A key is a hash that nobody outside can compute, so that no name can be found that shares another's.
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

    /// Counts a request for its address, or refuses it.
    pub(super) fn count(&self, asker: Asker) -> Result<(), ApiError> {
        let (Some(limiter), Asker::Address(address)) = (&self.addresses, asker) else { return Ok(()) };
        limiter.count(self.hasher.hash_one(network(address)), format_args!("from {address}"))
    }

    /// Counts a request for its user, or refuses it. Nobody, for whom other Wayposts forward events, is no user.
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

/// Returns what one client has of addresses: an address of IPv4, the upper half of one of IPv6.
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
        let refusal = ApiError::new(StatusCode::TOO_MANY_REQUESTS, detail);
        let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
        Err(refusal.with(header::RETRY_AFTER, seconds.into()))
    }
}

/// When each key may ask again, of the keys that have asked lately: those since the last change of generations, and those
/// of the generation before that.
#[derive(Debug, Default)]
struct Generations(Mutex<Two>);

#[derive(Debug, Default)]
struct Two {
    young: HashMap<u64, Nanos>,
    old: HashMap<u64, Nanos>,
}

impl Two {
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
        // One that is refused has asked, too: it is not forgotten before others.
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
        // The number of an address of IPv4 is no network of IPv6.
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
    fn so_many_are_remembered_and_those_that_ask_stay() {
        let states = Generations::default();
        let ask =
            |key: u64| states.measure_and_replace(&key, |known| Ok::<_, ()>((known, Nanos::from(key + 1))));
        for key in 0..3 * KEYS_MAX as u64 {
            assert_eq!(ask(key), Ok(None));
            if key % 10_000 == 0 {
                let refused: Result<(), _> = states.measure_and_replace(&7, Err);
                assert_eq!(refused.unwrap_err().is_some(), key > 7, "it asks on, and is refused");
            }
        }
        let two = states.0.lock();
        assert!(two.young.len() <= KEYS_MAX && two.old.len() <= KEYS_MAX);
        assert_eq!(two.get(8), None, "it has not asked for long");
    }
}
