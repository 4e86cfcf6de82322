//! Formats JSON for people: changes only white space, and escapes what a terminal would not show.
//!
//! Parsing into a `serde_json::Value` would sort the keys and rewrite the numbers. Waypost promises that `1.10` stays
//! `1.10`, so its output must show that.

use serde::Serialize;
use serde_json::value::RawValue;
use waypost_domain::json::check_depth;
use waypost_runtime::foreign;

/// The most white space that indenting adds, in bytes. Crafted JSON can put each byte on a deeply indented line of its
/// own. Beyond this limit, the rest is shown as it was received.
const ADDED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Shows a body from outside: JSON indented, text with a mark before each line, anything else by its size.
pub(super) fn body(body: &[u8]) -> String {
    match (serde_json::from_slice::<&RawValue>(body), str::from_utf8(body)) {
        (Ok(value), _) => match check_depth(body) {
            Ok(()) => json(value) + "\n",
            Err(error) => format!("({} bytes of JSON, {error})\n", body.len()),
        },
        (Err(_), Ok(text)) => foreign::quoted(text, ""),
        (Err(_), Err(_)) => format!("({} bytes that are not text)\n", body.len()),
    }
}

/// Formats one of our own values, which may hold texts from outside, with two spaces for each level.
pub(super) fn value(value: &impl Serialize) -> serde_json::Result<String> {
    Ok(foreign::json(&serde_json::to_string_pretty(value)?).into_owned())
}

/// Indents JSON by two spaces for each level.
pub(super) fn json(value: &RawValue) -> String {
    foreign::json(&indented(value.get(), ADDED_BYTES_MAX)).into_owned()
}

fn indented(value: &str, added_max: usize) -> String {
    let mut out = String::with_capacity(value.len() + (value.len() / 4).min(added_max));
    let mut depth = 0;
    let mut last = ' ';
    let mut rest = value;
    while let Some(c) = rest.chars().next() {
        // The white space that was left out and the bytes that were copied add up to what has been read.
        if out.len() > (value.len() - rest.len()) + added_max {
            out.push_str(rest);
            break;
        }
        let token = if c == '"' { string(rest) } else { &rest[..c.len_utf8()] };
        rest = &rest[token.len()..];
        match c {
            ' ' | '\t' | '\r' | '\n' => continue,
            '}' | ']' => {
                depth -= 1;
                if last != '{' && last != '[' {
                    new_line(&mut out, depth);
                }
            }
            _ if last == '{' || last == '[' || last == ',' => new_line(&mut out, depth),
            _ if last == ':' => out.push(' '),
            _ => {}
        }
        if c == '{' || c == '[' {
            depth += 1;
        }
        out.push_str(token);
        last = c;
    }
    out
}

/// Returns the string literal that the text begins with.
fn string(text: &str) -> &str {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(text, |end| &text[..end + 2])
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn pretty(text: &str) -> String {
        json(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn keeps_order_numbers_and_escapes() {
        insta::assert_snapshot!(pretty(r#"{"b" :1.10,"a":[1e5 , "x, {\"y\"} \\", {}, [ ]],"n":{"ü":null}}"#), @r#"
        {
          "b": 1.10,
          "a": [
            1e5,
            "x, {\"y\"} \\",
            {},
            []
          ],
          "n": {
            "ü": null
          }
        }
        "#);
        assert_eq!(pretty("12345678901234567890123"), "12345678901234567890123");
        assert_eq!(pretty(r#" "a \\" "#), r#""a \\""#);
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(Value::Null), any::<i64>().prop_map(Value::from), ".*".prop_map(Value::from)];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::hash_map(".*", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// A body nested 20,000 deep became 800 MB of white space.
    #[test]
    fn deep_and_wide_json_is_printed_in_linear_space() {
        let deep = format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000));
        assert_eq!(body(deep.as_bytes()), "(40001 bytes of JSON, nested deeper than 120 levels)\n");
        assert!(indented(&deep, 1000).len() < deep.len() + 1000 + 2 * 20_000);
        let wide = format!("{}1{}{}", "[".repeat(100), ",1".repeat(10_000), "]".repeat(100));
        let shown = indented(&wide, 10_000);
        assert!(shown.len() < wide.len() + 11_000 && shown.starts_with("[\n  ["), "{}", shown.len());
        assert_eq!(shown.replace(['\n', ' '], ""), wide);
    }

    #[test]
    fn a_text_cannot_pass_for_lines_of_ours_and_json_is_escaped() {
        assert_eq!(body(b"a\n#2 POST /forged"), "| a\n| #2 POST /forged\n");
        assert_eq!(body("[\"\u{9b}31m\u{202e}\"]".as_bytes()), "[\n  \"\\u009b31m\\u202e\"\n]\n");
        assert_eq!(body(b"\xff\xfe"), "(2 bytes that are not text)\n");
    }

    proptest! {
        #[test]
        fn looks_like_serde_jsons(value in values()) {
            let (compact, expected) = (value.to_string(), serde_json::to_string_pretty(&value).unwrap());
            prop_assert_eq!(pretty(&compact), foreign::json(&expected));
        }
    }
}
