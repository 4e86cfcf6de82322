//! The paths of all filed atoms, as one tree, with the filters filed where their atoms end.
//!
//! All parts are persistent: a clone shares everything, and filing one filter copies the few nodes on its path.

use std::sync::Arc;

use imbl::OrdMap;

use super::atoms::{Atom, Bound, Side, Step, Test};
use super::number::Number;
use super::set::Set;
use super::table::{Key, Keys, Table};

/// One distinct filter in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FilterId(pub(super) u64);

/// The filters filed under one atom.
pub(super) type Postings = Set<FilterId>;

/// The node of one path: the tests of the values there, and the nodes of their children.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    names: Table<Arc<Node>>,
    any: Option<Arc<Node>>,
    exists: Postings,
    texts: Table<Postings>,
    /// Rare tests: most paths have none of them.
    others: Option<Arc<Others>>,
}

#[derive(Clone, Debug, Default)]
struct Others {
    numbers: Table<Postings>,
    yes: Postings,
    no: Postings,
    null: Postings,
    prefixes: Prefixes,
    /// A number is in the ranges up to its own `>=`.
    above: Ranges,
    /// A number is in the ranges from its own `<=`.
    below: Ranges,
}

/// The filters that ask for a range, by where it ends.
type Ranges = OrdMap<RangeKey, Postings>;

/// A range's end, and a flag for its place among those of the same number: `>= 1` comes before `> 1`, and `< 1` before
/// `<= 1`.
type RangeKey = (Number, bool);

#[derive(Clone, Debug, Default)]
struct Prefixes {
    texts: Table<Postings>,
    /// The lengths of the texts in bytes, with how many have each.
    lengths: Vec<(usize, usize)>,
}

impl Node {
    /// Files a filter under `atom`. It must not be filed there already.
    pub(super) fn file(&mut self, keys: &Keys, atom: &Atom<'_>, id: FilterId) {
        let mut node = self;
        for step in &atom.path {
            let child = match step {
                Step::Name(name) => node.names.entry(keys.text(name)),
                Step::Any => node.any.get_or_insert_default(),
            };
            node = Arc::make_mut(child);
        }
        node.post(keys, &atom.test, id);
    }

    fn post(&mut self, keys: &Keys, test: &Test<'_>, id: FilterId) {
        match test {
            Test::Exists => self.exists.insert(id),
            Test::String(text) => self.texts.entry(keys.text(text)).insert(id),
            Test::Number(_) | Test::Bool(_) | Test::Null | Test::Prefix(_) | Test::Beyond(..) => {
                Arc::make_mut(self.others.get_or_insert_default()).post(keys, test, id);
            }
        }
    }

