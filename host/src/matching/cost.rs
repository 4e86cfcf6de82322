//! What a filter may cost the evaluator, read off its syntax tree.
//!
//! Small expressions can multiply: `..` under `..`, unions of unions, `$[*]` asked anew for every node, large regular
//! expressions. These limits keep the worst of that out, and with it two things that jsonpath-rust 1 evaluates
//! wrongly without a word. What they leave is a filter that takes seconds on a hostile event of 1 MB: an evaluation
//! has no budget of its own yet.

use std::collections::HashSet;

use jsonpath_rust::parser::model::{
    Comparable, Comparison, Filter, FilterAtom, FnArg, JpQuery, Literal, Segment, Selector, Test,
    TestFunction,
};

use super::error::FilterError;
use super::limits::Outside;

/// The most `..` in one filter, nested ones included. Two take a hostile event of 1 MB to 46 s and 5 GB (`$..*..*`).
const DESCENTS_MAX: usize = 1;
/// How often the unions along one path may select the same node: `[*,*][*,*]` doubles twice.
const REPEATS_MAX: usize = 8;
/// What one `..` counts as among the repeats, since an event's depth multiplies as well.
const DESCENT_REPEATS: usize = 4;
/// The largest compiled regular expression, in bytes: the evaluator compiles it anew for each node.
const REGEX_BYTES_MAX: usize = 512 * 1024;

/// Checks what the evaluator would have to multiply.
pub(super) fn check(text: &str, query: &JpQuery) -> Result<(), FilterError> {
    let mut cost = Cost::default();
    cost.path(&query.segments);
    let refuse = |at: Option<usize>, message: String| Err(FilterError::at(text, at.unwrap_or(0), message));
    if cost.descents > DESCENTS_MAX {
        let next = text.match_indices("..").nth(DESCENTS_MAX).map(|(at, _)| at);
        return refuse(next, format!("at most {DESCENTS_MAX} `..` in a filter, nested ones included"));
    }
    if cost.repeats > REPEATS_MAX {
        let message = "the unions along this path select the same nodes too often".to_owned();
        return refuse(text.find(','), message);
    }
    if cost.joins {
        let message =
            "inside `[?…]` a path from `$` may find one node at most: it is evaluated for every candidate";
        return refuse(text.rfind('$'), message.to_owned());
    }
    if cost.regex {
        let message = "a pattern has to be a string and not too large: it is compiled for every candidate";
        return refuse(text.find("match(").or_else(|| text.find("search(")), message.to_owned());
    }
    if cost.bare {
        let message = "`@[?…]`, a filter directly on `@`, cannot be evaluated; write `@.name[?…]`";
        return refuse(
            text.match_indices('@').map(|(at, _)| at).find(|at| begins_bare(&text[at + 1..])),
            message.to_owned(),
        );
    }
    if cost.infinite {
        let digits =
            |at: usize| text[at..].split(|c: char| !c.is_ascii_digit() && !"+-.eE".contains(c)).next();
        let infinite =
            |at: &usize| digits(*at).and_then(|text| text.parse().ok()).is_some_and(f64::is_infinite);
        let place = Outside::new(text).map(|(at, _)| at).find(infinite);
        return refuse(place, "this number is too large".to_owned());
    }
    Ok(())
}

/// Tells whether the path after an `@` begins with a filter.
fn begins_bare(path: &str) -> bool {
    path.trim_start().trim_start_matches("..").starts_with('[')
}

/// What a walk over the syntax tree counts; the tree's depth is bounded by the limits on the text.
#[derive(Default)]
struct Cost {
    descents: usize,
    repeats: usize,
    /// Whether a path inside a filter starts at `$` and may find many nodes, all of them anew for every candidate.
    joins: bool,
    /// Whether a path begins with `@[?…]`, where the evaluator takes the filter for a condition on `@` itself.
    bare: bool,
    /// Whether a regular expression is too large, or comes from the event and could be.
    regex: bool,
    /// Whether there is a number beyond an `f64`, which the evaluator takes for `null`.
    infinite: bool,
}

