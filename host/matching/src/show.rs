//! The internal form, written as its author would: in the dialect that it was read in.

use std::fmt::{self, Display, Formatter, Write};

use super::dialect::Dialect;
use super::form::{
    Call, Comparison, Condition, Function, Literal, Match, Operand, Operator, Query, Segment, Selector,
    Slice, Start,
};
use super::pattern::{Extent, Pattern};

/// Something of the form, and the dialect to write it in.
pub(super) struct Shown<'f, T: ?Sized>(pub(super) &'f T, pub(super) Dialect);

/// Separated by a text.
struct Joined<'f, T>(&'f [T], Dialect, &'static str);

impl<'f, T> Display for Joined<'f, T>
where
    Shown<'f, T>: Display,
{
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (place, part) in self.0.iter().enumerate() {
            f.write_str(if place == 0 { "" } else { self.2 })?;
            Shown(part, self.1).fmt(f)?;
        }
        Ok(())
    }
}

impl Display for Shown<'_, Query> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_char(match self.0.start {
            Start::Root => '$',
            Start::Current => '@',
        })?;
        Joined(&self.0.segments, self.1, "").fmt(f)
    }
}

impl Display for Shown<'_, Segment> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (dots, selectors) = match self.0 {
            Segment::Child(selectors) => (".", selectors),
            Segment::Descendant(selectors) => ("..", selectors),
        };
        match &**selectors {
            [Selector::Name(name)] if is_plain(name, self.1) => write!(f, "{dots}{name}"),
            [Selector::Call(call)] => write!(f, "{dots}{}", Shown(call, self.1)),
            selectors => {
                let dots = if dots == "." { "" } else { dots };
                write!(f, "{dots}[{}]", Joined(selectors, self.1, ","))
            }
        }
    }
}

impl Display for Shown<'_, Selector> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Selector::Name(name) => write_text(f, name, self.1),
            Selector::Index(index) => write!(f, "{index}"),
            Selector::Wildcard => f.write_char('*'),
            Selector::Slice(slice) | Selector::Range(slice) => {
                let Slice { start, end, step } = slice.as_ref();
                let part = |part: &Option<i64>| part.map(|part| part.to_string()).unwrap_or_default();
                write!(f, "{}:{}", part(start), part(end))?;
                step.map_or(Ok(()), |step| write!(f, ":{step}"))
            }
            Selector::Filter(condition) => write!(f, "?{}", Shown(condition, self.1)),
            Selector::This(condition) => write!(f, "?({})", Shown(condition, self.1)),
            Selector::Subscript(query) => Shown(query.as_ref(), self.1).fmt(f),
            Selector::Call(call) => Shown(call, self.1).fmt(f),
        }
    }
}

impl Display for Shown<'_, Call> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let name = match self.0.function {
            Function::Length => "length",
            Function::CharAt => "charAt",
            Function::Substring => "substring",
            Function::Keys => "keys",
            Function::Values => "values",
            Function::Entries => "entries",
        };
        write!(f, "{name}({})", Joined(&self.0.arguments, self.1, ","))
    }
}

impl Display for Shown<'_, Condition> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (and, or, not) = match self.1 {
            Dialect::Rfc9535 => (" && ", " || ", "!"),
            Dialect::Jsonpath2 => (" and ", " or ", "not "),
        };
        match self.0 {
            Condition::And(parts) => join(f, parts, self.1, and),
            Condition::Or(parts) => join(f, parts, self.1, or),
            Condition::Not(part) => match part.as_ref() {
                single @ (Condition::Exists(_) | Condition::Match(_) | Condition::Truth(_)) => {
                    write!(f, "{not}{}", Shown(single, self.1))
                }
                other => write!(f, "{not}({})", Shown(other, self.1)),
            },
            Condition::Exists(query) => Shown(query, self.1).fmt(f),
            Condition::Compare(comparison) => Shown(comparison.as_ref(), self.1).fmt(f),
            Condition::Match(matching) => Shown(matching.as_ref(), self.1).fmt(f),
            Condition::Truth(value) => write!(f, "{value}"),
        }
    }
}

/// Joins parts, and puts nested joins in parentheses, so that a reader need not know which operator binds tighter.
fn join(f: &mut Formatter<'_>, parts: &[Condition], dialect: Dialect, word: &str) -> fmt::Result {
    for (place, part) in parts.iter().enumerate() {
        f.write_str(if place == 0 { "" } else { word })?;
        match part {
            Condition::And(_) | Condition::Or(_) => write!(f, "({})", Shown(part, dialect))?,
            part => Shown(part, dialect).fmt(f)?,
        }
    }
    Ok(())
}

impl Display for Shown<'_, Comparison> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let operator = match (self.0.operator, self.1) {
            (Operator::Equal, Dialect::Jsonpath2) => "=".to_owned(),
            (operator, _) => operator.to_string(),
        };
        write!(f, "{} {operator} {}", Shown(&self.0.left, self.1), Shown(&self.0.right, self.1))
    }
}