    /// Removes a filter from where [`Node::file`] put it, and the nodes that are empty then.
    pub(super) fn unfile(&mut self, keys: &Keys, path: &[Step<'_>], test: &Test<'_>, id: FilterId) {
        match path.split_first() {
            Some((Step::Name(name), rest)) => {
                let name = keys.text(name);
                let Some(child) = self.names.get_mut(name) else { return };
                let child = Arc::make_mut(child);
                child.unfile(keys, rest, test, id);
                if child.is_empty() {
                    self.names.remove(name);
                }
            }
            Some((Step::Any, rest)) => {
                let Some(child) = &mut self.any else { return };
                let child = Arc::make_mut(child);
                child.unfile(keys, rest, test, id);
                if child.is_empty() {
                    self.any = None;
                }
            }
            None => self.unpost(keys, test, id),
        }
    }

    fn unpost(&mut self, keys: &Keys, test: &Test<'_>, id: FilterId) {
        match test {
            Test::Exists => self.exists.remove(id),
            Test::String(text) => take(&mut self.texts, keys.text(text), id),
            Test::Number(_) | Test::Bool(_) | Test::Null | Test::Prefix(_) | Test::Beyond(..) => {
                let Some(others) = &mut self.others else { return };
                let others = Arc::make_mut(others);
                others.unpost(keys, test, id);
                if others.is_empty() {
                    self.others = None;
                }
            }
        }
    }

    /// Returns how many filters are filed under exactly this atom.
    pub(super) fn filed(&self, keys: &Keys, atom: &Atom<'_>) -> usize {
        let mut node = self;
        for step in &atom.path {
            let child = match step {
                Step::Name(name) => node.names.get(keys.text(name)),
                Step::Any => node.any.as_ref(),
            };
            let Some(child) = child else { return 0 };
            node = child;
        }
        let postings = match &atom.test {
            Test::Exists => Some(&node.exists),
            Test::String(text) => node.texts.get(keys.text(text)),
            test @ (Test::Number(_) | Test::Bool(_) | Test::Null | Test::Prefix(_) | Test::Beyond(..)) => {
                node.others.as_ref().and_then(|others| others.postings(keys, test))
            }
        };
        postings.map_or(0, Set::len)
    }

    /// Returns the place of a member's value.
    #[inline]
    pub(super) fn member(&self, name: Key) -> Option<&Self> {
        self.names.get(name).map(|child| &**child)
    }

    /// Returns the place of each child.
    #[inline]
    pub(super) fn any(&self) -> Option<&Self> {
        self.any.as_deref()
    }

    /// Tells whether values at this path need not be looked into.
    #[inline]
    pub(super) fn is_leaf(&self) -> bool {
        self.any.is_none() && self.names.is_empty()
    }

    /// Returns what is filed under each value at this path.
    #[inline]
    pub(super) fn at_all(&self) -> &Postings {
        &self.exists
    }

    /// Visits what is filed under a text.
    #[inline]
    pub(super) fn at_text<'i>(&'i self, keys: &Keys, text: &str, mut visit: impl FnMut(&'i Postings)) {
        if !self.texts.is_empty() {
            self.texts.get(keys.text(text)).into_iter().for_each(&mut visit);
        }
        let Some(others) = &self.others else { return };
        let lengths = others.prefixes.lengths.iter().map(|(length, _)| *length);
        let prefixes = lengths.filter_map(|length| others.prefixes.texts.get(keys.text(text.get(..length)?)));
        prefixes.for_each(visit);
    }

    /// Returns what is filed under a number itself.
    #[inline]
    pub(super) fn at_number(&self, keys: &Keys, number: &Number) -> Option<&Postings> {
        let numbers =
            self.others.as_ref().map(|others| &others.numbers).filter(|numbers| !numbers.is_empty())?;
        numbers.get(keys.number(number))
    }

    /// Returns what is filed under `true` or `false`.
    #[inline]
    pub(super) fn at_bool(&self, value: bool) -> Option<&Postings> {
        self.others.as_ref().map(|others| if value { &others.yes } else { &others.no })
    }

    /// Returns what is filed under `null`.
    #[inline]
    pub(super) fn at_null(&self) -> Option<&Postings> {
        self.others.as_ref().map(|others| &others.null)
    }

    /// Tells whether there are ranges of numbers on this side.
    #[inline]
    pub(super) fn has_ranges(&self) -> bool {
        self.others.as_ref().is_some_and(|others| !others.above.is_empty() || !others.below.is_empty())
    }

    /// Visits what is filed under the ranges above something in which `most` lies, and under those below something in
    /// which `least` does.
    pub(super) fn in_ranges<'i>(
        &'i self,
        least: &Number,
        most: &Number,
        mut visit: impl FnMut(&'i Postings),
    ) {
        let Some(others) = &self.others else { return };
        let above = others.above.range(..=(most.clone(), false));
        let below = others.below.range((least.clone(), true)..);
        above.chain(below).for_each(|(_, postings)| visit(postings));
    }

    /// Tells whether nothing is filed here or below.
    pub(super) fn is_empty(&self) -> bool {
        self.is_leaf() && self.texts.is_empty() && self.exists.is_empty() && self.others.is_none()
    }
}

impl Others {
    fn post(&mut self, keys: &Keys, test: &Test<'_>, id: FilterId) {
        match test {
            Test::Exists | Test::String(_) => {}
            Test::Number(number) => self.numbers.entry(keys.number(number)).insert(id),
            Test::Bool(true) => self.yes.insert(id),
            Test::Bool(false) => self.no.insert(id),
            Test::Null => self.null.insert(id),
            Test::Prefix(text) => self.prefixes.entry(keys, text).insert(id),
            Test::Beyond(side, bound) => {
                let (ranges, key) = self.ranges_mut(*side, bound);
                ranges.entry(key).or_default().insert(id);
            }
        }
    }

