//! The bindings of the interface in `wit/`, which wasmtime's macro generates.

wasmtime::component::bindgen!({
    path: "wit",
    world: "waypost:plugin/plugin",
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: { default: trappable },
    exports: { default: async },
});
