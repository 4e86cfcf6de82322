//! Why a filter finds something in an event, or does not.
//!
//! The path is followed step by step, as far as anything is found. Where a step finds nothing, each condition of its
//! filters is tried for itself on every node that was tested, with the values that it looked at; where such a condition
//! is a path, that path is followed in the same way. Explanations are made on request, never while matching.

mod seen;
#[cfg(test)]
mod tests;

use std::cell::Cell;

use super::dialect::Dialect;
use super::document::{Cursor, Document};
use super::evaluate::{self, Evaluator, Failure};
use super::filter::Filter;
use super::form::{Condition as Form, Query, Segment, Selector};
use super::show::Shown;
use seen::Seen;

/// What a filter did with an event, step by step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Whether the filter finds anything; a failed evaluation finds nothing.
    pub matches: bool,
    /// What ended the evaluation early.
    pub failure: Option<Failure>,
    /// The path's steps, up to the first one that finds nothing; none where telling them would cost too much.
    pub steps: Vec<Step>,
}

/// One step of the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The path up to and with this step, in the filter's dialect.
    pub path: String,
    /// How many nodes it finds.
    pub found: usize,
    /// The conditions of the step's filters, where it finds nothing.
    pub conditions: Vec<Condition>,
}

/// One condition of a filter that nothing passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The condition, in the filter's dialect.
    pub text: String,
    /// How many nodes were tested.
    pub tested: usize,
    /// How many of them pass this condition for itself.
    pub passed: usize,
    /// Values that the condition looked at where it did not pass, as JSON, the longer ones cut, each once; `nothing`
    /// where a path found nothing.
    pub seen: Vec<String>,
    /// Why no value can pass: a pattern that is no regular expression.
    pub problem: Option<String>,
    /// Where the condition is a path that no node passes: its steps, for the node from which it leads the furthest.
    pub steps: Vec<Step>,
}

impl Explanation {
    /// Returns the whole in one sentence.
    pub fn reason(&self) -> String {
        if let Some(failure) = self.failure {
            return failure.to_string();
        }
        if self.matches {
            let found = self.steps.last().map(|step| count(step.found, "node"));
            return format!("the filter finds {}", found.as_deref().unwrap_or("something"));
        }
        reason(&self.steps)
    }
}

fn reason(steps: &[Step]) -> String {
    let Some((last, before)) = steps.split_last() else {
        return "the filter finds nothing, and to tell why would cost too much".to_owned();
    };
    let here = match before.last() {
        Some(step) => format!("`{}` finds {}, but ", step.path, count(step.found, "node")),
        None => String::new(),
    };
    let Some(first) = last.conditions.first() else { return format!("{here}`{}` finds nothing", last.path) };
    match last.conditions.iter().find(|condition| condition.passed == 0 && condition.tested > 0) {
        Some(condition) => {
            let nobody = match condition.tested {
                1 => "the tested node does not pass".to_owned(),
                tested => format!("none of the {tested} tested nodes passes"),
            };
            format!("{here}{nobody} `{}`{}", condition.text, why(condition))
        }
        None if first.tested == 0 => format!("{here}there is no node to test"),
        None => {
            let tested = count(first.tested, "tested node");
            format!("{here}of {tested} none passes all conditions, though each is passed by some")
        }
    }
}

fn why(condition: &Condition) -> String {
    if let Some(problem) = &condition.problem {
        return format!(": {problem}");
    }
    match (condition.steps.is_empty(), condition.seen.is_empty()) {
        (false, _) => format!(": {}", reason(&condition.steps)),
        (true, false) => format!(": it saw {}", condition.seen.join(", ")),
        (true, true) => String::new(),
    }
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Explains what a filter does with an event.
pub(super) fn explain(filter: &Filter, event: &Document<'_>) -> Explanation {
    let work = Cell::new(EFFORT * evaluate::limit(event));
    let explainer = Explainer { event, dialect: filter.dialect(), work };
    let matches = filter.matches(event);
    let steps = explainer.steps(filter.query(), event.root());
    Explanation { matches: matches == Ok(true), failure: matches.err(), steps: steps.unwrap_or_default() }
}

/// What following a path costs besides its visits: its text is written again.
const PATH_VISITS: u64 = 50;
/// How many nodes the path of a condition is followed from.
const FOLLOWED_MAX: usize = 100;
/// How many times the work of one evaluation an explanation may take.
const EFFORT: u64 = 4;

struct Explainer<'e> {
    event: &'e Document<'e>,
    dialect: Dialect,
    /// What is left to spend.
    work: Cell<u64>,
}

