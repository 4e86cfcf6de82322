//! What a text begins with that a regular expression matches.

use std::borrow::Cow;

use super::Test;
use crate::pattern::Extent;

/// Returns tests of which every text passes one that the pattern matches; none where nothing is known.
///
/// It reads literal characters up to the first that has a meaning, and no groups, no classes and no flags, in which
/// a `|` or a letter could mean something else.
pub(super) fn of(pattern: &str, extent: Extent) -> Vec<Test<'_>> {
    if pattern.contains('|') && pattern.contains(['(', '[', '\\']) {
        return Vec::new();
    }
    let tests = pattern.split('|').map(|alternative| test(alternative, extent));
    tests.collect::<Option<_>>().unwrap_or_default()
}

fn test(alternative: &str, extent: Extent) -> Option<Test<'_>> {
    let anchored = alternative.strip_prefix('^');
    let (mut rest, mut is_whole) = match extent {
        Extent::Whole => (anchored.unwrap_or(alternative), true),
        Extent::Part => (anchored?, false),
    };
    if let Some(before) = rest.strip_suffix('$').filter(|before| !before.ends_with('\\')) {
        (rest, is_whole) = (before, true);
    }
    let (literal, is_all) = literal(rest);
    match (is_all && is_whole, literal.is_empty()) {
        (true, _) => Some(Test::String(Cow::Owned(literal))),
        (false, false) => Some(Test::Prefix(Cow::Owned(literal))),
        (false, true) => None,
    }
}

/// Reads literal characters; tells whether there is nothing else.
fn literal(pattern: &str) -> (String, bool) {
    let mut literal = String::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            // `\<` and `\>` are ends of a word.
            '\\' => match chars.next() {
                Some(escaped) if escaped.is_ascii_punctuation() && !matches!(escaped, '<' | '>') => {
                    literal.push(escaped);
                }
                Some(_) | None => return (literal, false),
            },
            // The character before may be missing in the text.
            '?' | '*' | '+' | '{' => {
                literal.pop();
                return (literal, false);
            }
            '.' | '[' | ']' | '(' | ')' | '}' | '^' | '$' | '|' => return (literal, false),
            _ => literal.push(c),
        }
    }
    (literal, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_literal_beginnings() {
        let prefix = |text: &str| vec![Test::Prefix(text.to_owned().into())];
        let whole = |text: &str| Test::String(text.to_owned().into());
        assert_eq!(of("abc.*", Extent::Whole), prefix("abc"));
        assert_eq!(of("abc*", Extent::Whole), prefix("ab"));
        assert_eq!(of("é?x", Extent::Whole), []);
        assert_eq!(of(r"a\.b\d", Extent::Whole), prefix("a.b"));
        assert_eq!(of("^ab(c|d)$", Extent::Whole), []);
        assert_eq!(of("ab(c)$", Extent::Part), []);
        assert_eq!(of("^ab(c)$", Extent::Part), prefix("ab"));
        assert_eq!(of("^ab$", Extent::Part), [whole("ab")]);
        assert_eq!(of("ab|cd", Extent::Whole), [whole("ab"), whole("cd")]);
        assert_eq!(of("^ab|cd", Extent::Part), []);
        assert_eq!(of("(?i)ab|cd", Extent::Whole), []);
        assert_eq!(of(r"ab\|c", Extent::Whole), []);
        assert_eq!(of(r"a\<b", Extent::Whole), prefix("a"));
    }
}
