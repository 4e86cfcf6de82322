//! The payload of a delivery, rendered by its plugin: the plugin is called once, its result is frozen in the store, and
//! from then on only read.
//! The plugin's policy, filter and transform are one call ([`waypost_sandbox`]). The payload that it renders, and the
//! changes of its state, are durable before anything is sent ([`waypost_store::Store::freeze`]): later attempts send the
//! same payload, even if the plugin has changed since. A plugin without state that passes an event unchanged renders
//! nothing that must be stored at once.

use std::sync::Arc;

use tokio::time::Instant;

use super::breaker::{BreakerFailure, Permit};
use super::failure::{self, classify_failure};
use super::gate::Echo;
use super::outcome::SubscriptionEffect;
use super::state_cache::{StateCache, StateGuard};
use super::targets::Targets;
use crate::worker::{Assignment, AttemptRecord, Next};
use waypost_domain::plugin::{
    Failure, OnError, Output, PluginResult, PluginRun, RenderedPayload, StateChange, Verdict,
};
use waypost_domain::{Holder, Outcome, PluginUse};
use waypost_runtime::chain;
use waypost_runtime::clock;
use waypost_sandbox::{Call, CallResult, Plugin, Purpose, State, Steps};
use waypost_store::{Error, Rendering};

/// Why a run does not count if its delivery is not pending any more.
const GONE: &str = "it was asked for again, or dropped, while its plugin ran: this run does not count";

/// What an attempt sends, or how it ends without sending.
#[derive(Debug, PartialEq)]
pub(super) enum SendPlan {
    /// The event is sent as it was received.
    Event,
    /// These outputs are sent.
    Outputs(Vec<Output>),
    /// The attempt ends, and nothing is sent.
    End(Next<SubscriptionEffect>),
}

impl SendPlan {
    /// Returns the plan of an attempt that ends with this outcome.
    pub(super) fn over(outcome: Outcome) -> Self {
        Self::End(Next::Over(outcome, SubscriptionEffect::Nothing))
    }

    /// Returns the plan of a delivery that is held, for a reason that is not the plugin's.
    pub(super) fn held(by: Holder, reason: String) -> Self {
        Self::End(Next::Held(by, reason))
    }
}

/// What a delivery needs to call its plugin.
pub(super) struct PluginContext {
    pub(super) permit: Permit,
    pub(super) state_cache: Arc<StateCache>,
}

/// Decides what is sent: reads the rendered payload, or calls the plugin. What the plugin did goes into `record`,
/// unless the store has it.
pub(super) async fn decide(
    targets: &Targets,
    assignment: &Assignment<'_, Targets>,
    plugin_context: Option<PluginContext>,
    record: &mut AttemptRecord,
) -> SendPlan {
    let plan = render(targets, assignment, plugin_context, record).await;
    plan.unwrap_or_else(|error| unreadable(&error))
}

async fn render(
    targets: &Targets,
    assignment: &Assignment<'_, Targets>,
    plugin_context: Option<PluginContext>,
    record: &mut AttemptRecord,
) -> Result<SendPlan, Error> {
    let Assignment { subject: subscription, pending, .. } = *assignment;
    if pending.rendered {
        if let Some(rendered) = targets.store.rendered(pending.event.id, subscription.id.into()).await? {
            return Ok(plan_of(rendered.result));
        }
        record.rendered = false;
    }
    let (Some(used), Some(PluginContext { permit, state_cache }), false) =
        (&subscription.plugin, plugin_context, pending.progress.passed)
    else {
        return Ok(SendPlan::Event);
    };
    let attempt = pending.progress.failed + 1;
    if let Permit::Not { until, holds } = permit {
        let failed =
            Failure::Breaker(format!("the breaker is open until {:.0}", targets.breakers.wall(until)));
        let run = PluginRun::failed(used.digest, attempt, clock::now(), failed.clone());
        record.plugin = Some(Box::new(run));
        // A delivery that the breaker holds gets here if its rendered payload has since been removed. Its policy may
        // not have been asked.
        let on_error = if holds { OnError::Retry } else { used.on_error };
        return Ok(classify_failure(&failed, on_error, targets.retry(assignment).context()));
    }
    let mut stage = PluginStage { targets, assignment, used, record };
    match targets.modules.plugin(used.digest).await {
        Ok(plugin) => stage.ask(plugin, permit, &state_cache).await,
        Err(failed) => {
            let run = PluginRun::failed(used.digest, attempt, clock::now(), failed);
            let may_have_policy = match targets.modules.module(used.digest).await {
                Ok(Some(module)) => module.report.exports.iter().any(|export| export == "policy"),
                Ok(None) | Err(_) => true,
            };
            Ok(stage.classify_failed_run(permit, run, may_have_policy))
        }
    }
}

/// The plugin's part of one attempt.
struct PluginStage<'a> {
    targets: &'a Targets,
    assignment: &'a Assignment<'a, Targets>,
    used: &'a Arc<PluginUse>,
    record: &'a mut AttemptRecord,
}

