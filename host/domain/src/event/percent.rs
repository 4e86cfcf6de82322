//! Attribute values in headers (CloudEvents 1.0.2, HTTP protocol binding, 3.1.3.2).

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::SpecVersion;

/// The characters that are encoded, besides everything outside ASCII.
const BARE: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');
/// Between quotes a backslash would be read as an escape.
const QUOTED: &AsciiSet = &BARE.add(b'\\');

/// Returns a value as a header's text: only ASCII U+0021–U+007E, in quotes (a JSON string) for 0.1 and 0.2.
pub(super) fn encode(value: &str, version: SpecVersion) -> String {
    match version {
        SpecVersion::V0_1 | SpecVersion::V0_2 => format!("\"{}\"", utf8_percent_encode(value, QUOTED)),
        SpecVersion::V0_3 | SpecVersion::V1_0 => utf8_percent_encode(value, BARE).to_string(),
    }
}

/// Decodes a header's text: quotes and escapes first, then one round of percent-encoding.
///
/// # Errors
/// When the value is invalid; the error's text is meant to follow its name.
pub(super) fn decode(value: &[u8], version: SpecVersion) -> Result<String, &'static str> {
    let value = str::from_utf8(value).map_err(|_| "is not UTF-8; percent-encode it")?;
    let unquoted =
        unquote(value, version).ok_or("has a double quote without its partner; encode it as %22")?;
    let decoded = percent_decode_str(&unquoted).decode_utf8();
    decoded.map(Cow::into_owned).map_err(|_| "is not UTF-8 after percent-decoding")
}

fn unquote(value: &str, version: SpecVersion) -> Option<Cow<'_, str>> {
    if !value.contains('"') {
        return Some(Cow::Borrowed(value));
    }
    // 0.1 and 0.2 write JSON strings, whose escapes are more than those of HTTP's quoted strings (RFC 9110 §5.6.4).
    if version <= SpecVersion::V0_2
        && let Ok(text) = serde_json::from_str(value)
    {
        return Some(Cow::Owned(text));
    }
    let (mut out, mut inside, mut chars) = (String::with_capacity(value.len()), false, value.chars());
    while let Some(char) = chars.next() {
        match char {
            '"' => inside = !inside,
            '\\' if inside => out.push(chars.next()?),
            char => out.push(char),
        }
    }
    (!inside).then_some(Cow::Owned(out))
}
