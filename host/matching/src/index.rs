//! All subscriptions' filters at once: from an event's bytes to the ids of those that match.
//!
//! # How it works
//! From each filter `atoms` takes what is *necessary* for it to match: clauses, each a union of conditions on a path of
//! child names and "any child" steps, of which one holds in every event that the filter matches.
//! `$.data[?@.value=='Blah' && @.size > 5]` gives three: some value at `$.data[*].value` equals `Blah`, some value at
//! `$.data[*].size` is above 5, and there is something at `$.data[*]`. The filter is filed under the one that the
//! fewest other filters share, in a `trie` of all paths named, whose nodes have hash maps from texts, numbers and
//! beginnings of texts, and ordered maps from the ends of ranges, to filters. `walk` goes over an event once along that
//! trie, so that the cost is that of the event, not of the subscriptions that do not match. What it finds are
//! candidates: each is evaluated, once for equal expressions. A filter without a clause (`$..name`) stands on a scan
//! list and is evaluated on every event.
//!
//! # What it relies on
//! It answers what [`Filter::matches`] answers, filter by filter: the walk may find too much, never too little. A
//! differential test holds it to that, in both dialects. One thing differs: a filter that is no candidate is not
//! evaluated, and so cannot fail.
//!
//! # What is absent
//! - Atoms that suffice, so that nothing need be evaluated: an evaluation costs half a microsecond, less than the
//!   delivery that it causes.
//! - Filing again what has become common since it was filed; a filter moves only when it is removed and added again.

use std::hash::Hash;
use std::sync::Arc;

use imbl::OrdMap;

use super::atoms::{self, Clause};
use super::budgets::Budgets;
use super::document::Document;
use super::error::Error;
use super::evaluate::{self, Failure};
use super::filter::Filter;
use super::set::Set;
use super::table::{Keys, Table};
use super::trie::{FilterId, Node};
use super::walk::walk;
use waypost_domain::ids::RecipientId;

/// The filters of all active subscriptions.
///
/// Clones share their parts. To change the index, clone it, change the clone and swap it in (`ArcSwap`); readers keep
/// the old one until then.
#[derive(Clone, Debug, Default)]
pub struct Index {
    keys: Keys,
    recipients: OrdMap<RecipientId, FilterId>,
    /// Equal expressions are one filter, evaluated once: the filters by the keys of their texts.
    expressions: Table<Set<FilterId>>,
    filters: OrdMap<FilterId, Arc<Entry>>,
    /// The filters with a necessary atom, by atom.
    paths: Node,
    /// The filters without one: they are evaluated on every event.
    scan: Set<FilterId>,
    next: u64,
}

/// A distinct filter and the recipients that use it.
#[derive(Clone, Debug)]
struct Entry {
    filter: Arc<Filter>,
    /// The clause under which it is filed, by its index. (Clauses are computed again when they are needed, to save
    /// memory.)
    clause: Option<usize>,
    recipients: Set<RecipientId>,
}

/// The recipients of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matches {
    /// The recipients whose filters match, in the order of their ids.
    pub matched: Vec<RecipientId>,
    /// The recipients whose filters gave no answer, in the order of their ids. (A filter that could not match anyway is
    /// not evaluated.)
    pub failed: Vec<(RecipientId, Failure)>,
}

impl Index {
    /// Adds a recipient, or gives it another filter.
    pub fn insert(&mut self, id: impl Into<RecipientId>, filter: Arc<Filter>) {
        let id = id.into();
        self.remove(id);
        let filter_id = self.known(&filter).unwrap_or_else(|| self.file(filter));
        if let Some(entry) = self.filters.get_mut(&filter_id) {
            Arc::make_mut(entry).recipients.insert(id);
        }
        self.recipients.insert(id, filter_id);
    }

    /// Removes a recipient, if it is there.
    pub fn remove(&mut self, id: impl Into<RecipientId>) {
        let id = id.into();
        let Some(filter_id) = self.recipients.remove(&id) else { return };
        let Some(entry) = self.filters.get_mut(&filter_id) else { return };
        let entry = Arc::make_mut(entry);
        entry.recipients.remove(id);
        if entry.recipients.is_empty() {
            self.unfile(filter_id);
        }
    }

    /// Returns the number of recipients.
    pub fn len(&self) -> usize {
        self.recipients.len()
    }

    /// Tells whether there is no recipient.
    pub fn is_empty(&self) -> bool {
        self.recipients.is_empty()
    }

