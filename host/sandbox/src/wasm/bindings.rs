//! The interface of `wit/`, as wasmtime's macro writes it.

wasmtime::component::bindgen!({
    path: "wit",
    world: "waypost:plugin/plugin",
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: { default: trappable },
    exports: { default: async },
});
