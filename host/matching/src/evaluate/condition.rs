//! Whether a condition holds for a node.

use super::compare::Side;
use super::{Evaluator, Flow, Stop};
use crate::document::{Cursor, View};
use crate::form::{Condition, Match, Query, Start};
use crate::pattern::{Pattern, TooLarge};

/// What a pattern from the event costs: it may have to be compiled.
const PATTERN_VISITS: u64 = 1_000;

/// An answer, unless the evaluation ends.
pub(super) type Answer = Flow<bool>;

impl Evaluator<'_> {
    /// Tells whether a condition holds for `current`.
    pub(super) fn holds(&self, condition: &Condition, current: Cursor<'_>) -> Answer {
        match condition {
            Condition::And(parts) => {
                for part in parts {
                    if !self.holds(part, current)? {
                        return Answer::Continue(false);
                    }
                }
                Answer::Continue(true)
            }
            Condition::Or(parts) => {
                for part in parts {
                    if self.holds(part, current)? {
                        return Answer::Continue(true);
                    }
                }
                Answer::Continue(false)
            }
            Condition::Not(part) => Answer::Continue(!self.holds(part, current)?),
            Condition::Exists(query) => self.exists(query, current),
            Condition::Compare(comparison) => self.compares(comparison, current),
            Condition::Match(matching) => self.matching(matching, current),
            Condition::Truth(value) => Answer::Continue(*value),
        }
    }

    fn exists(&self, query: &Query, current: Cursor<'_>) -> Answer {
        // What starts at the event is the same for every node.
        if query.start == Start::Root && !query.is_singular() {
            return self.memo.exists(query, || self.finds_any(query, current));
        }
        self.finds_any(query, current)
    }

    fn finds_any(&self, query: &Query, current: Cursor<'_>) -> Answer {
        any(|found| {
            self.each(query, current, &mut |_| {
                *found = true;
                Flow::Break(Stop::Enough)
            })
        })
    }

    /// RFC 9535 §2.4.6 and §2.4.7: false unless both are strings.
    fn matching(&self, matching: &Match, current: Cursor<'_>) -> Answer {
        let Side::Seen(View::String(text)) = self.side(&matching.text, current)? else {
            return Answer::Continue(false);
        };
        self.spend_text(text)?;
        match &matching.pattern {
            Pattern::Fixed(fixed) => {
                Answer::Continue(fixed.compiled().is_some_and(|compiled| compiled.is_match(text)))
            }
            Pattern::Found { operand, extent } => {
                let Side::Seen(View::String(pattern)) = self.side(operand, current)? else {
                    return Answer::Continue(false);
                };
                self.spend(PATTERN_VISITS)?;
                match self.memo.regex(pattern, *extent) {
                    Ok(regex) => Answer::Continue(regex.is_some_and(|regex| regex.is_match(text))),
                    Err(TooLarge) => Answer::Break(self.too_expensive()),
                }
            }
        }
    }
}

/// Runs what notes an answer, and ends early when it has one.
pub(super) fn any(run: impl FnOnce(&mut bool) -> Flow) -> Answer {
    let mut found = false;
    match run(&mut found) {
        Flow::Continue(()) | Flow::Break(Stop::Enough) => Answer::Continue(found),
        Flow::Break(stop @ Stop::Failed(_)) => Answer::Break(stop),
    }
}
