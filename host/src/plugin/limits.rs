//! How much one call may use, and who counts.

use std::time::Duration;

use wasmtime::ResourceLimiter;

use crate::domain::plugin::PluginLimits;

/// The limits of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest it may take, waits for HTTP included. Default 250 ms.
    pub time: Duration,
    /// The most bytes of linear memory, all memories together. Default 64 MiB.
    pub memory_bytes: usize,
    /// The most bytes of all outputs, and of anything else that it hands to the host at once. Default 1 MiB.
    pub output_bytes: usize,
    /// The most bytes of log lines. Default 64 KiB.
    pub log_bytes: usize,
    /// The most bytes of state of a subscription, keys and values. Default 1 MiB.
    pub state_bytes: usize,
    /// The most keys of state of a subscription. Default 1000.
    pub state_keys: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            time: Duration::from_millis(250),
            memory_bytes: 64 * 1024 * 1024,
            output_bytes: 1024 * 1024,
            log_bytes: 64 * 1024,
            state_bytes: 1024 * 1024,
            state_keys: 1000,
        }
    }
}

impl Limits {
    /// Returns these limits, lowered by a subscription's own.
    pub fn lowered(&self, own: &PluginLimits) -> Self {
        Self {
            time: self.time.min(own.time.unwrap_or(self.time)),
            memory_bytes: self.memory_bytes.min(own.memory_bytes.unwrap_or(self.memory_bytes)),
            output_bytes: self.output_bytes.min(own.output_bytes.unwrap_or(self.output_bytes)),
            log_bytes: self.log_bytes.min(own.log_bytes.unwrap_or(self.log_bytes)),
            state_bytes: self.state_bytes.min(own.state_bytes.unwrap_or(self.state_bytes)),
            state_keys: self.state_keys.min(own.state_keys.unwrap_or(self.state_keys)),
        }
    }
}

/// Counts memory and table elements, and remembers what it refused: an allocator that cannot grow panics, and nobody
/// could tell that from a bug.
pub(super) struct Meter {
    memory_bytes_max: usize,
    pub(super) memory_bytes: usize,
    /// The limit that was hit, in one sentence.
    pub(super) exceeded: Option<String>,
}

/// The most elements of one table.
const TABLE_ELEMENTS_MAX: usize = 20_000;

impl Meter {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { memory_bytes_max: limits.memory_bytes, memory_bytes: 0, exceeded: None }
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let all = self.memory_bytes + (desired - current);
        if all > self.memory_bytes_max {
            self.exceeded = Some(format!("memory limit of {}", size(self.memory_bytes_max)));
            return Ok(false);
        }
        self.memory_bytes = all;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS_MAX {
            self.exceeded = Some(format!("table limit of {TABLE_ELEMENTS_MAX} elements"));
            return Ok(false);
        }
        Ok(true)
    }
}

/// Returns a number of bytes as people read it: `64 MiB`, or the bytes where no unit fits.
pub(super) fn size(bytes: usize) -> String {
    match bytes {
        bytes if bytes >= 1024 * 1024 && bytes.is_multiple_of(1024 * 1024) => {
            format!("{} MiB", bytes / 1024 / 1024)
        }
        bytes if bytes >= 1024 && bytes.is_multiple_of(1024) => format!("{} KiB", bytes / 1024),
        bytes => format!("{bytes} bytes"),
    }
}
