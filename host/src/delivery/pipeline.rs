//! What a subscription's plugin makes of a delivery: called once, fixed in the store, and then only read.
//!
//! The plugin's policy, filter and transform are one call ([`crate::plugin`]). What it fixes, and what it changes in its
//! state, is durable before anything is sent ([`crate::store::Store::prepare`]): a later attempt sends the same, whatever
//! has become of the plugin since. A plugin without state that lets an event pass as it is fixes nothing that would have
//! to be stored at once.

use std::sync::Arc;

use super::breaker::{Failed, Permit};
use super::engine::Engine;
use super::kept::{Kept, Turn};
use super::outcome::{Consequence, Situation};
use super::reaction::{self, Reaction, react};
use crate::domain::plugin::{Failure, Fixed, OnError, Output, PluginRun, Prepared, StateChange, Verdict};
use crate::domain::{Holder, Outcome, PluginUse, Subscription};
use crate::plugin::{Call, Plugin, Purpose, Ran, State, Steps};
use crate::store::{Error, Owed, Preparation};
use crate::{chain, clock};

/// Why a run does not count whose delivery waits no more.
const GONE: &str = "it was asked for again, or dropped, while its plugin ran: this run does not count";

/// What an attempt goes on with.
pub(super) enum Course {
    /// The event is sent as it came.
    Event,
    /// These are sent.
    Outputs(Vec<Output>),
    /// The attempt ends.
    End(Outcome, Consequence),
    /// The delivery waits for something that is not the plugin's.
    Held(Holder, String),
}

/// What is known after the plugin.
pub(super) struct Decided {
    pub(super) course: Course,
    /// What the plugin did, where the store does not have it yet.
    pub(super) run: Option<Box<PluginRun>>,
    /// Whether the store has what the plugin has fixed.
    pub(super) is_prepared: bool,
}

/// What a delivery brings to its plugin.
pub(super) struct Visit {
    pub(super) permit: Permit,
    pub(super) kept: Arc<Kept>,
}

impl Decided {
    fn unprepared(course: Course, run: PluginRun) -> Self {
        Self { course, run: Some(Box::new(run)), is_prepared: false }
    }

    fn prepared(fixed: Fixed) -> Self {
        Self { course: course_of(fixed), run: None, is_prepared: true }
    }

    fn event() -> Self {
        Self { course: Course::Event, run: None, is_prepared: false }
    }
}

/// What one delivery is decided about.
struct Case<'a, S> {
    subscription: &'a Arc<Subscription>,
    used: &'a Arc<PluginUse>,
    owed: &'a Owed,
    attempt: u32,
    situation: &'a S,
}

