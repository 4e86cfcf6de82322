//! The payload of a delivery, rendered by its plugin: the plugin is called once, its result is frozen in the store, and
//! from then on only read.
//! The plugin's policy, filter and transform are one call ([`crate::plugin`]). The payload that it renders, and the
//! changes of its state, are durable before anything is sent ([`crate::store::Store::freeze`]): later attempts send the
//! same payload, even if the plugin has changed since. A plugin without state that passes an event unchanged renders
//! nothing that must be stored at once.

use std::sync::Arc;

use super::breaker::{BreakerFailure, Permit};
use super::failure::{self, classify_failure};
use super::outcome::SubscriptionEffect;
use super::state_cache::{StateCache, StateGuard};
use super::targets::Targets;
use crate::domain::plugin::{
    Failure, OnError, Output, PluginResult, PluginRun, RenderedPayload, StateChange, Verdict,
};
use crate::domain::{Holder, Outcome, PluginUse};
use crate::plugin::{Call, CallResult, Plugin, Purpose, State, Steps};
use crate::store::{Error, Rendering};
use crate::worker::{Job, Next};
use crate::{chain, clock};

/// Why a run does not count if its delivery is not pending any more.
const GONE: &str = "it was asked for again, or dropped, while its plugin ran: this run does not count";

/// What an attempt goes on with.
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

/// The result of the plugin stage.
pub(super) struct PluginDecision {
    pub(super) plan: SendPlan,
    /// What the plugin did, unless the store has it already.
    pub(super) run: Option<Box<PluginRun>>,
    /// Whether the store has the rendered payload.
    pub(super) is_rendered: bool,
}

/// What a delivery needs to call its plugin.
pub(super) struct PluginContext {
    pub(super) permit: Permit,
    pub(super) state_cache: Arc<StateCache>,
}

impl PluginDecision {
    fn unrendered(plan: SendPlan, run: PluginRun) -> Self {
        Self { plan, run: Some(Box::new(run)), is_rendered: false }
    }

    fn rendered(result: PluginResult) -> Self {
        Self { plan: plan_of(result), run: None, is_rendered: true }
    }

    fn event() -> Self {
        Self { plan: SendPlan::Event, run: None, is_rendered: false }
    }
}

/// Decides what is sent: reads the rendered payload, or calls the plugin.
pub(super) async fn decide(
    targets: &Targets,
    job: &Job<'_, Targets>,
    plugin_context: Option<PluginContext>,
) -> PluginDecision {
    let Job { subject: subscription, pending, .. } = *job;
    if pending.rendered {
        match targets.store.rendered(pending.event.id, subscription.id.into()).await {
            Ok(Some(rendered)) => return PluginDecision::rendered(rendered.result),
            Ok(None) => {}
            Err(error) => {
                return PluginDecision { plan: unreadable(&error), run: None, is_rendered: true };
            }
        }
    }
    let (Some(used), Some(PluginContext { permit, state_cache })) = (&subscription.plugin, plugin_context)
    else {
        return PluginDecision::event();
    };
    if pending.progress.passed {
        return PluginDecision::event();
    }
    let attempt = pending.progress.failed + 1;
    if let Permit::Not { until, holds } = permit {
        let failed = Failure::Breaker(format!("the breaker is open until {until:.0}"));
        let run = PluginRun::failed(used.digest, attempt, clock::now(), failed.clone());
        // A delivery that the breaker holds gets here if its rendered payload is gone by now. Its policy may not
        // have been asked.
        let on_error = if holds { OnError::Retry } else { used.on_error };
        let plan = classify_failure(&failed, on_error, targets.retry(job).context());
        return PluginDecision::unrendered(plan, run);
    }
    let stage = PluginStage { targets, job, used };
    match targets.modules.plugin(used.digest).await {
        Ok(plugin) => stage.ask(plugin, permit, &state_cache).await,
        Err(failed) => {
            let run = PluginRun::failed(used.digest, attempt, clock::now(), failed);
            let may_have_policy = match targets.modules.module(used.digest).await {
                Ok(Some(module)) => module.report.exports.iter().any(|export| export == "policy"),
                Ok(None) | Err(_) => true,
            };
            stage.classify_failed_run(permit, run, may_have_policy)
        }
    }
}

