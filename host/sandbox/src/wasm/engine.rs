//! How wasm is compiled and where it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::meter::TABLE_ELEMENTS_MAX;

/// The most calls at once: the pool has as many instances, and as many stacks.
pub(super) const CALLS_MAX: u32 = 128;
/// The largest linear memory that the pool allows, whatever the settings say.
pub(super) const MEMORY_BYTES_MAX: usize = 256 * 1024 * 1024;
/// The size of a guest's stack.
pub(super) const STACK_BYTES: usize = 512 * 1024;
/// How often a running guest is interrupted: it yields to others, and ends at its deadline.
pub(super) const TICK: Duration = Duration::from_millis(1);
/// How many unused slots of the pool stay initialised for their last module.
const WARM_SLOTS_MAX: u32 = 256;
/// How many bytes of a memory keep their pages for the next instance, which saves page faults.
pub(super) const KEEP_RESIDENT_BYTES: usize = 2 * 1024 * 1024;

/// Makes the engine that compiles modules and runs programs. It has no pool, which would reserve terabytes of address
/// space and whose slots are sized for plugins.
pub(super) fn compiler() -> Result<Engine, wasmtime::Error> {
    Engine::new(&shared())
}

/// Makes the engine that runs plugins.
pub(super) fn runner() -> Result<Engine, wasmtime::Error> {
    let mut config = shared();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool()));
    Engine::new(&config)
}

/// The settings that compiled code depends on, which are the same for both engines.
fn shared() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES)
        // The other half is for the host's own functions that a guest calls.
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

/// How many ticks without a call pass before the ticker pauses. Waking the thread again takes longer than most calls.
const IDLE_TICKS_MAX: u32 = 100;

/// The thread that increments an engine's epoch at a steady rate while calls run. It ends when this is dropped.
pub(super) struct Ticker {
    shared: Arc<TickerState>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct TickerState {
    /// How many calls run.
    calls: AtomicUsize,
    is_paused: AtomicBool,
    is_over: AtomicBool,
}

/// A call that runs: the ticker ticks until it is dropped.
pub(super) struct Ticking(Arc<TickerState>);

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Ticker {
    /// Starts the thread, which pauses until the first call.
    pub(super) fn start(engine: Engine, tick: Duration) -> std::io::Result<Self> {
        let shared = Arc::<TickerState>::default();
        let state = Arc::clone(&shared);
        let ticking = move || state.run(tick, || engine.increment_epoch());
        let thread = std::thread::Builder::new().name("wasm-ticker".to_owned()).spawn(ticking)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Begins a call.
    pub(super) fn tick(&self) -> Ticking {
        // The thread sets `is_paused` and then reads `calls`; this increments `calls` and then reads `is_paused`. All
        // four are in one order (`SeqCst`), so at least one of the two sees what the other wrote.
        self.shared.calls.fetch_add(1, Ordering::SeqCst);
        if self.shared.is_paused.load(Ordering::SeqCst)
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
        Ticking(Arc::clone(&self.shared))
    }
}

impl TickerState {
    fn run(&self, tick: Duration, increment: impl Fn()) {
        let mut idle_ticks = IDLE_TICKS_MAX;
        while !self.is_over.load(Ordering::SeqCst) {
            if idle_ticks < IDLE_TICKS_MAX {
                thread::park_timeout(tick);
                increment();
            } else {
                self.is_paused.store(true, Ordering::SeqCst);
                while self.calls.load(Ordering::SeqCst) == 0 && !self.is_over.load(Ordering::SeqCst) {
                    thread::park();
                }
                self.is_paused.store(false, Ordering::SeqCst);
            }
            let is_idle = self.calls.load(Ordering::SeqCst) == 0;
            idle_ticks = if is_idle { idle_ticks.saturating_add(1) } else { 0 };
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Two threads woke an idle server 1,200 times a second after its first plugin and its first program.
    #[test]
    fn it_ticks_while_a_call_runs_and_pauses_some_ticks_later() {
        let state = Arc::<TickerState>::default();
        let (ticks, ticked) = mpsc::channel();
        let shared = Arc::clone(&state);
        let tick = Duration::from_micros(100);
        let thread = thread::spawn(move || shared.run(tick, || ticks.send(()).unwrap_or_default()));
        let ticker = Ticker { shared: Arc::clone(&state), thread: Some(thread) };
        let paused = || {
            while !state.is_paused.load(Ordering::SeqCst) {
                thread::yield_now()
            }
        };
        paused();
        assert!(ticked.try_recv().is_err(), "no call runs");
        let calls = (ticker.tick(), ticker.tick());
        drop(calls.0);
        for _ in 0..2 * IDLE_TICKS_MAX {
            ticked.recv().unwrap();
        }
        drop(calls.1);
        paused();
        while ticked.try_recv().is_ok() {}
        let _again = ticker.tick();
        ticked.recv().unwrap();
        drop(ticker);
        while ticked.try_recv().is_ok() {}
        assert_eq!(ticked.try_recv(), Err(mpsc::TryRecvError::Disconnected), "its thread has ended");
    }
}
