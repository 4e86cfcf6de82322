//! What follows from a target's answer. Pure: the clock and the dice are passed in.

use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;

use super::request::Unsendable;
use crate::worker::Next;
use waypost_domain::{Answer, Holder, Outcome, RetrySchedule};
use waypost_net::Refused;
use waypost_runtime::clock;
use waypost_runtime::dice;

/// The longest wait that a target may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How a request to a target ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Response {
    /// The target answered.
    Answered {
        /// Its answer.
        answer: Answer,
        /// Its `Location`, for the reader of the story.
        location: Option<String>,
        /// Its `Retry-After`, from now.
        retry_after: Option<Duration>,
    },
    /// Nothing could be sent, and another attempt would fail in the same way.
    Unsendable(Unsendable),
    /// Nothing was sent to the target, because of where it, its token server or its handshake leads.
    Refused(String),
    /// There was no answer, for this reason.
    Failed(String),
    /// Nothing was sent to the target, for this reason, which is not the target's.
    Unsent(String),
    /// The request was not sent because of this shortage of this machine.
    Shortage(String),
}

impl From<&Refused> for Response {
    fn from(refused: &Refused) -> Self {
        Self::Refused(format!("the request was not sent: {refused}"))
    }
}

/// What an outcome means for the subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SubscriptionEffect {
    /// Nothing.
    Nothing,
    /// Its target was reached.
    Reached,
    /// It is disabled with this error, if its target was not reached since the delivery's first attempt.
    DisableUnlessReached(String),
    /// It is disabled with this error.
    Disable(String),
}

/// How a delivery is retried if the present attempt fails.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry<'a> {
    /// The schedule of the delivery.
    pub(super) schedule: &'a RetrySchedule,
    /// How many attempts have failed then.
    pub(super) failed: u32,
    /// How many of them were not made, because the target's breaker was open.
    pub(super) missed: u32,
}

impl<'a> Retry<'a> {
    /// Returns the context in which a failure at this moment is classified.
    pub(super) fn context(self) -> RetryContext<'a> {
        let Self { schedule, failed, missed } = self;
        RetryContext { schedule, failed, missed, now: clock::now(), random: dice::fraction() }
    }
}

/// The context in which a failed attempt is classified.
#[derive(Clone, Copy, Debug)]
pub(super) struct RetryContext<'a> {
    /// The schedule of the delivery.
    pub(super) schedule: &'a RetrySchedule,
    /// How many attempts have failed when this one has, this one included.
    pub(super) failed: u32,
    /// How many of them were not made.
    pub(super) missed: u32,
    /// The time now.
    pub(super) now: Timestamp,
    /// A number in `0.0..1.0`.
    pub(super) random: f64,
}

/// Classifies a target's response (FACTS: CloudEvents webhook spec for 410, 415 and 429).
pub(super) fn classify_response(
    response: &Response,
    retry_context: RetryContext<'_>,
) -> Next<SubscriptionEffect> {
    let (outcome, effect) = match response {
        Response::Shortage(reason) => return Next::Held(Holder::Host, reason.clone()),
        Response::Unsendable(unsendable) => {
            let reason = unsendable.to_string();
            let effect = match unsendable.is_of_output() {
                true => SubscriptionEffect::Nothing,
                false => SubscriptionEffect::Disable(reason.clone()),
            };
            (Outcome::Dead { reason }, effect)
        }
        // Another attempt would be refused too. The backlog waits for the operator or the user. But a name that is
        // resolved wrongly just once must not disable a subscription whose target has just been reached.
        Response::Refused(reason) => (
            Outcome::Dead { reason: reason.clone() },
            SubscriptionEffect::DisableUnlessReached(reason.clone()),
        ),
        Response::Failed(reason) | Response::Unsent(reason) => {
            failure(reason.clone(), reason.clone(), None, retry_context)
        }
        Response::Answered { answer, location, retry_after } => {
            answered_with(answer, location.as_deref(), *retry_after, retry_context)
        }
    };
    Next::Over(outcome, effect)
}