/// The plugin's part of one attempt.
struct PluginStage<'a> {
    targets: &'a Targets,
    job: &'a Job<'a, Targets>,
    used: &'a Arc<PluginUse>,
}

impl PluginStage<'_> {
    async fn ask(&self, plugin: Arc<Plugin>, permit: Permit, state_cache: &StateCache) -> PluginDecision {
        let has_policy = plugin.has_policy();
        let mut guard = None;
        if plugin.uses_state() {
            guard = match state_cache.lock(&self.targets.store, self.job.subject).await {
                Ok(guard) => Some(guard),
                Err(error) => {
                    return PluginDecision { plan: unreadable(&error), run: None, is_rendered: false };
                }
            };
        }
        let now = clock::now();
        let call = Call {
            event: self.job.pending.event.event.clone(),
            subscription: Arc::clone(self.job.subject),
            plugin: Arc::clone(self.used),
            attempt: self.job.pending.progress.failed + 1,
            now,
            state: guard.as_ref().map_or_else(State::default, StateGuard::state),
            steps: Steps::All,
            purpose: Purpose::Deliver,
        };
        let CallResult { mut run, outputs, state } = self.targets.modules.host().run(plugin, call).await;
        if let Verdict::Failed(_) = run.verdict {
            return self.classify_failed_run(permit, run, has_policy);
        }
        run.keep_end(self.targets.limits.success_log_bytes);
        self.targets.breakers.note(self.job.subject, permit, Ok(()), now);
        let is_changed = state.is_changed();
        let changes = guard.as_ref().filter(|_| is_changed).map(|guard| guard.changes(&state, now));
        let changes = changes.unwrap_or_default();
        // The call's state shares memory with the cached state, which is changed next.
        drop(state);
        let result = result_of(&run.verdict, outputs);
        if changes.is_empty() && !matches!(result, PluginResult::Outputs(_)) {
            return PluginDecision::unrendered(plan_of(result), run);
        }
        // While the disk is full, the delivery is held and its plugin runs again later: this run is discarded.
        match self.commit(run, result.clone(), changes.clone()).await {
            Ok(true) => {
                if let Some(guard) = guard {
                    guard.commit(changes);
                }
                PluginDecision::rendered(result)
            }
            Ok(false) => {
                let reason = GONE.to_owned();
                let plan = SendPlan::over(Outcome::Skipped { reason });
                PluginDecision { plan, run: None, is_rendered: false }
            }
            Err(error) => PluginDecision { plan: unreadable(&error), run: None, is_rendered: false },
        }
    }

    /// Freezes the rendered payload.
    async fn commit(
        &self,
        run: PluginRun,
        result: PluginResult,
        state: Vec<StateChange>,
    ) -> Result<bool, Error> {
        let rendering = Rendering {
            recipient: self.job.recipient,
            event: self.job.pending.event.id,
            position: self.job.pending.position,
            run: Box::new(run),
            payload: RenderedPayload::by(self.used, result),
            state,
        };
        self.targets.store.freeze(rendering).await
    }

    fn classify_failed_run(&self, permit: Permit, run: PluginRun, may_have_policy: bool) -> PluginDecision {
        let Verdict::Failed(failed) = &run.verdict else { return PluginDecision::event() };
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
            | Failure::Breaker(_) => {
                self.targets.breakers.note(self.job.subject, permit, counted, clock::now())
            }
        }
        let on_error = failure::on_error(wanted, &run, may_have_policy);
        let plan = classify_failure(failed, on_error, self.targets.retry(self.job).context());
        PluginDecision::unrendered(plan, run)
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
    let reason = chain::of(error);
    match error {
        Error::Damaged { .. } | Error::TooLarge { .. } => SendPlan::over(Outcome::Dead { reason }),
        Error::Unavailable { .. } | Error::Busy { .. } | Error::Uncertain | Error::Closed => {
            SendPlan::held(Holder::Store, reason)
        }
        Error::Quota { .. } => SendPlan::held(Holder::Quota, reason),
    }
}
