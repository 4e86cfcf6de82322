//! One call: from a fresh store to what is known afterwards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use wasmtime::component::Instance;
use wasmtime::{Store, Trap, UpdateDeadline};

use super::bindings::exports::waypost::plugin::{filter, policy, transform};
use super::bindings::waypost::plugin::types;
use super::guest::Guest;
use super::host::{Host, Running};
use super::http::Outbound;
use super::limits::{Limits, size};
use super::loaded::Plugin;
use super::output;
use super::state::State;
use crate::domain::plugin::{Failure, Output, PluginRun, Verdict};
use crate::domain::{Event, PluginUse, Subscription};

/// What a plugin is to look at.
pub struct Call {
    /// The event.
    pub event: Event,
    /// Whose delivery.
    pub subscription: Arc<Subscription>,
    /// The plugin's configuration and grants.
    pub plugin: Arc<PluginUse>,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// The time of the call.
    pub now: Timestamp,
    /// What is kept of earlier calls.
    pub state: State,
    /// Which interfaces are called.
    pub steps: Steps,
    /// What the call is for.
    pub purpose: Purpose,
}

/// Which interfaces of a plugin are called, as far as it exports them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steps {
    /// `policy`, `filter` and `transform`, until one says no.
    All,
    /// `policy` alone: the operator's.
    Policy,
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A delivery.
    Deliver,
    /// A trial: HTTP requests that are not safe (RFC 9110 §9.2.1) are refused.
    Try,
}

/// What a call led to.
pub struct Ran {
    /// What is kept in the story.
    pub run: PluginRun,
    /// What to send, where the verdict is [`Verdict::Transformed`].
    pub outputs: Vec<Output>,
    /// The state after the call; of a call that failed, it is to be dropped.
    pub state: State,
}

impl Host {
    /// Calls a plugin in a fresh instance. Dropping the future ends the call.
    pub async fn run(self: &Arc<Self>, plugin: Arc<Plugin>, call: Call) -> Ran {
        let begun = Instant::now();
        let (digest, attempt, now, state) = (plugin.digest(), call.attempt, call.now, call.state.clone());
        let failed = |reason: String| Ran {
            run: blank(digest, attempt, now, begun.elapsed(), Verdict::Failed(Failure::Host(reason))),
            outputs: Vec::new(),
            state: state.clone(),
        };
        let running = match self.running() {
            Ok(running) => running,
            Err(error) => return failed(crate::chain::of(&error)),
        };
        let permit = Arc::clone(&running.calls).acquire_owned().await.expect("it is never closed");
        let limits = self.settings.limits.lowered(&call.plugin.limits);
        let task = running.spawn(async move {
            let ran = one(&plugin, call, limits).await;
            drop(permit);
            ran
        });
        match AbortAtEnd(task).join().await {
            Ok(ran) => ran,
            Err(error) => failed(format!("the host failed: {error}")),
        }
    }
}

/// A task that ends when nobody waits for it any more.
struct AbortAtEnd<T>(tokio::task::JoinHandle<T>);

impl<T> AbortAtEnd<T> {
    async fn join(mut self) -> Result<T, tokio::task::JoinError> {
        (&mut self.0).await
    }
}

impl<T> Drop for AbortAtEnd<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn blank(
    digest: crate::domain::PluginDigest,
    attempt: u32,
    at: Timestamp,
    took: Duration,
    verdict: Verdict,
) -> PluginRun {
    PluginRun {
        digest,
        at,
        attempt,
        took,
        verdict,
        answered: Vec::new(),
        logs: Vec::new(),
        logs_dropped: 0,
        stderr: String::new(),
        memory_bytes: 0,
    }
}

/// Makes a store whose guest gives way at every tick and ends at `end`.
fn store(engine: &wasmtime::Engine, guest: Guest, end: Instant) -> Store<Guest> {
    let output_bytes = guest.limits.output_bytes;
    let mut store = Store::new(engine, guest);
    store.limiter(|guest| &mut guest.meter);
    store.set_hostcall_fuel(output_bytes);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |_| {
        if Instant::now() >= end {
            return Err(Trap::Interrupt.into());
        }
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
    });
    store
}

async fn one(plugin: &Plugin, call: Call, limits: Limits) -> Ran {
    let begun = Instant::now();
    let end = begun + limits.time;
    let Call { event, subscription, plugin: used, attempt, now, state, steps, purpose } = call;
    let _ = purpose;
    let outbound = Outbound { allow_hosts: used.allow_hosts.clone() };
    let guest = Guest::new(used, limits, now, state, outbound);
    let mut store = store(plugin.pre.engine(), guest, end);
    let mut course = Course { answered: Vec::new(), outputs: Vec::new() };
    let calls = calls(plugin, &mut store, &event, &subscription, attempt, steps, &mut course);
    let ended = tokio::time::timeout_at(end.into(), calls).await;
    let verdict = match ended {
        Ok(Ok(Ok(verdict))) => verdict,
        Ok(Ok(Err(failure))) => Verdict::Failed(failure),
        Ok(Err(error)) => Verdict::Failed(failure(&error, store.data())),
        Err(_) => Verdict::Failed(Failure::Limit(time_limit(&limits))),
    };
    let guest = store.into_data();
    let run = PluginRun {
        answered: course.answered,
        logs: guest.logs.lines,
        logs_dropped: guest.logs.dropped,
        stderr: guest.tail.text(),
        memory_bytes: guest.meter.memory_bytes as u64,
        ..blank(plugin.digest(), attempt, now, begun.elapsed(), verdict)
    };
    Ran { run, outputs: course.outputs, state: guest.state }
}

