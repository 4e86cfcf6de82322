//! Filters, and which recipients an event has.
//!
//! [`Filter`] is one subscription's expression, parsed once; [`Index`] holds all of them and answers, from an event's
//! JSON bytes, which subscriptions match. `http` parses filters at the edge, `directory` keeps the index behind an
//! `ArcSwap` (clone, change, swap), and the CLI's `match` runs one filter alone.
//!
//! ```text
//! text ── dialect ──┬─ rfc9535 (jsonpath-rust's parser) ─┐
//!                   └─ jsonpath2 (ours) ─────────────────┴─► form ──► atoms ──► index: trie, scan list
//!                                                             │                        │
//! event's bytes ──► document ─────────────────────────────────┼── walk ◄───────────────┘
//!                                                             ▼     │ candidates
//!                                              evaluate, explain ◄──┘
//! ```
//!
//! Two languages are read: JSONPath as the IETF defines it (RFC 9535), and jsonpath2, that of Pacifica's subscriptions.
//! They cannot be translated into each other, so both compile to one internal `form` with one evaluator, which has a
//! work budget: whatever a filter says and an event holds, it ends, with an answer or a [`Failure`].
//!
//! # What is absent
//! - Lists of nodes: the evaluator hands each node it finds to a visitor, and stops at the first where that is enough.
//! - Places in a parsed expression. jsonpath-rust's tree has none; what is wrong behind its grammar is found again in
//!   the text, and explanations write conditions again from the form.
//! - Integer literals beyond ±(2⁵³ − 1) in RFC 9535 filters: jsonpath-rust's grammar refuses them. Values in events
//!   are compared exactly, whatever their size, in both dialects.

mod alphabet;
mod atoms;
mod budgets;
mod dialect;
mod document;
mod error;
mod evaluate;
mod explain;
mod filter;
mod form;
mod index;
mod jsonpath2;
mod limits;
mod number;
mod pattern;
mod rfc9535;
mod set;
mod show;
mod table;
#[cfg(test)]
mod tests;
mod trie;
mod walk;

pub use dialect::Dialect;
pub use document::Document;
pub use error::{Error, FilterError};
pub use evaluate::Failure;
pub use explain::{Condition, Explanation, Step};
pub use filter::Filter;
pub use index::{Index, Matches};
