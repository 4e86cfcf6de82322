//! One walk over an event that meets every value at a path of the trie, and skips all others.

use std::ops::Range;

use super::document::{Cursor, Document, View};
use super::number::Number;
use super::table::Keys;
use super::trie::{FilterId, Node, Postings};

/// Returns the filters of which an atom holds in the event, each once.
pub(super) fn walk<'i>(root: &'i Node, keys: &'i Keys, event: &Document<'_>) -> Vec<FilterId> {
    let mut walk = Walk { keys, found: Vec::new(), nodes: vec![root], extremes: Vec::new() };
    walk.value(event.root(), 0..1);
    walk.candidates()
}

struct Walk<'i, 'e> {
    keys: &'i Keys,
    /// The postings of the atoms that hold, some more than once.
    found: Vec<&'i Postings>,
    /// A stack of the trie's nodes that fit the values from the root to here: usually one a level, more where a
    /// name and "any" lead to the same value.
    nodes: Vec<&'i Node>,
    /// The least and the largest number met at each node with ranges. They are looked up once at the end: many
    /// numbers within the ranges of many filters would make many pairs.
    extremes: Vec<Extremes<'i, 'e>>,
}

struct Extremes<'i, 'e> {
    node: &'i Node,
    least: &'e Number,
    most: &'e Number,
}

impl<'i, 'e> Walk<'i, 'e> {
    /// Meets a value to which the nodes in `here` (a range of the stack) lead.
    fn value(&mut self, value: Cursor<'e>, here: Range<usize>) {
        for position in here.clone() {
            let node = self.nodes[position];
            self.post(Some(node.at_all()));
        }
        match value.view() {
            View::String(text) => {
                for position in here {
                    let node = self.nodes[position];
                    node.at_text(self.keys, text, |postings| self.post(Some(postings)));
                }
            }
            View::Number(number) => {
                for position in here {
                    let node = self.nodes[position];
                    self.post(node.at_number(self.keys, number));
                    self.meet(node, number);
                }
            }
            View::Bool(value) => {
                for position in here {
                    let node = self.nodes[position];
                    self.post(node.at_bool(value));
                }
            }
            View::Null => {
                for position in here {
                    let node = self.nodes[position];
                    self.post(node.at_null());
                }
            }
            View::Array(array) => self.elements(array, here),
            View::Object(object) => self.members(object, here),
        }
    }

    fn elements(&mut self, array: Cursor<'e>, here: Range<usize>) {
        let top = self.nodes.len();
        for position in here {
            let node = self.nodes[position];
            self.nodes.extend(node.any());
        }
        let children = top..self.nodes.len();
        if !children.is_empty() {
            array.children().for_each(|element| self.value(element, children.clone()));
        }
        self.nodes.truncate(top);
    }

    fn members(&mut self, object: Cursor<'e>, here: Range<usize>) {
        if self.nodes[here.clone()].iter().all(|node| node.is_leaf()) {
            return;
        }
        let top = self.nodes.len();
        for (name, value) in object.members() {
            let name = self.keys.text(name);
            for position in here.clone() {
                let node = self.nodes[position];
                self.nodes.extend(node.member(name));
                self.nodes.extend(node.any());
            }
            if self.nodes.len() > top {
                self.value(value, top..self.nodes.len());
                self.nodes.truncate(top);
            }
        }
    }

    #[inline]
    fn post(&mut self, postings: Option<&'i Postings>) {
        self.found.extend(postings.filter(|postings| !postings.is_empty()));
    }

    #[inline]
    fn meet(&mut self, node: &'i Node, number: &'e Number) {
        if node.has_ranges() {
            self.extremes.push(Extremes { node, least: number, most: number });
        }
    }

    fn candidates(mut self) -> Vec<FilterId> {
        let mut extremes = std::mem::take(&mut self.extremes);
        extremes.sort_unstable_by_key(|extremes| std::ptr::from_ref(extremes.node));
        extremes.dedup_by(|other, kept| {
            let is_same = std::ptr::eq(other.node, kept.node);
            if is_same {
                kept.least = kept.least.min(other.least);
                kept.most = kept.most.max(other.most);
            }
            is_same
        });
        for Extremes { node, least, most } in extremes {
            node.in_ranges(least, most, |postings| self.post(Some(postings)));
        }
        self.found.sort_unstable_by_key(|postings| std::ptr::from_ref::<Postings>(postings));
        self.found.dedup_by(|one, other| std::ptr::eq(*one, *other));
        let mut candidates = Vec::new();
        self.found.iter().for_each(|postings| postings.extend(&mut candidates));
        // A filter stands under each atom of its clause.
        candidates.sort_unstable();
        candidates.dedup();
        candidates
    }
}
