//! What follows from a plugin's failure. Pure.

use super::outcome::{RetryContext, SubscriptionEffect, failure};
use super::pipeline::SendPlan;
use crate::worker::Next;
use waypost_domain::plugin::{Failure, OnError, PluginRun, Verdict};
use waypost_domain::{Holder, Outcome};

/// Classifies a plugin's failure.
pub(super) fn classify_failure(
    failed: &Failure,
    on_error: OnError,
    retry_context: RetryContext<'_>,
) -> SendPlan {
    let reason = failed.reason();
    let (outcome, effect) = match failed {
        Failure::InvalidEvent(_) => (Outcome::Dead { reason }, SubscriptionEffect::Nothing),
        Failure::InvalidConfig(_) => {
            let (outcome, _) = failure(reason.clone(), reason.clone(), None, retry_context);
            (outcome, SubscriptionEffect::Disable(reason))
        }
        Failure::Unavailable { retry_after, .. } => {
            failure(reason.clone(), reason, *retry_after, retry_context)
        }
        // The plugin is not at fault.
        Failure::Host(_) => return SendPlan::held(Holder::Plugins, reason),
        Failure::Internal(_) | Failure::Limit(_) | Failure::Trap(_) | Failure::Breaker(_) => match on_error {
            OnError::Retry => failure(reason.clone(), reason, None, retry_context),
            OnError::Skip => (Outcome::Skipped { reason }, SubscriptionEffect::Nothing),
            OnError::DeadLetter => (Outcome::Dead { reason }, SubscriptionEffect::Nothing),
            OnError::Deliver => return SendPlan::Event,
        },
    };
    SendPlan::End(Next::Over(outcome, effect))
}

/// Tells whether the breaker counts a failure. It counts those in which the plugin itself is broken.
pub(super) fn is_counted(failed: &Failure) -> bool {
    match failed {
        Failure::Internal(_) | Failure::Limit(_) | Failure::Trap(_) | Failure::Breaker(_) => true,
        Failure::InvalidEvent(_)
        | Failure::InvalidConfig(_)
        | Failure::Unavailable { .. }
        | Failure::Host(_) => false,
    }
}

/// Returns what `on_error` means for a run: an event that the plugin's policy has not allowed is neither sent nor
/// skipped.
pub(super) fn on_error(wanted: OnError, run: &PluginRun, has_policy: bool) -> OnError {
    if has_policy && !is_allowed(run) { OnError::Retry } else { wanted }
}

/// Tells whether the plugin's policy had allowed the event before the run failed.
fn is_allowed(run: &PluginRun) -> bool {
    let Verdict::Failed(failed) = &run.verdict else { return true };
    match failed {
        // An error that the plugin returns is an answer of the interface that answered last.
        Failure::Internal(_)
        | Failure::InvalidEvent(_)
        | Failure::InvalidConfig(_)
        | Failure::Unavailable { .. } => run.answered.len() > 1,
        // Any other failure happens in the interface after the one that answered last.
        Failure::Limit(_) | Failure::Trap(_) | Failure::Host(_) | Failure::Breaker(_) => {
            !run.answered.is_empty()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use waypost_domain::{PluginDigest, RetrySchedule};

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn reacted(failed: &Failure, on_error: OnError) -> SendPlan {
        let schedule: RetrySchedule = "10s".parse().unwrap();
        classify_failure(
            failed,
            on_error,
            RetryContext { schedule: &schedule, failed: 1, missed: 0, now: now(), random: 0.5 },
        )
    }

    fn why() -> String {
        "why".to_owned()
    }

    fn counted() -> [Failure; 4] {
        [Failure::Internal(why()), Failure::Limit(why()), Failure::Trap(why()), Failure::Breaker(why())]
    }

    const ALL: [OnError; 4] = [OnError::Retry, OnError::Skip, OnError::Deliver, OnError::DeadLetter];

    #[test]
    fn on_error_decides_about_what_the_breaker_counts() {
        for failed in counted() {
            assert!(is_counted(&failed));
            let waits = |failure| {
                matches!(
                    failure,
                    SendPlan::End(Next::Over(Outcome::Retry { .. }, SubscriptionEffect::Nothing))
                )
            };
            assert!(waits(reacted(&failed, OnError::Retry)));
            let reason = failed.reason();
            let skipped = Outcome::Skipped { reason: reason.clone() };
            assert_eq!(reacted(&failed, OnError::Skip), SendPlan::over(skipped));
            let dead = Outcome::Dead { reason };
            assert_eq!(reacted(&failed, OnError::DeadLetter), SendPlan::over(dead));
            assert_eq!(reacted(&failed, OnError::Deliver), SendPlan::Event);
        }
    }

    /// A plugin that could not be loaded here, or for which there was no room, was counted as failing.
    #[test]
    fn what_is_the_hosts_fault_holds_the_delivery_whatever_on_error_says() {
        for on_error in ALL {
            let held = SendPlan::held(Holder::Plugins, "plugin: why".to_owned());
            assert_eq!(reacted(&Failure::Host(why()), on_error), held);
        }
        assert!(!is_counted(&Failure::Host(why())), "nor does the breaker count it");
    }

    #[test]
    fn the_other_errors_have_one_reaction_whatever_on_error_says() {
        for on_error in ALL {
            let dead = Outcome::Dead { reason: "plugin: invalid event: why".to_owned() };
            let wrong = reacted(&Failure::InvalidEvent(why()), on_error);
            assert_eq!(wrong, SendPlan::over(dead));
            let wrong = reacted(&Failure::InvalidConfig(why()), on_error);
            let disables = SubscriptionEffect::Disable("plugin: invalid configuration: why".to_owned());
            assert!(
                matches!(wrong, SendPlan::End(Next::Over(Outcome::Retry { .. }, ref does)) if *does == disables)
            );
            let retry_after = Some(Duration::from_secs(60));
            let away = reacted(&Failure::Unavailable { message: why(), retry_after }, on_error);
            let later = now() + Duration::from_secs(60);
            assert!(matches!(away, SendPlan::End(Next::Over(Outcome::Retry { due, .. }, _)) if due == later));
        }
    }

    #[test]
    fn what_the_plugins_policy_has_not_allowed_is_retried() {
        let run = |failed: Failure, answered: &[&str]| {
            let answered = answered.iter().map(|name| (*name).to_owned()).collect();
            PluginRun { answered, ..PluginRun::failed(PluginDigest::of(b""), 1, now(), failed) }
        };
        let of = |failed, answered| on_error(OnError::Deliver, &run(failed, answered), true);
        // The policy itself says that it failed, or traps.
        assert_eq!(of(Failure::Internal(why()), &["policy"]), OnError::Retry);
        assert_eq!(of(Failure::Trap(why()), &[]), OnError::Retry);
        // It allowed, and then the filter failed.
        assert_eq!(of(Failure::Internal(why()), &["policy", "filter"]), OnError::Deliver);
        assert_eq!(of(Failure::Trap(why()), &["policy"]), OnError::Deliver);
        assert_eq!(on_error(OnError::Skip, &run(Failure::Trap(why()), &[]), false), OnError::Skip);
    }
}
