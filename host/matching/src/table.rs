//! A map from names and values to what is filed under them, by their hashes alone.
//!
//! The keys themselves are not kept: where two have the same hash, an event that has the one finds what is filed
//! under the other, too, and the evaluation of the filter tells. That makes an entry a few dozen bytes, whatever its
//! key, in a map which a change copies little of.

use std::hash::BuildHasher;

use imbl::OrdMap;

use super::number::Number;

/// Up to how many entries stand in one block, which is as small as they are.
const FEW: usize = 4;

/// The hash of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(u64);

/// Makes keys. They are seeded in each process, so that names cannot be chosen to collide.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys(foldhash::quality::RandomState);

impl Keys {
    /// Returns the key of a member's name, or of a text among values.
    #[inline]
    pub(super) fn text(&self, text: &str) -> Key {
        Key(self.0.hash_one(text))
    }

    /// Returns the key of a number among values: the same for equal ones.
    #[inline]
    pub(super) fn number(&self, number: &Number) -> Key {
        Key(self.0.hash_one(number))
    }
}

/// A persistent map.
#[derive(Clone, Debug)]
pub(super) enum Table<V> {
    Few(Vec<(Key, V)>),
    /// Never emptied into `Few` again, until nothing is left.
    Many(OrdMap<Key, V>),
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl<V: Clone + Default> Table<V> {
    #[inline]
    pub(super) fn get(&self, key: Key) -> Option<&V> {
        match self {
            Self::Few(few) => few.iter().find(|(known, _)| *known == key).map(|(_, value)| value),
            Self::Many(many) => many.get(&key),
        }
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut V> {
        match self {
            Self::Few(few) => few.iter_mut().find(|(known, _)| *known == key).map(|(_, value)| value),
            Self::Many(many) => many.get_mut(&key),
        }
    }

    /// Returns the value of a key, a new one where it has none.
    pub(super) fn entry(&mut self, key: Key) -> &mut V {
        if let Self::Few(few) = self
            && few.len() == FEW
            && !few.iter().any(|(known, _)| *known == key)
        {
            *self = Self::Many(few.drain(..).collect());
        }
        match self {
            Self::Few(few) => {
                let place = few.iter().position(|(known, _)| *known == key).unwrap_or(few.len());
                if place == few.len() {
                    few.reserve_exact(1);
                    few.push((key, V::default()));
                }
                &mut few[place].1
            }
            Self::Many(many) => many.entry(key).or_default(),
        }
    }

    pub(super) fn remove(&mut self, key: Key) {
        match self {
            Self::Few(few) => few.retain(|(known, _)| *known != key),
            Self::Many(many) => {
                many.remove(&key);
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
