//! Literal values: JSON, with strings as they are written.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::lexer::{Bracket, Kind, Token};
use super::parser::Parser;
use crate::document::Builder;
use crate::error::FilterError;
use crate::form::Literal;
use crate::number::Number;

/// A JSON value in a filter's text.
enum Json<'t> {
    Null,
    Bool(bool),
    Number(Number),
    String(&'t str),
    Array(Vec<Json<'t>>),
    /// Of a name that stands twice, the last value counts; the order never does.
    Object(BTreeMap<&'t str, Json<'t>>),
}

/// Returns the text between a string's quotes.
pub(super) fn unquoted<'t>(token: Token<'t>) -> &'t str {
    &token.text[1..token.text.len() - 1]
}

/// Returns Python's truth of a value.
pub(super) fn truth(literal: &Literal) -> bool {
    match literal {
        Literal::Null => false,
        Literal::Bool(value) => *value,
        Literal::Number(number) => *number != Number::Int(0),
        Literal::String(text) => !text.is_empty(),
        Literal::Json(document) => document.root().len() > 0,
    }
}

impl<'t> Parser<'t> {
    pub(super) fn literal(&mut self, expected: &str) -> Result<Literal, FilterError> {
        Ok(match self.json(expected)? {
            Json::Null => Literal::Null,
            Json::Bool(value) => Literal::Bool(value),
            Json::Number(number) => Literal::Number(number),
            Json::String(text) => Literal::String(text.into()),
            container @ (Json::Array(_) | Json::Object(_)) => {
                let mut builder = Builder::default();
                container.write(&mut builder);
                Literal::Json(Arc::new(builder.finish()))
            }
        })
    }

    fn json(&mut self, expected: &str) -> Result<Json<'t>, FilterError> {
        let token = self.peek();
        let value = match token.kind {
            Kind::Null => Json::Null,
            Kind::True => Json::Bool(true),
            Kind::False => Json::Bool(false),
            Kind::String => Json::String(unquoted(token)),
            Kind::Number => match Number::parse(token.text) {
                Some(number) => Json::Number(number),
                None => {
                    return Err(self.error(token.at, "this number is beyond what JSON can carry (1.8e308)"));
                }
            },
            Kind::Open(Bracket::Square) => return self.array(),
            Kind::Open(Bracket::Curly) => return self.object(),
            _ => return Err(self.expected(expected)),
        };
        self.advance();
        Ok(value)
    }

    fn array(&mut self) -> Result<Json<'t>, FilterError> {
        self.open()?;
        let mut elements = Vec::new();
        if self.peek().kind != Kind::Close(Bracket::Square) {
            elements.push(self.json("a value or `]`")?);
            while self.eat(Kind::Comma) {
                elements.push(self.json("a value")?);
            }
        }
        self.close("`,` or `]`")?;
        Ok(Json::Array(elements))
    }

    fn object(&mut self) -> Result<Json<'t>, FilterError> {
        self.open()?;
        let mut members = BTreeMap::new();
        if self.peek().kind != Kind::Close(Bracket::Curly) {
            self.member(&mut members)?;
            while self.eat(Kind::Comma) {
                self.member(&mut members)?;
            }
        }
        self.close("`,` or `}`")?;
        Ok(Json::Object(members))
    }

    fn member(&mut self, members: &mut BTreeMap<&'t str, Json<'t>>) -> Result<(), FilterError> {
        let name = self.peek();
        if name.kind != Kind::String {
            return Err(self.expected("a name in double quotes"));
        }
        self.advance();
        if !self.eat(Kind::Colon) {
            return Err(self.expected("`:`"));
        }
        let value = self.json("a value")?;
        members.insert(unquoted(name), value);
        Ok(())
    }
}

impl Json<'_> {
    fn write(self, builder: &mut Builder<'static>) {
        match self {
            Self::Null => builder.null(),
            Self::Bool(value) => builder.bool(value),
            Self::Number(number) => builder.number(number),
            Self::String(text) => builder.owned(text.into()),
            Self::Array(elements) => {
                let (opened, len) = (builder.open(), elements.len());
                elements.into_iter().for_each(|element| element.write(builder));
                builder.close_array(opened, len);
            }
            Self::Object(members) => {
                let (opened, len) = (builder.open(), members.len());
                for (name, value) in members {
                    builder.owned(name.into());
                    value.write(builder);
                }
                builder.close_object(opened, len);
            }
        }
    }
}
