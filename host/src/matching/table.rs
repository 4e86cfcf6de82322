//! A map that is small most of the time.

use std::borrow::Borrow;
use std::hash::Hash;

use imbl::{GenericHashMap, shared_ptr::DefaultSharedPtr};

/// A persistent hash map whose hasher is quick and seeded anew in each process.
pub(super) type Map<K, V> = GenericHashMap<K, V, foldhash::fast::RandomState, DefaultSharedPtr>;

/// Up to how many entries stand in one block: the smallest hash map takes as much as sixteen.
const FEW: usize = 4;

/// A persistent map.
#[derive(Clone, Debug)]
pub(super) enum Table<K, V> {
    Few(Vec<(K, V)>),
    /// Never emptied into `Few` again, until nothing is left.
    Many(Map<K, V>),
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl<K: Hash + Eq + Clone, V: Clone + Default> Table<K, V> {
    #[inline]
    pub(super) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        match self {
            Self::Few(few) => few.iter().find(|(known, _)| known.borrow() == key).map(|(_, value)| value),
            Self::Many(many) => many.get(key),
        }
    }

    pub(super) fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        match self {
            Self::Few(few) => {
                few.iter_mut().find(|(known, _)| (*known).borrow() == key).map(|(_, value)| value)
            }
            Self::Many(many) => many.get_mut(key),
        }
    }

    /// Returns the value of a key, a new one where it has none.
    pub(super) fn entry<Q: Hash + Eq + ?Sized>(&mut self, key: &Q, own: impl FnOnce() -> K) -> &mut V
    where
        K: Borrow<Q>,
    {
        if let Self::Few(few) = self
            && few.len() == FEW
            && !few.iter().any(|(known, _)| (*known).borrow() == key)
        {
            *self = Self::Many(few.drain(..).collect());
        }
        match self {
            Self::Few(few) => {
                let place = few.iter().position(|(known, _)| (*known).borrow() == key).unwrap_or(few.len());
                if place == few.len() {
                    few.reserve_exact(1);
                    few.push((own(), V::default()));
                }
                &mut few[place].1
            }
            Self::Many(many) => many.entry(own()).or_default(),
        }
    }

    pub(super) fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        match self {
            Self::Few(few) => few.retain(|(known, _)| known.borrow() != key),
            Self::Many(many) => {
                many.remove(key);
                if many.is_empty() {
                    *self = Self::default();
                }
            }
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Few(few) => few.is_empty(),
            Self::Many(many) => many.is_empty(),
        }
    }
}
