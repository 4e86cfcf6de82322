//! From jsonpath-rust's syntax tree to the internal form.

use std::cell::RefCell;

use jsonpath_rust::parser::model as tree;

use crate::error::FilterError;
use crate::form::{
    Comparison, Condition, Literal, Match, Operand, Operator, Query, Rule, Segment, Selector, Slice, Start,
};
use crate::number::Number;
use crate::pattern::{Extent, Fixed, Pattern, Room};

/// Makes the form of a whole expression.
pub(super) fn query(text: &str, tree: &tree::JpQuery) -> Result<Query, FilterError> {
    Converter { text, room: RefCell::new(Room::of_filter()) }.query(Start::Root, &tree.segments)
}

struct Converter<'t> {
    text: &'t str,
    /// The size that is left for patterns.
    room: RefCell<Room>,
}

type Converted<T> = Result<T, FilterError>;

impl Converter<'_> {
    fn query(&self, start: Start, segments: &[tree::Segment]) -> Converted<Query> {
        let segments = segments.iter().map(|segment| self.segment(segment)).collect::<Converted<_>>()?;
        Ok(Query { start, segments })
    }

    fn segment(&self, segment: &tree::Segment) -> Converted<Segment> {
        Ok(match segment {
            tree::Segment::Selector(selector) => Segment::Child([self.selector(selector)?].into()),
            tree::Segment::Selectors(selectors) => Segment::Child(self.selectors(selectors)?),
            tree::Segment::Descendant(below) => match self.segment(below)? {
                Segment::Child(selectors) | Segment::Descendant(selectors) => Segment::Descendant(selectors),
            },
        })
    }

    fn selectors(&self, selectors: &[tree::Selector]) -> Converted<Box<[Selector]>> {
        selectors.iter().map(|selector| self.selector(selector)).collect()
    }

    fn selector(&self, selector: &tree::Selector) -> Converted<Selector> {
        Ok(match selector {
            tree::Selector::Name(name) => Selector::Name(name.as_str().into()),
            tree::Selector::Wildcard => Selector::Wildcard,
            tree::Selector::Index(index) => Selector::Index(*index),
            tree::Selector::Slice(start, end, step) => {
                Selector::Slice(Box::new(Slice { start: *start, end: *end, step: *step }))
            }
            tree::Selector::Filter(filter) => Selector::Filter(self.condition(filter)?),
        })
    }

    fn condition(&self, filter: &tree::Filter) -> Converted<Condition> {
        Ok(match filter {
            tree::Filter::Or(parts) => self.joined(parts, Condition::Or)?,
            tree::Filter::And(parts) => self.joined(parts, Condition::And)?,
            tree::Filter::Atom(atom) => self.atom(atom)?,
        })
    }

    fn joined(
        &self,
        parts: &[tree::Filter],
        join: fn(Box<[Condition]>) -> Condition,
    ) -> Converted<Condition> {
        match parts {
            [only] => self.condition(only),
            parts => parts.iter().map(|part| self.condition(part)).collect::<Converted<_>>().map(join),
        }
    }

    fn atom(&self, atom: &tree::FilterAtom) -> Converted<Condition> {
        let (condition, not) = match atom {
            tree::FilterAtom::Filter { expr, not } => (self.condition(expr)?, *not),
            tree::FilterAtom::Test { expr, not } => (self.test(expr)?, *not),
            tree::FilterAtom::Comparison(comparison) => (self.comparison(comparison)?, false),
        };
        Ok(if not { Condition::Not(Box::new(condition)) } else { condition })
    }

    fn test(&self, test: &tree::Test) -> Converted<Condition> {
        Ok(match test {
            tree::Test::RelQuery(segments) => Condition::Exists(self.query(Start::Current, segments)?),
            tree::Test::AbsQuery(query) => Condition::Exists(self.query(Start::Root, &query.segments)?),
            tree::Test::Function(function) => match function.as_ref() {
                tree::TestFunction::Match(text, pattern) => self.matching(text, pattern, Extent::Whole)?,
                tree::TestFunction::Search(text, pattern) => self.matching(text, pattern, Extent::Part)?,
                other => {
                    let name = name_of(other);
                    let message = format!("`{name}()` gives a value: compare it, as in `{name}(…) == 1`");
                    return Err(self.wrong_call(other, message));
                }
            },
        })
    }

    fn matching(&self, text: &tree::FnArg, pattern: &tree::FnArg, extent: Extent) -> Converted<Condition> {
        let name = match extent {
            Extent::Whole => "match",
            Extent::Part => "search",
        };
        let text = self.value_argument(name, text)?;
        let pattern = match self.value_argument(name, pattern)? {
            Operand::Literal(Literal::String(pattern)) => {
                let fixed = Fixed::new(&pattern, extent, &mut self.room.borrow_mut());
                Pattern::Fixed(fixed.map_err(|oversize| self.at_call(name, oversize.to_string()))?)
            }
            operand => Pattern::Found { operand, extent },
        };
        Ok(Condition::Match(Box::new(Match { text, pattern })))
    }

    fn comparison(&self, comparison: &tree::Comparison) -> Converted<Condition> {
        use tree::Comparison as C;
        let operator = match comparison {
            C::Eq(..) => Operator::Equal,
            C::Ne(..) => Operator::NotEqual,
            C::Lt(..) => Operator::Less,
            C::Lte(..) => Operator::LessOrEqual,
            C::Gt(..) => Operator::Greater,
            C::Gte(..) => Operator::GreaterOrEqual,
        };
        let (left, right) = comparison.vals();
        let (left, right) = (self.comparable(left)?, self.comparable(right)?);
        Ok(Condition::Compare(Box::new(Comparison { left, operator, right, rule: Rule::Rfc9535 })))
    }

    fn comparable(&self, comparable: &tree::Comparable) -> Converted<Operand> {
        Ok(match comparable {
            tree::Comparable::Literal(literal) => Operand::Literal(self.literal(literal)?),
            tree::Comparable::Function(function) => self.function(function)?,
            tree::Comparable::SingularQuery(query) => Operand::Query(singular(query)),
        })
    }

    fn literal(&self, literal: &tree::Literal) -> Converted<Literal> {
        Ok(match literal {
            tree::Literal::Null => Literal::Null,
            tree::Literal::Bool(value) => Literal::Bool(*value),
            tree::Literal::Int(number) => Literal::Number(Number::Int(*number)),
            tree::Literal::Float(number) if number.is_finite() => Literal::Number(Number::Float(*number)),
            tree::Literal::Float(_) => {
                let digits = |at: usize| {
                    self.text[at..].split(|c: char| !c.is_ascii_digit() && !"+-.eE".contains(c)).next()
                };
                let infinite = |at: &usize| {
                    digits(*at).and_then(|number| number.parse().ok()).is_some_and(f64::is_infinite)
                };
                let at = (0..self.text.len()).filter(|at| self.text.is_char_boundary(*at)).find(infinite);
                let message = "this number is beyond what JSON numbers hold here (1.8e308)";
                return Err(FilterError::at(self.text, at.unwrap_or(0), message));
            }
            tree::Literal::String(text) => Literal::String(text.as_str().into()),
        })
    }

    /// Makes a function that gives a value.
    fn function(&self, function: &tree::TestFunction) -> Converted<Operand> {
        Ok(match function {
            tree::TestFunction::Length(argument) => {
                Operand::Length(Box::new(self.value_argument("length", argument)?))
            }
            tree::TestFunction::Count(argument) => Operand::Count(self.nodes_argument("count", argument)?),
            tree::TestFunction::Value(argument) => Operand::Value(self.nodes_argument("value", argument)?),
            tree::TestFunction::Match(..) | tree::TestFunction::Search(..) => {
                let name = name_of(function);
                let message = format!("`{name}()` is true or false: it stands alone, without a comparison");
                return Err(self.wrong_call(function, message));
            }
            tree::TestFunction::Custom(name, _) => {
                let message = format!("RFC 9535 has no function `{name}()`");
                return Err(self.wrong_call(function, message));
            }
        })
    }

    /// RFC 9535 §2.4.1: a `ValueType` is a literal, a singular query, or a function that gives a value.
    fn value_argument(&self, function: &str, argument: &tree::FnArg) -> Converted<Operand> {
        let expected = "expected a literal, or a path that can find one node only";
        let query = match argument {
            tree::FnArg::Literal(literal) => return Ok(Operand::Literal(self.literal(literal)?)),
            tree::FnArg::Filter(_) => return Err(self.at_call(function, expected)),
            tree::FnArg::Test(test) => match test.as_ref() {
                tree::Test::Function(function) => return self.function(function),
                tree::Test::RelQuery(segments) => self.query(Start::Current, segments)?,
                tree::Test::AbsQuery(query) => self.query(Start::Root, &query.segments)?,
            },
        };
        if !query.is_singular() {
            return Err(self.at_call(function, expected));
        }
        Ok(Operand::Query(query))
    }

    /// RFC 9535 §2.4.1: a `NodesType` is a query.
    fn nodes_argument(&self, function: &str, argument: &tree::FnArg) -> Converted<Query> {
        if let tree::FnArg::Test(test) = argument {
            match test.as_ref() {
                tree::Test::RelQuery(segments) => return self.query(Start::Current, segments),
                tree::Test::AbsQuery(query) => return self.query(Start::Root, &query.segments),
                tree::Test::Function(_) => {}
            }
        }
        Err(self.at_call(function, "expected a path"))
    }

    fn wrong_call(&self, function: &tree::TestFunction, message: String) -> FilterError {
        self.at_call(name_of(function), message)
    }

    /// Makes an error about a function; the tree has no places, so that the first such call stands for all.
    fn at_call(&self, function: &str, message: impl Into<String>) -> FilterError {
        let at = self.text.find(&format!("{function}(")).unwrap_or(0);
        FilterError::at(self.text, at, message)
    }
}

fn name_of(function: &tree::TestFunction) -> &str {
    match function {
        tree::TestFunction::Custom(name, _) => name,
        tree::TestFunction::Length(_) => "length",
        tree::TestFunction::Value(_) => "value",
        tree::TestFunction::Count(_) => "count",
        tree::TestFunction::Search(..) => "search",
        tree::TestFunction::Match(..) => "match",
    }
}

fn singular(query: &tree::SingularQuery) -> Query {
    let (start, segments) = match query {
        tree::SingularQuery::Current(segments) => (Start::Current, segments),
        tree::SingularQuery::Root(segments) => (Start::Root, segments),
    };
    let selectors = segments.iter().map(|segment| match segment {
        tree::SingularQuerySegment::Index(index) => Selector::Index(*index),
        tree::SingularQuerySegment::Name(name) => Selector::Name(name.as_str().into()),
    });
    Query { start, segments: selectors.map(|selector| Segment::Child([selector].into())).collect() }
}
