//! The host in memory of one test.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};

use super::store::Store;
use crate::answer::{Decision, Output, Verdict};
use crate::context::Context;
use crate::error::Result;
use crate::event::Event;
use crate::interfaces::{Describe, Filter, Policy, Problem, Transform};
use crate::log::Level;

/// A host in memory, with the limits of the real one: configuration, state, log and clock.
///
/// As with the real host, a call that fails changes no state. A host belongs to one thread: each test makes its own.
pub struct Host {
    inner: Rc<RefCell<Inner>>,
    context: Context,
}

/// What the imports of a plugin reach.
pub(crate) struct Inner {
    pub(crate) config: Value,
    pub(crate) state: Store,
    pub(crate) logs: Logs,
    pub(crate) now_ms: u64,
}

/// One line that a plugin logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Its severity.
    pub level: Level,
    /// Its text.
    pub message: String,
    /// Its fields.
    pub fields: Vec<(String, String)>,
}

/// The most bytes of log lines of one call.
const LOG_BYTES_MAX: usize = 64 * 1024;

#[derive(Default)]
pub(crate) struct Logs {
    lines: Vec<LogLine>,
    dropped: usize,
    /// Of the current call.
    bytes: usize,
}

impl Logs {
    pub(crate) fn write(&mut self, level: Level, message: &str, fields: &[(String, String)]) {
        let of_fields: usize = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
        let size = 16 + message.len() + of_fields;
        if self.bytes + size > LOG_BYTES_MAX {
            self.dropped += 1;
            return;
        }
        self.bytes += size;
        self.lines.push(LogLine { level, message: message.to_owned(), fields: fields.to_vec() });
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<RefCell<Inner>>>> = const { RefCell::new(None) };
}

/// Calls `with` on the host whose call is running.
pub(crate) fn current<T>(with: impl FnOnce(&mut Inner) -> T) -> T {
    let host = CURRENT.with_borrow(Option::clone);
    let host =
        host.expect("log, config and state have a host only within a call of waypost_plugin::testing::Host");
    with(&mut host.borrow_mut())
}

/// Ends a call when dropped, also after a panic.
struct Within(Option<Rc<RefCell<Inner>>>);

impl Drop for Within {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// Makes a host with the configuration `{}`, no state, and a clock that stands at 2026-01-01T00:00:00Z.
    pub fn new() -> Self {
        let now_ms = 1_767_225_600_000;
        let inner = Inner { config: json!({}), state: Store::new(), logs: Logs::default(), now_ms };
        let context = Context {
            user: "user".to_owned(),
            subscription: "00000000-0000-0000-0000-000000000001".to_owned(),
            attempt: 1,
            deadline: Duration::from_millis(250),
            now_ms,
            trace_parent: None,
            labels: Vec::new(),
        };
        Self { inner: Rc::new(RefCell::new(inner)), context }
    }

    /// Sets the configuration.
    ///
    /// # Panics
    /// When it is not a JSON object.
    #[must_use]
    pub fn with_config(self, config: Value) -> Self {
        assert!(config.is_object(), "a configuration is a JSON object: {config}");
        self.inner.borrow_mut().config = config;
        self
    }

    /// Sets the owner of the subscription.
    #[must_use]
    pub fn with_user(mut self, user: &str) -> Self {
        user.clone_into(&mut self.context.user);
        self
    }

    /// Sets the number of the attempt.
    #[must_use]
    pub fn with_attempt(mut self, attempt: u32) -> Self {
        self.context.attempt = attempt;
        self
    }

    /// Sets a value of the state.
    ///
    /// # Panics
    /// When it exceeds a limit.
    #[must_use]
    pub fn with_state(self, key: &str, value: &[u8]) -> Self {
        let mut inner = self.inner.borrow_mut();
        let now_ms = inner.now_ms;
        inner.state.set(key, value, None, now_ms).expect("it is within the limits");
        drop(inner);
        self
    }

    /// Lowers the limits of the state, which are 1 MiB and 1000 keys.
    #[must_use]
    pub fn with_state_limits(self, bytes: usize, keys: usize) -> Self {
        let mut inner = self.inner.borrow_mut();
        (inner.state.bytes_max, inner.state.keys_max) = (bytes, keys);
        drop(inner);
        self
    }

    /// Moves the clock forward.
    pub fn advance(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let mut inner = self.inner.borrow_mut();
        inner.now_ms = inner.now_ms.saturating_add(ms);
    }

