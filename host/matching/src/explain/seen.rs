//! The values that a condition looked at.

use std::fmt::{self, Write};

use crate::document::Cursor;
use crate::evaluate::Evaluator;
use crate::form::{Comparison, Condition, Operand, Query};
use crate::pattern::Pattern;

/// How many values are told.
const VALUES_MAX: usize = 10;
/// How many are looked at to find different ones.
const LOOKED_MAX: usize = 10_000;
/// How many characters of each.
const VALUE_CHARS_MAX: usize = 60;

/// Different values, in the order in which they were met.
#[derive(Default)]
pub(super) struct Seen {
    values: Vec<String>,
    looked: usize,
    more: bool,
}

impl Seen {
    /// Notes what a condition looks at for a node.
    pub(super) fn look(&mut self, evaluator: &Evaluator<'_>, condition: &Condition, node: Cursor<'_>) {
        if self.more {
            return;
        }
        match condition {
            Condition::And(parts) | Condition::Or(parts) => {
                parts.iter().for_each(|part| self.look(evaluator, part, node));
            }
            Condition::Not(part) => self.look(evaluator, part, node),
            // Where it stops is told step by step.
            Condition::Exists(_) | Condition::Truth(_) => {}
            Condition::Compare(comparison) => {
                let Comparison { left, operator, right, .. } = comparison.as_ref();
                match (evaluator.told(left, node), evaluator.told(right, node)) {
                    // Each with the other: two lists would not tell which was compared with which.
                    (Some(one), Some(other)) if !is_literal(left) && !is_literal(right) => {
                        self.add(|| format!("{} {operator} {}", shortened(one), shortened(other)));
                    }
                    _ => {
                        self.operand(evaluator, left, node);
                        self.operand(evaluator, right, node);
                    }
                }
            }
            Condition::Match(matching) => {
                self.operand(evaluator, &matching.text, node);
                if let Pattern::Found { operand, .. } = &matching.pattern {
                    self.operand(evaluator, operand, node);
                }
            }
        }
    }

    /// Returns the values, and an ellipsis where there were more.
    pub(super) fn values(mut self) -> Vec<String> {
        self.values.extend(self.more.then(|| "…".to_owned()));
        self.values
    }

    fn operand(&mut self, evaluator: &Evaluator<'_>, operand: &Operand, node: Cursor<'_>) {
        match operand {
            Operand::Literal(_) => {}
            Operand::Query(query) => self.query(evaluator, query, node),
            Operand::Length(_) | Operand::Count(_) | Operand::Value(_) => {
                if let Some(value) = evaluator.told(operand, node) {
                    self.add(|| shortened(value));
                }
            }
        }
    }

    fn query(&mut self, evaluator: &Evaluator<'_>, query: &Query, node: Cursor<'_>) {
        let mut found = false;
        // A failure here has ended, or will end, the evaluation of the condition itself.
        let _ended = evaluator.collect(query, node, &mut |node| {
            found = true;
            self.add(|| shortened(node));
        });
        if !found {
            self.add(|| "nothing".to_owned());
        }
    }

    fn add(&mut self, value: impl FnOnce() -> String) {
        if self.more {
            return;
        }
        self.looked += 1;
        if self.looked > LOOKED_MAX {
            self.more = true;
            return;
        }
        let value = value();
        if self.values.contains(&value) {
            return;
        }
        if self.values.len() < VALUES_MAX {
            self.values.push(value);
        } else {
            self.more = true;
        }
    }
}

fn is_literal(operand: &Operand) -> bool {
    matches!(operand, Operand::Literal(_))
}

/// Writes as much of a value as is told.
fn shortened(value: impl fmt::Display) -> String {
    let mut beginning = Beginning { text: String::new(), chars: 0 };
    match write!(beginning, "{value}") {
        Ok(()) => beginning.text,
        Err(fmt::Error) => beginning.text + "…",
    }
}

/// A writer that fails when it has enough.
struct Beginning {
    text: String,
    chars: usize,
}

impl Write for Beginning {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| self.write_char(c))
    }

    fn write_char(&mut self, c: char) -> fmt::Result {
        if self.chars == VALUE_CHARS_MAX {
            return Err(fmt::Error);
        }
        self.text.push(c);
        self.chars += 1;
        Ok(())
    }
}
