//! The meter of one call's memory, and what else of wasmtime's is bounded.

use wasmtime::ResourceLimiter;

use super::limits::{Limits, size};
use waypost_runtime::fair_semaphore::FairPermit;

/// The most elements of one table, which is the size of the pool's tables.
pub(super) const TABLE_ELEMENTS_MAX: usize = 20_000;
/// The most handles and the most host resources (streams, requests, their fields) that a call has at once.
pub(super) const HANDLES_MAX: usize = 512;
/// The most random bytes at once.
pub(super) const RANDOM_BYTES_MAX: u64 = 64 * 1024;
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use waypost_runtime::fair_semaphore::FairSemaphore;

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
