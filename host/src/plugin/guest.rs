//! What the store of one call holds: everything that its guest can reach.

use std::sync::Arc;

use jiff::Timestamp;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::http::Outbound;
use super::imports::Logs;
use super::limits::{Limits, Meter};
use super::state::State;
use super::stdio::Tail;
use crate::domain::PluginUse;

/// The data of a call's store.
pub(super) struct Guest {
    pub(super) meter: Meter,
    pub(super) limits: Limits,
    pub(super) now: Timestamp,
    pub(super) plugin: Arc<PluginUse>,
    pub(super) logs: Logs,
    pub(super) state: State,
    pub(super) tail: Tail,
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outbound: Outbound,
}

impl Guest {
    pub(super) fn new(
        plugin: Arc<PluginUse>,
        limits: Limits,
        now: Timestamp,
        state: State,
        outbound: Outbound,
    ) -> Self {
        let tail = Tail::default();
        // Nothing is granted: no environment, no arguments, no folders, and sockets are refused by default.
        let wasi = WasiCtx::builder().stderr(tail.clone()).stdout(tail.clone()).build();
        Self {
            meter: Meter::new(&limits),
            limits,
            now,
            plugin,
            logs: Logs::default(),
            state,
            tail,
            table: ResourceTable::new(),
            wasi,
            http: WasiHttpCtx::new(),
            outbound,
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
