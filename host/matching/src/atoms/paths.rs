//! Where a path leads, and what must hold along it.

use super::{Atom, Clause, Step, Test, conditions, either};
use crate::form::{Query, Segment, Selector, Start};

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PathPosition<'f> {
    At(Vec<Step<'f>>),
    /// At any depth, or not in the event at all.
    Unknown,
}

impl<'f> PathPosition<'f> {
    pub(super) fn root() -> Self {
        Self::At(Vec::new())
    }

    fn step(&self, step: Step<'f>) -> Self {
        match self {
            Self::At(path) => Self::At(path.iter().copied().chain([step]).collect()),
            Self::Unknown => Self::Unknown,
        }
    }

    /// Adds that a value here passes one of the tests.
    pub(super) fn passes(&self, tests: impl IntoIterator<Item = Test<'f>>, clauses: &mut Vec<Clause<'f>>) {
        if let Self::At(path) = self {
            let atoms: Vec<_> = tests.into_iter().map(|test| Atom::new(path, test)).collect();
            clauses.extend(Clause::union(atoms.iter()));
        }
    }

    /// Adds that there is a value here.
    fn exists(&self, clauses: &mut Vec<Clause<'f>>) {
        if *self != Self::root() {
            self.passes([Test::Exists], clauses);
        }
    }
}

/// Adds what holds if the query finds a value, and returns where that is.
pub(super) fn follow<'f>(
    query: &'f Query,
    current: &PathPosition<'f>,
    clauses: &mut Vec<Clause<'f>>,
) -> PathPosition<'f> {
    walk(query.start, &query.segments, current, clauses)
}

/// The same for a part of a query.
pub(super) fn walk<'f>(
    start: Start,
    segments: &'f [Segment],
    current: &PathPosition<'f>,
    clauses: &mut Vec<Clause<'f>>,
) -> PathPosition<'f> {
    let mut here = match start {
        Start::Root => PathPosition::root(),
        Start::Current => current.clone(),
    };
    for segment in segments {
        here = match segment {
            Segment::Child(selectors) => child(&here, selectors, clauses),
            // Only the path up to here is known, and the conditions about the event itself.
            Segment::Descendant(selectors) => {
                here.exists(clauses);
                child(&PathPosition::Unknown, selectors, clauses)
            }
        };
    }
    here.exists(clauses);
    here
}

fn child<'f>(
    here: &PathPosition<'f>,
    selectors: &'f [Selector],
    clauses: &mut Vec<Clause<'f>>,
) -> PathPosition<'f> {
    if let [only] = selectors {
        return select(here, only, clauses);
    }
    let (mut places, mut branches) = (Vec::new(), Vec::new());
    for selector in selectors {
        let mut branch = Vec::new();
        let place = select(here, selector, &mut branch);
        place.exists(&mut branch);
        branches.push(branch);
        places.push(place);
    }
    either(branches, clauses);
    let stays = |selector: &Selector| match selector {
        Selector::This(_) => true,
        Selector::Name(_)
        | Selector::Index(_)
        | Selector::Wildcard
        | Selector::Slice(_)
        | Selector::Range(_)
        | Selector::Filter(_)
        | Selector::Subscript(_)
        | Selector::Call(_) => false,
    };
    match places.split_first() {
        Some((first, others)) if others.iter().all(|place| place == first) => first.clone(),
        Some(_) if !places.contains(&PathPosition::Unknown) && !selectors.iter().any(stays) => {
            here.step(Step::Any)
        }
        Some(_) | None => {
            here.exists(clauses);
            PathPosition::Unknown
        }
    }
}

fn select<'f>(
    here: &PathPosition<'f>,
    selector: &'f Selector,
    clauses: &mut Vec<Clause<'f>>,
) -> PathPosition<'f> {
    match selector {
        Selector::Name(name) => here.step(Step::Name(name)),
        // Some child, but not each.
        Selector::Index(_) | Selector::Slice(_) | Selector::Range(_) | Selector::Wildcard => {
            here.step(Step::Any)
        }
        Selector::Filter(condition) => {
            let child = here.step(Step::Any);
            conditions::read(&child, condition, clauses);
            child
        }
        Selector::This(condition) => {
            conditions::read(here, condition, clauses);
            here.clone()
        }
        Selector::Subscript(query) => {
            follow(query, here, clauses);
            here.step(Step::Any)
        }
        // What it gives is not in the event; it gives something only where there is a value.
        Selector::Call(_) => {
            here.exists(clauses);
            PathPosition::Unknown
        }
    }
}
