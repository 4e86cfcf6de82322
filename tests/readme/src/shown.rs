//! Whether a terminal shows what a page says.
//!
//! Parts that differ from run to run are made equal first: times, UUIDs, digests, and quantities with a unit of time or
//! memory. Then `…` stands for anything within a line, and on a line of its own for any number of lines. A line of the
//! page that begins with one space continues the line before, wherever the terminal breaks it.

use std::sync::LazyLock;

use regex::Regex;

/// How much of the output a text has to cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    Whole,
    /// Some consecutive lines of it.
    Part,
}

/// Patterns that differ from run to run, and their replacements.
static VARYING: LazyLock<[(Regex, &str); 5]> = LazyLock::new(|| {
    [
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>"),
        (r"[0-9a-f]{8}-([0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|…)", "<uuid>"),
        (r"sha256:[0-9a-f]{64}", "<digest>"),
        (r"\b\d+(\.\d+)? ?(ns|µs|ms|s)\b", "<duration>"),
        (r"\b\d+(\.\d+)? (B|KiB|MiB|GiB)\b", "<size>"),
    ]
    .map(|(pattern, name)| (Regex::new(pattern).expect("it is a regular expression"), name))
});

#[derive(Clone, Copy, Debug)]
enum Token {
    Char(char),
    /// Anything within a line.
    Any,
    /// Any number of whole lines.
    Lines,
    /// Spaces and line ends, or nothing.
    Break,
}

/// Returns whether the output matches the text.
pub(crate) fn agrees(text: &str, shown: &str, extent: Extent) -> bool {
    let lines = lines(text);
    agree(&lines.iter().map(String::as_str).collect::<Vec<_>>(), &lines_joined(shown), extent)
}

/// Returns the index of the first line of the text that is not shown, or the number of its lines if more is shown after
/// them.
pub(crate) fn first_difference(text: &str, shown: &str, extent: Extent) -> usize {
    let (text, shown) = (lines(text), lines_joined(shown));
    let is_shown = |count: &usize| {
        let mut begin: Vec<_> = text[..*count].iter().map(String::as_str).collect();
        begin.push("…");
        agree(&begin, &shown, extent)
    };
    (0..=text.len()).take_while(is_shown).last().unwrap_or(0)
}

/// Returns the lines with varying parts made equal, without trailing spaces and without empty lines at the end.
fn lines(text: &str) -> Vec<String> {
    let equal = VARYING
        .iter()
        .fold(text.to_owned(), |text, (pattern, name)| pattern.replace_all(&text, *name).into_owned());
    equal.trim_end().lines().map(|line| line.trim_end().to_owned()).collect()
}

fn lines_joined(text: &str) -> String {
    lines(text).into_iter().map(|line| line + "\n").collect()
}

fn agree(text: &[&str], shown: &str, extent: Extent) -> bool {
    let mut tokens = Vec::new();
    if extent == Extent::Part {
        tokens.push(Token::Lines);
    }
    for line in text {
        let rest = line.strip_prefix(' ').filter(|rest| !rest.starts_with(' ') && *rest != "…");
        if line.trim() == "…" {
            tokens.push(Token::Lines);
            continue;
        }
        if rest.is_some() && matches!(tokens.last(), Some(Token::Char('\n'))) {
            tokens.pop();
            tokens.push(Token::Break);
        }
        let char = |c| if c == '…' { Token::Any } else { Token::Char(c) };
        tokens.extend(rest.unwrap_or(line).chars().map(char));
        tokens.push(Token::Char('\n'));
    }
    if extent == Extent::Part {
        tokens.push(Token::Lines);
    }
    matches(&tokens, shown)
}

/// Follows all paths through the tokens at once.
fn matches(tokens: &[Token], shown: &str) -> bool {
    let mut at = vec![false; tokens.len() + 1];
    at[0] = true;
    let mut line_begins = true;
    skip(tokens, &mut at, line_begins);
    for c in shown.chars() {
        line_begins = c == '\n';
        let mut next = vec![false; tokens.len() + 1];
        for (index, token) in tokens.iter().enumerate().filter(|(index, _)| at[*index]) {
            match token {
                Token::Char(wanted) => next[index + 1] |= *wanted == c,
                Token::Any => next[index] |= c != '\n',
                Token::Lines => next[index] = true,
                Token::Break => next[index] |= c.is_whitespace(),
            }
        }
        skip(tokens, &mut next, line_begins);
        at = next;
    }
    at[tokens.len()]
}