/// Writes an operator as RFC 9535 does.
impl Display for Operator {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        })
    }
}

impl Display for Shown<'_, Match> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (extent, found) = match &self.0.pattern {
            Pattern::Fixed(fixed) => (fixed.extent, None),
            Pattern::Found { operand, extent } => (*extent, Some(operand)),
        };
        let name = match extent {
            Extent::Whole => "match",
            Extent::Part => "search",
        };
        write!(f, "{name}({}, ", Shown(&self.0.text, self.1))?;
        match (&self.0.pattern, found) {
            (_, Some(operand)) => Shown(operand, self.1).fmt(f)?,
            (Pattern::Fixed(fixed), None) => write_text(f, &fixed.text, self.1)?,
            (Pattern::Found { .. }, None) => {}
        }
        f.write_char(')')
    }
}

impl Display for Shown<'_, Operand> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Operand::Literal(literal) => Shown(literal, self.1).fmt(f),
            Operand::Query(query) => Shown(query, self.1).fmt(f),
            Operand::Length(operand) => write!(f, "length({})", Shown(operand.as_ref(), self.1)),
            Operand::Count(query) => write!(f, "count({})", Shown(query, self.1)),
            Operand::Value(query) => write!(f, "value({})", Shown(query, self.1)),
        }
    }
}

impl Display for Shown<'_, Literal> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Literal::Null => f.write_str("null"),
            Literal::Bool(value) => write!(f, "{value}"),
            Literal::Number(number) => write!(f, "{number}"),
            Literal::String(text) => write_text(f, text, self.1),
            Literal::Json(document) => write!(f, "{}", document.root()),
        }
    }
}

/// Writes a string literal: jsonpath2 has no escapes.
fn write_text(f: &mut Formatter<'_>, text: &str, dialect: Dialect) -> fmt::Result {
    match dialect {
        Dialect::Rfc9535 => write_quoted(f, text),
        Dialect::Jsonpath2 => write!(f, "\"{text}\""),
    }
}

/// Writes a path's step to a member as RFC 9535 does: `.name` or `['odd name']`.
pub(super) fn write_name(f: &mut Formatter<'_>, name: &str) -> fmt::Result {
    if is_plain(name, Dialect::Rfc9535) {
        return write!(f, ".{name}");
    }
    f.write_char('[')?;
    write_quoted(f, name)?;
    f.write_char(']')
}

fn write_quoted(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('\'')?;
    text.chars().try_for_each(|c| match c {
        '\'' | '\\' => write!(f, "\\{c}"),
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        c if c.is_ascii_control() => write!(f, "\\u{:04x}", u32::from(c)),
        c => f.write_char(c),
    })?;
    f.write_char('\'')
}

/// Tells whether a name may follow a dot (RFC 9535 §2.5.1.1; jsonpath2 takes ASCII only, and no keyword).
fn is_plain(name: &str, dialect: Dialect) -> bool {
    let is_first =
        |c: char| c.is_ascii_alphabetic() || c == '_' || (!c.is_ascii() && dialect == Dialect::Rfc9535);
    let is_keyword = matches!(name, "and" | "or" | "not" | "true" | "false" | "null");
    name.starts_with(is_first)
        && name.chars().all(|c| is_first(c) || c.is_ascii_digit())
        && (dialect == Dialect::Rfc9535 || !is_keyword)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Filter;
    use waypost_domain::FilterDialect;

    #[test]
    fn writes_what_its_parser_reads() {
        for text in [
            "$",
            "$.data[*]['odd name','\\'\\n'][-1][1:2:3]..é[?@.a == 'x' && !@.b || @.c <= 1.5].d",
            "$..[?match(@.a, 'x.*') && length(@.b) > 1 && count(@.*) == 1 && value(@..c) != null]",
            "$[?search(@.a, $.b)]",
        ] {
            let filter = Filter::parse(text, FilterDialect::Rfc9535).unwrap();
            let shown = Shown(filter.query(), Dialect::Rfc9535).to_string();
            let again = Filter::parse(&shown, FilterDialect::Rfc9535).unwrap();
            assert_eq!(Shown(again.query(), Dialect::Rfc9535).to_string(), shown, "{text}");
            assert_eq!(format!("{:?}", again.query()), format!("{:?}", filter.query()), "{text}");
        }
        for text in [
            r#"$.data[*]["odd name"][-1][1:2:3]..[?((@.a = "x" or not @.b) and @["é"] <= 1.5)].d"#,
            r#"$["or"][$.i][@.k].name.substring(0,4)[?(@ = [1,{"a":null}] and true)].keys()"#,
        ] {
            let filter = Filter::parse(text, FilterDialect::Jsonpath2).unwrap();
            let shown = Shown(filter.query(), Dialect::Jsonpath2).to_string();
            let again = Filter::parse(&shown, FilterDialect::Jsonpath2).unwrap();
            assert_eq!(format!("{:?}", again.query()), format!("{:?}", filter.query()), "{text}\n{shown}");
        }
    }
}
