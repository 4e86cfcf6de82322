//! Formats a plugin's log line so that its text cannot pass for other lines of the output.

use std::borrow::Cow;

use waypost_runtime::foreign;

/// Formats a log line. Further lines of its message are marked, and begin with `indent`. A line that Waypost itself
/// adds to a plugin's log carries the field `by`, which a plugin cannot set.
pub(super) fn line(level: &str, message: &str, fields: &[(String, String)], indent: &str) -> String {
    let is_ours = |(name, value): &(String, String)| name == "by" && value == "waypost";
    let speaker = if fields.iter().any(is_ours) { " (waypost)" } else { "" };
    let mut out = format!("{}{speaker}: {}", foreign::line(level), foreign::continued(message, indent));
    for (name, value) in fields.iter().filter(|field| !is_ours(field)) {
        out.extend(["  ", &*foreign::line(name), "=", &*quoted(value)]);
    }
    out
}

/// Quotes a value that could be mistaken for several.
fn quoted(value: &str) -> Cow<'_, str> {
    let is_plain = |c: char| !c.is_whitespace() && !matches!(c, '"' | '=');
    if !value.is_empty() && value.chars().all(is_plain) {
        return foreign::line(value);
    }
    let json = serde_json::to_string(value).unwrap_or_default();
    foreign::json(&json).into_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(message: &str, fields: &[(&str, &str)]) -> String {
        let fields: Vec<_> =
            fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        line("info", message, &fields, "    ")
    }

    /// A message with a line end made lines of the story that looked like Waypost's own.
    #[test]
    fn a_message_cannot_pass_for_other_lines_or_fields() {
        assert_eq!(shown("a\n    ELM 1 target 200", &[]), "info: a\n    |     ELM 1 target 200");
        assert_eq!(
            shown("m", &[("a", "1  b=2"), ("c\n", "\u{202e}"), ("d", "")]),
            r#"info: m  a="1  b=2"  c\n=\u{202e}  d="""#
        );
        assert_eq!(shown("refused", &[("by", "waypost")]), "info (waypost): refused");
    }
}
