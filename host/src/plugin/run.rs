//! One call: from a fresh store to what is known afterwards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::task::{JoinError, JoinHandle};
use wasmtime::component::Instance;
use wasmtime::{Engine, Store, Trap, UpdateDeadline};

use super::course::{self, Course, Question};
use super::error::Error;
use super::guest::Guest;
use super::host::{Admission, Host};
use super::http::Outbound;
use super::limits::{HANDLES_MAX, Limits};
use super::loaded::Plugin;
use super::schedule::Seat;
use super::state::State;
use super::timer::{self, Timer};
use super::web::Web;
use super::{ending, text};
use crate::chain;
use crate::domain::plugin::{Failure, Output, PluginRun, Verdict};
use crate::domain::{Event, PluginDigest, PluginUse, Subscription};
use crate::fair_semaphore::FairPermit;

/// The input of a call.
pub struct Call {
    /// The event.
    pub event: Event,
    /// The subscription that the delivery is for.
    pub subscription: Arc<Subscription>,
    /// The plugin's configuration and grants.
    pub plugin: Arc<PluginUse>,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// The time of the call.
    pub now: Timestamp,
    /// The state that earlier calls left.
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
    /// A dry run: HTTP requests that are not safe (RFC 9110 §9.2.1) are refused.
    Try,
}

/// What a call led to.
pub struct CallResult {
    /// What goes into the history.
    pub run: PluginRun,
    /// What to send, where the verdict is [`Verdict::Transformed`].
    pub outputs: Vec<Output>,
    /// The state after the call; drop it if the call failed.
    pub state: State,
}

impl Host {
    /// Calls a plugin in a fresh instance. Dropping the future ends the call.
    pub async fn run(self: &Arc<Self>, plugin: Arc<Plugin>, call: Call) -> CallResult {
        let begun = Instant::now();
        let (digest, attempt, now, state) = (plugin.digest(), call.attempt, call.now, call.state.clone());
        let failed = |failure: Failure| CallResult {
            run: blank(digest, attempt, now, begun.elapsed(), Verdict::Failed(failure)),
            outputs: Vec::new(),
            state: state.clone(),
        };
        let running = match self.running() {
            Ok(running) => running,
            Err(error) => return failed(Failure::Host(chain::of(&error))),
        };
        let Admission { call: place, memory, seat } = running.admit(&call.subscription.user, &plugin).await;
        let limits = self.settings.limits.lowered(&call.plugin.limits);
        let web = Arc::clone(&running.web);
        let task = running.spawn(async move {
            let ran = one(&plugin, call, limits, web, Some((memory, seat))).await;
            drop(place);
            ran
        });
        match AbortAtEnd(task).join().await {
            Ok(ran) => ran,
            Err(error) => failed(ended(error)),
        }
    }

    /// Calls a plugin as [`Self::run`] does, but on the caller's thread and without waiting for a permit: for a program
    /// with threads of its own for it. Needs a tokio runtime with time and input/output.
    ///
    /// # Errors
    /// When the engine does not run.
    pub async fn run_here(&self, plugin: &Plugin, call: Call) -> Result<CallResult, Error> {
        let web = Arc::clone(&self.running()?.web);
        let limits = self.settings.limits.lowered(&call.plugin.limits);
        Ok(one(plugin, call, limits, web, None).await)
    }
}

/// A task that is aborted when this is dropped.
struct AbortAtEnd<T>(JoinHandle<T>);

impl<T> AbortAtEnd<T> {
    async fn join(mut self) -> Result<T, JoinError> {
        (&mut self.0).await
    }
}

impl<T> Drop for AbortAtEnd<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Explains why a call's task ended without a result. A panic of the host's own code fails that call alone. It counts
/// as an attempt, since the same call would panic again.
fn ended(error: JoinError) -> Failure {
    let Ok(panic) = error.try_into_panic() else {
        return Failure::Host("the host is shutting down".to_owned());
    };
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Failure::Trap(format!("the host failed: {}", text::clean(text.unwrap_or("a panic without a text"), 512)))
}

