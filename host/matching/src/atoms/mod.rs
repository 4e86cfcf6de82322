//! What has to stand in an event for a filter to find anything: its necessary atoms.
//!
//! An atom says "some value at this path passes this test". A clause is a union of atoms of which at least one holds
//! in every event that the filter matches; `and` gives several clauses, `or` the union of one of each branch.
//! `paths` reads a path's steps, `conditions` what stands in its filters, for both dialects; `prefixes` finds what a
//! text begins with that a regular expression matches.

mod conditions;
mod describe;
mod paths;
mod prefixes;

use std::borrow::Cow;

use super::form::Query;
use super::number::Number;
use paths::PathPosition;

/// The longest path of an atom. A longer one is cut to the existence of its beginning. A path costs a node of the trie
/// for each step, and long paths are rare.
const STEPS_MAX: usize = 16;
/// How many steps of a path are "any child": a value can be met along each mixture of names and these.
const ANYS_MAX: usize = 4;
/// The longest prefix that is told apart, in bytes: each length in use costs a look-up for each text.
const PREFIX_BYTES_MAX: usize = 32;
/// The most atoms in a clause.
const ATOMS_MAX: usize = 64;
/// How many unions are made of the branches of one `or`.
const UNIONS_MAX: usize = 4;

/// One step from a value to its children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step<'f> {
    /// The object's member of this name.
    Name(&'f str),
    /// Each element of the array, each member of the object.
    Any,
}

/// What an atom asks of the values at its path: that one of them passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Test<'f> {
    Exists,
    String(Cow<'f, str>),
    /// A string that begins so; never empty.
    Prefix(Cow<'f, str>),
    Number(Number),
    /// A number on one side of this one.
    Beyond(Side, Bound),
    Bool(bool),
    Null,
}

/// Where a range of numbers lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Above,
    Below,
}

/// The end of a range of numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) number: Number,
    /// Whether the number itself is within the range.
    pub(super) inclusive: bool,
}

/// "Some value at `path` passes `test`."
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Atom<'f> {
    pub(super) path: Vec<Step<'f>>,
    pub(super) test: Test<'f>,
}

/// Atoms of which one holds in every event that matches; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Clause<'f> {
    pub(super) atoms: Vec<Atom<'f>>,
}

/// Returns all that is known of the events which a filter matches. The same filter gives the same clauses in the same
/// order at any time; there are none where nothing can be said.
pub(super) fn clauses(query: &Query) -> Vec<Clause<'_>> {
    let mut clauses = Vec::new();
    paths::follow(query, &PathPosition::root(), &mut clauses);
    clauses
}

impl Test<'_> {
    /// Returns how much more often the test is likely to pass than an equality that as many filters share.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::String(_) | Self::Number(_) => 1,
            Self::Prefix(_) => 8,
            Self::Bool(_) | Self::Null => 16,
            Self::Beyond(..) => 64,
            Self::Exists => 1024,
        }
    }

    fn bounded(mut self) -> Self {
        if let Self::Prefix(prefix) = &mut self
            && prefix.len() > PREFIX_BYTES_MAX
        {
            let end = prefix.floor_char_boundary(PREFIX_BYTES_MAX);
            match prefix {
                Cow::Borrowed(text) => *text = &text[..end],
                Cow::Owned(text) => text.truncate(end),
            }
        }
        self
    }
}

impl<'f> Atom<'f> {
    /// Makes an atom, or a weaker one that keeps to the limits.
    fn new(path: &[Step<'f>], test: Test<'f>) -> Self {
        let mut anys = 0;
        let beyond = |(place, step): (usize, &Step<'_>)| {
            anys += usize::from(*step == Step::Any);
            place == STEPS_MAX || anys > ANYS_MAX
        };
        match path.iter().enumerate().position(beyond) {
            Some(end) => Self { path: path[..end].to_vec(), test: Test::Exists },
            None => Self { path: path.to_vec(), test: test.bounded() },
        }
    }
}

impl<'f> Clause<'f> {
    fn weight(&self) -> usize {
        self.atoms.iter().map(|atom| atom.test.weight()).sum()
    }

    /// Makes a clause of atoms of which one holds; `None` where there is none, or where they are too many even when
    /// they say only that the paths exist.
    fn union<'a>(atoms: impl Iterator<Item = &'a Atom<'f>>) -> Option<Self>
    where
        'f: 'a,
    {
        let mut union = Self { atoms: Vec::new() };
        for atom in atoms {
            let weaker = Atom { path: atom.path.clone(), test: Test::Exists };
            if union.atoms.contains(atom) || union.atoms.contains(&weaker) {
                continue;
            }
            union.atoms.push(atom.clone());
            if union.atoms.len() > ATOMS_MAX {
                union.weaken();
            }
            if union.atoms.len() > ATOMS_MAX {
                return None;
            }
        }
        (!union.atoms.is_empty()).then_some(union)
    }

    /// Keeps the paths only.
    fn weaken(&mut self) {
        let atoms = std::mem::take(&mut self.atoms);
        for Atom { path, .. } in atoms {
            let weaker = Atom { path, test: Test::Exists };
            if !self.atoms.contains(&weaker) {
                self.atoms.push(weaker);
            }
        }
    }
}

/// Adds what is known when one of several things holds, of each of which something is known.
fn either<'f>(mut branches: Vec<Vec<Clause<'f>>>, clauses: &mut Vec<Clause<'f>>) {
    for branch in &mut branches {
        branch.reverse();
        branch.sort_by_key(Clause::weight);
    }
    let ranks = branches.iter().map(Vec::len).max().unwrap_or_default().min(UNIONS_MAX);
    // The best union comes last: of equals, the last clause is taken.
    for rank in (0..ranks).rev() {
        let chosen = branches.iter().map(|branch| branch.get(rank).or(branch.last()));
        if let Some(chosen) = chosen.collect::<Option<Vec<_>>>() {
            let union = Clause::union(chosen.iter().flat_map(|clause| &clause.atoms));
            clauses.extend(union.filter(|union| !clauses.contains(union)));
        }
    }
}

#[cfg(test)]
mod tests;
