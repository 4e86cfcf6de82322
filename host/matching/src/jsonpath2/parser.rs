//! Paths and subscripts.

use super::condition::Value;
use super::hint;
use super::lexer::{Bracket, Flaw, Kind, Lexer, Token};
use super::literal::unquoted;
use crate::error::FilterError;
use crate::form::{Call, Function, Query, Segment, Selector, Slice, Start};
use crate::limits;

/// What may stand in square brackets.
const SUBSCRIPT: &str = "`\"name\"`, `*`, `0`, `0:1`, `?(…)`, a path or a function";

/// Reads an expression with one token of lookahead.
pub(super) struct Parser<'t> {
    text: &'t str,
    lexer: Lexer<'t>,
    /// The token read last; at first [`Kind::End`].
    last: Token<'t>,
    next: Token<'t>,
    /// The brackets that wait for their partners.
    open: Vec<Token<'t>>,
    filters: usize,
}

/// Reads tokens.
impl<'t> Parser<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let mut lexer = Lexer::new(text);
        let last = Token { at: 0, text: "", kind: Kind::End };
        let next = lexer.token();
        Self { text, lexer, last, next, open: Vec::new(), filters: 0 }
    }

    pub(super) fn peek(&self) -> Token<'t> {
        self.next
    }

    pub(super) fn advance(&mut self) {
        self.last = std::mem::replace(&mut self.next, self.lexer.token());
    }

    pub(super) fn eat(&mut self, kind: Kind) -> bool {
        let eaten = self.next.kind == kind;
        if eaten {
            self.advance();
        }
        eaten
    }

    /// Goes into the bracket that comes next.
    pub(super) fn open(&mut self) -> Result<(), FilterError> {
        limits::check_depth(self.text, self.next.at, self.open.len() + 1)?;
        self.open.push(self.next);
        self.advance();
        Ok(())
    }

    /// Leaves the bracket that was opened last.
    pub(super) fn close(&mut self, expected: &str) -> Result<(), FilterError> {
        let partner = self.open.last().map(|token| token.kind);
        let closed = match (partner, self.next.kind) {
            (Some(Kind::Open(opened)), Kind::Close(closed)) => opened == closed,
            _ => false,
        };
        if !closed {
            return Err(match self.open.last() {
                Some(token) if self.next.kind == Kind::End => {
                    self.error(token.at, format!("this `{}` is not closed", token.text))
                }
                _ => self.expected(expected),
            });
        }
        self.open.pop();
        self.advance();
        Ok(())
    }

    pub(super) fn error(&self, at: usize, message: impl Into<String>) -> FilterError {
        FilterError::at(self.text, at, message)
    }

    /// Makes the error that something else should come next.
    pub(super) fn expected(&self, expected: &str) -> FilterError {
        match self.next.kind {
            Kind::Broken(Flaw::Unclosed, at) => self.error(at, "this string is not closed"),
            Kind::Broken(Flaw::Control, at) => self.error(at, "a string holds no control character"),
            Kind::Broken(Flaw::Escape, at) => {
                self.error(at, r#"expected an escape of JSON (`\"`, `\\`, `\/`, `\n`, `\u00e9`, …)"#)
            }
            _ => {
                let hint =
                    hint::hint(self.text, self.last, self.next, self.open.last().map(|token| token.kind));
                FilterError { hint, ..self.error(self.next.at, format!("expected {expected}")) }
            }
        }
    }
}

