//! Makes a guest's texts fit to be shown: bounded, and without terminal escapes.

use std::borrow::Cow;

/// Returns a text of at most about `bytes_max` bytes without terminal escapes. If it was cut, it says so.
pub(super) fn clean(text: &str, bytes_max: usize) -> String {
    // Cleaning makes a text longer only where it replaces a control byte with a mark of at most three bytes.
    let cut = floor(text, bytes_max);
    let mut out = without_escapes(cut).into_owned();
    if cut.len() < text.len() {
        out.push_str(&format!("… (cut at {bytes_max} bytes)"));
    }
    out
}

/// The longest text of wasmtime's that is passed on, in bytes: it repeats names, which may be long.
const ERROR_BYTES_MAX: usize = 1000;

/// Returns what wasmtime says, with its causes, as it may be shown.
#[cfg(feature = "wasm")]
pub(super) fn of(error: &wasmtime::Error) -> String {
    clean(&format!("{error:#}"), ERROR_BYTES_MAX)
}

/// Returns the longest start of a text that has at most `bytes_max` bytes.
fn floor(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// Returns a text without escape sequences (ECMA-48). Other control characters, except tabs and line ends, become
/// U+FFFD.
pub(super) fn without_escapes(text: &str) -> Cow<'_, str> {
    let is_wanted = |char: char| !char.is_control() || matches!(char, '\n' | '\t');
    if text.chars().all(is_wanted) {
        return Cow::Borrowed(text);
    }
    let (mut out, mut chars) = (String::with_capacity(text.len()), text.chars().peekable());
    while let Some(char) = chars.next() {
        match char {
            '\x1b' => skip_sequence(&mut chars),
            '\r' if chars.peek() == Some(&'\n') => {}
            char if is_wanted(char) => out.push(char),
            _ => out.push(char::REPLACEMENT_CHARACTER),
        }
    }
    Cow::Owned(out)
}

/// Skips what follows an escape character.
fn skip_sequence(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.next() {
        // A control sequence: parameters, then one final byte.
        Some('[') => while chars.next().is_some_and(|char| !matches!(char, '@'..='~')) {},
        // A string (a title, a link): to BEL or ESC \.
        Some(']' | 'P' | 'X' | '^' | '_') => {
            while let Some(char) = chars.next() {
                if char == '\x07' || (char == '\x1b' && chars.next_if_eq(&'\\').is_some()) {
                    break;
                }
            }
        }
        // Intermediate bytes, then one final byte.
        Some(' '..='/') => while chars.next().is_some_and(|char| matches!(char, ' '..='/')) {},
        Some(_) | None => {}
    }
}

/// The longest last words, in bytes.
const WORDS_BYTES_MAX: usize = 512;

/// Returns the end of what a program wrote to stderr: a Rust panic's two lines in one, or the last line of anything else,
/// without what a terminal would obey.
pub fn last_words(written: &str) -> Option<String> {
    let lines: Vec<&str> = written.lines().filter(|line| !line.trim().is_empty()).collect();
    let panic = lines.iter().rposition(|line| line.contains("panicked at "));
    let words = match panic {
        Some(at) => {
            // The second is the message; what follows is a note about backtraces.
            let (_, place) = lines[at].split_once("panicked at ")?;
            format!("{}, at {}", lines.get(at + 1).unwrap_or(&""), place.trim_end_matches(':'))
        }
        None => (*lines.last()?).to_owned(),
    };
    Some(clean(words.trim(), WORDS_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_escapes_are_removed() {
        for (text, clean) in [
            ("plain\ttext\n", "plain\ttext\n"),
            ("\x1b[31mred\x1b[0m", "red"),
            ("\x1b]0;title\x07rest", "rest"),
            ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
            ("\x1b(Bx\x1bcy", "xy"),
            ("a\r\nb\rc\x08\u{9b}31m", "a\nb\u{fffd}c\u{fffd}\u{fffd}31m"),
            ("never ends \x1b[12", "never ends "),
            ("never ends \x1b]12", "never ends "),
        ] {
            assert_eq!(without_escapes(text), clean);
        }
    }

    #[test]
    fn a_cut_text_says_so_and_is_cut_between_characters() {
        assert_eq!(clean("äöü", 6), "äöü");
        assert_eq!(clean("äöü", 5), "äö… (cut at 5 bytes)");
    }

    #[test]
    fn the_last_words_of_a_panic_are_its_message_and_its_place() {
        let rust = "chatter\n\nthread '<unnamed>' (1) panicked at src/lib.rs:26:13:\nboom\nnote: run with `RUST_BACKTRACE=1`\n";
        assert_eq!(last_words(rust).unwrap(), "boom, at src/lib.rs:26:13");
        assert_eq!(last_words("Traceback\n  File\nValueError: x\n").unwrap(), "ValueError: x");
        assert_eq!(last_words(" \n"), None);
    }
}
