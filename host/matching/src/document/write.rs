//! Documents that are made, not read, and values written as JSON.

use std::fmt::{self, Write};

use super::{Cursor, Document, Node, Span, View};
use crate::number::Number;

/// How many bytes of a text are written at once: a writer that has enough can end a long text early.
const PIECE_BYTES: usize = 256;

/// Makes a document, value by value.
#[derive(Default)]
pub(crate) struct Builder<'j> {
    pub(super) nodes: Vec<Node<'j>>,
}

/// A container that has been opened.
#[derive(Clone, Copy)]
pub(crate) struct Opened(usize);

impl<'j> Builder<'j> {
    /// Returns the document that has been made: exactly one value.
    pub(crate) fn finish(self) -> Document<'j> {
        Document { nodes: self.nodes }
    }

    pub(crate) fn null(&mut self) {
        self.nodes.push(Node::Null);
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.nodes.push(Node::Bool(value));
    }

    pub(crate) fn number(&mut self, number: Number) {
        self.nodes.push(Node::Number(number));
    }

    /// Adds a string, or the name of the member whose value comes next.
    pub(crate) fn string(&mut self, text: &'j str) {
        self.nodes.push(Node::Borrowed(text));
    }

    /// Adds a string that it owns, as [`Self::string`] adds a borrowed one.
    pub(crate) fn owned(&mut self, text: Box<str>) {
        self.nodes.push(Node::Owned(text));
    }

    /// Adds a copy of a value.
    pub(crate) fn copy(&mut self, value: Cursor<'j>) {
        let from = value.at as usize;
        let copied = value.nodes[from..from + value.size() as usize].iter().map(|node| match node {
            // Borrowed, so that a copy costs the same however long the text is.
            Node::Owned(text) => Node::Borrowed(text),
            other => other.clone(),
        });
        self.nodes.extend(copied);
    }

    /// Opens a container: its children come next, names before their values, each name once.
    pub(crate) fn open(&mut self) -> Opened {
        self.nodes.push(Node::Null);
        Opened(self.nodes.len() - 1)
    }

    /// Closes the array that was opened last.
    pub(crate) fn close_array(&mut self, opened: Opened, len: usize) {
        self.nodes[opened.0] = Node::Array(self.span(opened, len));
    }

    /// Closes the object that was opened last.
    pub(crate) fn close_object(&mut self, opened: Opened, len: usize) {
        self.nodes[opened.0] = Node::Object(self.span(opened, len));
    }

    fn span(&self, opened: Opened, len: usize) -> Span {
        let short = |count: usize| u32::try_from(count).expect("a document has less than 4 Gi nodes");
        Span { nodes: short(self.nodes.len() - opened.0), len: short(len) }
    }
}

/// Writes JSON, without spaces.
impl fmt::Display for Cursor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view().fmt(f)
    }
}

impl fmt::Display for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            View::Null => f.write_str("null"),
            View::Bool(value) => value.fmt(f),
            View::Number(number) => number.fmt(f),
            View::String(text) => quoted(f, text),
            View::Array(array) => {
                for (place, element) in array.children().enumerate() {
                    f.write_char(if place == 0 { '[' } else { ',' })?;
                    write!(f, "{element}")?;
                }
                f.write_str(if array.len() == 0 { "[]" } else { "]" })
            }
            View::Object(object) => {
                for (place, (name, value)) in object.members().enumerate() {
                    f.write_char(if place == 0 { '{' } else { ',' })?;
                    quoted(f, name)?;
                    write!(f, ":{value}")?;
                }
                f.write_str(if object.len() == 0 { "{}" } else { "}" })
            }
        }
    }
}

fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    let mut rest = text;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(PIECE_BYTES));
        let json = serde_json::to_string(piece).map_err(|_| fmt::Error)?;
        f.write_str(&json[1..json.len() - 1])?;
        rest = after;
    }
    f.write_char('"')
}
