//! Plugins for Waypost, in Rust: for what a filter expression cannot say about events.
//!
//! A plugin is a WebAssembly component. For each delivery the host makes a fresh instance of it, and asks whether the
//! owner of the subscription may see the event ([`Policy`]), whether the subscription wants it ([`Filter`]), and what to
//! send ([`Transform`]). A plugin implements any of these, and may describe itself ([`Describe`]).
//!
//! A complete plugin, with its test:
//!
//! ```
//! use serde::Deserialize;
//! use waypost_plugin::{Context, Event, Filter, Result, Verdict, deliver, skip};
//!
//! #[derive(Deserialize)]
//! struct Config {
//!     smallest: u64,
//! }
//!
//! #[derive(Deserialize)]
//! struct Image {
//!     size: u64,
//! }
//!
//! struct LargeImages;
//!
//! impl Filter for LargeImages {
//!     fn evaluate(event: &Event, context: &Context) -> Result<Verdict> {
//!         let Config { smallest } = context.config()?;
//!         let Image { size } = event.data()?;
//!         if size < smallest { skip(format!("{size} bytes < {smallest}")) } else { deliver() }
//!     }
//! }
//! waypost_plugin::export!(LargeImages: filter);
//!
//! use serde_json::json;
//! use waypost_plugin::testing::{Host, event};
//!
//! let host = Host::new().with_config(json!({"smallest": 1000}));
//! let small = event(json!({"type": "image.taken", "data": {"size": 128}}));
//! assert_eq!(host.filter::<LargeImages>(&small), Ok(Verdict::Skip("128 bytes < 1000".to_owned())));
//! ```
//!
//! # Building and uploading
//!
//! `waypost plugin new NAME` writes such a project. By hand: a library with `crate-type = ["cdylib"]`, then
//!
//! ```sh
//! rustup target add wasm32-wasip2
//! cargo test                                            # natively, with testing::Host
//! cargo build --release --target wasm32-wasip2          # target/wasm32-wasip2/release/NAME.wasm
//! waypost plugin check NAME.wasm                        # what an upload would report
//! waypost plugin test NAME.wasm cases.json              # tests the module itself with a file of cases
//! waypost plugin push NAME.wasm --subscription UUID     # uploads it for one subscription
//! ```
//!
//! The profile decides how large and how fast the module is. With this one, a filter that reads JSON has about 150 KB:
//!
//! ```toml
//! [profile.release]
//! opt-level = "s"
//! lto = "fat"
//! codegen-units = 1
//! strip = true
//! ```
//!
//! # Errors
//!
//! | [`Error`] | comes from | what the host does |
//! |---|---|---|
//! | `InvalidEvent` | [`Event::data`], `Error::invalid_event` | dead letter at once: no retry can help |
//! | `InvalidConfig` | [`Context::config`], `Error::invalid_config` | disables the subscription; its `error` says why |
//! | `Unavailable` | `Error::unavailable` | retries on the delivery's schedule, not before `retry_after` |
//! | `Internal` | `?` on any other [`std::error::Error`] | what the subscription's `on_error` says; the breaker counts it |
//! | a panic, a limit | | the same as `Internal`; the attempt has a panic's text |
//!
//! `on_error` is `retry` (the default), `skip`, `deliver` (the event as received) or `dead_letter`. A [`Policy`]
//! that fails is always retried: an event is sent only when the policy has allowed it.
//!
//! # Limits
//!
//! These hold for one delivery, all interfaces together. The operator may set other limits, and a subscription may lower
//! them.
//!
//! | limit | default |
//! |---|---|
//! | time | 250 ms ([`Context::deadline`]) |
//! | memory | 64 MiB |
//! | outputs | 1 MiB, and 64 of them |
//! | log lines | 64 KiB |
//! | state of a subscription | 1 MiB, 1000 keys of at most 256 bytes |
//!
//! There are no files, no environment and no sockets. Memory does not outlive a delivery: keep values in [`state`].
//!
//! # Memory
//!
//! On wasm32 the crate brings a global allocator for programs that live for one call (feature `bump-allocator`, on by
//! default): it takes memory from an arena that is part of the module, and frees only the last block. With it a fresh
//! instance starts quickly, and the host's threads do not wait while a memory grows. Switch it off
//! (`default-features = false`) for a plugin that allocates and frees many megabytes in one call.

mod answer;
#[cfg(target_family = "wasm")]
mod bindings;
#[cfg(any(test, all(target_arch = "wasm32", feature = "bump-allocator")))]
mod bump;
mod context;
mod error;
mod event;
mod export;
#[cfg(target_family = "wasm")]
mod glue;
mod host;
mod interfaces;
pub mod log;
pub mod state;
#[cfg(not(target_family = "wasm"))]
pub mod testing;

pub use answer::{Decision, Output, Raw, Verdict, allow, deliver, deny, skip};
pub use context::Context;
pub use error::{Error, Result};
pub use event::{Event, Payload};
pub use interfaces::{Describe, Filter, Manifest, Policy, Problem, Transform};
pub use serde_json;

/// What the macros need.
#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub mod __private {
    pub use crate::bindings::{filter, metadata, policy, transform};
    pub use crate::glue::{Deciding, Describing, Filtering, Transforming};
}

/// What the macros need.
#[cfg(not(target_family = "wasm"))]
#[doc(hidden)]
pub mod __private {
    pub const fn is_policy<P: crate::Policy>() {}
    pub const fn is_filter<P: crate::Filter>() {}
    pub const fn is_transform<P: crate::Transform>() {}
    pub const fn is_described<P: crate::Describe>() {}
}
