//! What follows from a plugin's failure. Pure.

use super::outcome::{Consequence, Situation, failure};
use crate::domain::Outcome;
use crate::domain::plugin::{Failure, OnError, PluginRun, Verdict};

/// What becomes of a delivery whose plugin has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reaction {
    /// The event is sent as it came.
    Deliver,
    /// The attempt ends.
    End(Outcome, Consequence),
}

/// Judges a plugin's failure; each kind has one reaction.
pub(super) fn react(failed: &Failure, on_error: OnError, situation: Situation<'_>) -> Reaction {
    let reason = failed.reason();
    let (outcome, consequence) = match failed {
        Failure::InvalidEvent(_) => (Outcome::Dead { reason }, Consequence::Nothing),
        Failure::InvalidConfig(_) => {
            let (outcome, _) = failure(reason.clone(), reason.clone(), None, situation);
            (outcome, Consequence::Disable(reason))
        }
        Failure::Unavailable { retry_after, .. } => failure(reason.clone(), reason, *retry_after, situation),
        Failure::Internal(_) | Failure::Limit(_) | Failure::Trap(_) | Failure::Host(_) => match on_error {
            OnError::Retry => failure(reason.clone(), reason, None, situation),
            OnError::Skip => (Outcome::Skipped { reason }, Consequence::Nothing),
            OnError::DeadLetter => (Outcome::Dead { reason }, Consequence::Nothing),
            OnError::Deliver => return Reaction::Deliver,
        },
    };
    Reaction::End(outcome, consequence)
}

/// Tells whether the breaker counts a failure: those in which the plugin itself did not work.
pub(super) fn is_counted(failed: &Failure) -> bool {
    match failed {
        Failure::Internal(_) | Failure::Limit(_) | Failure::Trap(_) | Failure::Host(_) => true,
        Failure::InvalidEvent(_) | Failure::InvalidConfig(_) | Failure::Unavailable { .. } => false,
    }
}

/// Returns what `on_error` means for a run: what the plugin's policy has not allowed is never sent, nor is it skipped.
pub(super) fn on_error(wanted: OnError, run: &PluginRun, has_policy: bool) -> OnError {
    if has_policy && !is_allowed(run) { OnError::Retry } else { wanted }
}

/// Tells whether the plugin's policy has let the event pass in a run that failed later.
fn is_allowed(run: &PluginRun) -> bool {
    let Verdict::Failed(failed) = &run.verdict else { return true };
    match failed {
        // The plugin's own errors are answers: of the interface that answered last.
        Failure::Internal(_)
        | Failure::InvalidEvent(_)
        | Failure::InvalidConfig(_)
        | Failure::Unavailable { .. } => run.answered.len() > 1,
        // What ends a call otherwise ends the interface after that.
        Failure::Limit(_) | Failure::Trap(_) | Failure::Host(_) => !run.answered.is_empty(),
    }
}
