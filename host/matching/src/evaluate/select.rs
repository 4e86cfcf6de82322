//! What a selector chooses.

use super::{Evaluator, Flow, Stop, Visit};
use crate::document::{Cursor, View};
use crate::evaluate::Failure;
use crate::form::{Selector, Slice};

impl Evaluator<'_> {
    /// Visits the nodes that a selector chooses from `node`.
    pub(super) fn select(&self, selector: &Selector, node: Cursor<'_>, visit: Visit<'_>) -> Flow {
        match selector {
            Selector::Name(_) | Selector::Index(_) => match self.single(selector, node)? {
                Some(child) => visit(child),
                None => Flow::Continue(()),
            },
            Selector::Wildcard => {
                self.spend(u64::from(node.len()) + 1)?;
                node.children().try_for_each(visit)
            }
            Selector::Slice(slice) => self.slice(**slice, node, visit),
            Selector::Range(slice) => self.range(**slice, node, visit),
            Selector::Filter(condition) => {
                self.spend(u64::from(node.len()) + 1)?;
                for child in node.children() {
                    if self.holds(condition, child)? {
                        visit(child)?;
                    }
                }
                Flow::Continue(())
            }
            Selector::This(condition) => match self.holds(condition, node)? {
                true => visit(node),
                false => Flow::Continue(()),
            },
            Selector::Subscript(query) => {
                self.each(query, node, &mut |subscript| match self.addressed(subscript, node)? {
                    Some(child) => visit(child),
                    None => Flow::Continue(()),
                })
            }
            Selector::Call(call) => self.call(call, node, visit),
        }
    }

    /// Returns what a name or an index chooses; nothing for other selectors.
    #[inline]
    pub(super) fn single<'c>(&self, selector: &Selector, node: Cursor<'c>) -> Flow<Option<Cursor<'c>>> {
        let child = match selector {
            Selector::Name(name) => {
                self.spend(u64::from(node.len() / 8) + 1)?;
                node.member(name)
            }
            Selector::Index(index) => self.element(node, *index)?,
            Selector::Wildcard
            | Selector::Slice(_)
            | Selector::Range(_)
            | Selector::Filter(_)
            | Selector::This(_)
            | Selector::Subscript(_)
            | Selector::Call(_) => None,
        };
        Flow::Continue(child)
    }

    fn element<'c>(&self, node: Cursor<'c>, index: i64) -> Flow<Option<Cursor<'c>>> {
        // Elements before it are passed by.
        self.spend(u64::from(node.len() / 8) + 1)?;
        Flow::Continue(node.element(index))
    }

    /// Returns what a jsonpath2 subscript's value addresses in `node`.
    fn addressed<'c>(&self, subscript: Cursor<'_>, node: Cursor<'c>) -> Flow<Option<Cursor<'c>>> {
        match subscript.view() {
            View::String(name) => {
                self.spend(u64::from(node.len() / 8))?;
                self.spend_text(name)?;
                Flow::Continue(node.member(name))
            }
            View::Number(number) => match number.as_index() {
                Some(index) => self.element(node, index),
                None => Flow::Continue(None),
            },
            View::Bool(value) => self.element(node, i64::from(value)),
            View::Null | View::Array(_) | View::Object(_) => Flow::Continue(None),
        }
    }

    /// RFC 9535 §2.3.4.2.2.
    fn slice(&self, slice: Slice, node: Cursor<'_>, visit: Visit<'_>) -> Flow {
        let View::Array(array) = node.view() else { return Flow::Continue(()) };
        let len = i64::from(array.len());
        let step = slice.step.unwrap_or(1);
        let normal = |index: i64| if index >= 0 { index } else { len.saturating_add(index) };
        let (start, end) = match step {
            0 => return Flow::Continue(()),
            1.. => (slice.start.map_or(0, normal).clamp(0, len), slice.end.map_or(len, normal).clamp(0, len)),
            ..0 => (
                slice.start.map_or(len - 1, normal).clamp(-1, len - 1),
                slice.end.map_or(-1, normal).clamp(-1, len - 1),
            ),
        };
        self.elements(array, start, end, step, visit)
    }

    /// jsonpath2's slice. Its indices may be negative, and count from the array's end then.
    fn range(&self, slice: Slice, node: Cursor<'_>, visit: Visit<'_>) -> Flow {
        let View::Array(array) = node.view() else { return Flow::Continue(()) };
        let len = i64::from(array.len());
        let start = match slice.start {
            None => 0,
            Some(start) if start >= 0 => start,
            Some(start) => start.saturating_add(len).max(0),
        };
        let end = match slice.end {
            None => len,
            Some(end) if end >= 0 => end,
            Some(end) => end.saturating_add(len),
        };
        match slice.step.unwrap_or(1) {
            0 => Flow::Break(Stop::Failed(Failure::ZeroStep)),
            step @ 1.. => self.elements(array, start, end.min(len), step, visit),
            step @ ..0 => {
                // To the first index of the row that is within the array.
                let beyond = start.saturating_sub(len - 1).max(0).unsigned_abs();
                let skipped = i64::try_from(beyond.div_ceil(step.unsigned_abs())).unwrap_or(i64::MAX);
                let start = start.saturating_add(skipped.saturating_mul(step));
                self.elements(array, start, end.max(-len - 1), step, visit)
            }
        }
    }

    /// Visits the elements at `start`, `start + step`, … before `end`.
    fn elements(&self, array: Cursor<'_>, start: i64, end: i64, step: i64, visit: Visit<'_>) -> Flow {
        self.spend(1)?;
        if step > 0 {
            let (Ok(start), Ok(end)) = (usize::try_from(start), usize::try_from(end)) else {
                return Flow::Continue(());
            };
            self.spend(u64::from(array.len() / 8))?;
            let step = usize::try_from(step).unwrap_or(usize::MAX);
            let chosen = array.children().take(end).skip(start).step_by(step);
            for element in chosen {
                self.spend(1)?;
                visit(element)?;
            }
            return Flow::Continue(());
        }
        if start <= end {
            return Flow::Continue(());
        }
        let elements: Vec<_> = array.children().collect();
        self.spend(u64::from(array.len()))?;
        let mut index = start;
        while index > end {
            let place = if index < 0 { index + i64::from(array.len()) } else { index };
            if let Some(element) = usize::try_from(place).ok().and_then(|place| elements.get(place)) {
                self.spend(1)?;
                visit(*element)?;
            }
            index = index.saturating_add(step);
        }
        Flow::Continue(())
    }
}