impl Cost {
    fn path(&mut self, segments: &[Segment]) {
        let repeats =
            segments.iter().fold(1, |repeats: usize, segment| repeats.saturating_mul(self.segment(segment)));
        self.repeats = self.repeats.max(repeats);
    }

    /// Returns how often the segment may select the same node.
    fn segment(&mut self, segment: &Segment) -> usize {
        match segment {
            Segment::Descendant(inner) => {
                self.descents += 1;
                DESCENT_REPEATS * self.segment(inner)
            }
            Segment::Selector(selector) => {
                self.selector(selector);
                1
            }
            Segment::Selectors(selectors) => {
                selectors.iter().for_each(|selector| self.selector(selector));
                let (names, others): (Vec<_>, Vec<_>) =
                    selectors.iter().partition(|selector| matches!(selector, Selector::Name(_)));
                let distinct: HashSet<_> = names.iter().map(ToString::to_string).collect();
                others.len() + names.len() - distinct.len() + usize::from(!names.is_empty())
            }
        }
    }

    fn selector(&mut self, selector: &Selector) {
        match selector {
            Selector::Filter(filter) => self.filter(filter),
            Selector::Name(_) | Selector::Wildcard | Selector::Index(_) | Selector::Slice(..) => {}
        }
    }

    fn filter(&mut self, filter: &Filter) {
        match filter {
            Filter::Or(parts) | Filter::And(parts) => parts.iter().for_each(|part| self.filter(part)),
            Filter::Atom(FilterAtom::Filter { expr, .. }) => self.filter(expr),
            Filter::Atom(FilterAtom::Test { expr, .. }) => self.test(expr),
            Filter::Atom(FilterAtom::Comparison(comparison)) => self.comparison(comparison),
        }
    }

    fn comparison(&mut self, comparison: &Comparison) {
        let (left, right) = comparison.vals();
        for side in [left, right] {
            match side {
                Comparable::Function(function) => self.function(function),
                // A singular query finds one node at most.
                Comparable::Literal(Literal::Float(number)) => self.infinite |= !number.is_finite(),
                Comparable::Literal(_) | Comparable::SingularQuery(_) => {}
            }
        }
    }

    fn test(&mut self, test: &Test) {
        match test {
            Test::RelQuery(segments) => {
                self.bare |= segments.first().is_some_and(filters);
                self.path(segments);
            }
            Test::AbsQuery(query) => {
                let singular = query.segments.iter().all(|segment| {
                    matches!(segment, Segment::Selector(Selector::Name(_) | Selector::Index(_)))
                });
                self.joins |= !singular;
                self.path(&query.segments);
            }
            Test::Function(function) => self.function(function),
        }
    }

    fn function(&mut self, function: &TestFunction) {
        match function {
            TestFunction::Custom(_, arguments) => {
                arguments.iter().for_each(|argument| self.argument(argument))
            }
            TestFunction::Length(argument) => self.argument(argument),
            TestFunction::Value(argument) | TestFunction::Count(argument) => self.argument(argument),
            TestFunction::Search(text, pattern) | TestFunction::Match(text, pattern) => {
                self.argument(text);
                self.argument(pattern);
                self.regex |=
                    !matches!(pattern, FnArg::Literal(Literal::String(pattern)) if is_small(pattern));
            }
        }
    }

    fn argument(&mut self, argument: &FnArg) {
        match argument {
            FnArg::Literal(_) => {}
            FnArg::Test(test) => self.test(test),
            FnArg::Filter(filter) => self.filter(filter),
        }
    }
}

/// Tells whether the segment has a filter among its selectors.
fn filters(segment: &Segment) -> bool {
    match segment {
        Segment::Descendant(inner) => filters(inner),
        Segment::Selector(selector) => matches!(selector, Selector::Filter(_)),
        Segment::Selectors(selectors) => {
            selectors.iter().any(|selector| matches!(selector, Selector::Filter(_)))
        }
    }
}

/// Tells whether the pattern compiles to few bytes; a malformed one, which matches nothing, does.
fn is_small(pattern: &str) -> bool {
    let built = regex::RegexBuilder::new(pattern).size_limit(REGEX_BYTES_MAX).build();
    !matches!(built, Err(regex::Error::CompiledTooBig(_)))
}
