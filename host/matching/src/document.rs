//! An event's JSON as filters see it: one flat list of nodes, made in one pass.
//!
//! A container stands before its children and knows how many nodes it spans, so that going over a value's children,
//! or over all that is below it, is going forward in the list. Texts are borrowed from the bytes where they are
//! written without escapes. Integers of any size stay exact. Of a member that an object has twice, the last value
//! counts, in the first one's place.

mod read;
mod write;

pub(super) use write::Builder;

use super::error::Error;
use super::number::Number;

/// A JSON value, read once and looked at by any number of filters.
#[derive(Clone, Debug)]
pub struct Document<'j> {
    nodes: Vec<Node<'j>>,
}

/// One value, or the name of an object's member, which stands before its value.
#[derive(Clone, Debug)]
pub(super) enum Node<'j> {
    Null,
    Bool(bool),
    Number(Number),
    /// A string written without escapes.
    Borrowed(&'j str),
    Owned(Box<str>),
    Array(Span),
    Object(Span),
}

/// How much of the list a container takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// How many nodes: itself, and all below it.
    nodes: u32,
    /// How many elements or members it has.
    pub(super) len: u32,
}

impl<'j> Document<'j> {
    /// Reads JSON.
    ///
    /// # Errors
    /// The bytes are not JSON, or nest deeper than serde_json's 128 levels.
    pub fn parse(json: &'j [u8]) -> Result<Self, Error> {
        read::read(json).map_err(|source| Error::Read { source })
    }

    /// Returns the whole value.
    pub(super) fn root(&self) -> Cursor<'_> {
        Cursor { nodes: &self.nodes, at: 0 }
    }

    /// Returns the number of nodes in the list.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }
}

/// A value in a document.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'d> {
    nodes: &'d [Node<'d>],
    at: u32,
}

/// A value, opened.
#[derive(Clone, Copy)]
pub(super) enum View<'d> {
    Null,
    Bool(bool),
    Number(&'d Number),
    String(&'d str),
    Array(Cursor<'d>),
    Object(Cursor<'d>),
}

impl<'d> Cursor<'d> {
    /// Opens the value.
    #[inline]
    pub(super) fn view(self) -> View<'d> {
        match self.node() {
            Node::Null => View::Null,
            Node::Bool(value) => View::Bool(*value),
            Node::Number(number) => View::Number(number),
            Node::Borrowed(text) => View::String(text),
            Node::Owned(text) => View::String(text),
            Node::Array(_) => View::Array(self),
            Node::Object(_) => View::Object(self),
        }
    }

    /// Returns the number of elements or members; 0 for what has none.
    #[inline]
    pub(super) fn len(self) -> u32 {
        match self.node() {
            Node::Array(span) | Node::Object(span) => span.len,
            Node::Null | Node::Bool(_) | Node::Number(_) | Node::Borrowed(_) | Node::Owned(_) => 0,
        }
    }

    /// Returns the children: an array's elements or an object's values, none of anything else.
    #[inline]
    pub(super) fn children(self) -> Children<'d> {
        let names = u32::from(matches!(self.node(), Node::Object(_)));
        Children { next: Cursor { at: self.at + 1, ..self }, left: self.len(), names }
    }

    /// Returns an object's members; none of anything else.
    #[inline]
    pub(super) fn members(self) -> Members<'d> {
        let left = if matches!(self.node(), Node::Object(_)) { self.len() } else { 0 };
        Members { next: Cursor { at: self.at + 1, ..self }, left }
    }

    /// Returns the value of an object's member.
    #[inline]
    pub(super) fn member(self, name: &str) -> Option<Cursor<'d>> {
        let Node::Object(span) = self.node() else { return None };
        let end = self.at + span.nodes;
        let mut at = self.at + 1;
        while at < end {
            let found = Cursor { at, ..self }.text();
            let value = Cursor { at: at + 1, ..self };
            if found == Some(name) {
                return Some(value);
            }
            at = value.at + value.size();
        }
        None
    }

    /// Returns an array's element; from its end where `index` is negative.
    pub(super) fn element(self, index: i64) -> Option<Cursor<'d>> {
        let Node::Array(span) = self.node() else { return None };
        let place = if index < 0 { index + i64::from(span.len) } else { index };
        let place = usize::try_from(place).ok()?;
        self.children().nth(place)
    }

    /// Returns the text of a string.
    #[inline]
    pub(super) fn text(self) -> Option<&'d str> {
        match self.node() {
            Node::Borrowed(text) => Some(text),
            Node::Owned(text) => Some(text),
            Node::Null | Node::Bool(_) | Node::Number(_) | Node::Array(_) | Node::Object(_) => None,
        }
    }

    /// Returns the number of nodes that the value spans, itself included.
    #[inline]
    pub(super) fn size(self) -> u32 {
        match self.node() {
            Node::Array(span) | Node::Object(span) => span.nodes,
            Node::Null | Node::Bool(_) | Node::Number(_) | Node::Borrowed(_) | Node::Owned(_) => 1,
        }
    }

    /// Returns the value's place in the document that `root` is the root of; `None` for a value of another one.
    pub(super) fn place_in(self, root: Cursor<'_>) -> Option<u32> {
        std::ptr::eq(self.nodes.as_ptr().cast::<()>(), root.nodes.as_ptr().cast()).then_some(self.at)
    }

    /// Returns the value at a place of this value's document.
    pub(super) fn place(self, place: u32) -> Self {
        Self { at: place, ..self }
    }

    #[inline]
    fn node(self) -> &'d Node<'d> {
        &self.nodes[self.at as usize]
    }

    #[inline]
    fn skip(self) -> Self {
        Self { at: self.at + self.size(), ..self }
    }
}

/// The children of a value.
#[derive(Clone)]
pub(super) struct Children<'d> {
    next: Cursor<'d>,
    left: u32,
    /// 1 where names stand before the values.
    names: u32,
}

impl<'d> Iterator for Children<'d> {
    type Item = Cursor<'d>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let child = Cursor { at: self.next.at + self.names, ..self.next };
        self.next = child.skip();
        Some(child)
    }
}

/// The members of an object.
#[derive(Clone)]
pub(super) struct Members<'d> {
    next: Cursor<'d>,
    left: u32,
}

impl<'d> Iterator for Members<'d> {
    type Item = (&'d str, Cursor<'d>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let name = self.next.text().unwrap_or_default();
        let value = Cursor { at: self.next.at + 1, ..self.next };
        self.next = value.skip();
        Some((name, value))
    }
}
