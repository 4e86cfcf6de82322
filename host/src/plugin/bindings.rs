//! The interface of `wit/`, as wasmtime's macro writes it.

#![expect(missing_docs, unreachable_pub, unsafe_code, reason = "generated; wit/ has the documentation")]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "waypost:plugin/plugin",
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: { default: trappable },
    exports: { default: async },
});
