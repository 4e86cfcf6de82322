//! Sends a request to a target, with the credentials that it needs, and reads the answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http::header::{HeaderMap, LOCATION, RETRY_AFTER};
use http_body_util::Full;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::fmt::strtime::{self, BrokenDownTime};
use jiff::tz::TimeZone;

use super::clients::TargetClient;
use super::credentials::Credentials;
use super::handshake::Consent;
use super::oauth::Token;
use super::outcome::Response;
use super::request::Unsendable;
use super::targets::Targets;
use crate::worker::Occupied;
use waypost_domain::delivery::ANSWER_BYTES_MAX;
use waypost_domain::sending::Handshake;
use waypost_domain::{Answer, Auth, Subscription};
use waypost_net::{self as net, Client, Reply};
use waypost_runtime::chain;
use waypost_runtime::clock;
use waypost_secrets as secrets;

/// Why a request was not sent to its target: something else that it needs is missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// The subscription, its target or its token server is the cause.
    #[error("{0}")]
    Theirs(String),
    /// The same: a request must not go where it leads.
    #[error("{0}")]
    Refused(String),
    /// The subscription cannot be put into a request.
    #[error(transparent)]
    Unsendable(#[from] Unsendable),
    /// This machine is the cause.
    #[error("{0}")]
    Ours(String),
}

/// The most characters of a `Location` that are kept.
const LOCATION_CHARS_MAX: usize = 1024;

impl Trouble {
    /// Classifies why a secret cannot be opened.
    pub(super) fn of_secret(what: &'static str, reason: secrets::OpenError) -> Self {
        match reason {
            // The key may come back: the delivery waits.
            secrets::OpenError::OtherKey { .. } => Self::Ours(format!("{what} cannot be opened: {reason}")),
            secrets::OpenError::Damaged(_) => Self::Unsendable(Unsendable::Damaged { what, reason }),
        }
    }

    /// Classifies why a request other than the event's own has no answer; `words` makes the reason.
    pub(super) fn of(error: &net::Error, words: impl FnOnce(String) -> String) -> Self {
        let text = chain::text(error);
        match error {
            net::Error::Refused(_) => Self::Refused(words(text)),
            net::Error::Shortage(_) | net::Error::Proxy(_) => Self::Ours(words(text)),
            net::Error::Unreachable(_)
            | net::Error::TimedOut { .. }
            | net::Error::NotHttp { .. }
            | net::Error::BrokenOff(_) => Self::Theirs(words(text)),
        }
    }
}

impl From<Trouble> for Response {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Theirs(reason) => Self::Unsent(reason),
            Trouble::Refused(reason) => Self::Refused(reason),
            Trouble::Unsendable(unsendable) => Self::Unsendable(unsendable),
            Trouble::Ours(reason) => Self::Shortage(reason),
        }
    }
}

/// Sends the request that `make` makes, and waits at most `wait` for its answer; `None` when the attempt has to
/// give way first. The status decides. Of the body, only the beginning is kept, as far as it is received soon; a
/// service that is stopping does not wait for it.
pub(super) async fn exchange(
    targets: &Targets,
    subscription: &Subscription,
    make: impl Fn(&Credentials) -> Result<Request<Full<Bytes>>, Unsendable>,
    wait: Duration,
    slot: Occupied<'_>,
) -> Option<Response> {
    if subscription.is_bare() {
        let make = || make(&Credentials::NONE);
        return send(targets, targets.clients.shared(), make, wait, slot).await;
    }
    // Boxed, so that subscriptions without credentials do not pay for the size of this future.
    Box::pin(exchange_with_credentials(targets, subscription, make, wait, slot)).await
}

async fn exchange_with_credentials(
    targets: &Targets,
    subscription: &Subscription,
    make: impl Fn(&Credentials) -> Result<Request<Full<Bytes>>, Unsendable>,
    wait: Duration,
    slot: Occupied<'_>,
) -> Option<Response> {
    let begun = Instant::now();
    let left = || wait.saturating_sub(begun.elapsed());
    let equipping = equip(targets, subscription, wait);
    let (mut credentials, client, token, consent) = match slot.unless_needed(equipping).await? {
        Ok(equipment) => equipment,
        Err(response) => return Some(response),
    };
    let left_now = left();
    if left_now.is_zero() {
        let all = wait.as_millis();
        return Some(Response::Unsent(format!(
            "the attempt's time of {all} ms was over before the event was sent: token or consent took it"
        )));
    }
    if let Some(consent) = consent {
        // The wait for the target's own rate does not shorten the target's time.
        slot.unless_needed(consent.wait()).await?;
    }
    let mut response = send(targets, &client, || make(&credentials), left_now, slot).await?;
    if let (Some(token), Response::Answered { answer, .. }) = (token, &response)
        && answer.status == 401
    {
        // It is forgotten whatever time is left: the next attempt needs a new one.
        targets.tokens.refuse(&token).await;
        if left().is_zero() {
            return Some(hide(&credentials, response));
        }
        let renewing = fresh_token(targets, subscription, left());
        match slot.unless_needed(renewing).await? {
            Ok(Some(_)) if left().is_zero() => {}
            Ok(Some(token)) => {
                if let Err(unsendable) = credentials.bear(&token) {
                    return Some(Response::Unsendable(unsendable));
                }
                response = send(targets, &client, || make(&credentials), left(), slot).await?;
            }
            Ok(None) => {}
            Err(Trouble::Ours(reason)) => return Some(Response::Shortage(reason)),
            // The target's own answer says more, and is kept.
            Err(trouble) => tracing::debug!(subscription = %subscription.id, %trouble, "no new token"),
        }
    }
    Some(hide(&credentials, response))
}