fn answered_with(
    answer: &Answer,
    location: Option<&str>,
    retry_after: Option<Duration>,
    retry_context: RetryContext<'_>,
) -> (Outcome, SubscriptionEffect) {
    let error = || if answer.body.is_empty() { answered(answer.status) } else { answer.body.clone() };
    match StatusCode::from_u16(answer.status) {
        Ok(status) if status.is_success() => (Outcome::Delivered, SubscriptionEffect::Reached),
        Ok(StatusCode::GONE) => {
            let reason = "the target answered 410 Gone: it wants no more events".to_owned();
            (Outcome::Dead { reason }, SubscriptionEffect::Disable(error()))
        }
        Ok(StatusCode::UNSUPPORTED_MEDIA_TYPE) => {
            let reason = "the target answered 415 Unsupported Media Type: the same request would fail again"
                .to_owned();
            (Outcome::Dead { reason }, SubscriptionEffect::Nothing)
        }
        Ok(status) if status.is_redirection() => {
            let to = location.unwrap_or("nowhere");
            let reason =
                format!("{} to {to}: redirects are not followed, change target_url", answered(answer.status));
            failure(reason.clone(), reason, None, retry_context)
        }
        Ok(StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => {
            failure(answered(answer.status), error(), retry_after, retry_context)
        }
        _ => failure(answered(answer.status), error(), None, retry_context),
    }
}

/// Adds the number of the failed output to the reason, if there are several.
pub(super) fn of_output(
    next: Next<SubscriptionEffect>,
    place: usize,
    count: usize,
) -> Next<SubscriptionEffect> {
    let named =
        |reason| if count > 1 { format!("output {} of {count}: {reason}", place + 1) } else { reason };
    match next {
        Next::Over(Outcome::Retry { reason, due }, effect) => {
            Next::Over(Outcome::Retry { reason: named(reason), due }, effect)
        }
        Next::Over(Outcome::Dead { reason }, effect) => {
            Next::Over(Outcome::Dead { reason: named(reason) }, effect)
        }
        Next::Held(by, reason) => Next::Held(by, named(reason)),
        Next::Over(..) | Next::GaveWay(_) => next,
    }
}

fn answered(status: u16) -> String {
    match StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()) {
        Some(words) => format!("the target answered {status} {words}"),
        None => format!("the target answered {status}"),
    }
}

