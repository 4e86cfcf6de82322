//! Patterns that are no regular expressions. RFC 9535 §2.4.6 has them silently match nothing, which is never what the
//! author meant.

use crate::error::FilterError;
use crate::form::{Condition, Match, Operand, Query, Segment, Selector};
use crate::limits::Outside;
use crate::pattern::{Fixed, Pattern};

/// Says of each pattern that it can match nothing, and why, with the place in `text`, which `query` was read from.
pub(super) fn warnings(text: &str, query: &Query) -> Vec<String> {
    let mut calls = Calls::default();
    calls.query(query);
    // The form has no places; but it has the calls in the order of the text.
    let bad = places(text).zip(calls.0).filter_map(|(open, pattern)| Some((open, pattern?.fault()?)));
    bad.map(|(open, fault)| {
        let at = literal(text, open).map_or(open, |begin| begin + place_in_literal(&text[begin..], fault.at));
        let message = format!(
            "this pattern is no regular expression, so that it matches nothing: {}{}",
            fault.reason,
            if fault.is_glob { " (any text is written `.*`)" } else { "" }
        );
        FilterError::at(text, at, message).to_string()
    })
    .collect()
}

/// The calls of `match()` and `search()` in their order, each with its pattern where that is a literal.
#[derive(Default)]
struct Calls<'q>(Vec<Option<&'q Fixed>>);

impl<'q> Calls<'q> {
    fn query(&mut self, query: &'q Query) {
        for segment in &query.segments {
            let (Segment::Child(selectors) | Segment::Descendant(selectors)) = segment;
            for selector in selectors {
                match selector {
                    Selector::Filter(condition) => self.condition(condition),
                    Selector::Name(_)
                    | Selector::Wildcard
                    | Selector::Index(_)
                    | Selector::Slice(_)
                    | Selector::Range(_)
                    | Selector::This(_)
                    | Selector::Subscript(_)
                    | Selector::Call(_) => {}
                }
            }
        }
    }

    fn condition(&mut self, condition: &'q Condition) {
        match condition {
            Condition::And(parts) | Condition::Or(parts) => {
                parts.iter().for_each(|part| self.condition(part))
            }
            Condition::Not(part) => self.condition(part),
            Condition::Exists(query) => self.query(query),
            Condition::Compare(comparison) => {
                self.operand(&comparison.left);
                self.operand(&comparison.right);
            }
            Condition::Match(matching) => self.call(matching),
            Condition::Truth(_) => {}
        }
    }

    fn call(&mut self, Match { text, pattern }: &'q Match) {
        match pattern {
            Pattern::Fixed(fixed) => {
                self.0.push(Some(fixed));
                self.operand(text);
            }
            Pattern::Found { operand, .. } => {
                self.0.push(None);
                self.operand(text);
                self.operand(operand);
            }
        }
    }

    fn operand(&mut self, operand: &'q Operand) {
        match operand {
            Operand::Literal(_) => {}
            Operand::Query(query) | Operand::Count(query) | Operand::Value(query) => self.query(query),
            Operand::Length(inner) => self.operand(inner),
        }
    }
}

/// Returns where the calls open their brackets.
fn places(text: &str) -> impl Iterator<Item = usize> {
    let is_call = |at: usize| {
        let before = |name: &str| text[..at].strip_suffix(name);
        let before = before("match").or_else(|| before("search"));
        before.is_some_and(|before| !before.ends_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    Outside::new(text).filter(move |(at, c)| *c == '(' && is_call(*at)).map(|(at, _)| at)
}

/// Returns where the second argument of a call begins, after its quote.
fn literal(text: &str, open: usize) -> Option<usize> {
    let (mut depth, begin) = (0_usize, open + 1);
    for (at, c) in Outside::new(&text[begin..]) {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.checked_sub(1)?,
            ',' if depth == 0 => {
                let behind = begin + at + 1;
                let space = text[behind..].len() - text[behind..].trim_ascii_start().len();
                return Some(behind + space + 1);
            }
            _ => {}
        }
    }
    None
}

/// Returns where the byte `at` of a literal's content is written, as a string with JSON's escapes.
fn place_in_literal(literal: &str, at: usize) -> usize {
    let (mut content, mut chars) = (0, literal.char_indices());
    while content < at {
        match chars.next() {
            None => break,
            Some((_, '\\')) => match chars.next() {
                // What it stands for may have up to three bytes, of which no place lies within.
                Some((place, 'u')) => {
                    let code =
                        literal.get(place + 1..place + 5).and_then(|hex| u32::from_str_radix(hex, 16).ok());
                    content += code.and_then(char::from_u32).map_or(2, char::len_utf8);
                    chars.nth(3);
                }
                Some(_) => content += 1,
                None => break,
            },
            Some((_, c)) => content += c.len_utf8(),
        }
    }
    chars.offset()
}

#[cfg(test)]
mod tests {
    use crate::Filter;
    use waypost_domain::FilterDialect;

    fn warned(text: &str) -> Vec<String> {
        Filter::parse(text, FilterDialect::Rfc9535).unwrap().warnings().to_vec()
    }

    /// `*.tif` is a pattern of shells. The filter was accepted silently, and `--explain` blamed the data.
    #[test]
    fn a_pattern_that_matches_nothing_is_told_with_its_place() {
        insta::assert_snapshot!(warned("$.data[?search(@.name, '*.tif')]").join("\n"), @"column 25: this pattern is no regular expression, so that it matches nothing: repetition operator missing expression (any text is written `.*`)");
        insta::assert_snapshot!(warned("$[?match(@.a,'[')]").join("\n"), @"column 15: this pattern is no regular expression, so that it matches nothing: unclosed character class");
        let several = r#"$[?match(@.a, 'a.*') && search(@["match('"], "\"é\\w(") || count(@[?match(@, ')')]) > 1 || match(@.a, $.p)]"#;
        insta::assert_snapshot!(warned(several).join("\n"), @r"
        column 53: this pattern is no regular expression, so that it matches nothing: unclosed group
        column 79: this pattern is no regular expression, so that it matches nothing: unopened group
        ");
        insta::assert_snapshot!(warned("$[?!match(@.a, 'a(?=b)')]").join("\n"), @"column 18: this pattern is no regular expression, so that it matches nothing: look-around, including look-ahead and look-behind, is not supported");
        insta::assert_snapshot!(warned(r"$[?match(@.a, '(a)\\1')]").join("\n"), @"column 19: this pattern is no regular expression, so that it matches nothing: backreferences are not supported");
        insta::assert_snapshot!(warned(r"$[?match(@.a, '\u00e9\u0041\\p{Foo}')]").join("\n"), @"column 28: this pattern is no regular expression, so that it matches nothing: Unicode property not found");
    }

    #[test]
    fn a_pattern_that_can_match_is_not_told() {
        for text in [
            "$[?match(@.a, '')]",
            r"$[?search(@.a, '^\\w{1,64}\\.tiff?$')]",
            r"$[?match(@.a, '[a-z&&b~~-]+|\\p{Lu}\\P{Nd}|.\\.')]",
            "$[?match(@.a, $.b)]",
            "$[?match('a', 'b')]",
        ] {
            assert_eq!(warned(text), [""; 0], "{text}");
        }
    }
}
