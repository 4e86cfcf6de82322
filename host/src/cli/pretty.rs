//! JSON for people, with nothing changed but the white space.
//!
//! A `serde_json::Value` in between would sort the keys and rewrite the numbers; Waypost promises that `1.10` stays
//! `1.10`, and what it shows had better show that.

use serde_json::value::RawValue;

/// Indents JSON by two spaces a level.
pub(super) fn json(value: &RawValue) -> String {
    let mut out = String::with_capacity(value.get().len() * 2);
    let mut depth = 0;
    let mut last = ' ';
    let mut rest = value.get();
    while let Some(c) = rest.chars().next() {
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

/// Leaves out what could steer a terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c }).collect()
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

    proptest! {
        #[test]
        fn looks_like_serde_jsons(value in values()) {
            let (compact, expected) = (value.to_string(), serde_json::to_string_pretty(&value).unwrap());
            prop_assert_eq!(pretty(&compact), expected);
        }
    }
}