/// Also enters the positions after tokens that may match nothing.
fn skip(tokens: &[Token], at: &mut [bool], line_begins: bool) {
    for (index, token) in tokens.iter().enumerate() {
        let ends = match token {
            Token::Char(_) => false,
            Token::Any | Token::Break => true,
            Token::Lines => line_begins,
        };
        at[index + 1] |= at[index] && ends;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str, shown: &str) -> bool {
        agrees(text, shown, Extent::Whole)
    }

    fn part(text: &str, shown: &str) -> bool {
        agrees(text, shown, Extent::Part)
    }

    #[test]
    fn a_text_is_compared_line_by_line() {
        assert!(whole("a\n  b\n", "a\n  b") && whole("a\n", "a  \n\n\n") && whole("", ""));
        assert!(!whole("a\n", "a\nb\n") && !whole("a\nb\n", "a\n") && !whole("a\n", "b\n"));
        assert!(!whole("a\n  b\n", "a\n b\n") && !whole("a\n\nb\n", "a\nb\n"));
    }

    #[test]
    fn an_ellipsis_stands_for_anything_within_a_line() {
        assert!(whole("{\"a\":1,…,\"z\":2}\n", "{\"a\":1,\"b\":[],\"z\":2}\n") && whole("a…\n", "a"));
        assert!(!whole("a…z\n", "a\nz\n") && !whole("a…y\n", "a z\n"));
    }

    #[test]
    fn an_ellipsis_on_its_own_line_stands_for_lines() {
        assert!(whole("a\n…\nz\n", "a\nz\n") && whole("a\n  …\nz\n", "a\nb\nc\nz\n"));
        assert!(whole("…\nz\n", "z") && whole("a\n…\n", "a") && whole("a\n…\n", "a\nb\n"));
        assert!(!whole("a\n…\nz\n", "a\nbz\n") && !whole("a\n…\nz\n", "ab\nz\n"));
    }

    #[test]
    fn a_line_that_begins_with_one_space_continues_the_line_before() {
        assert!(whole("{\"a\":1,\n \"b\":2}\n", "{\"a\":1,\"b\":2}") && whole("one\n two\n", "one two"));
        assert!(whole("one\n two\n", "one\n two\n"));
        assert!(!whole("one\n  two\n", "one two") && !whole("one\ntwo\n", "onetwo"));
    }

    #[test]
    fn parts_that_differ_from_run_to_run_are_equal() {
        assert!(whole("at 2026-11-22T03:04:04.367942Z\n", "at 2027-01-02T13:14:15Z\n"));
        assert!(whole("2e867b9f-5543-4861-8959-a31dd6335411\n", "01a20290-806a-7632-9449-fdc1684e07a6\n"));
        assert!(whole("\"2e867b9f-…\"\n", "\"01a20290-806a-7632-9449-fdc1684e07a6\"\n"));
        assert!(whole("used 453 µs of 250 ms, 1.8 MiB\n", "used 1.2 ms of 250 ms, 980 KiB\n"));
        assert!(whole("finished in 0.00s\n", "finished in 12.34s\n"));
        let digest = |digit: &str| format!("sha256:{}\n", digit.repeat(64));
        assert!(whole(&digest("a"), &digest("0")));
        assert!(!whole("3 of 10 pass\n", "4 of 10 pass\n") && !whole("1 case\n", "2 case\n"));
        assert!(!whole("used 1 ms\n", "used 1 MiB\n") && !whole("at 12:00\n", "at 13:00\n"));
    }

    #[test]
    fn a_part_is_some_whole_lines() {
        assert!(part("b\nc\n", "a\nb\nc\nd\n") && part("b\n", "b\n") && part("b\n…\nd\n", "a\nb\nc\nd\ne"));
        assert!(!part("b\nd\n", "a\nb\nc\nd\n") && !part("b\n", "ab\n") && !part("b\n", ""));
    }

    #[test]
    fn the_first_line_that_differs_is_returned() {
        let first = |text, shown| first_difference(text, shown, Extent::Whole);
        assert_eq!(
            (first("a\nb\nc\n", "a\nx\nc\n"), first("a\nb\n", "x\n"), first("a\nb\n", "a\n")),
            (1, 0, 1)
        );
        assert_eq!(first("a\nb\n", "a\nb\nc\n"), 2);
        assert_eq!(first_difference("b\nx\n", "a\nb\nc\n", Extent::Part), 1);
    }
}
