//! What holds of an event in which some value passes a condition.

use std::borrow::Cow;

use super::paths::{PathPosition, follow, walk};
use super::{Bound, Clause, Side, Test, either, prefixes};
use crate::form::{
    Comparison, Condition, Function, Literal, Match, Operand, Operator, Query, Rule, Segment, Selector,
};
use crate::number::Number;
use crate::pattern::Pattern;

/// Adds what holds if the value at `here` passes.
pub(super) fn read<'f>(here: &PathPosition<'f>, condition: &'f Condition, clauses: &mut Vec<Clause<'f>>) {
    match condition {
        Condition::And(parts) => parts.iter().for_each(|part| read(here, part, clauses)),
        Condition::Or(parts) => {
            let branch = |part| {
                let mut branch = Vec::new();
                read(here, part, &mut branch);
                branch
            };
            either(parts.iter().map(branch).collect(), clauses);
        }
        Condition::Exists(query) => drop(follow(query, here, clauses)),
        Condition::Compare(comparison) => match comparison.rule {
            Rule::Rfc9535 => rfc9535(here, comparison, clauses),
            Rule::Jsonpath2 => jsonpath2(here, comparison, clauses),
        },
        Condition::Match(call) => text(here, call, clauses),
        Condition::Not(_) | Condition::Truth(_) => {}
    }
}

fn rfc9535<'f>(here: &PathPosition<'f>, comparison: &'f Comparison, clauses: &mut Vec<Clause<'f>>) {
    for (operand, operator, other) in comparison.sides() {
        // Nothing equals nothing (also in `<=`) and differs from all else; it is never below or above anything.
        let refuses_nothing = match operator {
            Operator::Equal | Operator::LessOrEqual | Operator::GreaterOrEqual => {
                matches!(other, Operand::Literal(_) | Operand::Count(_))
            }
            Operator::Less | Operator::Greater => true,
            Operator::NotEqual => false,
        };
        if refuses_nothing
            && let Some(place) = present(here, operand, clauses)
            && let Operand::Literal(literal) = other
        {
            place.passes(rfc9535_test(operator, literal), clauses);
        }
    }
}

fn rfc9535_test(operator: Operator, literal: &Literal) -> Option<Test<'_>> {
    match (operator, literal) {
        (Operator::NotEqual, _) | (_, Literal::Json(_)) => None,
        (Operator::Equal, Literal::String(text)) => Some(Test::String(Cow::Borrowed(text))),
        (Operator::Equal, Literal::Number(number)) => Some(Test::Number(number.clone())),
        (_, Literal::Number(number)) => beyond(operator, number),
        // Strings have an order that the index does not know; null, true and false have none.
        (_, Literal::String(_)) | (Operator::Less | Operator::Greater, Literal::Bool(_) | Literal::Null) => {
            None
        }
        (_, Literal::Bool(value)) => Some(Test::Bool(*value)),
        (_, Literal::Null) => Some(Test::Null),
    }
}

/// A missing value makes each comparison false, `!=` too.
fn jsonpath2<'f>(here: &PathPosition<'f>, comparison: &'f Comparison, clauses: &mut Vec<Clause<'f>>) {
    for (operand, operator, other) in comparison.sides() {
        if let (Operand::Query(query), Operator::Equal, Operand::Literal(Literal::String(text))) =
            (operand, operator, other)
            && let Some((before, true)) = beginning(query)
        {
            let place = walk(query.start, before, here, clauses);
            let prefix = (!text.is_empty()).then_some(Test::Prefix(Cow::Borrowed(&**text)));
            place.passes(prefix, clauses);
        } else if let Some(place) = present(here, operand, clauses)
            && let Operand::Literal(literal) = other
        {
            place.passes(jsonpath2_tests(operator, literal), clauses);
        }
    }
}