    /// Returns how a recipient's filter is found: `equality on $.eventType`, or `scan` where it is tried on every
    /// event; `None` for a recipient that is not here.
    pub fn access_path(&self, id: RecipientId) -> Option<String> {
        let entry = self.filters.get(self.recipients.get(&id)?)?;
        Some(entry.clause().map_or_else(|| "scan".to_owned(), |clause| clause.to_string()))
    }

    /// Returns the recipients of an event. `owner` names the owner of each: the filters of one owner share a budget.
    ///
    /// # Errors
    ///
    /// The bytes are not JSON.
    pub fn matches<K: Eq + Hash>(
        &self,
        event_json: &[u8],
        owner: impl Fn(RecipientId) -> K,
    ) -> Result<Matches, Error> {
        let event = Document::parse(event_json)?;
        let mut candidates = walk(&self.paths, &self.keys, &event);
        self.scan.extend(&mut candidates);
        let (mut matched, mut failed) = (Vec::new(), Vec::new());
        let mut budgets = Budgets::new(evaluate::limit(&event));
        for entry in candidates.iter().filter_map(|id| self.filters.get(id)) {
            let owners = || entry.recipients.iter().map(&owner);
            let answer = budgets.allowance(owners()).and_then(|limit| {
                let (answer, visits) = entry.filter.matches_within(&event, limit);
                budgets.charge(owners(), visits);
                answer.map_err(|failure| budgets.name(failure, limit))
            });
            match answer {
                Ok(true) => entry.recipients.extend(&mut matched),
                Ok(false) => {}
                Err(failure) => {
                    failed.extend(entry.recipients.iter().map(|id| (id, failure)));
                }
            }
        }
        matched.sort_unstable();
        failed.sort_unstable_by_key(|(id, _)| *id);
        Ok(Matches { matched, failed })
    }

    /// Tells whether nothing at all is left in the index, for the tests of removal.
    #[cfg(test)]
    pub(super) fn is_bare(&self) -> bool {
        self.is_empty()
            && self.expressions.is_empty()
            && self.filters.is_empty()
            && self.scan.is_empty()
            && self.paths.is_empty()
    }

    /// Returns the filter of the same text and dialect.
    fn known(&self, filter: &Filter) -> Option<FilterId> {
        let is_same = |known: &Filter| known.dialect() == filter.dialect() && known.text() == filter.text();
        let mut alike = self.expressions.get(self.keys.text(filter.text()))?.iter();
        alike.find(|id| self.filters.get(id).is_some_and(|entry| is_same(&entry.filter)))
    }

    /// Files a filter that is not here yet, under the clause whose atoms the fewest others share.
    fn file(&mut self, filter: Arc<Filter>) -> FilterId {
        let id = FilterId(self.next);
        self.next += 1;
        let clauses = atoms::clauses(filter.query());
        // The first of the least: turned around, so that of equals the last condition wins, which people tend to
        // make the narrower one.
        let rarest = clauses.iter().enumerate().rev().min_by_key(|(_, clause)| self.cost(clause));
        match rarest {
            Some((_, clause)) => clause.atoms.iter().for_each(|atom| self.paths.file(&self.keys, atom, id)),
            None => self.scan.insert(id),
        }
        let clause = rarest.map(|(place, _)| place);
        self.expressions.entry(self.keys.text(filter.text())).insert(id);
        self.filters.insert(id, Arc::new(Entry { filter, clause, recipients: Set::default() }));
        id
    }

    fn unfile(&mut self, id: FilterId) {
        let Some(entry) = self.filters.remove(&id) else { return };
        match entry.clause() {
            Some(clause) => {
                clause
                    .atoms
                    .iter()
                    .for_each(|atom| self.paths.unfile(&self.keys, &atom.path, &atom.test, id));
            }
            None => self.scan.remove(id),
        }
        let key = self.keys.text(entry.filter.text());
        let Some(alike) = self.expressions.get_mut(key) else { return };
        alike.remove(id);
        if alike.is_empty() {
            self.expressions.remove(key);
        }
    }

    /// Returns how often a filter is likely to be tried when it is filed here, as a measure without a unit: what many
    /// filters ask for, many events have.
    fn cost(&self, clause: &Clause<'_>) -> usize {
        clause.atoms.iter().map(|atom| atom.test.weight() * (self.paths.filed(&self.keys, atom) + 1)).sum()
    }
}

impl Entry {
    fn clause(&self) -> Option<Clause<'_>> {
        atoms::clauses(self.filter.query()).into_iter().nth(self.clause?)
    }
}
