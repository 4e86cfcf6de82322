//! Filters, and who wants an event.
//!
//! [`Filter`] is one subscription's expression, parsed and bounded; [`Index`] holds all of them and answers, from
//! an event's JSON bytes, which subscriptions match. `http` parses filters at the edge, `service` keeps the index
//! behind an `ArcSwap` (clone, change, swap), and the CLI's `match` runs one filter alone.

mod atoms;
mod error;
mod filter;
mod index;
mod limits;
#[cfg(test)]
mod tests;
mod trie;
mod walk;

pub use error::{Error, FilterError};
pub use filter::Filter;
pub use index::Index;
