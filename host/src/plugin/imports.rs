//! What the host gives a guest: log, config and state.

use std::time::Duration;

use wasmtime::component::{HasData, Linker};

use super::bindings::waypost::plugin::{config, log, state, types};
use super::guest::Guest;
use super::state::Refusal;
use crate::domain::plugin::{LogLevel, LogLine};

/// The log lines of one call, within their limit.
#[derive(Default)]
pub(super) struct Logs {
    pub(super) lines: Vec<LogLine>,
    pub(super) dropped: u32,
    bytes: usize,
}

impl Logs {
    fn write(&mut self, line: LogLine, bytes_max: usize) {
        let fields: usize = line.fields.iter().map(|(name, value)| name.len() + value.len()).sum();
        // A line costs something even when it is empty.
        let size = 16 + line.message.len() + fields;
        if self.bytes + size > bytes_max {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        self.bytes += size;
        self.lines.push(line);
    }
}

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
        self.logs.write(LogLine { level, message, fields }, self.limits.log_bytes);
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
        let ttl = ttl_ms.map(Duration::from_millis);
        Ok(self.state.set(&key, value, ttl, self.now, &self.limits).map_err(refusal))
    }

    fn delete(&mut self, key: String) -> StateResult<()> {
        self.state.delete(&key);
        Ok(Ok(()))
    }

    fn increment(&mut self, key: String, delta: i64, ttl_ms: Option<u64>) -> StateResult<i64> {
        let now = match self.state.get(&key, self.now).map(|bytes| <[u8; 8]>::try_from(bytes)) {
            None => 0,
            Some(Ok(bytes)) => i64::from_le_bytes(bytes),
            Some(Err(_)) => return Ok(Err(state::StateError::Conflict)),
        };
        let next = now.saturating_add(delta);
        let ttl = ttl_ms.map(Duration::from_millis);
        let set = self.state.set(&key, next.to_le_bytes().to_vec(), ttl, self.now, &self.limits);
        Ok(set.map(|()| next).map_err(refusal))
    }

    fn compare_and_set(&mut self, key: String, expected: Option<Vec<u8>>, value: Vec<u8>) -> StateResult<()> {
        if self.state.get(&key, self.now) != expected.as_deref() {
            return Ok(Err(refusal(Refusal::Conflict)));
        }
        Ok(self.state.set(&key, value, None, self.now, &self.limits).map_err(refusal))
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
