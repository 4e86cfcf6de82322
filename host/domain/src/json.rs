//! Reads JSON from outside, in every place: events, configurations, plugin results, request bodies. Nesting has a
//! limit, and a byte order mark at the beginning is skipped.
//!
//! `serde_json` reads at most 128 levels into a value, but has no limit where it only scans for a value's end
//! (`RawValue`, `IgnoredAny`). Without a limit here, a more deeply nested text would be accepted there, and would fail
//! where it is read in full.

use serde::Deserialize;

/// The deepest nesting. The rest of `serde_json`'s 128 levels is left for the objects that a value is embedded in.
pub const DEPTH_MAX: usize = 120;

/// JSON is nested too deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nested deeper than {DEPTH_MAX} levels")]
pub struct TooDeep;

/// Why JSON cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It nests deeper than [`DEPTH_MAX`].
    #[error(transparent)]
    TooDeep(#[from] TooDeep),
    /// It is not JSON, or not what it should be.
    #[error(transparent)]
    Syntax(#[from] serde_json::Error),
}

/// The byte order mark that some editors and languages write before a text. RFC 8259 §8.1: a JSON parser may ignore it.
const MARK: &[u8] = "\u{feff}".as_bytes();

/// Returns JSON without a byte order mark before it.
pub fn without_mark(json: &[u8]) -> &[u8] {
    json.strip_prefix(MARK).unwrap_or(json)
}

/// Reads JSON that nests no deeper than [`DEPTH_MAX`], with or without a byte order mark.
///
/// # Errors
/// When it nests deeper, or does not deserialize as `T`.
pub fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, Error> {
    check_depth(json)?;
    Ok(serde_json::from_slice(without_mark(json))?)
}

/// Checks that JSON nests no deeper than [`DEPTH_MAX`], in one pass and without recursion. The result is meaningless
/// for a text that is not JSON.
///
/// # Errors
/// When it nests deeper.
pub fn check_depth(json: &[u8]) -> Result<(), TooDeep> {
    // Nearly every text has fewer opening brackets than the limit, and counting them compiles to vector code.
    let openers: usize = json.chunks(128).map(|chunk| usize::from(openers(chunk))).sum();
    if openers <= DEPTH_MAX {
        return Ok(());
    }
    let (mut depth, mut is_string, mut is_escaped) = (0_usize, false, false);
    for byte in json {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_string => is_escaped = true,
            b'"' => is_string = !is_string,
            _ if is_string => {}
            b'[' | b'{' if depth == DEPTH_MAX => return Err(TooDeep),
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Counts the opening brackets of at most 255 bytes.
#[inline]
pub(super) fn openers(chunk: &[u8]) -> u8 {
    chunk.iter().map(|byte| u8::from(byte | 0x20 == b'{')).sum()
}

#[cfg(test)]
mod tests {
    use serde::de::IgnoredAny;
    use serde_json::Value;

    use super::*;

    fn nested(depth: usize) -> String {
        format!("{}{}", "[".repeat(depth), "]".repeat(depth))
    }

    /// A raw output nested 20,000 deep was accepted: serde_json has no limit where it only scans for a value's end.
    #[test]
    fn the_limit_holds_where_serde_json_has_none() {
        let deep = nested(20_000);
        assert!(serde_json::from_str::<IgnoredAny>(&deep).is_ok());
        let error = read::<IgnoredAny>(deep.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "nested deeper than 120 levels");
        assert!(read::<Value>(nested(DEPTH_MAX).as_bytes()).is_ok());
        assert!(matches!(read::<Value>(nested(DEPTH_MAX + 1).as_bytes()), Err(Error::TooDeep(_))));
        assert!(matches!(read::<Value>(b"{"), Err(Error::Syntax(_))));
    }

    #[test]
    fn one_byte_order_mark_at_the_beginning_does_not_count() {
        assert_eq!(read::<Value>("\u{feff}[1]".as_bytes()).unwrap(), serde_json::json!([1]));
        for (marked, rest) in
            [("\u{feff}{}", "{}"), ("{}", "{}"), ("\u{feff}\u{feff}1", "\u{feff}1"), ("", "")]
        {
            assert_eq!(without_mark(marked.as_bytes()), rest.as_bytes());
        }
        assert_eq!(without_mark(b"\xef\xbb"), b"\xef\xbb");
    }

    #[test]
    fn only_what_is_open_at_once_counts() {
        let wide = format!("[{}[]]", "[],".repeat(1000));
        assert_eq!(check_depth(wide.as_bytes()), Ok(()));
        let text = format!(r#"["{}\"{}\\", {}]"#, "[".repeat(500), "{".repeat(500), nested(DEPTH_MAX - 1));
        assert_eq!(check_depth(text.as_bytes()), Ok(()));
        let text = format!(r#"["\\", {}]"#, nested(DEPTH_MAX));
        assert_eq!(check_depth(text.as_bytes()), Err(TooDeep));
    }
}