/// What an attempt with credentials needs for its request.
type Equipment<'a> = (Credentials, TargetClient<'a>, Option<Arc<Token>>, Option<Arc<Consent>>);

/// Opens a subscription's secrets, and gets a token and the target's consent where it needs them.
async fn equip<'a>(
    targets: &'a Targets,
    subscription: &Subscription,
    wait: Duration,
) -> Result<Equipment<'a>, Response> {
    let mut credentials = targets.credentials(subscription)?;
    let client = targets.clients.of(targets.store.vault(), subscription).await?;
    let token = fresh_token(targets, subscription, wait).await?;
    if let Some(token) = &token {
        credentials.bear(token).map_err(Response::Unsendable)?;
    }
    let handshake = subscription.sending.as_ref().map_or(Handshake::Skip, |sending| sending.handshake);
    let consent = match (handshake, subscription.target_url.uri()) {
        (Handshake::Skip, _) | (_, Err(_)) => None,
        (Handshake::Try | Handshake::Require, Ok(uri)) => {
            let target = (subscription.id, uri, handshake);
            targets.handshakes.ask(&client, target, &credentials, wait).await?
        }
    };
    if consent.is_some() {
        credentials.name_origin(targets.handshakes.origin().clone());
    }
    Ok((credentials, client, token, consent))
}

/// Returns the token of a subscription that needs one.
async fn fresh_token(
    targets: &Targets,
    subscription: &Subscription,
    wait: Duration,
) -> Result<Option<Arc<Token>>, Trouble> {
    let Auth::OAuth2(oauth2) = &subscription.auth else { return Ok(None) };
    let client = targets.clients.shared();
    targets.tokens.get(client, targets.store.vault(), subscription.id, oauth2, wait).await.map(Some)
}

/// Removes from an answer the secrets that the target was sent.
fn hide(credentials: &Credentials, response: Response) -> Response {
    match response {
        Response::Answered { answer, location, retry_after } => Response::Answered {
            answer: Answer { body: credentials.hide(&answer.body).into_owned(), ..answer },
            location: location.map(|location| credentials.hide(&location).into_owned()),
            retry_after,
        },
        Response::Failed(reason) => Response::Failed(credentials.hide(&reason).into_owned()),
        Response::Unsendable(_) | Response::Refused(_) | Response::Unsent(_) | Response::Shortage(_) => {
            response
        }
    }
}

async fn send(
    targets: &Targets,
    client: &Client,
    make: impl Fn() -> Result<Request<Full<Bytes>>, Unsendable>,
    wait: Duration,
    slot: Occupied<'_>,
) -> Option<Response> {
    let request = match make() {
        Ok(request) => request,
        Err(unsendable) => return Some(Response::Unsendable(unsendable)),
    };
    Some(match slot.unless_needed(client.send(request, || make().ok(), wait)).await? {
        Ok(reply) => read(reply, targets.stop.cancelled()).await,
        Err(net::Error::Refused(refused)) => Response::from(&refused),
        Err(error) if error.is_shortage() => Response::Shortage(chain::text(&error)),
        Err(error) => Response::Failed(chain::text(&error)),
    })
}

async fn read(reply: Reply, stop: impl Future<Output = ()>) -> Response {
    let (status, headers) = (reply.status.as_u16(), &reply.headers);
    let location =
        text(headers, &LOCATION).map(|location| location.chars().take(LOCATION_CHARS_MAX).collect());
    let retry_after = text(headers, &RETRY_AFTER).and_then(|value| retry_after(&value, clock::now()));
    let body = reply.text(ANSWER_BYTES_MAX, stop).await;
    Response::Answered { answer: Answer { status, body }, location, retry_after }
}

