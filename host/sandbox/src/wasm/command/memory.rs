//! A program's memory: linear memories and tables, counted together.

use wasmtime::ResourceLimiter;

use crate::wasm::meter::Meter;

/// The most core instances of one program, and the most tables. The largest known program has 14.
const INSTANCES_MAX: usize = 256;
/// The most linear memories: each reserves gigabytes of address space, whatever it holds.
const MEMORIES_MAX: usize = 32;
/// The bytes that an element of a table takes.
const ELEMENT_BYTES: usize = size_of::<usize>();

/// Counts memory and tables.
pub(super) struct MemoryLimiter(Meter);

impl MemoryLimiter {
    pub(super) fn new(memory_bytes_max: usize) -> Self {
        Self(Meter::of(memory_bytes_max))
    }

    /// Returns the most bytes that were in use at once; memories never shrink.
    pub(super) fn most_bytes(&self) -> u64 {
        self.0.memory_bytes as u64
    }

    /// Returns the limit that a growth would have exceeded, with the setting's name.
    pub(super) fn refused(&self) -> Option<String> {
        self.0.refused.as_ref().map(|limit| format!("{limit} (memory_bytes)"))
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.0.memory_growing(current, desired, maximum)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.0.memory_grow_failed(error)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let bytes = |elements: usize| elements.saturating_mul(ELEMENT_BYTES);
        self.0.memory_growing(bytes(current), bytes(desired), None)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.0.memory_grow_failed(error)
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        INSTANCES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_and_tables_count_together() {
        let mut limiter = MemoryLimiter::new(1 << 20);
        assert!(limiter.memory_growing(0, 1 << 19, None).unwrap());
        assert!(limiter.table_growing(0, 1 << 16, None).unwrap());
        assert_eq!((limiter.most_bytes(), limiter.refused()), (1 << 20, None));
        assert!(!limiter.table_growing(1 << 16, (1 << 16) + 1, None).unwrap());
        assert_eq!(limiter.refused().unwrap(), "memory limit of 1 MiB (memory_bytes)");
    }
}
