//! Makes texts from outside safe to show on a terminal and in a log line.
//!
//! Names, reasons, bodies and outputs come from strangers. A line end in them could begin a line that looks like one of
//! ours; an escape sequence would control the terminal, and invisible characters could reverse the reading direction or
//! hide a part. Everything that is shown to people passes through here: the command line's printer, and the text and
//! JSON of log lines (`host/cli/src/telemetry.rs`). REST answers do not: JSON escapes what has to be escaped.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// The mark before each further line of a text whose first line follows our own words.
pub const MARK: &str = "| ";

/// The format characters of Unicode 16.0 (`General_Category` = `Cf`): invisible ones, overrides and isolates of the
/// writing direction, tags. <https://www.unicode.org/Public/16.0.0/ucd/extracted/DerivedGeneralCategory.txt>
const FORMAT: [(char, char); 21] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{180e}', '\u{180e}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{202a}', '\u{202e}'),
    ('\u{2060}', '\u{2064}'),
    ('\u{2066}', '\u{206f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{fff9}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0001}', '\u{e0001}'),
    ('\u{e0020}', '\u{e007f}'),
];

/// Tells whether a character is shown as an escape: a control character (C0, DEL, C1), a format character, or a
/// separator of lines or paragraphs.
pub fn is_escaped(c: char) -> bool {
    if c < '\u{ad}' {
        return c.is_control();
    }
    matches!(c, '\u{2028}' | '\u{2029}') || FORMAT.iter().any(|(first, last)| (*first..=*last).contains(&c))
}

/// Returns a text on one line: `\n` for a line end, `\u{202e}` for a character that would reverse the reading
/// direction.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false, write_escape)
}

/// Returns a text with its line ends and tabs, and all else that [`line()`] escapes as an escape.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| matches!(c, '\n' | '\t'), write_escape)
}

/// Returns JSON that says the same: what stands unescaped in its strings is written as `\u202e`.
pub fn json(text: &str) -> Cow<'_, str> {
    // In valid JSON these are white space between the tokens, and nothing in a string.
    escaped(text, |c| matches!(c, '\n' | '\t' | '\r'), write_json_escape)
}

/// Returns a text that follows a word of ours: each line but the first begins with `indent` and [`MARK`].
pub fn continued(text: &str, indent: &str) -> String {
    let mut lines = text.lines();
    let mut out = line(lines.next().unwrap_or_default()).into_owned();
    for further in lines {
        out.extend(["\n", indent, MARK, &*line(further)]);
    }
    out
}

/// Returns a text of which no line is ours: each begins with `indent` and [`MARK`], and ends with a line end.
pub fn quoted(text: &str, indent: &str) -> String {
    text.lines().map(|further| format!("{indent}{MARK}{}\n", line(further))).collect()
}

/// Writes what is written to it on one line, as [`line()`] does.
pub struct Escaping<'w, W>(pub &'w mut W);

impl<W: Write> Write for Escaping<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write_str(&line(text))
    }
}

/// Escapes what has to be, unless `is_kept` says otherwise.
fn escaped(text: &str, is_kept: fn(char) -> bool, escape: fn(&mut String, char)) -> Cow<'_, str> {
    let is_wanted = |c: char| !is_escaped(c) || is_kept(c);
    let is_printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let Some(first) = (!is_printable).then(|| text.find(|c| !is_wanted(c))).flatten() else {
        return Cow::Borrowed(text);
    };
    let mut out = String::with_capacity(text.len() + 16);
    out.push_str(&text[..first]);
    for c in text[first..].chars() {
        if is_wanted(c) { out.push(c) } else { escape(&mut out, c) }
    }
    Cow::Owned(out)
}

/// Writes `\n`, `\t`, `\r`, or the character's number as in Rust.
fn write_escape(out: &mut String, c: char) {
    match c {
        '\n' | '\t' | '\r' => out.extend(c.escape_default()),
        c => out.extend(c.escape_unicode()),
    }
}

/// Writes the UTF-16 units of a character (RFC 8259 §7).
fn write_json_escape(out: &mut String, c: char) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        let _infallible = write!(out, "\\u{unit:04x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_format_and_separators_are_escaped_and_letters_are_not() {
        let count = (0..=0x0010_ffff).filter_map(char::from_u32).filter(|c| is_escaped(*c)).count();
        // 65 of Cc, 170 of Cf, and the two separators.
        assert_eq!(count, 65 + 170 + 2);
        for c in ['\0', '\x1b', '\x7f', '\u{80}', '\u{9b}', '\u{2028}', '\u{202e}', '\u{2066}', '\u{e0041}'] {
            assert!(is_escaped(c), "{c:?}");
        }
        for c in [' ', '~', '\u{a0}', 'é', '\u{301}', '漢', '🙂', '\u{fe0f}'] {
            assert!(!is_escaped(c), "{c:?}");
        }
    }

    /// An import's name with line ends in it could not be told from lines of the report.
    #[test]
    fn a_text_is_one_line_or_its_further_lines_are_marked() {
        let forged = "x\nerror: everything is fine\r\n\u{202e}\tb\u{9b}31m";
        assert_eq!(line(forged), r"x\nerror: everything is fine\r\n\u{202e}\tb\u{9b}31m");
        assert_eq!(lines(forged), "x\nerror: everything is fine\\r\n\\u{202e}\tb\\u{9b}31m");
        let marked = "x\n    | error: everything is fine\n    | \\u{202e}\\tb\\u{9b}31m";
        assert_eq!(continued(forged, "    "), marked);
        assert_eq!(quoted("a\n\nb", " "), " | a\n | \n | b\n");
        assert!(matches!(line("plain, ü"), Cow::Borrowed("plain, ü")));
    }

    #[test]
    fn json_says_the_same_after_escaping() {
        let text = "{\n\t\"a\": \"\u{7f}\u{9b}31m\u{202e}\u{e0041}é\\n\"}";
        let shown = json(text);
        assert_eq!(shown, "{\n\t\"a\": \"\\u007f\\u009b31m\\u202e\\udb40\\udc41é\\n\"}");
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&shown), value(text));
    }

    #[test]
    fn what_is_formatted_comes_out_on_one_line() {
        let mut out = String::new();
        let (foreign, other) = ("a\nb", "c\u{202e}");
        write!(Escaping(&mut out), "{foreign} {other:?}").unwrap();
        assert_eq!(out, r#"a\nb "c\u{202e}""#);
    }
}