impl Explainer<'_> {
    /// Visits the nodes that a path finds.
    fn visit(
        &self,
        path: &Query,
        current: Cursor<'_>,
        visit: &mut dyn FnMut(Cursor<'_>),
    ) -> Result<(), Failure> {
        let evaluator = Evaluator::within(self.event, self.work.get().saturating_sub(PATH_VISITS));
        let visited = evaluator.collect(path, current, visit);
        self.work.set(self.work.get().min(evaluator.left()));
        visited
    }

    /// Follows a path from a node.
    fn steps(&self, query: &Query, current: Cursor<'_>) -> Result<Vec<Step>, Failure> {
        let mut steps = Vec::new();
        let prefix = |end: usize| Query { start: query.start, segments: query.segments[..end].into() };
        for end in query.segments.len().min(1)..=query.segments.len() {
            let path = prefix(end);
            let mut found = 0;
            self.visit(&path, current, &mut |_| found += 1)?;
            let path = Shown(&path, self.dialect).to_string();
            let conditions = match query.segments[..end].last() {
                Some(segment) if found == 0 => self.conditions(&prefix(end - 1), segment, current)?,
                _ => Vec::new(),
            };
            steps.push(Step { path, found, conditions });
            if found == 0 {
                break;
            }
        }
        Ok(steps)
    }

    /// Tries the conditions of a step's filters, each for itself, on all nodes that the step has tested.
    fn conditions(
        &self,
        before: &Query,
        segment: &Segment,
        current: Cursor<'_>,
    ) -> Result<Vec<Condition>, Failure> {
        let (Segment::Child(selectors) | Segment::Descendant(selectors)) = segment;
        let mut conditions = Vec::new();
        for selector in selectors {
            let (Selector::Filter(form) | Selector::This(form)) = selector else { continue };
            // The nodes that are tested, as a path of their own.
            let tested = match (segment, selector) {
                (Segment::Child(_), Selector::This(_)) => before.clone(),
                (Segment::Child(_), _) => extended(before, Segment::Child([Selector::Wildcard].into())),
                (Segment::Descendant(_), Selector::This(_)) => {
                    extended(before, Segment::Descendant([Selector::This(Form::Truth(true))].into()))
                }
                (Segment::Descendant(_), _) => {
                    extended(before, Segment::Descendant([Selector::Wildcard].into()))
                }
            };
            let parts = match form {
                Form::And(parts) => parts,
                single => std::slice::from_ref(single),
            };
            for part in parts {
                conditions.push(self.condition(&tested, part, current)?);
            }
        }
        Ok(conditions)
    }

    fn condition(&self, tested: &Query, form: &Form, current: Cursor<'_>) -> Result<Condition, Failure> {
        let text = Shown(form, self.dialect).to_string();
        let mut condition = Condition {
            text,
            tested: 0,
            passed: 0,
            seen: Vec::new(),
            problem: form.problem(),
            steps: Vec::new(),
        };
        let (evaluator, mut seen) = (Evaluator::within(self.event, self.work.get()), Seen::default());
        let (mut furthest, mut followed) = (Vec::new(), 0);
        let mut failure = None;
        self.visit(tested, current, &mut |node| {
            condition.tested += 1;
            match evaluator.passes(form, node) {
                Ok(true) => condition.passed += 1,
                Ok(false) => {
                    seen.look(&evaluator, form, node);
                    if let Form::Exists(query) = form
                        && followed < FOLLOWED_MAX
                    {
                        followed += 1;
                        let steps = self.steps(query, node).unwrap_or_default();
                        if reach(&steps) > reach(&furthest) {
                            furthest = steps;
                        }
                    }
                }
                Err(failed) => failure = Some(failed),
            }
        })?;
        self.work.set(self.work.get().min(evaluator.left()));
        if let Some(failure) = failure {
            return Err(failure);
        }
        condition.seen = seen.values();
        if condition.passed == 0 {
            condition.steps = furthest;
        }
        Ok(condition)
    }
}

/// Returns how far a path leads: its steps, and the nodes that its last one has tested.
fn reach(steps: &[Step]) -> (usize, usize) {
    let tested = steps.last().and_then(|step| step.conditions.iter().map(|condition| condition.tested).max());
    (steps.len(), tested.unwrap_or(0))
}

fn extended(query: &Query, segment: Segment) -> Query {
    let segments = query.segments.iter().cloned().chain([segment]).collect();
    Query { start: query.start, segments }
}
