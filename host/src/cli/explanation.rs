//! Why a filter finds something in an event or does not, for people: as `waypost match --explain` prints it.

use std::fmt::Write;

use waypost::matching::{Condition, Explanation, Filter, Step};

/// The width of a terminal that nobody has made wider.
const WIDTH: usize = 80;
/// How far the conditions of a step are indented.
const INDENT: usize = 6;

/// Writes the dialect and the result, and then the steps, each with what it found.
///
/// Counts stand first: however long an expression is, they are in one column.
pub(super) fn text(filter: &Filter, explanation: &Explanation) -> String {
    let mut out = String::new();
    let head = format!("read as {}: {}", filter.dialect(), explanation.reason());
    wrap(&mut out, "", head.split(' '));
    let digits = explanation.steps.iter().map(|step| digits(step.found)).max().unwrap_or(1);
    for Step { path, found, conditions } in &explanation.steps {
        let _infallible = writeln!(out, "  {found:>digits$}  {path}");
        conditions.iter().for_each(|condition| self::condition(&mut out, condition));
    }
    out
}

/// Writes one condition of a step that found nothing: how many passed it, and what it saw.
fn condition(out: &mut String, Condition { text, tested, passed, seen }: &Condition) {
    let count = format!("{:INDENT$}{passed} of {tested} pass  ", "");
    let _infallible = writeln!(out, "{count}{text}");
    let hanging = " ".repeat(count.chars().count());
    if !seen.is_empty() {
        let last = seen.len() - 1;
        let values = seen.iter().enumerate();
        let values = values.map(|(at, value)| if at < last { format!("{value},") } else { value.clone() });
        let words: Vec<_> = std::iter::once("saw".to_owned()).chain(values).collect();
        wrap(out, &hanging, words.iter().map(String::as_str));
    }
}

/// Writes words in lines of at most [`WIDTH`] characters, where no word is longer itself.
fn wrap<'w>(out: &mut String, indent: &str, words: impl Iterator<Item = &'w str>) {
    let mut column = 0;
    for word in words {
        let length = word.chars().count();
        if column > 0 && column + 1 + length <= WIDTH {
            out.push(' ');
            column += 1;
        } else {
            if column > 0 {
                out.push('\n');
            }
            out.push_str(indent);
            column = indent.chars().count();
        }
        out.push_str(word);
        column += length;
    }
    out.push('\n');
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}

#[cfg(test)]
mod tests {
    use waypost::domain::FilterDialect;
    use waypost::matching::Document;

    use super::*;

    const EVENT: &str = r#"{"type": "run.done", "data": {"run": 7, "files": [
        {"name": "a.tif", "size": 1048576}, {"name": "b.log", "size": 300}, {"name": "c.log", "size": 5}]}}"#;

    fn told(filter: &str) -> String {
        let filter = Filter::parse(filter, FilterDialect::Auto).unwrap();
        let event = Document::parse(EVENT.as_bytes()).unwrap();
        text(&filter, &filter.explain(&event))
    }

    #[test]
    fn each_step_says_what_it_found() {
        insta::assert_snapshot!(told("$.data.files[*].name"), @"");
        insta::assert_snapshot!(told("$.data.file[0]"), @"");
    }

    #[test]
    fn a_failed_condition_says_what_it_saw() {
        insta::assert_snapshot!(told("$.data.files[?@.size > 1000 && @.name == 'b.log']"), @"");
        insta::assert_snapshot!(told(r#"$.data.files[*][?(@.size > 1000 and @.name = "b.log")]"#), @"");
    }

    #[test]
    fn values_are_wrapped_at_the_terminals_edge() {
        let seen: Vec<_> = (0..12).map(|number| format!("\"value {number:>10}\"")).collect();
        let mut out = String::new();
        condition(&mut out, &Condition { text: "@.a == 1".to_owned(), tested: 120, passed: 3, seen });
        assert!(out.lines().all(|line| line.chars().count() <= WIDTH), "{out}");
        insta::assert_snapshot!(out, @"");
    }
}
