//! Asks targets whether they want events, for subscriptions that require it (CloudEvents HTTP web hooks §4).
//!
//! A consent is remembered for an hour, and so is the rate that comes with it: attempts wait for their turn.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::Full;
use moka::Expiry;
use moka::future::Cache;
use parking_lot::Mutex;

use super::answer::Trouble;
use super::credentials::{Credentials, REQUEST_ORIGIN};
use super::request::AGENT;
use waypost_domain::SubscriptionId;
use waypost_domain::sending::Handshake;
use waypost_net::{Agent, Client, mark};

const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");

/// The most answers that are kept.
const ANSWERS_MAX: u64 = 10_000;
/// How long a consent holds until the target is asked again.
const CONSENT: Duration = Duration::from_secs(60 * 60);
/// How long a target that did not consent, but gets events anyway, is not asked again.
const NO_CONSENT: Duration = Duration::from_secs(5 * 60);
/// The longest that a target may take to answer.
const TIME_MAX: Duration = Duration::from_secs(10);

/// The subscription, its target, and whether the target's consent is needed.
type Key = (SubscriptionId, String, Handshake);

/// The answers of targets.
pub(super) struct Handshakes {
    origin: HeaderValue,
    answers: Cache<Key, Arc<Consent>>,
}

/// The answer of a target.
#[derive(Debug)]
pub(super) struct Consent {
    is_given: bool,
    /// How many requests a minute it wants at most.
    rate: Option<NonZeroU32>,
    /// When the next request may be sent.
    next: Mutex<Option<Instant>>,
}

struct UntilAskedAgain;

impl Expiry<Key, Arc<Consent>> for UntilAskedAgain {
    fn expire_after_create(&self, _: &Key, consent: &Arc<Consent>, _: Instant) -> Option<Duration> {
        Some(if consent.is_given { CONSENT } else { NO_CONSENT })
    }
}

impl Handshakes {
    /// Sets up handshakes for this origin, the DNS name of this service.
    pub(super) fn new(origin: HeaderValue) -> Self {
        let answers = Cache::builder().max_capacity(ANSWERS_MAX).expire_after(UntilAskedAgain).build();
        Self { origin, answers }
    }

    /// Returns the origin.
    pub(super) fn origin(&self) -> &HeaderValue {
        &self.origin
    }

    /// Asks a target for its consent, unless it has answered recently. `None` if it does not give it and need not.
    ///
    /// # Errors
    /// When it has to consent and does not.
    pub(super) async fn ask(
        &self,
        client: &Client,
        (id, target, handshake): (SubscriptionId, &Uri, Handshake),
        credentials: &Credentials,
        wait: Duration,
    ) -> Result<Option<Arc<Consent>>, Trouble> {
        let asking = async {
            let asked = self.ask_now(client, target, credentials, wait.min(TIME_MAX)).await;
            match (asked, handshake) {
                (Ok(consent), _) if consent.is_given => Ok(Arc::new(consent)),
                (
                    Ok(_) | Err(Trouble::Theirs(_) | Trouble::Refused(_) | Trouble::Unsendable(_)),
                    Handshake::Try,
                ) => Ok(Arc::new(Consent::none())),
                (Ok(_), _) => Err(Trouble::Theirs(format!(
                    "the target did not consent to events from `{}`: it answered OPTIONS without a \
                     `WebHook-Allowed-Origin` for it, and `handshake` is `require`",
                    self.origin.to_str().unwrap_or_default()
                ))),
                (Err(trouble), _) => Err(trouble),
            }
        };
        let key = (id, target.to_string(), handshake);
        let consent = self.answers.try_get_with(key, asking).await;
        let consent = consent.map_err(|trouble| Trouble::clone(&trouble))?;
        Ok(consent.is_given.then_some(consent))
    }

    async fn ask_now(
        &self,
        client: &Client,
        target: &Uri,
        credentials: &Credentials,
        wait: Duration,
    ) -> Result<Consent, Trouble> {
        let make = || {
            let mut request = Request::new(Full::<Bytes>::default());
            *request.method_mut() = Method::OPTIONS;
            *request.uri_mut() = target.clone();
            credentials.add_to(request.headers_mut());
            request.headers_mut().insert(USER_AGENT, AGENT);
            request.headers_mut().insert(REQUEST_ORIGIN, self.origin.clone());
            mark(request.headers_mut(), Agent::Delivery);
            request
        };
        match client.send(make(), || Some(make()), wait).await {
            Ok(reply) => Ok(Consent::read(&reply.headers, &self.origin)),
            Err(error) => Err(Trouble::of(&error, |text| format!("the handshake failed (OPTIONS): {text}"))),
        }
    }
}

impl Consent {
    fn none() -> Self {
        Self { is_given: false, rate: None, next: Mutex::default() }
    }

    /// Reads an answer, whose status is ignored. Origins are compared exactly.
    fn read(headers: &HeaderMap, origin: &HeaderValue) -> Self {
        let is_given =
            headers.get_all(ALLOWED_ORIGIN).iter().any(|allowed| allowed == "*" || allowed == origin);
        let rate = headers.get(ALLOWED_RATE).and_then(|rate| rate.to_str().ok()?.trim().parse().ok());
        Self { is_given, rate, next: Mutex::default() }
    }

    /// Returns how long the next request has to wait for its turn. A turn that is due is taken.
    fn turn(&self, now: Instant) -> Duration {
        let Some(rate) = self.rate else { return Duration::ZERO };
        let mut next = self.next.lock();
        match *next {
            Some(due) if due > now => due - now,
            Some(_) | None => {
                *next = now.checked_add(Duration::from_secs(60) / rate.get());
                Duration::ZERO
            }
        }
    }

    /// Waits until the next request may be sent to the target. Cancel safe.
    pub(super) async fn wait(&self) {
        loop {
            let wait = self.turn(Instant::now());
            if wait.is_zero() {
                return;
            }
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&'static str, &'static str)]) -> Consent {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        Consent::read(&map, &HeaderValue::from_static("waypost.example"))
    }

    #[test]
    fn a_target_consents_to_all_or_exactly_to_this_origin() {
        for given in ["*", "waypost.example"] {
            assert!(read(&[("webhook-allowed-origin", given)]).is_given, "{given}");
        }
        for other in ["", "waypost.example.", "WAYPOST.example", "*.example", "https://waypost.example"] {
            assert!(!read(&[("webhook-allowed-origin", other)]).is_given, "{other}");
        }
        assert!(!read(&[("access-control-allow-origin", "*")]).is_given);
    }

    #[test]
    fn requests_keep_to_the_rate_that_a_target_wants() {
        let consent = read(&[("webhook-allowed-origin", "*"), ("webhook-allowed-rate", "120")]);
        let now = Instant::now();
        let turn = |millis| consent.turn(now + Duration::from_millis(millis)).as_millis();
        // Attempts that give way while they wait use up no turn.
        assert_eq!([turn(0), turn(0), turn(100), turn(500), turn(600)], [0, 500, 400, 0, 400]);
        assert_eq!(consent.turn(now + Duration::from_secs(10)), Duration::ZERO);
        for none in ["*", "0", "-1", "many"] {
            let consent = read(&[("webhook-allowed-origin", "*"), ("webhook-allowed-rate", none)]);
            assert_eq!((consent.turn(now), consent.turn(now)), (Duration::ZERO, Duration::ZERO), "{none}");
        }
    }
}