/// Reads paths.
impl Parser<'_> {
    /// Reads the whole text.
    pub(super) fn jsonpath(mut self) -> Result<Query, FilterError> {
        if !self.eat(Kind::Root) {
            return Err(self.expected("`$`"));
        }
        let query = self.path(Start::Root)?;
        match self.next.kind {
            Kind::End => Ok(query),
            _ => Err(self.expected("`.name`, `[…]` or the end")),
        }
    }

    /// Reads what follows a `$` or `@`.
    pub(super) fn path(&mut self, start: Start) -> Result<Query, FilterError> {
        let mut segments = Vec::new();
        loop {
            segments.push(match self.next.kind {
                Kind::Dot => {
                    self.advance();
                    Segment::Child(Box::new([self.bare("a name or `*`")?]))
                }
                Kind::Dots => {
                    self.advance();
                    Segment::Descendant(match self.next.kind {
                        Kind::Open(Bracket::Square) => self.subscripts()?,
                        _ => Box::new([self.bare("a name, `*` or `[…]`")?]),
                    })
                }
                Kind::Open(Bracket::Square) => Segment::Child(self.subscripts()?),
                _ => return Ok(Query { start, segments: segments.into() }),
            });
        }
    }

    /// Reads what may follow a dot without brackets.
    fn bare(&mut self, expected: &str) -> Result<Selector, FilterError> {
        let token = self.next;
        match token.kind {
            Kind::Star => {
                self.advance();
                Ok(Selector::Wildcard)
            }
            Kind::Name => {
                self.advance();
                match self.next.kind {
                    Kind::Open(Bracket::Round) => self.call(token),
                    _ => Ok(Selector::Name(token.text.into())),
                }
            }
            _ => Err(self.expected(expected)),
        }
    }

    fn subscripts(&mut self) -> Result<Box<[Selector]>, FilterError> {
        self.open()?;
        let mut selectors = vec![self.subscript()?];
        while self.eat(Kind::Comma) {
            selectors.push(self.subscript()?);
        }
        self.close("`,` or `]`")?;
        Ok(selectors.into())
    }

    fn subscript(&mut self) -> Result<Selector, FilterError> {
        let token = self.next;
        match token.kind {
            Kind::String => {
                self.advance();
                Ok(Selector::Name(unquoted(token).into()))
            }
            Kind::Star => {
                self.advance();
                Ok(Selector::Wildcard)
            }
            Kind::Number | Kind::Colon => self.index_or_slice(),
            Kind::Question => self.filter(),
            Kind::Root | Kind::Current => {
                let start = if token.kind == Kind::Root { Start::Root } else { Start::Current };
                self.advance();
                Ok(Selector::Subscript(Box::new(self.path(start)?)))
            }
            Kind::Name if self.lexer.clone().token().kind == Kind::Open(Bracket::Round) => {
                self.advance();
                self.call(token)
            }
            _ => Err(self.expected(SUBSCRIPT)),
        }
    }

    fn index_or_slice(&mut self) -> Result<Selector, FilterError> {
        let start = self.integer()?;
        let end_or_index = match (start, self.eat(Kind::Colon)) {
            (Some(index), false) => return Ok(Selector::Index(index)),
            (_, true) => self.integer()?,
            (None, false) => return Err(self.expected(SUBSCRIPT)),
        };
        let step = if self.eat(Kind::Colon) { self.integer()? } else { None };
        Ok(Selector::Range(Box::new(Slice { start, end: end_or_index, step })))
    }

    /// Reads an integer, if a number comes next. One beyond `i64` is as good as the last of them: there is no such
    /// place in any array.
    fn integer(&mut self) -> Result<Option<i64>, FilterError> {
        let Token { kind: Kind::Number, at, text } = self.next else { return Ok(None) };
        if text.contains(['.', 'e', 'E']) {
            return Err(self.error(at, "expected an integer"));
        }
        self.advance();
        let beyond = if text.starts_with('-') { i64::MIN } else { i64::MAX };
        Ok(Some(text.parse().unwrap_or(beyond)))
    }

    fn filter(&mut self) -> Result<Selector, FilterError> {
        self.filters += 1;
        limits::check_filters(self.text, self.next.at, self.filters)?;
        self.advance();
        if self.next.kind != Kind::Open(Bracket::Round) {
            return Err(self.expected("`(`"));
        }
        self.open()?;
        let condition = self.condition()?;
        self.close("`and`, `or` or `)`")?;
        Ok(Selector::This(condition))
    }

    /// Reads a function's arguments.
    fn call(&mut self, name: Token<'_>) -> Result<Selector, FilterError> {
        let Some(function) = function(name.text) else {
            let message = "expected a function of jsonpath2 (`length`, `charAt`, `substring`, `keys`, `values` or `entries`)";
            let hint = hint::function(name.text);
            return Err(FilterError { hint, ..self.error(name.at, message) });
        };
        self.open()?;
        let mut arguments = Vec::new();
        if self.next.kind != Kind::Close(Bracket::Round) {
            arguments.push(self.value("an argument or `)`")?);
            while self.eat(Kind::Comma) {
                arguments.push(self.value("an argument")?);
            }
        }
        self.close("`,` or `)`")?;
        let arguments = arguments.into_iter().map(Value::into).collect();
        Ok(Selector::Call(Call { function, arguments }))
    }
}

fn function(name: &str) -> Option<Function> {
    Some(match name {
        "length" => Function::Length,
        "charAt" => Function::CharAt,
        "substring" => Function::Substring,
        "keys" => Function::Keys,
        "values" => Function::Values,
        "entries" => Function::Entries,
        _ => return None,
    })
}
