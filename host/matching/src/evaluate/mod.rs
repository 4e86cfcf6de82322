//! The one evaluator of both dialects, within a budget.
//!
//! It goes depth first and hands each node that it finds to a visitor, which may stop it at the first. No list of nodes
//! is built, so an evaluation costs time but no memory. Each visited node and each piece of a text is charged to the
//! budget; the evaluation ends when the budget is used up.

mod call;
mod compare;
mod condition;
mod memo;
mod select;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::ops::ControlFlow;

use super::document::{Cursor, Document};
use super::form::{Condition, Query, Segment, Selector, Start};
use memo::Memo;

/// What one filter may spend on any event.
const WORK_BASE: u64 = 100_000;
/// What it may spend besides for each node of the event.
const WORK_PER_NODE: u64 = 64;

/// Why an evaluation ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It has taken as much work as one filter may spend on this event.
    #[error("filter too expensive: one filter may visit {limit} nodes of this event")]
    TooExpensive {
        /// The most visits, by the event's size.
        limit: u64,
    },
    /// The evaluations of the same owner's filters have taken what they may take of this event together.
    #[error("filters too expensive: all filters of one user together may visit {limit} nodes of this event")]
    TooExpensiveTogether {
        /// The most visits, by the event's size.
        limit: u64,
    },
    /// A slice of step 0, which jsonpath2 takes for an error.
    #[error("a slice's step is 0")]
    ZeroStep,
}

/// Why a visit ends early.
pub(super) enum Stop {
    /// The caller needs no more nodes.
    Enough,
    Failed(Failure),
}

/// Continues with a value, or ends the visit.
type Flow<T = ()> = ControlFlow<Stop, T>;
type Visit<'v> = &'v mut dyn FnMut(Cursor<'_>) -> Flow;

/// Returns what one filter may spend on an event.
pub(super) fn limit(event: &Document<'_>) -> u64 {
    let nodes = u64::try_from(event.len()).unwrap_or(u64::MAX);
    WORK_BASE + WORK_PER_NODE.saturating_mul(nodes)
}

/// Tells whether a query finds anything, within `limit` visits; returns how many it has taken, too.
pub(super) fn matches(query: &Query, event: &Document<'_>, limit: u64) -> (Result<bool, Failure>, u64) {
    let evaluator = Evaluator::within(event, limit);
    let matches = match evaluator.each(query, event.root(), &mut |_| Flow::Break(Stop::Enough)) {
        Flow::Continue(()) => Ok(false),
        Flow::Break(Stop::Enough) => Ok(true),
        Flow::Break(Stop::Failed(failure)) => Err(failure),
    };
    (matches, limit - evaluator.left())
}

/// Visits all nodes that a query finds.
pub(super) fn find(
    query: &Query,
    event: &Document<'_>,
    visit: &mut dyn FnMut(Cursor<'_>),
) -> Result<(), Failure> {
    Evaluator::within(event, limit(event)).collect(query, event.root(), visit)
}

/// Evaluates one filter on one event.
pub(super) struct Evaluator<'e> {
    root: Cursor<'e>,
    limit: u64,
    left: Cell<u64>,
    memo: Memo,
}

impl<'e> Evaluator<'e> {
    /// Makes an evaluator that may spend `limit`.
    pub(super) fn within(event: &'e Document<'_>, limit: u64) -> Self {
        Self { root: event.root(), limit, left: Cell::new(limit), memo: Memo::default() }
    }

    /// Returns what is not spent yet.
    pub(super) fn left(&self) -> u64 {
        self.left.get()
    }

    /// Visits all nodes that a query finds from `current`.
    pub(super) fn collect(
        &self,
        query: &Query,
        current: Cursor<'_>,
        visit: &mut dyn FnMut(Cursor<'_>),
    ) -> Result<(), Failure> {
        let flow = self.each(query, current, &mut |node| {
            visit(node);
            Flow::Continue(())
        });
        match flow {
            Flow::Break(Stop::Failed(failure)) => Err(failure),
            Flow::Continue(()) | Flow::Break(Stop::Enough) => Ok(()),
        }
    }

    /// Tells whether a condition holds for a node.
    pub(super) fn passes(&self, condition: &Condition, node: Cursor<'_>) -> Result<bool, Failure> {
        match self.holds(condition, node) {
            Flow::Continue(holds) => Ok(holds),
            Flow::Break(Stop::Failed(failure)) => Err(failure),
            Flow::Break(Stop::Enough) => Ok(true),
        }
    }

    /// Visits the nodes that a query finds from `current`.
    fn each(&self, query: &Query, current: Cursor<'_>, visit: Visit<'_>) -> Flow {
        self.walk(&query.segments, self.start(query, current), visit)
    }

    #[inline]
    fn start<'c>(&self, query: &Query, current: Cursor<'c>) -> Cursor<'c>
    where
        'e: 'c,
    {
        match query.start {
            Start::Root => self.root,
            Start::Current => current,
        }
    }

    /// Visits the nodes at the end of the way along `segments` from `node`.
    pub(super) fn walk(&self, segments: &[Segment], node: Cursor<'_>, visit: Visit<'_>) -> Flow {
        let (mut segments, mut node) = (segments, node);
        // One name or index leads to one node: no visitor is needed.
        while let [Segment::Child(selectors), rest @ ..] = segments
            && let [selector @ (Selector::Name(_) | Selector::Index(_))] = &**selectors
        {
            match self.single(selector, node)? {
                Some(child) => node = child,
                None => return Flow::Continue(()),
            }
            segments = rest;
        }
        match segments {
            [] => visit(node),
            [Segment::Child(selectors), rest @ ..] => self.select_all(selectors, rest, node, visit),
            [Segment::Descendant(selectors), rest @ ..] => self.descend(selectors, rest, node, visit),
        }
    }

    fn select_all(
        &self,
        selectors: &[Selector],
        rest: &[Segment],
        node: Cursor<'_>,
        visit: Visit<'_>,
    ) -> Flow {
        for selector in selectors {
            match rest {
                [] => self.select(selector, node, visit)?,
                rest => self.select(selector, node, &mut |child| self.walk(rest, child, visit))?,
            }
        }
        Flow::Continue(())
    }

    /// RFC 9535 §2.5.2.2: the node itself, then what is below it, each node before its children.
    fn descend(&self, selectors: &[Selector], rest: &[Segment], node: Cursor<'_>, visit: Visit<'_>) -> Flow {
        self.spend(1)?;
        self.select_all(selectors, rest, node, visit)?;
        for child in node.children() {
            self.descend(selectors, rest, child, visit)?;
        }
        Flow::Continue(())
    }

    /// Charges visits to the budget.
    #[inline]
    fn spend(&self, visits: u64) -> Flow {
        match self.left.get().checked_sub(visits) {
            Some(left) => {
                self.left.set(left);
                Flow::Continue(())
            }
            None => Flow::Break(self.too_expensive()),
        }
    }

    fn too_expensive(&self) -> Stop {
        Stop::Failed(Failure::TooExpensive { limit: self.limit })
    }

    /// Charges for reading a whole text: 16 bytes count as one visit.
    #[inline]
    fn spend_text(&self, text: &str) -> Flow {
        self.spend(1)?;
        self.spend_bytes(text.len())
    }

    /// Charges for reading so many bytes of texts.
    #[inline]
    fn spend_bytes(&self, bytes: usize) -> Flow {
        self.spend(u64::try_from(bytes / 16).unwrap_or(u64::MAX))
    }
}
