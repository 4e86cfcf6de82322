//! Clauses in words, for the API: `equality on $.eventType`.

use std::fmt;

use super::{Atom, Clause, Side, Step, Test};
use crate::number::Number;
use crate::show::write_name;

impl fmt::Display for Clause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conditions: Vec<_> = self.atoms.iter().filter(|atom| !self.goes_without_saying(atom)).collect();
        let Some((first, others)) = conditions.split_first() else { return Ok(()) };
        let word = word(&first.test);
        if others.iter().any(|other| other.path != first.path || self::word(&other.test) != word) {
            return write!(f, "any of {} conditions", conditions.len());
        }
        let word = if word == EQUALITY && !others.is_empty() { "membership on" } else { word };
        write!(f, "{word} ")?;
        write_path(f, &first.path)
    }
}

const EQUALITY: &str = "equality on";

fn word(test: &Test<'_>) -> &'static str {
    match test {
        Test::Exists => "existence of",
        Test::String(_) | Test::Number(_) | Test::Bool(_) | Test::Null => EQUALITY,
        Test::Prefix(_) => "prefix on",
        Test::Beyond(..) => "range on",
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
        Step::Name(name) => write_name(f, name),
    })
}
