//! The one internal form that filters of both dialects compile to.
//!
//! It says what to do, not how it was written: where the dialects differ, they compile to different variants
//! (`Filter` and `This`, `Slice` and `Range`), or to a comparison that carries its [`Rule`].

use std::sync::Arc;

use super::document::Document;
use super::number::Number;
use super::pattern::Pattern;

/// A path: where it starts, and the way on.
#[derive(Clone, Debug)]
pub(super) struct Query {
    pub(super) start: Start,
    pub(super) segments: Box<[Segment]>,
}

impl Query {
    /// Tells whether the path finds one node at most by its form: each step is a name or an index.
    pub(super) fn is_singular(&self) -> bool {
        let is_single = |segment: &Segment| match segment {
            Segment::Child(selectors) => matches!(**selectors, [Selector::Name(_) | Selector::Index(_)]),
            Segment::Descendant(_) => false,
        };
        self.segments.iter().all(is_single)
    }
}

/// Where a path starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// `$`, the event.
    Root,
    /// `@`, the node that is being tested; within a jsonpath2 subscript the node that is being subscripted.
    Current,
}

/// One step of a path: from each node to those that any of the selectors chooses, in the selectors' order.
#[derive(Clone, Debug)]
pub(super) enum Segment {
    /// `[…]` or `.name`: from the node itself.
    Child(Box<[Selector]>),
    /// `..[…]`: from the node and all nodes below it, each before its children.
    Descendant(Box<[Selector]>),
}

/// What a segment chooses.
#[derive(Clone, Debug)]
pub(super) enum Selector {
    /// The object's member of this name.
    Name(Box<str>),
    /// The array's element; from its end when negative.
    Index(i64),
    /// All children.
    Wildcard,
    /// RFC 9535 §2.3.4.
    Slice(Box<Slice>),
    /// jsonpath2's slice: Python's `range(start or 0, end or length, step or 1)`, after a negative `start` has been
    /// counted from the end of the array (and is at least 0 then), and a negative `end` too (which may stay negative).
    /// The range's numbers are indices, so that a negative one counts from the end again: of ten elements, `[:-12:-1]`
    /// finds the first and the last. A step of 0 is an error, where the value is an array.
    Range(Box<Slice>),
    /// RFC 9535's `?…`: the children that pass.
    Filter(Condition),
    /// jsonpath2's `?(…)`: the node itself, if it passes.
    This(Condition),
    /// jsonpath2's path as a subscript: for each node found, an integer is an index (`true` is 1, `false` 0) and a
    /// string a name.
    Subscript(Box<Query>),
    /// jsonpath2's function as a subscript: a value made of the node.
    Call(Call),
}

/// The parts of a slice as they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) start: Option<i64>,
    pub(super) end: Option<i64>,
    pub(super) step: Option<i64>,
}

/// A jsonpath2 function with its arguments. A path among the arguments calls the function once for each node found
/// (all combinations). With other arguments than it wants, a function finds nothing.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) function: Function,
    pub(super) arguments: Box<[Operand]>,
}

/// jsonpath2's functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    /// An array's or a string's length (in characters).
    Length,
    /// A string's character.
    CharAt,
    /// A part of a string, by the rules of Python's slices.
    Substring,
    /// An object's names, or an array's indices.
    Keys,
    /// An object's or an array's values.
    Values,
    /// Pairs of both.
    Entries,
}

/// Something that is true or false of a node.
#[derive(Clone, Debug)]
pub(super) enum Condition {
    And(Box<[Condition]>),
    Or(Box<[Condition]>),
    Not(Box<Condition>),
    /// The path finds a node.
    Exists(Query),
    Compare(Box<Comparison>),
    /// RFC 9535's `match()` and `search()`.
    Match(Box<Match>),
    /// A jsonpath2 literal in the place of a condition, by Python's truth.
    Truth(bool),
}

impl Condition {
    /// Says of a pattern in the condition that it is no regular expression, and so matches nothing.
    pub(super) fn problem(&self) -> Option<String> {
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().find_map(Self::problem),
            Self::Not(part) => part.problem(),
            Self::Match(matching) => match &matching.pattern {
                Pattern::Fixed(fixed) => {
                    let fault = fixed.fault()?;
                    Some(format!(
                        "its pattern is no regular expression ({}) and matches nothing",
                        fault.reason
                    ))
                }
                Pattern::Found { .. } => None,
            },
            Self::Exists(_) | Self::Compare(_) | Self::Truth(_) => None,
        }
    }
}

/// `left operator right`.
#[derive(Clone, Debug)]
pub(super) struct Comparison {
    pub(super) left: Operand,
    pub(super) operator: Operator,
    pub(super) right: Operand,
    pub(super) rule: Rule,
}

/// How values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// RFC 9535 §2.3.5.2.2: both sides are one value or nothing, and nothing equals nothing.
    Rfc9535,
    /// jsonpath2: any value of the left side and any of the right, but where the right side is a path, only the first
    /// of the left (its generator is used up then); a missing value makes the comparison false; `true` is 1 and
    /// `false` is 0; strings have no order.
    Jsonpath2,
}

/// A comparison's operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A side of a comparison, or a function's argument.
#[derive(Clone, Debug)]
pub(super) enum Operand {
    Literal(Literal),
    /// In RFC 9535 a singular query.
    Query(Query),
    /// RFC 9535's `length()`.
    Length(Box<Operand>),
    /// RFC 9535's `count()`.
    Count(Query),
    /// RFC 9535's `value()`.
    Value(Query),
}

/// A literal value.
#[derive(Clone, Debug)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Number(Number),
    String(Box<str>),
    /// jsonpath2's arrays and objects.
    Json(Arc<Document<'static>>),
}

/// `match(text, pattern)` or `search(text, pattern)`.
#[derive(Clone, Debug)]
pub(super) struct Match {
    pub(super) text: Operand,
    pub(super) pattern: Pattern,
}