/// How far a call came.
struct Course {
    answered: Vec<String>,
    outputs: Vec<Output>,
}

type Called = wasmtime::Result<Result<Verdict, Failure>>;

async fn calls(
    plugin: &Plugin,
    store: &mut Store<Guest>,
    event: &Event,
    subscription: &Subscription,
    attempt: u32,
    steps: Steps,
    course: &mut Course,
) -> Called {
    let instance: Instance = plugin.pre.instantiate_async(&mut *store).await?;
    let canonical = event.canonical();
    let extensions: Vec<_> =
        canonical.extensions.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let seen = output::seen(&canonical, &extensions);
    let id = subscription.id.to_string();
    let context = types::CallContext {
        user: &subscription.user,
        subscription: &id,
        attempt,
        deadline_ms: u32::try_from(store.data().limits.time.as_millis()).unwrap_or(u32::MAX),
        now_ms: u64::try_from(store.data().now.as_millisecond()).unwrap_or_default(),
        trace_parent: None,
        labels: &[],
    };
    if let Some(indices) = &plugin.exports.policy {
        let guest = indices.load(&mut *store, &instance)?;
        let decided = guest
            .call_decide(&mut *store, seen.clone(), subscription.target_url.as_str(), context.clone())
            .await?;
        course.answered.push("policy".to_owned());
        match decided {
            Ok(policy::Decision::Allow) => {}
            Ok(policy::Decision::Deny(reason)) => return Ok(Ok(Verdict::Denied { reason })),
            Err(error) => return Ok(Err(of_error(error))),
        }
    }
    if steps == Steps::Policy {
        return Ok(Ok(Verdict::Deliver));
    }
    if let Some(indices) = &plugin.exports.filter {
        let guest = indices.load(&mut *store, &instance)?;
        let evaluated = guest.call_evaluate(&mut *store, seen.clone(), context.clone()).await?;
        course.answered.push("filter".to_owned());
        match evaluated {
            Ok(filter::Verdict::Deliver) => {}
            Ok(filter::Verdict::Skip(reason)) => return Ok(Ok(Verdict::Skipped { reason })),
            Err(error) => return Ok(Err(of_error(error))),
        }
    }
    let Some(indices) = &plugin.exports.transform else { return Ok(Ok(Verdict::Deliver)) };
    let guest = indices.load(&mut *store, &instance)?;
    let applied = guest.call_apply(&mut *store, seen, context).await?;
    course.answered.push("transform".to_owned());
    let made: Vec<transform::Output> = match applied {
        Ok(made) => made,
        Err(error) => return Ok(Err(of_error(error))),
    };
    if made.is_empty() {
        return Ok(Ok(Verdict::Skipped { reason: "the transform made no output".to_owned() }));
    }
    Ok(match output::outputs(made, event) {
        Ok(outputs) => {
            let count = u32::try_from(outputs.len()).unwrap_or(u32::MAX);
            course.outputs = outputs;
            Ok(Verdict::Transformed { outputs: count })
        }
        Err(reason) => Err(Failure::Trap(reason)),
    })
}

fn of_error(error: types::PluginError) -> Failure {
    match error {
        types::PluginError::InvalidEvent(message) => Failure::InvalidEvent(message),
        types::PluginError::InvalidConfig(message) => Failure::InvalidConfig(message),
        types::PluginError::Unavailable(hint) => Failure::Unavailable {
            message: hint.message,
            retry_after: hint.retry_after_ms.map(|ms| Duration::from_millis(ms.into())),
        },
        types::PluginError::Internal(message) => Failure::Internal(message),
    }
}

fn time_limit(limits: &Limits) -> String {
    format!("time limit of {} ms", limits.time.as_millis())
}

/// Names what ended a call.
fn failure(error: &wasmtime::Error, guest: &Guest) -> Failure {
    if let Some(exceeded) = &guest.meter.exceeded {
        return Failure::Limit(exceeded.clone());
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Failure::Limit(time_limit(&guest.limits)),
        Some(Trap::StackOverflow) => Failure::Limit(format!("stack limit of {}", size(512 * 1024))),
        _ => Failure::Trap(format!("{error:#}")),
    }
}
