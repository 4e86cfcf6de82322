//! The paths that anyone's atom names, as one tree, with the filters filed where their atoms end.
//!
//! All maps are persistent: a clone shares everything, and filing one filter copies the few nodes on its path.

use std::sync::Arc;

use imbl::{GenericHashMap, OrdMap, shared_ptr::DefaultSharedPtr};

use super::atoms::{Atom, Step, Test};

/// A persistent hash map whose hasher is quick and seeded anew in each process.
pub(super) type Map<K, V> = GenericHashMap<K, V, foldhash::fast::RandomState, DefaultSharedPtr>;

/// One distinct filter in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FilterId(pub(super) u64);

/// The filters filed under one atom, in no order.
pub(super) type Postings = Vec<FilterId>;

/// The place of one path: what is asked of the values there, and the way on to their children.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) names: Map<Arc<str>, Arc<Node>>,
    pub(super) any: Option<Arc<Node>>,
    pub(super) exists: Postings,
    pub(super) strings: Map<Arc<str>, Postings>,
    numbers: OrdMap<Number, Postings>,
    pub(super) yes: Postings,
    pub(super) no: Postings,
    pub(super) null: Postings,
}

/// A number as a key of an ordered map.
#[derive(Clone, Copy, Debug)]
struct Number(f64);

impl Node {
    /// Files a filter under `atom`.
    pub(super) fn file(&mut self, atom: &Atom, id: FilterId) {
        let mut node = self;
        for step in &atom.path {
            let child = match step {
                Step::Name(name) => node.names.entry(Arc::from(&**name)).or_default(),
                Step::Any => node.any.get_or_insert_default(),
            };
            node = Arc::make_mut(child);
        }
        match &atom.test {
            Test::Exists => node.exists.push(id),
            Test::String(text) => node.strings.entry(Arc::from(&**text)).or_default().push(id),
            Test::Number(number) => node.numbers.entry(Number(*number)).or_default().push(id),
            Test::Bool(true) => node.yes.push(id),
            Test::Bool(false) => node.no.push(id),
            Test::Null => node.null.push(id),
        }
    }

    /// Takes a filter from where [`Node::file`] put it, with the nodes that nobody needs any more.
    pub(super) fn unfile(&mut self, path: &[Step], test: &Test, id: FilterId) {
        match path.split_first() {
            Some((Step::Name(name), rest)) => {
                let Some(child) = self.names.get_mut(&**name) else { return };
                let child = Arc::make_mut(child);
                child.unfile(rest, test, id);
                if child.is_empty() {
                    self.names.remove(&**name);
                }
            }
            Some((Step::Any, rest)) => {
                let Some(child) = &mut self.any else { return };
                let child = Arc::make_mut(child);
                child.unfile(rest, test, id);
                if child.is_empty() {
                    self.any = None;
                }
            }
            None => self.unpost(test, id),
        }
    }

    fn unpost(&mut self, test: &Test, id: FilterId) {
        /// Tells whether the list is empty now.
        fn without(postings: &mut Postings, id: FilterId) -> bool {
            postings.retain(|posted| *posted != id);
            postings.is_empty()
        }
        match test {
            Test::Exists => drop(without(&mut self.exists, id)),
            Test::Bool(true) => drop(without(&mut self.yes, id)),
            Test::Bool(false) => drop(without(&mut self.no, id)),
            Test::Null => drop(without(&mut self.null, id)),
            Test::String(text) => {
                if self.strings.get_mut(&**text).is_some_and(|postings| without(postings, id)) {
                    self.strings.remove(&**text);
                }
            }
            Test::Number(number) => {
                if self.numbers.get_mut(&Number(*number)).is_some_and(|postings| without(postings, id)) {
                    self.numbers.remove(&Number(*number));
                }
            }
        }
    }

    /// Returns how many filters are filed under exactly this atom.
    pub(super) fn filed(&self, atom: &Atom) -> usize {
        let mut node = self;
        for step in &atom.path {
            let child = match step {
                Step::Name(name) => node.names.get(&**name),
                Step::Any => node.any.as_ref(),
            };
            let Some(child) = child else { return 0 };
            node = child;
        }
        match &atom.test {
            Test::Exists => node.exists.len(),
            Test::String(text) => node.strings.get(&**text).map_or(0, Vec::len),
            Test::Number(number) => node.numbers.get(&Number(*number)).map_or(0, Vec::len),
            Test::Bool(true) => node.yes.len(),
            Test::Bool(false) => node.no.len(),
            Test::Null => node.null.len(),
        }
    }

    /// Returns the postings of all numbers that the evaluator takes for equal to `number`.
    ///
    /// jsonpath-rust compares by distance, so that `0 == 1e-17` holds and several keys can answer.
    pub(super) fn equal_to(&self, number: f64) -> impl Iterator<Item = &Postings> {
        let around = Number(number - f64::EPSILON)..=Number(number + f64::EPSILON);
        let near = self.numbers.range(around);
        near.filter(move |(key, _)| (key.0 - number).abs() < f64::EPSILON).map(|(_, postings)| postings)
    }

    /// Tells whether values at this path need not be looked into.
    pub(super) fn is_leaf(&self) -> bool {
        self.any.is_none() && self.names.is_empty()
    }

    /// Tells whether nothing is filed here or below.
    pub(super) fn is_empty(&self) -> bool {
        self.is_leaf()
            && self.strings.is_empty()
            && self.numbers.is_empty()
            && [&self.exists, &self.yes, &self.no, &self.null].iter().all(|postings| postings.is_empty())
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Number {}