/// `true` is 1 and `false` is 0, in equality and in order.
fn jsonpath2_tests(operator: Operator, literal: &Literal) -> Vec<Test<'_>> {
    let number = match literal {
        Literal::Number(number) => number.clone(),
        Literal::Bool(value) => as_number(*value),
        Literal::String(text) if operator == Operator::Equal => {
            return vec![Test::String(Cow::Borrowed(text))];
        }
        Literal::Null if operator == Operator::Equal => return vec![Test::Null],
        Literal::String(_) | Literal::Null | Literal::Json(_) => return Vec::new(),
    };
    let (test, bool_passes): (_, fn(&Number, &Number) -> bool) = match operator {
        Operator::Equal => (Some(Test::Number(number.clone())), Number::eq),
        Operator::NotEqual => return Vec::new(),
        Operator::Less => (beyond(operator, &number), Number::lt),
        Operator::LessOrEqual => (beyond(operator, &number), Number::le),
        Operator::Greater => (beyond(operator, &number), Number::gt),
        Operator::GreaterOrEqual => (beyond(operator, &number), Number::ge),
    };
    let bools = [true, false].into_iter().filter(|value| bool_passes(&as_number(*value), &number));
    test.into_iter().chain(bools.map(Test::Bool)).collect()
}

fn as_number(value: bool) -> Number {
    Number::Int(i64::from(value))
}

fn beyond<'f>(operator: Operator, number: &Number) -> Option<Test<'f>> {
    let (side, inclusive) = match operator {
        Operator::Less => (Side::Below, false),
        Operator::LessOrEqual => (Side::Below, true),
        Operator::Greater => (Side::Above, false),
        Operator::GreaterOrEqual => (Side::Above, true),
        Operator::Equal | Operator::NotEqual => return None,
    };
    Some(Test::Beyond(side, Bound { number: number.clone(), inclusive }))
}

/// Adds what holds if the operand is not nothing, and returns where its value stands, if it does so in the event.
fn present<'f>(
    here: &PathPosition<'f>,
    operand: &'f Operand,
    clauses: &mut Vec<Clause<'f>>,
) -> Option<PathPosition<'f>> {
    match operand {
        Operand::Query(query) | Operand::Value(query) => Some(follow(query, here, clauses)),
        Operand::Length(measured) => {
            present(here, measured, clauses);
            None
        }
        Operand::Literal(_) | Operand::Count(_) => None,
    }
}

/// Returns the path of a text that the query takes a part of, and whether that part is its beginning.
fn beginning(query: &Query) -> Option<(&[Segment], bool)> {
    let (Segment::Child(selectors), before) = query.segments.split_last()? else { return None };
    let [Selector::Call(call)] = &**selectors else { return None };
    let from_start = matches!(call.arguments.first(), Some(Operand::Literal(Literal::Number(number))) if number.as_index() == Some(0));
    match call.function {
        Function::CharAt | Function::Substring => Some((before, from_start)),
        Function::Length | Function::Keys | Function::Values | Function::Entries => None,
    }
}

/// Both have to be texts.
fn text<'f>(here: &PathPosition<'f>, call: &'f Match, clauses: &mut Vec<Clause<'f>>) {
    let place = present(here, &call.text, clauses);
    match &call.pattern {
        Pattern::Fixed(fixed) => {
            if let Some(place) = place {
                place.passes(prefixes::of(&fixed.text, fixed.extent), clauses);
            }
        }
        Pattern::Found { operand, .. } => drop(present(here, operand, clauses)),
    }
}

impl Comparison {
    /// Returns both ways to look at it: `operand operator other`.
    fn sides(&self) -> [(&Operand, Operator, &Operand); 2] {
        let flipped = match self.operator {
            Operator::Equal => Operator::Equal,
            Operator::NotEqual => Operator::NotEqual,
            Operator::Less => Operator::Greater,
            Operator::LessOrEqual => Operator::GreaterOrEqual,
            Operator::Greater => Operator::Less,
            Operator::GreaterOrEqual => Operator::LessOrEqual,
        };
        [(&self.left, self.operator, &self.right), (&self.right, flipped, &self.left)]
    }
}