    fn unpost(&mut self, keys: &Keys, test: &Test<'_>, id: FilterId) {
        match test {
            Test::Exists | Test::String(_) => {}
            Test::Number(number) => take(&mut self.numbers, keys.number(number), id),
            Test::Bool(true) => self.yes.remove(id),
            Test::Bool(false) => self.no.remove(id),
            Test::Null => self.null.remove(id),
            Test::Prefix(text) => self.prefixes.take(keys, text, id),
            Test::Beyond(side, bound) => {
                let (ranges, key) = self.ranges_mut(*side, bound);
                let Some(postings) = ranges.get_mut(&key) else { return };
                postings.remove(id);
                if postings.is_empty() {
                    ranges.remove(&key);
                }
            }
        }
    }

    fn postings(&self, keys: &Keys, test: &Test<'_>) -> Option<&Postings> {
        match test {
            Test::Exists | Test::String(_) => None,
            Test::Number(number) => self.numbers.get(keys.number(number)),
            Test::Bool(true) => Some(&self.yes),
            Test::Bool(false) => Some(&self.no),
            Test::Null => Some(&self.null),
            Test::Prefix(text) => self.prefixes.texts.get(keys.text(text)),
            Test::Beyond(Side::Above, bound) => self.above.get(&bound.key(Side::Above)),
            Test::Beyond(Side::Below, bound) => self.below.get(&bound.key(Side::Below)),
        }
    }

    fn ranges_mut(&mut self, side: Side, bound: &Bound) -> (&mut Ranges, RangeKey) {
        let ranges = match side {
            Side::Above => &mut self.above,
            Side::Below => &mut self.below,
        };
        (ranges, bound.key(side))
    }

    fn is_empty(&self) -> bool {
        self.numbers.is_empty()
            && self.prefixes.texts.is_empty()
            && self.above.is_empty()
            && self.below.is_empty()
            && [&self.yes, &self.no, &self.null].iter().all(|postings| postings.is_empty())
    }
}

impl Prefixes {
    fn entry(&mut self, keys: &Keys, text: &str) -> &mut Postings {
        let key = keys.text(text);
        if self.texts.get(key).is_none() {
            match self.lengths.iter_mut().find(|(length, _)| *length == text.len()) {
                Some((_, texts)) => *texts += 1,
                None => self.lengths.push((text.len(), 1)),
            }
        }
        self.texts.entry(key)
    }

    fn take(&mut self, keys: &Keys, text: &str, id: FilterId) {
        let key = keys.text(text);
        take(&mut self.texts, key, id);
        if self.texts.get(key).is_none() {
            if let Some((_, texts)) = self.lengths.iter_mut().find(|(length, _)| *length == text.len()) {
                *texts -= 1;
            }
            self.lengths.retain(|(_, texts)| *texts > 0);
        }
    }
}

impl Bound {
    fn key(&self, side: Side) -> RangeKey {
        let second = match side {
            Side::Above => !self.inclusive,
            Side::Below => self.inclusive,
        };
        (self.number.clone(), second)
    }
}

/// Takes a filter from a key's postings, and the key with the last.
fn take(table: &mut Table<Postings>, key: Key, id: FilterId) {
    let Some(postings) = table.get_mut(key) else { return };
    postings.remove(id);
    if postings.is_empty() {
        table.remove(key);
    }
}
