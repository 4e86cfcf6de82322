//! A set that is small most of the time.

use imbl::OrdSet;

/// Up to how many elements stand in one block, which is copied when it is shared.
const FEW: usize = 32;

/// A persistent set: it costs nothing but its own bytes with one element, and a change of a large one that others
/// hold too copies little.
#[derive(Clone, Debug)]
pub(super) enum Set<T: Ord + Clone> {
    One(T),
    Few(Vec<T>),
    Many(OrdSet<T>),
}

impl<T: Ord + Copy> Default for Set<T> {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl<T: Ord + Copy> Set<T> {
    /// Adds an element that is not there.
    pub(super) fn insert(&mut self, element: T) {
        match self {
            Self::One(first) => *self = Self::Few(vec![*first, element]),
            Self::Few(few) if few.is_empty() => *self = Self::One(element),
            Self::Few(few) if few.len() < FEW => few.push(element),
            Self::Few(few) => *self = Self::Many(few.iter().copied().chain([element]).collect()),
            Self::Many(many) => drop(many.insert(element)),
        }
    }

    /// Takes an element away.
    pub(super) fn remove(&mut self, element: T) {
        match self {
            Self::One(only) if *only == element => *self = Self::default(),
            Self::One(_) => {}
            Self::Few(few) => few.retain(|other| *other != element),
            Self::Many(many) => {
                many.remove(&element);
                // Well below the limit, so that a set does not keep switching between the two forms.
                if many.len() <= FEW / 2 {
                    *self = Self::Few(many.iter().copied().collect());
                }
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Few(few) => few.len(),
            Self::Many(many) => many.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns all elements, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = T> {
        let (few, many) = match self {
            Self::One(only) => (std::slice::from_ref(only), None),
            Self::Few(few) => (few.as_slice(), None),
            Self::Many(many) => (&[][..], Some(many)),
        };
        few.iter().chain(many.into_iter().flatten()).copied()
    }

    /// Appends all elements, in no order.
    pub(super) fn extend(&self, into: &mut Vec<T>) {
        match self {
            Self::One(only) => into.push(*only),
            Self::Few(few) => into.extend_from_slice(few),
            Self::Many(many) => into.extend(many),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_its_elements_at_every_size() {
        let mut set = Set::default();
        for size in 0..100 {
            assert_eq!(set.len(), size);
            set.insert(size);
        }
        let all = set.clone();
        for gone in 0..100 {
            let mut left = Vec::new();
            set.extend(&mut left);
            assert!(set.iter().eq(left.iter().copied()));
            left.sort_unstable();
            assert_eq!(left, (gone..100).collect::<Vec<_>>());
            set.remove(gone);
            set.remove(gone);
        }
        assert!(set.is_empty());
        assert_eq!(all.len(), 100);
    }
}
