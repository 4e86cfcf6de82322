//! Explains why a filter finds something in an event or does not, as `waypost match --explain` prints it.

use std::fmt::Write;

use waypost_matching::{Condition, Explanation, Filter, Step};

/// The terminal width that is assumed where the terminal does not report one.
const WIDTH: usize = 80;

/// Writes the dialect and the result, and then the steps, each with what it found.
///
/// Counts come first, so that they line up however long the expressions are.
pub(super) fn text(filter: &Filter, explanation: &Explanation) -> String {
    let mut out = wrapped(&format!("read as {}: {}", filter.dialect(), explanation.reason()));
    out.push('\n');
    steps(&mut out, "  ", &explanation.steps);
    out
}

/// Breaks a text into lines for a terminal.
pub(super) fn wrapped(text: &str) -> String {
    let mut out = String::new();
    wrap(&mut out, "", &text.split(' ').collect::<Vec<_>>());
    out.pop();
    out
}

fn steps(out: &mut String, indent: &str, steps: &[Step]) {
    let digits = steps.iter().map(|step| step.found.to_string().len()).max().unwrap_or(1);
    for Step { path, found, conditions } in steps {
        let _infallible = writeln!(out, "{indent}{found:>digits$}  {path}");
        let below = format!("{indent}{:digits$}  ", "");
        conditions.iter().for_each(|condition| self::condition(out, &below, condition));
    }
}

/// Writes one condition of a step that found nothing: how many nodes passed it, the values it saw, and where its path
/// ended.
fn condition(out: &mut String, indent: &str, condition: &Condition) {
    let Condition { text, tested, passed, seen, problem, steps } = condition;
    let count = format!("{indent}{passed} of {tested} pass  ");
    let _infallible = writeln!(out, "{count}{text}");
    let below = " ".repeat(count.chars().count());
    if let Some(problem) = problem {
        wrap(out, &below, &problem.split(' ').collect::<Vec<_>>());
    }
    if let Some((last, others)) = seen.split_last() {
        let values = others.iter().map(|value| format!("{value},")).chain([last.clone()]);
        let words: Vec<_> = std::iter::once("saw".to_owned()).chain(values).collect();
        wrap(out, &below, &words);
    }
    self::steps(out, &below, steps);
}

/// Writes words in lines of at most [`WIDTH`] characters; only a longer word makes a longer line.
fn wrap(out: &mut String, indent: &str, words: &[impl AsRef<str>]) {
    let mut line = indent.to_owned();
    let mut is_empty = true;
    for word in words.iter().map(AsRef::as_ref) {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            indent.clone_into(&mut line);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    out.push_str(&line);
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use waypost_domain::FilterDialect;
    use waypost_matching::Document;

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
        insta::assert_snapshot!(told("$.data.files[*].name"), @r"
        read as rfc9535: the filter finds 3 nodes
          1  $.data
          1  $.data.files
          3  $.data.files[*]
          3  $.data.files[*].name
        ");
        insta::assert_snapshot!(told("$.data.file[0]"), @r"
        read as rfc9535: `$.data` finds 1 node, but `$.data.file` finds nothing
          1  $.data
          0  $.data.file
        ");
    }

    #[test]
    fn a_failed_condition_says_what_it_saw() {
        insta::assert_snapshot!(told("$.data.files[?@.size > 1000 && @.name == 'b.log']"), @r#"
        read as rfc9535: `$.data.files` finds 1 node, but of 3 tested nodes none passes
        all conditions, though each is passed by some
          1  $.data
          1  $.data.files
          0  $.data.files[?@.size > 1000 && @.name == 'b.log']
             1 of 3 pass  @.size > 1000
                          saw 300, 5
             1 of 3 pass  @.name == 'b.log'
                          saw "a.tif", "c.log"
        "#);
        insta::assert_snapshot!(told(r#"$.data.files[*][?(@.size > 1000 and @.name = "d.log")]"#), @r#"
        read as jsonpath2: `$.data.files[*]` finds 3 nodes, but none of the 3 tested
        nodes passes `@.name = "d.log"`: it saw "a.tif", "b.log", "c.log"
          1  $.data
          1  $.data.files
          3  $.data.files[*]
          0  $.data.files[*][?(@.size > 1000 and @.name = "d.log")]
             1 of 3 pass  @.size > 1000
                          saw 300, 5
             0 of 3 pass  @.name = "d.log"
                          saw "a.tif", "b.log", "c.log"
        "#);
    }

    /// The explanation blamed the data: `it saw "a.tif", …`.
    #[test]
    fn an_invalid_pattern_is_blamed_and_not_the_data() {
        let told = told("$.data.files[?search(@.name, '*.tif')]");
        let words = told.split_whitespace().collect::<Vec<_>>().join(" ");
        let problem = "its pattern is no regular expression (repetition operator missing expression) and matches nothing";
        assert!(words.contains(&format!("passes `search(@.name, '*.tif')`: {problem} 1 $.data")), "{told}");
        assert!(words.contains(&format!("0 of 3 pass search(@.name, '*.tif') {problem} saw")), "{told}");
        assert!(told.lines().all(|line| line.chars().count() <= WIDTH), "{told}");
    }

    #[test]
    fn a_failed_path_says_where_it_ended() {
        insta::assert_snapshot!(told(r#"$[?(@.data.files[*].hash and @.type = "run.done")]"#), @r#"
        read as jsonpath2: the tested node does not pass `@.data.files[*].hash`:
        `@.data.files[*]` finds 3 nodes, but `@.data.files[*].hash` finds nothing
          0  $[?(@.data.files[*].hash and @.type = "run.done")]
             0 of 1 pass  @.data.files[*].hash
                          1  @.data
                          1  @.data.files
                          3  @.data.files[*]
                          0  @.data.files[*].hash
             1 of 1 pass  @.type = "run.done"
        "#);
    }

    #[test]
    fn values_are_wrapped_at_the_terminals_edge() {
        let seen: Vec<_> = (0..12).map(|number| format!("\"value {number:>10}\"")).collect();
        let mut out = String::new();
        let found = Condition {
            text: "@.a == 1".to_owned(),
            tested: 120,
            passed: 3,
            seen,
            problem: None,
            steps: Vec::new(),
        };
        condition(&mut out, "      ", &found);
        assert!(out.lines().all(|line| line.chars().count() <= WIDTH), "{out}");
        insta::assert_snapshot!(out, @r#"
        3 of 120 pass  @.a == 1
                       saw "value          0", "value          1",
                       "value          2", "value          3", "value          4",
                       "value          5", "value          6", "value          7",
                       "value          8", "value          9", "value         10",
                       "value         11"
        "#);
    }
}
