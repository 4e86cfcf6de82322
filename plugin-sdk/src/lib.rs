//! Plugins for Waypost, in Rust: what a subscription's owner wants to say about events that a filter expression cannot.
//!
//! A plugin is a WebAssembly component. For each delivery the host makes a fresh instance of it, asks whether the owner
//! of the subscription may see the event ([`Policy`]), whether the subscription wants it ([`Filter`]), and what is to be
//! sent ([`Transform`]). A plugin is any of these, and may describe itself ([`Describe`]).
//!
//! This is a whole one, with its test:
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
//! waypost plugin check NAME.wasm                        # what the host will say at the upload
//! waypost plugin test NAME.wasm cases.json              # the module itself, by a file of cases
//! waypost plugin push NAME.wasm --subscription UUID     # uploads it for one subscription
//! ```
//!
//! The profile decides how large and how quick it is; this makes a filter of some 100 KB:
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
//! | [`Error`] | comes of | what the host does |
//! |---|---|---|
//! | `InvalidEvent` | [`Event::data`], `Error::invalid_event` | dead letter at once: no retry can help |
//! | `InvalidConfig` | [`Context::config`], `Error::invalid_config` | disables the subscription; its `error` says why |
//! | `Unavailable` | `Error::unavailable` | retries on the delivery's schedule, not before `retry_after` |
//! | `Internal` | `?` on any other [`std::error::Error`] | what the subscription's `on_error` says; the breaker counts it |
//! | a panic, a limit | | the same as `Internal`; a panic's text stands in the attempt |
//!
//! `on_error` is `retry` (the default), `skip`, `deliver` (the event as it came) or `dead_letter`. A [`Policy`] that
//! fails is always retried: what nobody has allowed is not sent.
//!
//! # Limits
//!
//! Of one delivery, all interfaces together; the operator may have set others, and a subscription may lower them.
//!
//! | limit | default |
//! |---|---|
//! | time | 250 ms ([`Context::deadline`]) |
//! | memory | 64 MiB |
//! | outputs | 1 MiB, and 64 of them |
//! | log lines | 64 KiB |
//! | state of a subscription | 1 MiB, 1000 keys of at most 256 bytes |
//!
//! There are no files, no environment and no sockets. Nothing stays in memory from one delivery to the next: what is to
//! stay goes into [`state`].
//!
//! # Memory
//!
//! On wasm32 the crate brings a global allocator for programs that live for one call (feature `bump-allocator`, on by
//! default): it takes memory from an arena that is there from the beginning, and gives back only the last block. A
//! fresh instance starts quickly with it, and threads of the host do not wait for each other's growing memories. A
//! plugin that allocates and frees many megabytes in one call is better without it: `default-features = false`.

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