/// Classifies a temporary failure: it is retried as the schedule says, but not before `retry_after`.
pub(super) fn failure(
    reason: String,
    error: String,
    retry_after: Option<Duration>,
    retry_context: RetryContext<'_>,
) -> (Outcome, SubscriptionEffect) {
    let RetryContext { schedule, failed, missed, now, random } = retry_context;
    let reason = match missed {
        0 => reason,
        1 => format!("{reason}; an attempt before it was not made: the target's breaker was open"),
        _ => format!("{reason}; {missed} attempts before it were not made: the target's breaker was open"),
    };
    let wait_min = retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
    let outcome = Outcome::after_failure(reason, schedule, failed, wait_min, now, random);
    let effect = match outcome {
        Outcome::Dead { .. } => SubscriptionEffect::DisableUnlessReached(error),
        Outcome::Retry { .. } | Outcome::Delivered | Outcome::Denied | Outcome::Skipped { .. } => {
            SubscriptionEffect::Nothing
        }
    };
    (outcome, effect)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn retry_context(schedule: &RetrySchedule, failed: u32) -> RetryContext<'_> {
        RetryContext { schedule, failed, missed: 0, now: now(), random: 0.5 }
    }

    fn answer(status: u16) -> Response {
        Response::Answered {
            answer: Answer { status, body: "why".to_owned() },
            location: Some("http://elsewhere/".to_owned()),
            retry_after: Some(Duration::from_secs(100)),
        }
    }

    fn over(next: Next<SubscriptionEffect>) -> (Outcome, SubscriptionEffect) {
        match next {
            Next::Over(outcome, effect) => (outcome, effect),
            Next::Held(..) | Next::GaveWay(_) => panic!("{next:?}"),
        }
    }

    fn judged(status: u16, failed: u32) -> (Outcome, SubscriptionEffect) {
        let schedule = "10s".parse().unwrap();
        over(classify_response(&answer(status), retry_context(&schedule, failed)))
    }

    fn due_in(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    #[test]
    fn any_2xx_is_success() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(judged(status, 1), (Outcome::Delivered, SubscriptionEffect::Reached));
        }
    }

    #[test]
    fn failures_wait_as_the_schedule_says() {
        for status in [400, 404, 500, 502] {
            let (outcome, effect) = judged(status, 1);
            assert!(matches!(outcome, Outcome::Retry { due, .. } if due == due_in(10)), "{status}");
            assert_eq!(effect, SubscriptionEffect::Nothing);
        }
    }

    #[test]
    fn a_target_may_ask_for_a_longer_wait() {
        for status in [429, 503] {
            assert!(
                matches!(judged(status, 1).0, Outcome::Retry { due, .. } if due == due_in(100)),
                "{status}"
            );
        }
        let schedule = "10s".parse().unwrap();
        let greedy = Response::Answered {
            answer: Answer { status: 429, body: String::new() },
            location: None,
            retry_after: Some(Duration::MAX),
        };
        let (outcome, _) = over(classify_response(&greedy, retry_context(&schedule, 1)));
        assert!(matches!(outcome, Outcome::Retry { due, .. } if due == due_in(24 * 60 * 60)));
    }

    #[test]
    fn a_used_up_schedule_is_a_dead_letter_with_the_answers_body_as_error() {
        let (outcome, effect) = judged(500, 2);
        assert!(matches!(outcome, Outcome::Dead { reason } if reason.ends_with("the last of 2 attempts")));
        assert_eq!(effect, SubscriptionEffect::DisableUnlessReached("why".to_owned()));
    }

    #[test]
    fn gone_disables_and_415_does_not_try_again() {
        assert!(matches!(judged(410, 1), (Outcome::Dead { .. }, SubscriptionEffect::Disable(_))));
        assert!(matches!(judged(415, 1), (Outcome::Dead { .. }, SubscriptionEffect::Nothing)));
    }

    #[test]
    fn a_redirect_is_a_failure_that_names_its_location() {
        let (outcome, _) = judged(307, 1);
        assert!(matches!(outcome, Outcome::Retry { reason, .. } if reason.contains("http://elsewhere/")));
    }

    #[test]
    fn what_cannot_be_sent_is_not_tried_again() {
        let schedule = "10s".parse().unwrap();
        let judged = |unsendable| {
            over(classify_response(&Response::Unsendable(unsendable), retry_context(&schedule, 1)))
        };
        let port = "http://h:0/".parse::<waypost_domain::TargetUrl>().unwrap_err();
        let (outcome, effect) = judged(Unsendable::Target(port));
        let reason = "target_url names a port that cannot be one: `0` is not within 1 to 65535".to_owned();
        assert_eq!(outcome, Outcome::Dead { reason: reason.clone() });
        assert_eq!(effect, SubscriptionEffect::Disable(reason));
        let (outcome, effect) = judged(Unsendable::Output("its header `via` …".to_owned()));
        assert!(matches!(outcome, Outcome::Dead { .. }) && effect == SubscriptionEffect::Nothing);
    }

    /// A target that the guard refuses was tried for three days.
    #[test]
    fn what_the_guard_refuses_is_dead_at_once() {
        let schedule = "10s,10s".parse().unwrap();
        let refused = Response::from(&Refused::Own("127.0.0.1:8070".to_owned()));
        let (outcome, effect) = over(classify_response(&refused, retry_context(&schedule, 1)));
        let reason =
            "the request was not sent: 127.0.0.1:8070 is this Waypost itself, which is no target".to_owned();
        assert_eq!(outcome, Outcome::Dead { reason: reason.clone() });
        assert_eq!(effect, SubscriptionEffect::DisableUnlessReached(reason));
    }

    #[test]
    fn no_answer_is_retried_too() {
        let schedule = RetrySchedule::NONE;
        let refused = Response::Failed("refused".to_owned());
        let (outcome, effect) = over(classify_response(&refused, retry_context(&schedule, 1)));
        assert!(matches!(outcome, Outcome::Dead { .. }));
        assert_eq!(effect, SubscriptionEffect::DisableUnlessReached("refused".to_owned()));
    }

    /// One event for 3,000 subscriptions met a limit of a thousand descriptors: half of the subscriptions were disabled
    /// by that.
    #[test]
    fn what_this_machine_lacks_does_not_count() {
        let schedule = RetrySchedule::NONE;
        let next =
            classify_response(&Response::Shortage("no descriptors".to_owned()), retry_context(&schedule, 1));
        assert_eq!(next, Next::Held(Holder::Host, "no descriptors".to_owned()));
        let second = of_output(next, 1, 3);
        assert_eq!(second, Next::Held(Holder::Host, "output 2 of 3: no descriptors".to_owned()));
    }
}
