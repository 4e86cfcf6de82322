//! What the store of one call holds: everything that its guest can reach.

use std::sync::Arc;

use jiff::Timestamp;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::http::Outbound;
use super::limits::Limits;
use super::logs::Logs;
use super::meter::{HANDLES_MAX, Meter, RANDOM_BYTES_MAX};
use super::state::State;
use super::stdio::Tail;
use waypost_domain::PluginUse;
use waypost_runtime::fair_semaphore::FairPermit;

/// The data of a call's store.
pub(super) struct Guest {
    pub(super) meter: Meter,
    pub(super) limits: Limits,
    pub(super) now: Timestamp,
    pub(super) plugin: Arc<PluginUse>,
    pub(super) logs: Logs,
    pub(super) state: State,
    pub(super) tail: Tail,
    pub(super) outbound: Outbound,
    /// Whether the instance has been made.
    pub(super) began: bool,
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
}

/// The most bytes of one set of HTTP fields, including the cost of keeping them.
pub(super) const FIELDS_BYTES_MAX: usize = 16 * 1024;

impl Guest {
    pub(super) fn new(
        plugin: Arc<PluginUse>,
        limits: Limits,
        now: Timestamp,
        mut state: State,
        outbound: Outbound,
        share: Option<FairPermit>,
    ) -> Self {
        state.begin();
        let tail = Tail::default();
        // Nothing is granted: no environment, no arguments, no folders, and sockets are refused by default.
        let wasi = WasiCtx::builder()
            .stderr(tail.clone())
            .stdout(tail.clone())
            .max_random_size(RANDOM_BYTES_MAX)
            .build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES_MAX);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(FIELDS_BYTES_MAX);
        Self {
            meter: Meter::new(&limits, share),
            limits,
            now,
            plugin,
            logs: Logs::default(),
            state,
            tail,
            outbound,
            began: false,
            table,
            wasi,
            http,
        }
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.outbound }
    }
}
