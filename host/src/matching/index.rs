//! All subscriptions' filters at once: from an event's bytes to the ids of those that match.

use std::sync::Arc;

use serde_json::Value;

use super::atoms::Atom;
use super::error::Error;
use super::filter::Filter;
use super::trie::{FilterId, Map, Node};
use super::walk::walk;
use crate::domain::ids::SubscriptionId;

/// The filters of all active subscriptions.
///
/// A clone shares its parts with the original, so that one who changes the index clones it, changes the clone and
/// swaps it in (`ArcSwap`), while others go on reading.
#[derive(Clone, Debug, Default)]
pub struct Index {
    subscriptions: Map<SubscriptionId, FilterId>,
    /// Equal texts are one filter, evaluated once.
    texts: Map<Arc<str>, FilterId>,
    filters: Map<FilterId, Arc<Entry>>,
    /// The filters that have an atom, by atom.
    paths: Node,
    /// The filters that have none: they are tried on every event.
    scan: Map<FilterId, ()>,
    next: u64,
}

/// A distinct filter and those who use it.
#[derive(Clone, Debug)]
struct Entry {
    filter: Arc<Filter>,
    /// Where it is filed.
    atom: Option<Atom>,
    subscriptions: Vec<SubscriptionId>,
}

impl Index {
    /// Adds a subscription, or gives it another filter.
    pub fn insert(&mut self, id: SubscriptionId, filter: Arc<Filter>) {
        self.remove(id);
        let known = self.texts.get(filter.text()).copied();
        let filter_id = known.unwrap_or_else(|| self.file(filter));
        if let Some(entry) = self.filters.get_mut(&filter_id) {
            Arc::make_mut(entry).subscriptions.push(id);
        }
        self.subscriptions.insert(id, filter_id);
    }

    /// Forgets a subscription; one that is not there is no mistake.
    pub fn remove(&mut self, id: SubscriptionId) {
        let Some(filter_id) = self.subscriptions.remove(&id) else { return };
        let Some(entry) = self.filters.get_mut(&filter_id) else { return };
        let entry = Arc::make_mut(entry);
        entry.subscriptions.retain(|other| *other != id);
        if entry.subscriptions.is_empty() {
            self.unfile(filter_id);
        }
    }

    /// Returns the number of subscriptions.
    pub fn len(&self) -> usize {
        self.subscriptions.len()
    }

    /// Tells whether there is no subscription.
    pub fn is_empty(&self) -> bool {
        self.subscriptions.is_empty()
    }

    /// Returns the subscriptions whose filters match, in the order of their ids.
    ///
    /// # Errors
    ///
    /// The bytes are not JSON. (Parts that no filter asks for are skipped and not checked in full.)
    pub fn matches(&self, event_json: &[u8]) -> Result<Vec<SubscriptionId>, Error> {
        let found = walk(&self.paths, event_json).map_err(|source| Error::Read { source })?;
        let locals = if found.duplicates { 0 } else { LOCALS_MAX };
        let mut event = Event { json: event_json, value: None, locals };
        let mut matching = Vec::new();
        let candidates = found.postings.iter().flat_map(|postings| postings.iter());
        for filter_id in candidates.chain(self.scan.keys()) {
            let Some(entry) = self.filters.get(filter_id) else { continue };
            let certain = entry.filter.plan().sufficient && !found.duplicates;
            if certain || event.passes(&entry.filter)? {
                matching.extend_from_slice(&entry.subscriptions);
            }
        }
        matching.sort_unstable();
        Ok(matching)
    }

    /// Tells whether nothing at all is left in the index, for the tests of removal.
    #[cfg(test)]
    pub(super) fn is_bare(&self) -> bool {
        self.is_empty()
            && self.texts.is_empty()
            && self.filters.is_empty()
            && self.scan.is_empty()
            && self.paths.is_empty()
    }

    /// Files a filter that is not here yet, under the atom that the fewest others share.
    fn file(&mut self, filter: Arc<Filter>) -> FilterId {
        let id = FilterId(self.next);
        self.next += 1;
        // The first of the least: turned around, so that of equals the last condition wins, which people tend to
        // make the narrower one.
        let atom = filter.plan().atoms.iter().rev().min_by_key(|atom| self.paths.filed(atom)).cloned();
        match &atom {
            Some(atom) => self.paths.file(atom, id),
            None => drop(self.scan.insert(id, ())),
        }
        self.texts.insert(Arc::from(filter.text()), id);
        self.filters.insert(id, Arc::new(Entry { filter, atom, subscriptions: Vec::new() }));
        id
    }

    fn unfile(&mut self, id: FilterId) {
        let Some(entry) = self.filters.remove(&id) else { return };
        match &entry.atom {
            Some(atom) => self.paths.unfile(&atom.path, &atom.test, id),
            None => drop(self.scan.remove(&id)),
        }
        self.texts.remove(entry.filter.text());
    }
}

/// How many filters may read an event's bytes for themselves, before parsing it once for all is cheaper.
const LOCALS_MAX: usize = 3;

/// An event that is parsed in full only when a filter has to be evaluated.
struct Event<'j> {
    json: &'j [u8],
    value: Option<Value>,
    /// How many more filters may read the bytes for themselves.
    locals: usize,
}

impl Event<'_> {
    fn passes(&mut self, filter: &Filter) -> Result<bool, Error> {
        if let Some(local) = filter.local().filter(|_| self.locals > 0 && self.value.is_none()) {
            self.locals -= 1;
            if let Some(passes) = local.matches(self.json).map_err(|source| Error::Read { source })? {
                return Ok(passes);
            }
        }
        Ok(filter.matches(self.value()?))
    }

    fn value(&mut self) -> Result<&Value, Error> {
        if self.value.is_none() {
            self.value = Some(serde_json::from_slice(self.json).map_err(|source| Error::Read { source })?);
        }
        Ok(self.value.get_or_insert_default())
    }
}