    /// Returns the context that a call would get now.
    pub fn context(&self) -> Context {
        Context { now_ms: self.inner.borrow().now_ms, ..self.context.clone() }
    }

    /// Calls a filter.
    ///
    /// # Errors
    /// The filter's error.
    pub fn filter<P: Filter>(&self, event: &Event) -> Result<Verdict> {
        self.call(|| P::evaluate(event, &self.context()))
    }

    /// Calls a policy: whether the event may go to this target.
    ///
    /// # Errors
    /// The policy's error.
    pub fn policy<P: Policy>(&self, event: &Event, target: &str) -> Result<Decision> {
        self.call(|| P::decide(event, target, &self.context()))
    }

    /// Calls a transform.
    ///
    /// # Errors
    /// The transform's error.
    pub fn transform<P: Transform>(&self, event: &Event) -> Result<Vec<Output>> {
        self.call(|| P::apply(event.clone(), &self.context()))
    }

    /// Calls a plugin to check the configuration.
    ///
    /// # Errors
    /// The problems that it found.
    pub fn check_config<P: Describe>(&self) -> Result<(), Vec<Problem>> {
        let config = self.inner.borrow().config.to_string();
        self.call(|| P::check_config(&config))
    }

    /// Runs code that logs, or that reads configuration and state, on this host.
    pub fn within<T>(&self, call: impl FnOnce() -> T) -> T {
        let before = CURRENT.replace(Some(Rc::clone(&self.inner)));
        let _within = Within(before);
        call()
    }

    fn call<T, E>(&self, call: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let before = self.inner.borrow().state.clone();
        self.inner.borrow_mut().logs.bytes = 0;
        let ended = self.within(call);
        if ended.is_err() {
            self.inner.borrow_mut().state = before;
        }
        ended
    }

    /// Returns the log lines of all calls.
    pub fn logs(&self) -> Vec<LogLine> {
        self.inner.borrow().logs.lines.clone()
    }

    /// Returns how many log lines were dropped at the limit.
    pub fn logs_dropped(&self) -> usize {
        self.inner.borrow().logs.dropped
    }

    /// Returns a value of the state.
    pub fn state(&self, key: &str) -> Option<Vec<u8>> {
        let inner = self.inner.borrow();
        inner.state.get(key, inner.now_ms).map(<[u8]>::to_vec)
    }

    /// Returns the keys of the state, in order.
    pub fn state_keys(&self) -> Vec<String> {
        let inner = self.inner.borrow();
        inner.state.keys(inner.now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, deliver, log, state};

    /// Counts, and then fails if the configuration says so.
    struct Counting;

    impl Filter for Counting {
        fn evaluate(_event: &Event, context: &Context) -> Result<Verdict> {
            state::increment("n", 1, Some(Duration::from_secs(60)))?;
            log::info!("counted"; user = context.user);
            match context.config_member("fail") {
                Some(reason) => Err(Error::Internal(reason)),
                None => deliver(),
            }
        }
    }

    #[test]
    fn a_call_keeps_its_state_and_a_failed_one_does_not() {
        let host = Host::new().with_user("anna");
        assert_eq!(host.filter::<Counting>(&Event::default()), Ok(Verdict::Deliver));
        assert_eq!(host.state("n"), Some(1_i64.to_le_bytes().to_vec()));
        assert_eq!(host.logs()[0].fields, [("user".to_owned(), "anna".to_owned())]);
        let host = host.with_config(json!({"fail": "oh"}));
        assert_eq!(host.filter::<Counting>(&Event::default()), Err(Error::internal("oh")));
        assert_eq!(host.state("n"), Some(1_i64.to_le_bytes().to_vec()));
        host.advance(Duration::from_secs(60));
        assert_eq!(host.state_keys(), [""; 0]);
    }

    #[test]
    fn log_lines_above_the_limit_are_counted() {
        let host = Host::new();
        host.within(|| log::write(Level::Info, &"x".repeat(LOG_BYTES_MAX), &[]));
        assert_eq!((host.logs().len(), host.logs_dropped()), (0, 1));
    }

    #[test]
    fn a_configuration_of_another_shape_is_invalid() {
        let host = Host::new().with_config(json!({"n": "x"}));
        let read = host.within(|| host.context().config::<std::collections::BTreeMap<String, u8>>());
        assert!(matches!(read, Err(Error::InvalidConfig(message)) if message.contains("expected u8")));
    }
}
