//! What the host gives a guest: log, config and state.

use std::time::Duration;

use wasmtime::component::{HasData, Linker};

use super::bindings::waypost::plugin::{config, log, state, types};
use super::guest::Guest;
use super::state::{Expiry, Refusal, Terms};
use waypost_domain::plugin::LogLevel;

impl types::Host for Guest {}

impl log::Host for Guest {
    fn write(
        &mut self,
        level: log::Level,
        message: String,
        fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        let level = match level {
            log::Level::Trace => LogLevel::Trace,
            log::Level::Debug => LogLevel::Debug,
            log::Level::Info => LogLevel::Info,
            log::Level::Warn => LogLevel::Warn,
            log::Level::Error => LogLevel::Error,
        };
        self.logs.write(level, &message, &fields, self.limits.log_bytes);
        Ok(())
    }

    fn enabled(&mut self, _level: log::Level) -> wasmtime::Result<bool> {
        Ok(true)
    }
}

impl config::Host for Guest {
    fn all(&mut self) -> wasmtime::Result<String> {
        Ok(serde_json::to_string(&self.plugin.config)?)
    }

    fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        Ok(self.plugin.config.get(&key).map(|value| match value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        }))
    }
}

type StateResult<T> = wasmtime::Result<Result<T, state::StateError>>;

impl state::Host for Guest {
    fn get(&mut self, key: String) -> StateResult<Option<Vec<u8>>> {
        Ok(Ok(self.state.get(&key, self.now).map(<[u8]>::to_vec)))
    }

    fn set(&mut self, key: String, value: Vec<u8>, ttl_ms: Option<u64>) -> StateResult<()> {
        let expiry = ttl_ms.map_or(Expiry::Never, |ms| Expiry::After(Duration::from_millis(ms)));
        let terms = Terms { now: self.now, limits: &self.limits };
        Ok(self.state.set(&key, value, expiry, terms).map_err(refusal))
    }

    fn delete(&mut self, key: String) -> StateResult<()> {
        self.state.delete(&key, self.now);
        Ok(Ok(()))
    }

    fn increment(&mut self, key: String, delta: i64, ttl_ms: Option<u64>) -> StateResult<i64> {
        let terms = Terms { now: self.now, limits: &self.limits };
        let ttl = ttl_ms.map(Duration::from_millis);
        Ok(self.state.increment(&key, delta, ttl, terms).map_err(refusal))
    }

    fn compare_and_set(&mut self, key: String, expected: Option<Vec<u8>>, value: Vec<u8>) -> StateResult<()> {
        let terms = Terms { now: self.now, limits: &self.limits };
        Ok(self.state.compare_and_set(&key, expected.as_deref(), value, terms).map_err(refusal))
    }
}

fn refusal(refusal: Refusal) -> state::StateError {
    match refusal {
        Refusal::Quota => state::StateError::QuotaExceeded,
        Refusal::KeyTooLong => state::StateError::KeyTooLong,
        Refusal::ValueTooLarge => state::StateError::ValueTooLarge,
        Refusal::Conflict => state::StateError::Conflict,
    }
}

struct Own;

impl HasData for Own {
    type Data<'a> = &'a mut Guest;
}

/// Links log, config and state.
pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    log::add_to_linker::<_, Own>(linker, |guest| guest)?;
    config::add_to_linker::<_, Own>(linker, |guest| guest)?;
    state::add_to_linker::<_, Own>(linker, |guest| guest)
}
