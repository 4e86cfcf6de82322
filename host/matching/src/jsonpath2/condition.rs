//! What stands in `?(…)`.

use super::lexer::{Bracket, Kind};
use super::literal::truth;
use super::parser::Parser;
use crate::error::FilterError;
use crate::form::{Comparison, Condition, Literal, Operand, Query, Rule, Start};

/// A side of a comparison, an argument, or a whole condition.
pub(super) enum Value {
    Path(Query),
    Literal(Literal),
}

impl From<Value> for Operand {
    fn from(value: Value) -> Self {
        match value {
            Value::Path(query) => Self::Query(query),
            Value::Literal(literal) => Self::Literal(literal),
        }
    }
}

/// What may begin a condition.
const CONDITION: &str = "a condition";

impl Parser<'_> {
    /// Reads what `and` joins, which binds loosest.
    pub(super) fn condition(&mut self) -> Result<Condition, FilterError> {
        let mut parts = vec![self.alternatives()?];
        while self.eat(Kind::And) {
            parts.push(self.alternatives()?);
        }
        Ok(joined(parts, Condition::And))
    }

    fn alternatives(&mut self) -> Result<Condition, FilterError> {
        let mut parts = vec![self.negation()?];
        while self.eat(Kind::Or) {
            parts.push(self.negation()?);
        }
        Ok(joined(parts, Condition::Or))
    }

    /// Reads any number of `not` without recursion: two of them cancel out.
    fn negation(&mut self) -> Result<Condition, FilterError> {
        let mut negated = false;
        while self.eat(Kind::Not) {
            negated = !negated;
        }
        let condition = self.test()?;
        Ok(if negated { Condition::Not(Box::new(condition)) } else { condition })
    }

    fn test(&mut self) -> Result<Condition, FilterError> {
        if self.peek().kind == Kind::Open(Bracket::Round) {
            self.open()?;
            let condition = self.condition()?;
            self.close("`and`, `or` or `)`")?;
            return Ok(condition);
        }
        let left = self.value(CONDITION)?;
        match self.peek().kind {
            Kind::Compare(operator) => {
                self.advance();
                let right = self.value("a value or a path")?;
                let (left, right) = (left.into(), right.into());
                let comparison = Comparison { left, operator, right, rule: Rule::Jsonpath2 };
                Ok(Condition::Compare(Box::new(comparison)))
            }
            Kind::And | Kind::Or | Kind::Close(Bracket::Round) | Kind::End => Ok(match left {
                Value::Path(query) => Condition::Exists(query),
                Value::Literal(literal) => Condition::Truth(truth(&literal)),
            }),
            _ => Err(self.expected("a comparison such as `=`, `and`, `or` or `)`")),
        }
    }

    pub(super) fn value(&mut self, expected: &str) -> Result<Value, FilterError> {
        let start = match self.peek().kind {
            Kind::Root => Start::Root,
            Kind::Current => Start::Current,
            _ => return self.literal(expected).map(Value::Literal),
        };
        self.advance();
        self.path(start).map(Value::Path)
    }
}

fn joined(mut parts: Vec<Condition>, join: fn(Box<[Condition]>) -> Condition) -> Condition {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        last => {
            parts.extend(last);
            join(parts.into())
        }
    }
}