impl PluginStage<'_> {
    async fn ask(
        &mut self,
        plugin: Arc<Plugin>,
        permit: Permit,
        state_cache: &StateCache,
    ) -> Result<SendPlan, Error> {
        let has_policy = plugin.has_policy();
        let guard = match plugin.uses_state() {
            true => Some(state_cache.lock(&self.targets.store, self.assignment.subject).await?),
            false => None,
        };
        let now = clock::now();
        let call = Call {
            event: self.assignment.pending.event.event.clone(),
            subscription: Arc::clone(self.assignment.subject),
            plugin: Arc::clone(self.used),
            attempt: self.assignment.pending.progress.failed + 1,
            now,
            state: guard.as_ref().map_or_else(State::default, StateGuard::state),
            steps: Steps::All,
            purpose: Purpose::Deliver,
        };
        let CallResult { mut run, outputs, state } = self.targets.modules.host().run(plugin, call).await;
        if let Verdict::Failed(_) = run.verdict {
            return Ok(self.classify_failed_run(permit, run, has_policy));
        }
        run.keep_end(self.targets.limits.success_log_bytes);
        self.note(permit, Ok(()));
        let is_changed = state.is_changed();
        let changes = guard.as_ref().filter(|_| is_changed).map(|guard| guard.changes(&state, now));
        let changes = changes.unwrap_or_default();
        // The call's state shares memory with the cached state, which is changed next.
        drop(state);
        let result = result_of(&run.verdict, outputs);
        if changes.is_empty() && !matches!(result, PluginResult::Outputs(_)) {
            self.record.plugin = Some(Box::new(run));
            return Ok(plan_of(result));
        }
        // While the disk is full, the delivery is held and its plugin runs again later: this run is discarded.
        if !self.commit(run, result.clone(), changes.clone()).await? {
            return Ok(SendPlan::over(Outcome::Skipped { reason: GONE.to_owned() }));
        }
        if let Some(guard) = guard {
            guard.commit(changes);
        }
        self.record.rendered = true;
        Ok(plan_of(result))
    }

    /// Freezes the rendered payload.
    async fn commit(
        &self,
        run: PluginRun,
        result: PluginResult,
        state: Vec<StateChange>,
    ) -> Result<bool, Error> {
        let rendering = Rendering {
            recipient: self.assignment.recipient,
            event: self.assignment.pending.event.id,
            position: self.assignment.pending.position,
            run: Box::new(run),
            payload: RenderedPayload::by(self.used, result),
            state,
        };
        self.targets.store.freeze(rendering).await
    }

    /// Tells the breaker how a call ended.
    fn note(&self, permit: Permit, result: Result<(), BreakerFailure>) {
        let echo = Echo::of(&self.assignment.pending.event.sender);
        self.targets.breakers.note(self.assignment.subject, permit, result, Instant::now(), echo);
    }

    fn classify_failed_run(&mut self, permit: Permit, run: PluginRun, may_have_policy: bool) -> SendPlan {
        let Verdict::Failed(failed) = &run.verdict else { return SendPlan::Event };
        let wanted = self.used.on_error;
        let counted = if failure::is_counted(failed) {
            let holds = may_have_policy || matches!(wanted, OnError::Retry | OnError::DeadLetter);
            Err(BreakerFailure { reason: failed.reason(), holds })
        } else {
            Ok(())
        };
        match failed {
            // This says nothing about the plugin: the next delivery becomes the probe.
            Failure::Host(_) => drop(permit),
            Failure::Internal(_)
            | Failure::InvalidEvent(_)
            | Failure::InvalidConfig(_)
            | Failure::Unavailable { .. }
            | Failure::Limit(_)
            | Failure::Trap(_)
            | Failure::Breaker(_) => self.note(permit, counted),
        }
        let on_error = failure::on_error(wanted, &run, may_have_policy);
        let plan = classify_failure(failed, on_error, self.targets.retry(self.assignment).context());
        self.record.plugin = Some(Box::new(run));
        plan
    }
}

fn plan_of(result: PluginResult) -> SendPlan {
    match result {
        PluginResult::Event => SendPlan::Event,
        PluginResult::Outputs(outputs) => SendPlan::Outputs(outputs),
        PluginResult::Denied { .. } => SendPlan::over(Outcome::Denied),
        PluginResult::Skipped { reason } => SendPlan::over(Outcome::Skipped { reason }),
    }
}

fn result_of(verdict: &Verdict, outputs: Vec<Output>) -> PluginResult {
    match verdict {
        Verdict::Transformed { .. } => PluginResult::Outputs(outputs),
        Verdict::Denied { reason } => PluginResult::Denied { reason: reason.clone() },
        Verdict::Skipped { reason } => PluginResult::Skipped { reason: reason.clone() },
        // A failed run renders nothing; `classify_failure` handles it.
        Verdict::Deliver | Verdict::Failed(_) => PluginResult::Event,
    }
}

/// Returns the plan for a delivery whose rendered payload cannot be read: a damaged record stays damaged, any other
/// error is temporary.
fn unreadable(error: &Error) -> SendPlan {
    let reason = chain::text(error);
    match error {
        Error::Damaged { .. } | Error::TooLarge { .. } => SendPlan::over(Outcome::Dead { reason }),
        Error::Unavailable { .. } | Error::Busy { .. } | Error::Uncertain | Error::Closed => {
            SendPlan::held(Holder::Store, reason)
        }
        Error::Quota { .. } | Error::TooMany { .. } | Error::TooManyTokens { .. } => {
            SendPlan::held(Holder::Quota, reason)
        }
    }
}
