//! How much one call may use, and the meter that counts it.

use std::time::Duration;

use wasmtime::ResourceLimiter;

use crate::domain::plugin::PluginLimits;
use crate::fair_semaphore::FairPermit;

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

/// The most elements of one table, which is the size of the pool's tables.
pub(super) const TABLE_ELEMENTS_MAX: usize = 20_000;
/// The most handles and the most host resources (streams, requests, their fields) that a call has at once.
pub(super) const HANDLES_MAX: usize = 512;
/// The most random bytes at once.
pub(super) const RANDOM_BYTES_MAX: u64 = 64 * 1024;
/// What a guest may hand to the host at once beyond its output: the attributes and headers of outputs, and a log line
/// or a value of the state that is then found too large by its own limit.
const HANDED_BYTES_MORE: usize = 1024 * 1024;

impl Limits {
    /// Returns the most bytes that a guest hands to the host in one call of a host function, or in one answer.
    pub(super) fn handed_bytes(&self) -> usize {
        self.output_bytes.saturating_add(HANDED_BYTES_MORE)
    }
}

/// The memory that all calls share is used up. This ends the call: the guest cannot know that trying again may help.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "other calls leave no memory for it now (the setting plugin_memory_total_bytes): it had {had_bytes} bytes"
)]
pub(super) struct Shortage {
    had_bytes: usize,
}

/// Counts memory, and remembers what it refused: an allocator that cannot grow panics, which would otherwise look like
/// a bug in the guest.
pub(super) struct Meter {
    memory_bytes_max: usize,
    /// Its part of the memory that all calls share, where they share it.
    share: Option<FairPermit>,
    /// The bytes of all linear memories.
    pub(super) memory_bytes: usize,
    /// The memory that it would have used if the shared memory had sufficed.
    pub(super) wanted_bytes: usize,
    /// The bytes of the last growth that was allowed.
    growth: usize,
    /// The limit that refused a growth last, with its value. The guest may have handled the refusal.
    pub(super) refused: Option<String>,
}

impl Meter {
    pub(super) fn new(limits: &Limits, share: Option<FairPermit>) -> Self {
        Self { share, ..Self::of(limits.memory_bytes) }
    }

    pub(super) fn of(memory_bytes_max: usize) -> Self {
        Self { memory_bytes_max, share: None, memory_bytes: 0, wanted_bytes: 0, growth: 0, refused: None }
    }

    /// Takes enough of the memory that calls share for all of a guest's memories.
    fn take(&mut self, bytes: usize) -> Result<(), Shortage> {
        let Some(share) = &mut self.share else { return Ok(()) };
        let more = bytes.saturating_sub(share.weight());
        if more == 0 || share.grow(more) { Ok(()) } else { Err(Shortage { had_bytes: self.memory_bytes }) }
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.growth = desired.saturating_sub(current);
        let all = self.memory_bytes.saturating_add(self.growth);
        if all > self.memory_bytes_max {
            self.growth = 0;
            self.refused = Some(format!("memory limit of {}", size(self.memory_bytes_max)));
            return Ok(false);
        }
        self.wanted_bytes = self.wanted_bytes.max(all);
        if let Err(shortage) = self.take(all) {
            self.growth = 0;
            return Err(shortage.into());
        }
        self.memory_bytes = all;
        Ok(true)
    }

    /// Takes back what was counted for a growth that failed.
    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory_bytes -= std::mem::take(&mut self.growth);
        Ok(())
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS_MAX {
            self.refused = Some(format!("table limit of {TABLE_ELEMENTS_MAX} elements"));
            return Ok(false);
        }
        Ok(true)
    }
}

/// Formats a number of bytes for people: `64 MiB`, or the bytes where no unit fits.
pub(super) fn size(bytes: usize) -> String {
    match bytes {
        bytes if bytes >= 1024 * 1024 && bytes.is_multiple_of(1024 * 1024) => {
            format!("{} MiB", bytes / 1024 / 1024)
        }
        bytes if bytes >= 1024 && bytes.is_multiple_of(1024) => format!("{} KiB", bytes / 1024),
        bytes => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::fair_semaphore::FairSemaphore;

    #[test]
    fn a_subscription_lowers_limits_and_never_raises_them() {
        let own =
            PluginLimits { time: Some(Duration::from_secs(9)), state_keys: Some(1), ..Default::default() };
        let lowered = Limits::default().lowered(&own);
        assert_eq!(lowered, Limits { state_keys: 1, ..Limits::default() });
    }

    #[test]
    fn memories_count_together_and_a_growth_that_failed_does_not() {
        let limits = Limits { memory_bytes: 3 << 16, ..Limits::default() };
        let mut meter = Meter::new(&limits, None);
        assert!(meter.memory_growing(0, 2 << 16, None).unwrap());
        assert!(meter.memory_growing(0, 1 << 16, None).unwrap());
        meter.memory_grow_failed(wasmtime::Error::msg("no room")).unwrap();
        assert_eq!(meter.memory_bytes, 2 << 16);
        assert!(!meter.memory_growing(2 << 16, 4 << 16, None).unwrap());
        assert_eq!(meter.refused.as_deref(), Some("memory limit of 192 KiB"));
        meter.memory_grow_failed(wasmtime::Error::msg("refused")).unwrap();
        assert_eq!(meter.memory_bytes, 2 << 16);
    }

    /// 128 calls of 64 MiB each took 8 GiB, which no setting mentioned.
    #[test]
    fn a_growth_beyond_what_all_calls_share_ends_the_call_and_is_not_its_limit() {
        let all = FairSemaphore::new(4 << 16, 10);
        let share = |user: &str| all.take(user, 1 << 16).now_or_never();
        let mut meter = Meter::new(&Limits::default(), share("u"));
        let _other = share("v").unwrap();
        assert!(meter.memory_growing(0, 1 << 16, None).unwrap());
        assert!(meter.memory_growing(1 << 16, 3 << 16, None).unwrap());
        let error = meter.memory_growing(3 << 16, 4 << 16, None).unwrap_err();
        assert!(error.is::<Shortage>() && error.to_string().contains("plugin_memory_total_bytes"), "{error}");
        assert_eq!((meter.memory_bytes, &meter.refused), (3 << 16, &None));
        drop(meter);
        assert!(share("w").is_some_and(|mut share| share.grow(2 << 16)));
    }
}
