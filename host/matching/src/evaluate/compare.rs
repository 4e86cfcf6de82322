//! Comparing values, by the rules of both dialects.

use std::cmp::Ordering;
use std::fmt;

use super::condition::{Answer, any};
use super::{Evaluator, Flow, Stop};
use crate::document::{Cursor, View};
use crate::form::{Comparison, Literal, Operand, Operator, Query, Rule, Segment, Start};
use crate::number::Number;

/// How many nodes that are known already cost as much as one that has to be found.
const KNOWN_PER_VISIT: usize = 4;

/// The one value of an operand.
pub(crate) enum Side<'c> {
    /// RFC 9535's `Nothing`.
    Nothing,
    /// A number that a function has made.
    Made(Number),
    Seen(View<'c>),
}

impl Evaluator<'_> {
    /// Tells whether a comparison is true for `current`.
    pub(super) fn compares(&self, comparison: &Comparison, current: Cursor<'_>) -> Answer {
        let Comparison { left, operator, right, rule } = comparison;
        let is_one = |operand: &Operand| match operand {
            Operand::Query(query) => *rule == Rule::Rfc9535 || query.is_singular(),
            Operand::Literal(_) | Operand::Length(_) | Operand::Count(_) | Operand::Value(_) => true,
        };
        // By far the most comparisons are of this form.
        if let (Operand::Query(query), Operand::Literal(literal)) = (left, right)
            && is_one(left)
        {
            let found = self.singular(query, current)?.map(Cursor::view);
            return self.relates(found, *operator, Some(view_of(literal)), *rule);
        }
        if is_one(left) && is_one(right) {
            let (left, right) = (self.side(left, current)?, self.side(right, current)?);
            return self.relates(left.view(), *operator, right.view(), *rule);
        }
        any(|found| {
            self.values(left, current, &mut |left| {
                self.values(right, current, &mut |right| {
                    *found = self.relates_views(left, *operator, right, *rule)?;
                    if *found { Flow::Break(Stop::Enough) } else { Flow::Continue(()) }
                })?;
                match right {
                    // The first of the left has used up the right.
                    Operand::Query(_) => Flow::Break(Stop::Enough),
                    Operand::Literal(_) | Operand::Length(_) | Operand::Count(_) | Operand::Value(_) => {
                        Flow::Continue(())
                    }
                }
            })
        })
    }

    /// Visits all values of a jsonpath2 operand.
    pub(super) fn values(
        &self,
        operand: &Operand,
        current: Cursor<'_>,
        visit: &mut dyn FnMut(View<'_>) -> Flow,
    ) -> Flow {
        match operand {
            Operand::Query(query) if query.start == Start::Root && !query.is_singular() => {
                let known = self.memo.nodes(query, self.root, |visit| self.each(query, current, visit))?;
                match known {
                    Some(nodes) => nodes.iter().enumerate().try_for_each(|(count, place)| {
                        self.spend(u64::from(count % KNOWN_PER_VISIT == 0))?;
                        visit(self.root.place(*place).view())
                    }),
                    None => self.each(query, current, &mut |node| visit(node.view())),
                }
            }
            Operand::Query(query) => self.each(query, current, &mut |node| visit(node.view())),
            Operand::Literal(_) | Operand::Length(_) | Operand::Count(_) | Operand::Value(_) => {
                match self.side(operand, current)? {
                    Side::Nothing => Flow::Continue(()),
                    Side::Made(number) => visit(View::Number(&number)),
                    Side::Seen(view) => visit(view),
                }
            }
        }
    }

    /// Returns the one value of an operand: what RFC 9535 calls a `ValueType`.
    pub(super) fn side<'c>(&'c self, operand: &'c Operand, current: Cursor<'c>) -> Flow<Side<'c>> {
        Flow::Continue(match operand {
            Operand::Literal(literal) => Side::Seen(view_of(literal)),
            Operand::Query(query) => self.singular(query, current)?.map_or(Side::Nothing, Side::seen),
            Operand::Length(operand) => match self.side(operand, current)? {
                Side::Seen(View::String(text)) => {
                    self.spend_text(text)?;
                    Side::Made(text.chars().count().into())
                }
                Side::Seen(View::Array(node) | View::Object(node)) => {
                    Side::Made(Number::Int(i64::from(node.len())))
                }
                Side::Seen(View::Null | View::Bool(_) | View::Number(_)) | Side::Nothing | Side::Made(_) => {
                    Side::Nothing
                }
            },
            Operand::Count(query) => {
                let mut count = 0_usize;
                self.each(query, current, &mut |_| {
                    count += 1;
                    Flow::Continue(())
                })?;
                Side::Made(count.into())
            }
            Operand::Value(query) => {
                let mut found = [None, None];
                self.each(query, current, &mut |node| {
                    let place = node.place_in(self.root);
                    if found[0].is_none() {
                        found[0] = place;
                    } else {
                        found[1] = place;
                    }
                    Flow::Continue(())
                })?;
                match found {
                    [Some(place), None] => Side::seen(self.root.place(place)),
                    _ => Side::Nothing,
                }
            }
        })
    }

    /// Returns the one value of an operand, to be shown; `None` for one that may have many.
    pub(crate) fn told<'c>(&'c self, operand: &'c Operand, current: Cursor<'c>) -> Option<Side<'c>> {
        if matches!(operand, Operand::Query(query) if !query.is_singular()) {
            return None;
        }
        match self.side(operand, current) {
            Flow::Continue(side) => Some(side),
            // What has ended this has ended the evaluation of the condition, too.
            Flow::Break(_) => Some(Side::Nothing),
        }
    }

    /// Returns the node that a singular query finds.
    #[inline]
    fn singular<'c>(&'c self, query: &'c Query, current: Cursor<'c>) -> Flow<Option<Cursor<'c>>> {
        let mut node = self.start(query, current);
        for segment in &query.segments {
            let Segment::Child(selectors) = segment else { break };
            let [selector] = &**selectors else { break };
            match self.single(selector, node)? {
                Some(child) => node = child,
                None => return Flow::Continue(None),
            }
        }
        Flow::Continue(Some(node))
    }

    #[inline]
    fn relates(
        &self,
        left: Option<View<'_>>,
        operator: Operator,
        right: Option<View<'_>>,
        rule: Rule,
    ) -> Answer {
        match (left, right) {
            (Some(left), Some(right)) => self.relates_views(left, operator, right, rule),
            (left, right) => Answer::Continue(match (rule, operator) {
                (Rule::Jsonpath2, _) => false,
                (Rule::Rfc9535, Operator::Equal | Operator::LessOrEqual | Operator::GreaterOrEqual) => {
                    left.is_none() && right.is_none()
                }
                (Rule::Rfc9535, Operator::NotEqual) => left.is_some() || right.is_some(),
                (Rule::Rfc9535, Operator::Less | Operator::Greater) => false,
            }),
        }
    }

    #[inline]
    fn relates_views(&self, left: View<'_>, operator: Operator, right: View<'_>, rule: Rule) -> Answer {
        let order = || self.order(left, right, rule);
        Answer::Continue(match operator {
            Operator::Equal => self.equal(left, right, rule)?,
            Operator::NotEqual => !self.equal(left, right, rule)?,
            Operator::Less => order()? == Some(Ordering::Less),
            Operator::Greater => order()? == Some(Ordering::Greater),
            // RFC 9535: `<=` is `<` or `==`, and what has no order can still be equal; in jsonpath2 it cannot.
            Operator::LessOrEqual => match order()? {
                Some(order) => order.is_le(),
                None => rule == Rule::Rfc9535 && self.equal(left, right, rule)?,
            },
            Operator::GreaterOrEqual => match order()? {
                Some(order) => order.is_ge(),
                None => rule == Rule::Rfc9535 && self.equal(left, right, rule)?,
            },
        })
    }

    #[inline]
    fn equal(&self, left: View<'_>, right: View<'_>, rule: Rule) -> Answer {
        Answer::Continue(match (left, right) {
            (View::Null, View::Null) => true,
            (View::Bool(left), View::Bool(right)) => left == right,
            (View::Number(left), View::Number(right)) => left == right,
            (View::String(left), View::String(right)) if left.len() != right.len() => false,
            (View::String(left), View::String(right)) => {
                self.spend_comparison(left, right)?;
                left == right
            }
            (View::Bool(flag), View::Number(number)) | (View::Number(number), View::Bool(flag)) => {
                rule == Rule::Jsonpath2 && *number == Number::Int(i64::from(flag))
            }
            (View::Array(left), View::Array(right)) => return self.equal_arrays(left, right, rule),
            (View::Object(left), View::Object(right)) => return self.equal_objects(left, right, rule),
            _ => false,
        })
    }

    fn equal_arrays(&self, left: Cursor<'_>, right: Cursor<'_>, rule: Rule) -> Answer {
        if left.len() != right.len() {
            return Answer::Continue(false);
        }
        for (left, right) in left.children().zip(right.children()) {
            self.spend(1)?;
            if !self.equal(left.view(), right.view(), rule)? {
                return Answer::Continue(false);
            }
        }
        Answer::Continue(true)
    }

    fn equal_objects(&self, left: Cursor<'_>, right: Cursor<'_>, rule: Rule) -> Answer {
        if left.len() != right.len() {
            return Answer::Continue(false);
        }
        for (name, value) in left.members() {
            self.spend(u64::from(right.len() / 8) + 1)?;
            let Some(other) = right.member(name) else { return Answer::Continue(false) };
            if !self.equal(value.view(), other.view(), rule)? {
                return Answer::Continue(false);
            }
        }
        Answer::Continue(true)
    }

    /// Returns the order of two values, where they have one: numbers do, in RFC 9535 strings (by their characters),
    /// in jsonpath2 booleans as 0 and 1.
    fn order(&self, left: View<'_>, right: View<'_>, rule: Rule) -> Flow<Option<Ordering>> {
        Flow::Continue(match (left, right) {
            (View::Number(left), View::Number(right)) => Some(left.cmp(right)),
            (View::String(left), View::String(right)) if rule == Rule::Rfc9535 => {
                self.spend_comparison(left, right)?;
                Some(left.cmp(right))
            }
            (View::Bool(_) | View::Number(_), View::Bool(_) | View::Number(_)) if rule == Rule::Jsonpath2 => {
                as_number(left).zip(as_number(right)).map(|(left, right)| left.cmp(&right))
            }
            _ => None,
        })
    }

    /// Charges for comparing two texts, if they are long.
    #[inline]
    fn spend_comparison(&self, left: &str, right: &str) -> Flow {
        self.spend_bytes(left.len().min(right.len()))
    }
}

fn as_number(view: View<'_>) -> Option<Number> {
    match view {
        View::Bool(flag) => Some(Number::Int(i64::from(flag))),
        View::Number(number) => Some(number.clone()),
        View::Null | View::String(_) | View::Array(_) | View::Object(_) => None,
    }
}

#[inline]
fn view_of(literal: &Literal) -> View<'_> {
    match literal {
        Literal::Null => View::Null,
        Literal::Bool(value) => View::Bool(*value),
        Literal::Number(number) => View::Number(number),
        Literal::String(text) => View::String(text),
        Literal::Json(document) => document.root().view(),
    }
}

impl<'c> Side<'c> {
    fn seen(node: Cursor<'c>) -> Self {
        Self::Seen(node.view())
    }

    fn view(&self) -> Option<View<'_>> {
        match self {
            Side::Nothing => None,
            Side::Made(number) => Some(View::Number(number)),
            Side::Seen(view) => Some(*view),
        }
    }
}

impl fmt::Display for Side<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.view() {
            Some(view) => view.fmt(f),
            None => f.write_str("nothing"),
        }
    }
}
