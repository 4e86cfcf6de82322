//! What a filter may cost before it is even tried: checks on its text and on its syntax tree.
//!
//! Parsers and evaluators of JSONPath blow up on small texts: on nesting (the parser's stack and backtracking), on
//! `..` under `..`, on unions of unions and on `$[*]` asked anew for every node (the evaluator's time and memory).
//! These limits keep the worst of that out, and so are the few things that jsonpath-rust 1 reads or evaluates wrongly
//! without a word. What they leave is a filter that is slow on a large, hostile event: an
//! evaluation has no budget of its own yet.

use std::collections::HashSet;

use jsonpath_rust::parser::model::{
    Comparable, Comparison, Filter, FilterAtom, FnArg, JpQuery, Literal, Segment, Selector, Test,
    TestFunction,
};

use super::error::FilterError;

/// The longest text of a filter, in bytes.
const TEXT_BYTES_MAX: usize = 4096;
/// The deepest nesting of brackets and parentheses.
const NESTING_MAX: usize = 32;
/// The deepest nesting of function calls: the grammar reads a call's argument twice, at each level anew.
const CALLS_NESTING_MAX: usize = 4;
/// The most `..` in one filter, nested ones included. Two take a hostile event of 1 MB to 46 s and 5 GB (`$..*..*`).
const DESCENTS_MAX: usize = 1;
/// How often the unions along one path may select the same node: `[*,*][*,*]` doubles twice.
const REPEATS_MAX: usize = 8;
/// What one `..` counts as among the repeats, since an event's depth multiplies as well.
const DESCENT_REPEATS: usize = 4;

/// The characters of a filter outside its string literals, with their byte positions; quotes are left out too.
pub(super) struct Outside<'t> {
    chars: std::str::CharIndices<'t>,
    /// Where the string begins that the text ends in, once the iterator is at its end.
    pub(super) unclosed: Option<usize>,
}

impl<'t> Outside<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { chars: text.char_indices(), unclosed: None }
    }
}

impl Iterator for Outside<'_> {
    type Item = (usize, char);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (at, c) = self.chars.next()?;
            if c != '\'' && c != '"' {
                return Some((at, c));
            }
            self.unclosed = Some(at);
            while let Some((_, inner)) = self.chars.next() {
                if inner == c {
                    self.unclosed = None;
                    break;
                }
                if inner == '\\' {
                    self.chars.next();
                }
            }
        }
    }
}

/// Checks the text's length and nesting in one pass, before any parser sees it.
pub(super) fn check_text(text: &str) -> Result<(), FilterError> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("a filter has at most {TEXT_BYTES_MAX} bytes, this one has {}", text.len());
        return Err(FilterError::at(text, TEXT_BYTES_MAX, message));
    }
    // For every open bracket: whether it is a function's.
    let mut open = Vec::new();
    let mut before = ' ';
    for (at, c) in Outside::new(text) {
        match c {
            '(' | '[' => {
                open.push(c == '(' && (before.is_alphanumeric() || before == '_'));
                if open.len() > NESTING_MAX {
                    let message = format!("brackets nest at most {NESTING_MAX} deep");
                    return Err(FilterError::at(text, at, message));
                }
                if open.iter().filter(|call| **call).count() > CALLS_NESTING_MAX {
                    let message = format!("function calls nest at most {CALLS_NESTING_MAX} deep");
                    return Err(FilterError::at(text, at, message));
                }
            }
            ')' | ']' => drop(open.pop()),
            _ => {}
        }
        before = c;
    }
    Ok(())
}

/// Checks what the evaluator would have to multiply.
pub(super) fn check_query(text: &str, query: &JpQuery) -> Result<(), FilterError> {
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
    check_spaces(text)
}

/// Tells whether the path after an `@` begins with a filter.
fn begins_bare(path: &str) -> bool {
    path.trim_start().trim_start_matches("..").starts_with('[')
}

/// Refuses a space within a name: the grammar reads `$.a b` as the member `a b`.
fn check_spaces(text: &str) -> Result<(), FilterError> {
    let (mut before, mut spaced) = (None, false);
    for (at, c) in Outside::new(text) {
        let adjacent = before == Some(at);
        let named = c.is_alphanumeric() || c == '_' || !c.is_ascii();
        if named && spaced && adjacent {
            return Err(FilterError::at(text, at, "expected an operator, `.name`, `[…]` or the end"));
        }
        spaced = c.is_ascii_whitespace() && adjacent;
        before = (named || spaced).then(|| at + c.len_utf8());
    }
    Ok(())
}

/// What a walk over the syntax tree counts; the tree's depth is bounded by [`NESTING_MAX`].
#[derive(Default)]
struct Cost {
    descents: usize,
    repeats: usize,
    /// Whether a path inside a filter starts at `$` and may find many nodes, all of them anew for every candidate.
    joins: bool,
    /// Whether a path begins with `@[?…]`, where the evaluator takes the filter for a condition on `@` itself.
    bare: bool,
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
            TestFunction::Search(left, right) | TestFunction::Match(left, right) => {
                self.argument(left);
                self.argument(right);
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
