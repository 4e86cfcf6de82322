//! The order in which a call asks its plugin: `policy`, `filter` and `transform`, until one of them says no.

use std::time::Duration;

use wasmtime::Store;
use wasmtime::component::Instance;

use super::bindings::exports::waypost::plugin::{filter, policy};
use super::bindings::waypost::plugin::types::{CallContext, EventParam, PluginError};
use super::call::Steps;
use super::component::Plugin;
use super::guest::Guest;
use super::timer::Timer;
use super::{output, text};
use waypost_domain::event::Canonical;
use waypost_domain::plugin::{Failure, Output, Verdict};
use waypost_domain::{Event, Subscription};

/// The longest reason or error of a guest's, in bytes.
const REASON_BYTES_MAX: usize = 1024;

/// What is asked about.
pub(super) struct Input<'a> {
    pub(super) event: &'a Event,
    pub(super) subscription: &'a Subscription,
    pub(super) attempt: u32,
    pub(super) steps: Steps,
    pub(super) timer: &'a Timer,
}

/// What a plugin has answered so far.
#[derive(Default)]
pub(super) struct Answers {
    /// The interfaces that have answered, in order.
    pub(super) interfaces: Vec<String>,
    pub(super) outputs: Vec<Output>,
}

/// The answer with which a guest ends the call early.
type No = Result<Verdict, Failure>;

/// Asks each interface that the plugin exports. The outer error is wasmtime's: there was no answer.
pub(super) async fn ask(
    plugin: &Plugin,
    store: &mut Store<Guest>,
    instance: Instance,
    input: &Input<'_>,
    answers: &mut Answers,
) -> wasmtime::Result<Result<Verdict, Failure>> {
    let canonical = Canonical::from(input.event);
    let extensions: Vec<_> =
        canonical.extensions.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let event = output::seen(&canonical, &extensions);
    let id = input.subscription.id.to_string();
    let trace_parent = extensions.iter().find(|(name, _)| *name == "traceparent").map(|(_, value)| *value);
    let labels = [("subscription-name", input.subscription.name.as_str())];
    let context = CallContext {
        user: &input.subscription.user,
        subscription: &id,
        attempt: input.attempt,
        deadline_ms: 0,
        now_ms: u64::try_from(store.data().now.as_millisecond()).unwrap_or_default(),
        trace_parent,
        labels: &labels,
    };
    let mut callee = Callee { plugin, store, instance, timer: input.timer };
    let target = input.subscription.target_url.as_str();
    if let Some(no) = callee.policy(event.clone(), target, context.clone(), answers).await? {
        return Ok(no);
    }
    if input.steps == Steps::Policy {
        return Ok(Ok(Verdict::Deliver));
    }
    if let Some(no) = callee.filter(event.clone(), context.clone(), answers).await? {
        return Ok(no);
    }
    callee.transform(event, context, input.event, answers).await
}

/// An instance, with what its calls need.
struct Callee<'a> {
    plugin: &'a Plugin,
    store: &'a mut Store<Guest>,
    instance: Instance,
    timer: &'a Timer,
}

impl Callee<'_> {
    /// Sets the deadline to the time that the guest has left.
    fn timed<'c>(&self, context: CallContext<'c>) -> CallContext<'c> {
        let deadline_ms = u32::try_from(self.timer.left().as_millis()).unwrap_or(u32::MAX);
        CallContext { deadline_ms, ..context }
    }

    async fn policy(
        &mut self,
        event: EventParam<'_>,
        target: &str,
        context: CallContext<'_>,
        answers: &mut Answers,
    ) -> wasmtime::Result<Option<No>> {
        let Some(indices) = &self.plugin.exports.policy else { return Ok(None) };
        let context = self.timed(context);
        let guest = indices.load(&mut *self.store, &self.instance)?;
        let decided = guest.call_decide(&mut *self.store, event, target, context).await?;
        answers.interfaces.push("policy".to_owned());
        Ok(match decided {
            Ok(policy::Decision::Allow) => None,
            Ok(policy::Decision::Deny(reason)) => Some(Ok(Verdict::Denied { reason: short(&reason) })),
            Err(error) => Some(Err(failure(error))),
        })
    }

    async fn filter(
        &mut self,
        event: EventParam<'_>,
        context: CallContext<'_>,
        answers: &mut Answers,
    ) -> wasmtime::Result<Option<No>> {
        let Some(indices) = &self.plugin.exports.filter else { return Ok(None) };
        let context = self.timed(context);
        let guest = indices.load(&mut *self.store, &self.instance)?;
        let evaluated = guest.call_evaluate(&mut *self.store, event, context).await?;
        answers.interfaces.push("filter".to_owned());
        Ok(match evaluated {
            Ok(filter::Verdict::Deliver) => None,
            Ok(filter::Verdict::Skip(reason)) => Some(Ok(Verdict::Skipped { reason: short(&reason) })),
            Err(error) => Some(Err(failure(error))),
        })
    }

    async fn transform(
        &mut self,
        event: EventParam<'_>,
        context: CallContext<'_>,
        of: &Event,
        answers: &mut Answers,
    ) -> wasmtime::Result<No> {
        let Some(indices) = &self.plugin.exports.transform else { return Ok(Ok(Verdict::Deliver)) };
        let context = self.timed(context);
        let guest = indices.load(&mut *self.store, &self.instance)?;
        let applied = guest.call_apply(&mut *self.store, event, context).await?;
        answers.interfaces.push("transform".to_owned());
        let made = match applied {
            Ok(made) => made,
            Err(error) => return Ok(Err(failure(error))),
        };
        if made.is_empty() {
            return Ok(Ok(Verdict::Skipped { reason: "the transform made no output".to_owned() }));
        }
        let guest = self.store.data();
        Ok(output::outputs(made, of, &guest.limits, guest.outbound.guard()).map(|outputs| {
            let count = u32::try_from(outputs.len()).unwrap_or(u32::MAX);
            answers.outputs = outputs;
            Verdict::Transformed { outputs: count }
        }))
    }
}

fn short(reason: &str) -> String {
    text::clean(reason, REASON_BYTES_MAX)
}

fn failure(error: PluginError) -> Failure {
    match error {
        PluginError::InvalidEvent(message) => Failure::InvalidEvent(short(&message)),
        PluginError::InvalidConfig(message) => Failure::InvalidConfig(short(&message)),
        PluginError::Unavailable(hint) => Failure::Unavailable {
            message: short(&hint.message),
            retry_after: hint.retry_after_ms.map(|ms| Duration::from_millis(ms.into())),
        },
        PluginError::Internal(message) => Failure::Internal(short(&message)),
    }
}
