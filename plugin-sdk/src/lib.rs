//! Plugins for Waypost, in Rust.

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
