//! The parser of jsonpath2, the language of Pacifica's subscriptions.
//!
//! It reads what the Python package jsonpath2 0.4.5 reads, whose grammar is this (whitespace is free between all
//! tokens, and the longest token wins):
//!
//! ```text
//! jsonpath   = "$" step*
//! path       = ("$" | "@") step*
//! step       = "." bare | ".." bare | ".." list | list
//! bare       = "*" | NAME | call
//! list       = "[" subscript ("," subscript)* "]"
//! subscript  = STRING | INTEGER | [INTEGER] ":" [INTEGER] [":" [INTEGER]] | "*" | "?" "(" and ")" | path | call
//! call       = NAME "(" [value ("," value)*] ")"
//! and        = or ("and" or)*
//! or         = not ("or" not)*
//! not        = "not" not | "(" and ")" | value [("=" | "!=" | "<" | "<=" | ">" | ">=") value]
//! value      = path | STRING | NUMBER | array | object | "true" | "false" | "null"
//! ```
//!
//! Two things in it are surprising: `or` binds tighter than `and`, and a string stands for the characters between its
//! quotes as they are written; escapes must be valid in JSON, but they are not decoded. The meaning is documented where
//! the language is compiled to, in [`form`](super::form).
//!
//! `dialect` is the only caller. The text may come from anyone: reading takes one pass, and only brackets recurse,
//! which [`limits`] bounds.

mod condition;
mod hint;
mod lexer;
mod literal;
mod parser;
#[cfg(test)]
mod tests;

use super::error::FilterError;
use super::form::Query;
use super::limits;

pub(super) use hint::PARENTHESES;
pub(super) use lexer::{Bracket, Kind, Lexer, Token};

/// Parses an expression.
pub(super) fn parse(text: &str) -> Result<Query, FilterError> {
    limits::check_length(text)?;
    parser::Parser::new(text).jsonpath()
}
