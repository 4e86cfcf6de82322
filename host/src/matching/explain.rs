//! Why a filter finds something in an event, or does not.

use super::document::Document;
use super::evaluate::Failure;
use super::filter::Filter;

/// What a filter did with an event, step by step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Whether the filter finds anything; a failed evaluation finds nothing.
    pub matches: bool,
    /// What ended the evaluation early.
    pub failure: Option<Failure>,
    /// The path's steps, up to the first one that finds nothing.
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
    /// Values that the condition looked at, as JSON, the longer ones cut, each once.
    pub seen: Vec<String>,
}

impl Explanation {
    /// Returns the whole in one sentence.
    pub fn reason(&self) -> String {
        String::new()
    }
}

pub(super) fn explain(_filter: &Filter, _event: &Document<'_>) -> Explanation {
    Explanation { matches: false, failure: None, steps: Vec::new() }
}