fn text(headers: &HeaderMap, name: &http::HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// Reads `Retry-After` (RFC 9110 §10.2.3): seconds, with any number of digits, or a date.
fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that does not fit is longer than any wait.
        return Some(value.parse().map_or(Duration::MAX, Duration::from_secs));
    }
    Duration::try_from(http_date(value, now)?.duration_since(now)).ok()
}

/// Reads a date in any of HTTP's three forms (RFC 9110 §5.6.7). A wrong day of the week is ignored.
fn http_date(value: &str, now: Timestamp) -> Option<Timestamp> {
    // The present form, that of RFC 850, and that of C's asctime.
    const FORMS: [&str; 3] =
        ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
    let mut found = FORMS.iter().find_map(|form| strtime::parse(form, value).ok())?;
    found.set_weekday(None);
    if value.contains('-') {
        in_this_century(&mut found, now)?;
    }
    Some(found.to_datetime().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// Returns the nearest year with these two last digits: not more than 50 years ahead (RFC 9110 §5.6.7).
fn in_this_century(date: &mut BrokenDownTime, now: Timestamp) -> Option<()> {
    let today: Date = now.to_zoned(TimeZone::UTC).date();
    let century = today.year() - today.year() % 100;
    let year = century + date.year()? % 100;
    let nearest = match year - today.year() {
        51.. => year - 100,
        ..-49 => year + 100,
        -49..=50 => year,
    };
    date.set_year(Some(nearest)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key that is lost may come back, and a damaged secret does not.
    #[test]
    fn a_secret_of_another_key_waits_and_a_damaged_one_has_to_be_set_again() {
        let other = secrets::OpenError::OtherKey {
            sealed_with: waypost_domain::KeyId::from_bytes([1; 8]),
            known: "k".to_owned(),
            file: "f".to_owned(),
        };
        let damaged = secrets::OpenError::Damaged("password");
        let judged = |error| Response::from(Trouble::of_secret("the client secret", error));
        assert!(
            matches!(judged(other), Response::Shortage(reason) if reason.starts_with("the client secret cannot be opened: "))
        );
        let Response::Unsendable(unsendable) = judged(damaged) else { panic!() };
        assert!(!unsendable.is_of_output());
        assert!(unsendable.to_string().ends_with("; set it again"), "{unsendable}");
    }

    /// The example of RFC 9110, ten seconds before.
    fn now() -> Timestamp {
        Timestamp::from_second(784_111_767).unwrap()
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after("120", now()), Some(Duration::from_secs(120)));
        assert_eq!(retry_after(" 0120 ", now()), Some(Duration::from_secs(120)));
        for none in ["soon", "", "-1", "+1", "1.5", "1e3", "0x10", "Sun, 06 Nov 1994 08:49:17 GMT"] {
            assert_eq!(retry_after(none, now()), None, "{none}");
        }
    }

    /// All but the first were ignored: such a target was retried as if it had sent no `Retry-After`.
    #[test]
    fn each_of_https_dates_counts() {
        for date in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Mon, 06 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(retry_after(date, now()), Some(Duration::from_secs(10)), "{date}");
        }
        assert_eq!(retry_after("Wed Nov 16 08:49:27 1994", now()), Some(Duration::from_secs(10 * 86_400)));
        for bad in ["Sun, 32 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 25:49:37 GMT", "06-Nov-94"] {
            assert_eq!(retry_after(bad, now()), None, "{bad}");
        }
    }

    #[test]
    fn a_year_of_two_digits_is_the_nearest_one() {
        for (now, date, expected) in [
            ("1994-11-06T00:00:00Z", "Sunday, 06-Nov-44 00:00:00 GMT", "2044-11-06T00:00:00Z"),
            ("1994-11-06T00:00:00Z", "Sunday, 06-Nov-45 00:00:00 GMT", "1945-11-06T00:00:00Z"),
            ("2026-11-06T00:00:00Z", "Sunday, 06-Nov-75 00:00:00 GMT", "2075-11-06T00:00:00Z"),
            ("2026-11-06T00:00:00Z", "Sunday, 06-Nov-94 00:00:00 GMT", "1994-11-06T00:00:00Z"),
            ("2099-12-31T00:00:00Z", "Friday, 01-Jan-00 00:00:00 GMT", "2100-01-01T00:00:00Z"),
        ] {
            let (now, expected): (Timestamp, Timestamp) = (now.parse().unwrap(), expected.parse().unwrap());
            assert_eq!(http_date(date, now), Some(expected), "{date} at {now}");
        }
    }

    #[test]
    fn more_seconds_than_fit_are_for_ever() {
        for digits in ["99999999999999999999", "18446744073709551616", &"9".repeat(4000)] {
            assert_eq!(retry_after(digits, now()), Some(Duration::MAX));
        }
        assert_eq!(retry_after("18446744073709551615", now()), Some(Duration::from_secs(u64::MAX)));
    }
}
