//! Wasmtime as its documentation shows it, with the same pool, WASI and interruption: the minimum that a host needs.

use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use waypost_domain::event::{Canonical, Payload};

use crate::ours;

mod bindings {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "waypost:plugin/filter-plugin",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

use bindings::waypost as wit;
use bindings::{FilterPlugin, FilterPluginPre};
use wit::plugin::types::{CallContext, Event, Payload as Data};

/// An engine with the module in it.
pub(crate) struct Bare {
    engine: Engine,
    pre: FilterPluginPre<State>,
}

struct State {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl wit::plugin::types::Host for State {}

impl wit::plugin::log::Host for State {
    fn write(&mut self, _level: wit::plugin::log::Level, _message: String, _fields: Vec<(String, String)>) {}

    fn enabled(&mut self, _level: wit::plugin::log::Level) -> bool {
        false
    }
}

impl wit::plugin::config::Host for State {
    fn all(&mut self) -> String {
        "{}".to_owned()
    }

    fn get(&mut self, _key: String) -> Option<String> {
        None
    }
}

type StateError = wit::plugin::state::StateError;

impl wit::plugin::state::Host for State {
    fn get(&mut self, _key: String) -> Result<Option<Vec<u8>>, StateError> {
        Ok(None)
    }

    fn set(&mut self, _key: String, _value: Vec<u8>, _ttl_ms: Option<u64>) -> Result<(), StateError> {
        Ok(())
    }

    fn delete(&mut self, _key: String) -> Result<(), StateError> {
        Ok(())
    }

    fn increment(&mut self, _key: String, delta: i64, _ttl_ms: Option<u64>) -> Result<i64, StateError> {
        Ok(delta)
    }

    fn compare_and_set(
        &mut self,
        _key: String,
        _expected: Option<Vec<u8>>,
        _value: Vec<u8>,
    ) -> Result<(), StateError> {
        Ok(())
    }
}

impl Bare {
    pub(crate) fn new(wasm: &[u8]) -> Self {
        let mut pool = PoolingAllocationConfig::new();
        pool.linear_memory_keep_resident(2 << 20).table_keep_resident(64 << 10).pagemap_scan(Enabled::Auto);
        let mut config = Config::new();
        config
            .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
            .epoch_interruption(true)
            .concurrency_support(false);
        let engine = Engine::new(&config).expect("the engine starts");
        let component = Component::new(&engine, wasm).expect("it compiles");
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_sync(&mut linker).expect("WASI links");
        FilterPlugin::add_to_linker::<_, wasmtime::component::HasSelf<_>>(&mut linker, |state| state)
            .expect("it links");
        let pre = linker.instantiate_pre(&component).expect("everything is there");
        Self { engine, pre: FilterPluginPre::new(pre).expect("it is a filter") }
    }

    fn store(&self) -> Store<State> {
        let state = State { wasi: WasiCtx::builder().build(), table: ResourceTable::new() };
        let mut store = Store::new(&self.engine, state);
        store.set_epoch_deadline(1_000_000);
        store
    }

    /// Returns a caller that makes an instance for each call.
    pub(crate) fn caller(&self) -> Caller<'_> {
        Caller { bare: self, event: ours::event(), reused: None }
    }

    /// Returns a caller that makes one instance and keeps it.
    pub(crate) fn reusing(&self) -> Caller<'_> {
        let mut store = self.store();
        let instance = self.pre.instantiate(&mut store).expect("it starts");
        Caller { reused: Some((store, instance)), ..self.caller() }
    }
}

/// Calls the filter with one event.
pub(crate) struct Caller<'b> {
    bare: &'b Bare,
    event: Canonical<'static>,
    reused: Option<(Store<State>, FilterPlugin)>,
}

impl Caller<'_> {
    pub(crate) fn call(&mut self) -> usize {
        match &mut self.reused {
            Some((store, instance)) => evaluate(store, instance, &self.event),
            None => {
                let mut store = self.bare.store();
                let instance = self.bare.pre.instantiate(&mut store).expect("it starts");
                evaluate(&mut store, &instance, &self.event)
            }
        }
    }
}

fn evaluate(store: &mut Store<State>, instance: &FilterPlugin, event: &Canonical<'_>) -> usize {
    let data = event.data.as_ref().map(|data| match data {
        Payload::Json(text) => Data::Json(text),
        Payload::Text(text) => Data::Text(text),
        Payload::Binary(bytes) => Data::Binary(bytes),
    });
    let event = Event {
        id: &event.id,
        source: &event.source,
        type_: &event.ty,
        subject: event.subject.as_deref(),
        time: event.time.as_deref(),
        data_content_type: event.content_type.as_deref(),
        data_schema: event.schema.as_deref(),
        extensions: &[],
        data,
    };
    let context = CallContext {
        user: "u",
        subscription: "00000000-0000-4000-8000-000000000000",
        attempt: 1,
        deadline_ms: 250,
        now_ms: 1_800_000_000_000,
        trace_parent: None,
        labels: &[],
    };
    let verdict = instance.waypost_plugin_filter().call_evaluate(store, event, context);
    verdict.expect("it does not trap").map_or(0, |_| 1)
}
