//! Filters, and who wants an event.
//!
//! [`Filter`] is one subscription's expression (RFC 9535), parsed and bounded; [`Index`] holds all of them and answers,
//! from an event's JSON bytes, which subscriptions match. `http` parses filters at the edge, `service` keeps the
//! index behind an `ArcSwap` (clone, change, swap), and the CLI's `match` runs one filter alone.
//!
//! # How the index works
//! From each filter `atoms` takes *necessary* atoms: conditions on one path of child names and "any child" steps that
//! hold in every event which the filter matches. `$.data[?@.value=='Blah' && @.size > 5]` gives "some value at
//! `$.data.*.value` equals `Blah`"; `$.data[0].name` gives "something is at `$.data.*.name`". The filter is filed
//! under one of them, in a `trie` of all paths named, whose nodes have a hash map from strings (an ordered map from
//! numbers, …) to filters. `walk` reads an event's bytes once along that trie and skips what nobody names, so that
//! the cost is that of the event, not of the subscriptions that do not match.
//!
//! An atom can be *sufficient* too: `$.data[?@.value=='Blah'].value` finds a node if and only if its atom holds. The
//! walk's word is then final, unless it met an object with a duplicate member (the walk sees both, a parsed event
//! has the last). Every other candidate is evaluated on the parsed event, once for equal texts; a filter without
//! an atom (`$..name`) stands on a scan list and is evaluated on every event.
//!
//! # What the index relies on
//! It answers what [`Filter::matches`] answers, filter by filter, for any event that serde_json can read: the walk may
//! find too much, never too little. Strings compare unescaped, and numbers as the evaluator compares them
//! (`1 == 1.0`, all as `f64`). The tests hold it to that.
//!
//! # What is absent
//! - The dialect jsonpath2; a wrong text of that kind gets a hint in its [`FilterError`].
//! - A work budget for the evaluator: the limits on a filter's text and form bound the power of the event's size
//!   that it can cost, not the time. Regular expressions are compiled anew for each node.
//! - Atoms from `||`, prefixes and ranges of numbers: such filters are filed under a mere existence.
//! - Saying why a filter does not match, or how it is filed.

mod atoms;
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
mod trie;
mod walk;

#[cfg(test)]
mod tests;

pub use dialect::Dialect;
pub use document::Document;
pub use error::{Error, FilterError};
pub use evaluate::Failure;
pub use explain::{Condition, Explanation, Step};
pub use filter::Filter;
pub use index::{Index, Matches};
