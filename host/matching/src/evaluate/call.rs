//! jsonpath2's functions: values made of a node.

use super::{Evaluator, Flow, Visit};
use crate::document::{Builder, Cursor, View};
use crate::form::{Call, Function, Operand};
use crate::number::Number;

/// An argument: only integers mean anything to any function. `true` is 1, and what is beyond 64 bits is as far as
/// indices go.
type Argument = Option<i64>;

impl Evaluator<'_> {
    /// Visits what a function makes of `node`, once for each combination of its arguments' values.
    pub(super) fn call(&self, call: &Call, node: Cursor<'_>, visit: Visit<'_>) -> Flow {
        let mut values = Vec::new();
        for operand in &call.arguments {
            values.push(self.arguments(operand, node)?);
        }
        match &*values {
            [] => self.apply(call.function, &[], node, visit),
            [only] => only.iter().try_for_each(|only| self.apply(call.function, &[*only], node, visit)),
            [first, second] => first.iter().try_for_each(|first| {
                second.iter().try_for_each(|second| {
                    self.spend(1)?;
                    self.apply(call.function, &[*first, *second], node, visit)
                })
            }),
            // No function takes more.
            _ => Flow::Continue(()),
        }
    }

    fn arguments(&self, operand: &Operand, node: Cursor<'_>) -> Flow<Vec<Argument>> {
        let mut values = Vec::new();
        self.values(operand, node, &mut |view| {
            self.spend(1)?;
            values.push(as_index(view));
            Flow::Continue(())
        })?;
        Flow::Continue(values)
    }

    fn apply(&self, function: Function, arguments: &[Argument], node: Cursor<'_>, visit: Visit<'_>) -> Flow {
        match (function, arguments, node.view()) {
            (Function::Length, [], View::String(text)) => {
                self.spend_text(text)?;
                made(visit, |builder| builder.number(text.chars().count().into()))
            }
            (Function::Length, [], View::Array(array)) => {
                made(visit, |builder| builder.number(Number::Int(i64::from(array.len()))))
            }
            (Function::CharAt, [Some(index)], View::String(text)) => {
                self.spend_text(text)?;
                match char_at(text, *index) {
                    Some(text) => made(visit, |builder| builder.string(text)),
                    None => Flow::Continue(()),
                }
            }
            (Function::Substring, [Some(start)], View::String(text)) => {
                self.spend_text(text)?;
                made(visit, |builder| builder.string(substring(text, *start, None)))
            }
            (Function::Substring, [Some(start), Some(end)], View::String(text)) => {
                self.spend_text(text)?;
                made(visit, |builder| builder.string(substring(text, *start, Some(*end))))
            }
            (Function::Keys | Function::Values | Function::Entries, [], View::Array(_) | View::Object(_)) => {
                self.spend(u64::from(node.size()))?;
                match function {
                    Function::Keys => made(visit, |builder| keys(builder, node)),
                    Function::Entries => made(visit, |builder| entries(builder, node)),
                    _ => match node.view() {
                        View::Object(_) => made(visit, |builder| values(builder, node)),
                        _ => visit(node),
                    },
                }
            }
            _ => Flow::Continue(()),
        }
    }
}

fn made<'d>(visit: Visit<'_>, make: impl FnOnce(&mut Builder<'d>)) -> Flow {
    let mut builder = Builder::default();
    make(&mut builder);
    visit(builder.finish().root())
}

fn as_index(view: View<'_>) -> Argument {
    match view {
        View::Bool(value) => Some(i64::from(value)),
        View::Number(number) => number.as_clamped_index(),
        View::Null | View::String(_) | View::Array(_) | View::Object(_) => None,
    }
}

/// Python's `text[index]`.
fn char_at(text: &str, index: i64) -> Option<&str> {
    let len = i64::try_from(text.chars().count()).ok()?;
    let place = if index < 0 { index.checked_add(len)? } else { index };
    let (at, found) = text.char_indices().nth(usize::try_from(place).ok()?)?;
    Some(&text[at..at + found.len_utf8()])
}

/// Python's `text[start:end]`.
fn substring(text: &str, start: i64, end: Option<i64>) -> &str {
    let len = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    let normal = |index: i64| if index < 0 { index.saturating_add(len).max(0) } else { index.min(len) };
    let at = |index: i64| {
        let place = usize::try_from(index).unwrap_or(usize::MAX);
        text.char_indices().nth(place).map_or(text.len(), |(at, _)| at)
    };
    let (start, end) = (at(normal(start)), end.map_or(text.len(), |end| at(normal(end))));
    text.get(start..end).unwrap_or_default()
}

fn keys<'d>(builder: &mut Builder<'d>, node: Cursor<'d>) {
    let opened = builder.open();
    match node.view() {
        View::Object(object) => object.members().for_each(|(name, _)| builder.string(name)),
        _ => (0..node.len()).for_each(|place| builder.number(Number::Int(i64::from(place)))),
    }
    builder.close_array(opened, node.len() as usize);
}

fn values<'d>(builder: &mut Builder<'d>, node: Cursor<'d>) {
    let opened = builder.open();
    node.children().for_each(|value| builder.copy(value));
    builder.close_array(opened, node.len() as usize);
}

fn entries<'d>(builder: &mut Builder<'d>, node: Cursor<'d>) {
    let opened = builder.open();
    let mut names = node.members().map(|(name, _)| name);
    for (place, value) in (0..).zip(node.children()) {
        let entry = builder.open();
        match names.next() {
            Some(name) => builder.string(name),
            None => builder.number(Number::Int(place)),
        }
        builder.copy(value);
        builder.close_array(entry, 2);
    }
    builder.close_array(opened, node.len() as usize);
}
