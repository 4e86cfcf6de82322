//! Clauses in words, for the API: `equality on $.eventType`.

use std::fmt;

use super::{Atom, Clause, Side, Step, Test};
use crate::matching::number::Number;

impl fmt::Display for Clause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conditions: Vec<_> = self.atoms.iter().filter(|atom| !self.goes_without_saying(atom)).collect();
        let Some((first, others)) = conditions.split_first() else { return Ok(()) };
        let word = word(&first.test);
        if others.iter().any(|other| other.path != first.path || self::word(&other.test) != word) {
            return write!(f, "any of {} conditions", conditions.len());
        }
        let word = if word == EQUALITY && !others.is_empty() { "membership" } else { word };
        write!(f, "{word} on ")?;
        write_path(f, &first.path)
    }
}

const EQUALITY: &str = "equality";

fn word(test: &Test<'_>) -> &'static str {
    match test {
        Test::Exists => "existence",
        Test::String(_) | Test::Number(_) | Test::Bool(_) | Test::Null => EQUALITY,
        Test::Prefix(_) => "prefix",
        Test::Beyond(..) => "range",
    }
}

impl Clause<'_> {
    /// Tells whether the atom is `true` or `false` as the number that another atom of the clause asks for.
    fn goes_without_saying(&self, atom: &Atom<'_>) -> bool {
        let Test::Bool(value) = atom.test else { return false };
        let as_number = Number::Int(i64::from(value));
        self.atoms.iter().filter(|other| other.path == atom.path).any(|other| match &other.test {
            Test::Number(number) => *number == as_number,
            Test::Beyond(Side::Above, bound) => as_number >= bound.number,
            Test::Beyond(Side::Below, bound) => as_number <= bound.number,
            Test::Exists | Test::String(_) | Test::Prefix(_) | Test::Bool(_) | Test::Null => false,
        })
    }
}

/// Writes a path as RFC 9535 does: `$.data[*]['odd name']`.
fn write_path(f: &mut fmt::Formatter<'_>, path: &[Step<'_>]) -> fmt::Result {
    f.write_str("$")?;
    path.iter().try_for_each(|step| match step {
        Step::Any => f.write_str("[*]"),
        Step::Name(name) if is_plain(name) => write!(f, ".{name}"),
        Step::Name(name) => {
            f.write_str("['")?;
            name.chars().try_for_each(|c| match c {
                '\'' | '\\' => write!(f, "\\{c}"),
                '\n' => f.write_str("\\n"),
                '\r' => f.write_str("\\r"),
                '\t' => f.write_str("\\t"),
                c if c.is_ascii_control() => write!(f, "\\u{:04x}", u32::from(c)),
                c => write!(f, "{c}"),
            })?;
            f.write_str("']")
        }
    })
}

/// Tells whether a name may follow a dot (RFC 9535 §2.5.1.1).
fn is_plain(name: &str) -> bool {
    let starts = |c: char| c.is_ascii_alphabetic() || c == '_' || !c.is_ascii();
    name.starts_with(starts) && name.chars().all(|c| starts(c) || c.is_ascii_digit())
}