impl Engine {
    /// Decides what is sent: reads what is fixed, or asks the plugin. `attempt` is the number of this attempt.
    pub(super) async fn decide<'s>(
        &self,
        subscription: &Arc<Subscription>,
        owed: &Owed,
        visit: Option<Visit>,
        attempt: u32,
        situation: &impl Fn() -> Situation<'s>,
    ) -> Decided {
        if owed.prepared {
            match self.store.prepared(owed.event.id, subscription.id.into()).await {
                Ok(Some(prepared)) => return Decided::prepared(prepared.fixed),
                Ok(None) => {}
                Err(error) => {
                    return Decided { course: unreadable(&error), run: None, is_prepared: true };
                }
            }
        }
        let (Some(used), Some(Visit { permit, kept })) = (&subscription.plugin, visit) else {
            return Decided::event();
        };
        if owed.progress.passed {
            return Decided::event();
        }
        let case = Case { subscription, used, owed, attempt, situation };
        if let Permit::Not { until, holds } = permit {
            let failed = Failure::Breaker(format!("the breaker is open until {until:.0}"));
            let run = PluginRun::failed(used.digest, attempt, clock::now(), failed.clone());
            // One that was to wait is here when what was fixed of it has gone meanwhile: its policy may not have been asked.
            let on_error = if holds { OnError::Retry } else { used.on_error };
            return Decided::unprepared(course_after(&failed, on_error, (case.situation)()), run);
        }
        match self.modules.plugin(used.digest).await {
            Ok(plugin) => self.ask(case, plugin, permit, &kept).await,
            Err(failed) => {
                let run = PluginRun::failed(used.digest, attempt, clock::now(), failed);
                let may_have_policy = match self.modules.module(used.digest).await {
                    Ok(Some(module)) => module.report.exports.iter().any(|export| export == "policy"),
                    Ok(None) | Err(_) => true,
                };
                self.judge_failed(&case, permit, run, may_have_policy)
            }
        }
    }

    async fn ask<'s, S: Fn() -> Situation<'s>>(
        &self,
        case: Case<'_, S>,
        plugin: Arc<Plugin>,
        permit: Permit,
        kept: &Kept,
    ) -> Decided {
        let has_policy = plugin.has_policy();
        let mut turn = None;
        if plugin.uses_state() {
            turn = match kept.turn(&*self.store, case.subscription).await {
                Ok(turn) => Some(turn),
                Err(error) => {
                    return Decided { course: unreadable(&error), run: None, is_prepared: false };
                }
            };
        }
        let now = clock::now();
        let call = Call {
            event: case.owed.event.event.clone(),
            subscription: Arc::clone(case.subscription),
            plugin: Arc::clone(case.used),
            attempt: case.attempt,
            now,
            state: turn.as_ref().map_or_else(State::default, Turn::state),
            steps: Steps::All,
            purpose: Purpose::Deliver,
        };
        let Ran { mut run, outputs, state } = self.modules.host().run(plugin, call).await;
        if let Verdict::Failed(_) = run.verdict {
            return self.judge_failed(&case, permit, run, has_policy);
        }
        run.keep_end(self.limits.success_log_bytes);
        self.breakers.note(case.subscription, permit, Ok(()), now);
        let is_changed = state.is_changed();
        let changes = turn.as_ref().filter(|_| is_changed).map(|turn| turn.changes(&state, now));
        let changes = changes.unwrap_or_default();
        // It shares what is kept, which changes now.
        drop(state);
        let fixed = fixed_by(&run.verdict, outputs);
        if changes.is_empty() && !matches!(fixed, Fixed::Outputs(_)) {
            return Decided::unprepared(course_of(fixed), run);
        }
        // While the disk is full, the delivery waits and its plugin runs again: nothing of this run is kept.
        match self.commit(&case, run, fixed.clone(), changes.clone()).await {
            Ok(true) => {
                if let Some(turn) = turn {
                    turn.keep(changes);
                }
                Decided::prepared(fixed)
            }
            Ok(false) => {
                let reason = GONE.to_owned();
                let course = Course::End(Outcome::Skipped { reason }, Consequence::Nothing);
                Decided { course, run: None, is_prepared: false }
            }
            Err(error) => Decided { course: unreadable(&error), run: None, is_prepared: false },
        }
    }

    /// Makes durable what is fixed.
    async fn commit<'s, S: Fn() -> Situation<'s>>(
        &self,
        case: &Case<'_, S>,
        run: PluginRun,
        fixed: Fixed,
        state: Vec<StateChange>,
    ) -> Result<bool, Error> {
        let preparation = Preparation {
            recipient: case.subscription.id.into(),
            event: case.owed.event.id,
            place: case.owed.place,
            run: Box::new(run),
            prepared: Prepared::by(case.used, fixed),
            state,
        };
        self.store.prepare(preparation).await
    }

    fn judge_failed<'s, S: Fn() -> Situation<'s>>(
        &self,
        case: &Case<'_, S>,
        permit: Permit,
        run: PluginRun,
        may_have_policy: bool,
    ) -> Decided {
        let Verdict::Failed(failed) = &run.verdict else { return Decided::event() };
        let wanted = case.used.on_error;
        let counted = if reaction::is_counted(failed) {
            let holds = may_have_policy || matches!(wanted, OnError::Retry | OnError::DeadLetter);
            Err(Failed { reason: failed.reason(), holds })
        } else {
            Ok(())
        };
        match failed {
            // It says nothing about the plugin: a trial of it is still to come.
            Failure::Host(_) => drop(permit),
            Failure::Internal(_)
            | Failure::InvalidEvent(_)
            | Failure::InvalidConfig(_)
            | Failure::Unavailable { .. }
            | Failure::Limit(_)
            | Failure::Trap(_)
            | Failure::Breaker(_) => self.breakers.note(case.subscription, permit, counted, clock::now()),
        }
        let on_error = reaction::on_error(wanted, &run, may_have_policy);
        Decided::unprepared(course_after(failed, on_error, (case.situation)()), run)
    }
}

fn course_after(failed: &Failure, on_error: OnError, situation: Situation<'_>) -> Course {
    match react(failed, on_error, situation) {
        Reaction::Deliver => Course::Event,
        Reaction::End(outcome, consequence) => Course::End(outcome, consequence),
        Reaction::Held(reason) => Course::Held(Holder::Plugins, reason),
    }
}

fn course_of(fixed: Fixed) -> Course {
    match fixed {
        Fixed::Event => Course::Event,
        Fixed::Outputs(outputs) => Course::Outputs(outputs),
        Fixed::Denied { .. } => Course::End(Outcome::Denied, Consequence::Nothing),
        Fixed::Skipped { reason } => Course::End(Outcome::Skipped { reason }, Consequence::Nothing),
    }
}

fn fixed_by(verdict: &Verdict, outputs: Vec<Output>) -> Fixed {
    match verdict {
        Verdict::Transformed { .. } => Fixed::Outputs(outputs),
        Verdict::Denied { reason } => Fixed::Denied { reason: reason.clone() },
        Verdict::Skipped { reason } => Fixed::Skipped { reason: reason.clone() },
        // A failed one fixes nothing, and is judged elsewhere.
        Verdict::Deliver | Verdict::Failed(_) => Fixed::Event,
    }
}

/// Says what becomes of a delivery about which the store cannot say what its plugin made of it: a damaged record stays
/// damaged, anything else passes.
fn unreadable(error: &Error) -> Course {
    let reason = chain::of(error);
    match error {
        Error::Damaged { .. } => Course::End(Outcome::Dead { reason }, Consequence::Nothing),
        Error::Unavailable { .. } | Error::Busy { .. } | Error::Closed => Course::Held(Holder::Store, reason),
        Error::Quota { .. } => Course::Held(Holder::Quota, reason),
    }
}
