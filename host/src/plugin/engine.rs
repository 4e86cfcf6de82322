//! How wasm is compiled and where it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::limits::TABLE_ELEMENTS_MAX;

/// The most calls at once: as many instances, and as many stacks, has the pool.
pub(super) const CALLS_MAX: u32 = 128;
/// The largest linear memory that the pool allows, whatever the settings say.
pub(super) const MEMORY_BYTES_MAX: usize = 256 * 1024 * 1024;
/// How much of a guest's stack there is.
pub(super) const STACK_BYTES: usize = 512 * 1024;
/// How often a running guest is interrupted: it yields to others, and ends at its deadline.
pub(super) const TICK: Duration = Duration::from_millis(1);
/// How many unused slots of the pool stay initialised for their last module.
const WARM_SLOTS_MAX: u32 = 256;
/// How many bytes of a memory keep their pages for the next instance, which saves page faults.
const KEEP_RESIDENT_BYTES: usize = 2 * 1024 * 1024;

/// Makes the engine that compiles, and that programs run in: it has no pool, which would reserve terabytes of address
/// space and has places for plugins alone.
pub(super) fn compiler() -> Result<Engine, wasmtime::Error> {
    Engine::new(&shared())
}

/// Makes the engine that runs.
pub(super) fn runner() -> Result<Engine, wasmtime::Error> {
    let mut config = shared();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool()));
    Engine::new(&config)
}

/// What compiled code depends on: the same for both engines.
fn shared() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES)
        // The rest is for the host's own functions that a guest calls.
        .async_stack_size(2 * STACK_BYTES)
        // No known guest needs these, and a bug in wasmtime is most likely in them. Threads, GC and async components
        // are not even compiled in.
        .wasm_memory64(false)
        .shared_memory(false)
        .wasm_relaxed_simd(false)
        .wasm_custom_page_sizes(false)
        .concurrency_support(false);
    config
}

/// Sizes the pool for the largest known guests: Python's has 25 components, 14 core modules, 13,400 functions, and
/// tables of 7,700 elements. Everything is sized for [`CALLS_MAX`] calls of the largest component, so a call with a
/// permit always gets its instance. Only address space is reserved.
fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(CALLS_MAX)
        .total_core_instances(CALLS_MAX * 24)
        .total_memories(CALLS_MAX * 4)
        .total_tables(CALLS_MAX * 24)
        .total_stacks(CALLS_MAX)
        // Reusing a slot for the same module is fast. This is as many as a hundred modules on two threads need.
        .max_unused_warm_slots(WARM_SLOTS_MAX)
        .max_core_instances_per_component(24)
        .max_memories_per_component(4)
        .max_tables_per_component(24)
        .max_tables_per_module(4)
        .max_component_instance_size(1024 * 1024)
        .max_core_instance_size(1024 * 1024)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(MEMORY_BYTES_MAX)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(64 * 1024)
        .pagemap_scan(Enabled::Auto);
    pool
}

/// The thread that increments the engine's epoch at a steady rate, for all calls. It ends when this is dropped.
pub(super) struct Ticker(Arc<AtomicBool>);

impl Ticker {
    pub(super) fn start(engine: Engine, tick: Duration) -> std::io::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let ticking = move || {
            while !seen.load(Ordering::Relaxed) {
                std::thread::sleep(tick);
                engine.increment_epoch();
            }
        };
        std::thread::Builder::new().name("wasm-ticker".to_owned()).spawn(ticking)?;
        Ok(Self(over))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