fn blank(digest: PluginDigest, attempt: u32, at: Timestamp, took: Duration, verdict: Verdict) -> PluginRun {
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

async fn one(
    plugin: &Plugin,
    call: Call,
    limits: Limits,
    web: Arc<Web>,
    share: Option<(FairPermit, Seat)>,
) -> CallResult {
    let (memory, seat) = share.unzip();
    let timer = Timer::start(limits.time);
    let Call { event, subscription, plugin: used, attempt, now, state, steps, purpose } = call;
    let outbound = Outbound::new(Arc::clone(&used), purpose, web);
    let guest = Guest::new(used, limits, now, state, outbound, memory);
    let mut course = Course::default();
    let question = Question { event: &event, subscription: &subscription, attempt, steps, timer: &timer };
    let ask = async |store: &mut Store<Guest>, instance: Instance| {
        course::ask(plugin, store, instance, &question, &mut course).await
    };
    let (asked, guest) = fresh(plugin, guest, &timer, seat, ask).await;
    let verdict = asked.flatten().unwrap_or_else(Verdict::Failed);
    let mut logs = guest.logs.lines;
    logs.extend(guest.outbound.notes());
    let run = PluginRun {
        answered: course.answered,
        logs,
        logs_dropped: guest.logs.dropped,
        stderr: guest.tail.text(),
        memory_bytes: guest.meter.memory_bytes as u64,
        ..blank(plugin.digest(), attempt, now, timer.passed(), verdict)
    };
    CallResult { run, outputs: course.outputs, state: guest.state }
}

/// Makes a fresh instance and asks it something within the time limit. Returns the guest that is left.
///
/// The instance is dropped in a turn of the guest's, because freeing its memory takes longer than most calls.
pub(super) async fn fresh<T>(
    plugin: &Plugin,
    guest: Guest,
    timer: &Timer,
    mut seat: Option<Seat>,
    ask: impl AsyncFnOnce(&mut Store<Guest>, Instance) -> wasmtime::Result<T>,
) -> (Result<T, Failure>, Guest) {
    const THERE: &str = "it is there until it is torn down";
    let mut kept = Some(store(plugin.pre.engine(), guest, timer.clone()));
    let asking = async {
        let store = kept.as_mut().expect(THERE);
        let instance = plugin.pre.instantiate_async(&mut *store).await;
        let asked = match instance {
            Ok(instance) => {
                store.data_mut().began = true;
                ask(store, instance).await
            }
            Err(error) => Err(error),
        };
        timer.read_thread_time();
        (asked, kept.take().expect(THERE).into_data())
    };
    let ended = timer.limit(seat.as_mut(), asking).await;
    let (asked, guest) = match ended {
        Some((Ok(answer), guest)) => (Ok(answer), guest),
        Some((Err(error), guest)) => (Err(ending::failure(&error, &guest)), guest),
        None => {
            let store = kept.take().expect(THERE);
            let guest = timer::in_turn(seat.as_mut(), || store.into_data()).await;
            (Err(Failure::Limit(ending::time_limit(&guest.limits))), guest)
        }
    };
    plugin.had_bytes(guest.meter.wanted_bytes);
    (asked, guest)
}

/// Makes a store whose guest yields at every tick, and ends when its time is over.
fn store(engine: &Engine, guest: Guest, timer: Timer) -> Store<Guest> {
    let handed_bytes = guest.limits.handed_bytes();
    let mut store = Store::new(engine, guest);
    store.limiter(|guest| &mut guest.meter);
    store.set_hostcall_fuel(handed_bytes);
    store.set_max_component_handles(HANDLES_MAX);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |_| {
        if timer.left_at_tick().is_zero() {
            return Err(Trap::Interrupt.into());
        }
        timer.give_way();
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
    });
    store
}
