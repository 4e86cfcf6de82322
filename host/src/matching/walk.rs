//! One pass over an event's bytes that meets every value at a path of the trie, and skips all others unread.

use std::fmt;
use std::hash::BuildHasher;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::trie::{Node, Postings};

/// What a walk found.
pub(super) struct Found<'i> {
    /// The postings of all atoms that hold, each once.
    pub(super) postings: Vec<&'i Postings>,
    /// Whether an object on the way has a member twice. A parsed [`serde_json::Value`] keeps the last one, the walk
    /// saw both: what it found may be too much, never too little.
    pub(super) duplicates: bool,
}

/// Walks `json` along the paths under `root`.
pub(super) fn walk<'i>(root: &'i Node, json: &[u8]) -> Result<Found<'i>, serde_json::Error> {
    let hasher = foldhash::fast::RandomState::default();
    let mut walk =
        Walk { found: Vec::new(), duplicates: false, nodes: vec![root], names: Vec::new(), hasher };
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    At { walk: &mut walk, here: 0..1 }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    let Walk { mut found, duplicates, .. } = walk;
    found.sort_unstable_by_key(|postings| std::ptr::from_ref::<Postings>(postings));
    found.dedup_by(|one, other| std::ptr::eq(*one, *other));
    Ok(Found { postings: found, duplicates })
}

struct Walk<'i> {
    found: Vec<&'i Postings>,
    duplicates: bool,
    /// A stack of the trie's nodes that fit the values from the root to here: usually one a level, more where a
    /// name and `*` lead to the same value.
    nodes: Vec<&'i Node>,
    /// A stack of the hashes of the member names met so far in each object from the root to here. An accidental
    /// pair of equal hashes costs an evaluation, nothing else.
    names: Vec<u64>,
    hasher: foldhash::fast::RandomState,
}

impl<'i> Walk<'i> {
    fn post(&mut self, postings: &'i Postings) {
        if !postings.is_empty() {
            self.found.push(postings);
        }
    }

    /// Puts the nodes for the member `name` of the value at `here` on the stack.
    fn enter_member(&mut self, here: Range<usize>, name: &str) {
        let top = self.nodes.len();
        for position in here {
            let node = self.nodes[position];
            if !node.names.is_empty() {
                self.nodes.extend(node.names.get(name).map(|child| &**child));
            }
            self.nodes.extend(node.any.as_deref());
        }
        if self.nodes.len() > top {
            self.names.push(self.hasher.hash_one(name));
        }
    }

    /// Puts the nodes for each element of the value at `here` on the stack.
    fn enter_elements(&mut self, here: Range<usize>) {
        for position in here {
            self.nodes.extend(self.nodes[position].any.as_deref());
        }
    }

    fn number(&mut self, here: Range<usize>, number: f64) {
        for position in here {
            let node = self.nodes[position];
            node.equal_to(number).for_each(|postings| self.post(postings));
        }
    }

    fn is_leaf(&self, here: Range<usize>) -> bool {
        self.nodes[here].iter().all(|node| node.is_leaf())
    }
}

/// The value that the nodes in `here` (a range of the stack) lead to.
struct At<'w, 'i> {
    walk: &'w mut Walk<'i>,
    here: Range<usize>,
}

impl<'de> DeserializeSeed<'de> for At<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.here.is_empty() {
            return deserializer.deserialize_ignored_any(IgnoredAny).map(drop);
        }
        for position in self.here.clone() {
            let node = self.walk.nodes[position];
            self.walk.post(&node.exists);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for At<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        for position in self.here {
            let node = self.walk.nodes[position];
            if !node.strings.is_empty()
                && let Some(postings) = node.strings.get(text)
            {
                self.walk.post(postings);
            }
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "the evaluator holds every number as an f64")]
    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.walk.number(self.here, number as f64);
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "the evaluator holds every number as an f64")]
    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.walk.number(self.here, number as f64);
        Ok(())
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        self.walk.number(self.here, number);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        for position in self.here {
            let node = self.walk.nodes[position];
            self.walk.post(if value { &node.yes } else { &node.no });
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        for position in self.here {
            let node = self.walk.nodes[position];
            self.walk.post(&node.null);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let Self { walk, here } = self;
        let top = walk.nodes.len();
        walk.enter_elements(here);
        let children = top..walk.nodes.len();
        while elements.next_element_seed(At { walk: &mut *walk, here: children.clone() })?.is_some() {}
        walk.nodes.truncate(top);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Self { walk, here } = self;
        if walk.is_leaf(here.clone()) {
            while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        let (top, first_name) = (walk.nodes.len(), walk.names.len());
        while members.next_key_seed(Member { walk: &mut *walk, of: here.clone() })?.is_some() {
            let children = top..walk.nodes.len();
            members.next_value_seed(At { walk: &mut *walk, here: children })?;
            walk.nodes.truncate(top);
        }
        let names = &mut walk.names[first_name..];
        names.sort_unstable();
        walk.duplicates |= names.windows(2).any(|pair| pair[0] == pair[1]);
        walk.names.truncate(first_name);
        Ok(())
    }
}

/// A member's name: entering it puts the nodes for its value on the stack.
struct Member<'w, 'i> {
    walk: &'w mut Walk<'i>,
    of: Range<usize>,
}

impl<'de> DeserializeSeed<'de> for Member<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Member<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<(), E> {
        self.walk.enter_member(self.of, name);
        Ok(())
    }
}
