use proptest::prelude::*;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::parse;
use crate::Document;
use crate::error::FilterError;
use crate::evaluate::{self, Failure};

/// An expression, a document, and what jsonpath2 0.4.5 makes of them; `cases/README.md` says how they came about.
#[derive(Deserialize)]
struct Case<'j> {
    expr: String,
    #[serde(borrow)]
    document: &'j RawValue,
    #[serde(borrow, default)]
    found: Option<&'j RawValue>,
    #[serde(default)]
    error: Option<Error>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Error {
    Parse,
    Evaluation,
}

fn run(case: &Case<'_>) -> Result<String, Error> {
    let query = parse(&case.expr).map_err(|_| Error::Parse)?;
    let document = Document::parse(case.document.get().as_bytes()).unwrap();
    let mut found = Vec::new();
    match evaluate::find(&query, &document, &mut |node| found.push(node.to_string())) {
        Ok(()) => Ok(format!("[{}]", found.join(","))),
        Err(Failure::ZeroStep) => Err(Error::Evaluation),
        Err(failure) => panic!("{}: {failure}", case.expr),
    }
}

/// Writes JSON as [`Document`] does, so that only values are compared.
fn plain(json: &RawValue) -> String {
    Document::parse(json.get().as_bytes()).unwrap().root().to_string()
}

#[test]
fn finds_what_the_original_finds() {
    let cases: Vec<Case<'_>> = serde_json::from_str(include_str!("../cases/jsonpath2.json")).unwrap();
    let mut wrong = Vec::new();
    for case in &cases {
        let expected = match (&case.found, &case.error) {
            (Some(found), None) => Ok(plain(found)),
            (None, Some(error)) => Err(error),
            _ => panic!("{}: a case has either `found` or `error`", case.expr),
        };
        let got = run(case);
        if got.as_ref() != expected.as_ref().map_err(|error| *error) {
            wrong.push(format!("{}\n  on {}\n  {got:?} instead of {expected:?}", case.expr, case.document));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(cases.len() >= 300, "{}", cases.len());
}

fn told(text: &str) -> String {
    let error = parse(text).unwrap_err();
    format!("{}\n{error}", error.caret(text))
}

#[test]
fn errors_point_at_the_place_and_say_what_was_expected() {
    insta::assert_snapshot!(told("$.data[*][?(@.value = )]"), @"
        $.data[*][?(@.value = )]
                              ^
        column 23: expected a value or a path
        ");
    insta::assert_snapshot!(told(r#"$.é["a]"#), @r#"
        $.é["a]
          ^
        column 3: expected a name or `*` (such a name is written `["é"]`)
        "#);
    insta::assert_snapshot!(told("$.a[?(@.b = 1]"), @"
        $.a[?(@.b = 1]
                     ^
        column 14: expected `and`, `or` or `)`
        ");
    insta::assert_snapshot!(told("$.a[0"), @"
        $.a[0
           ^
        column 4: this `[` is not closed
        ");
    insta::assert_snapshot!(told("$."), @"
        $.
          ^
        column 3: expected a name or `*`
        ");
    insta::assert_snapshot!(told("$[?(@.a @.b)]"), @"
        $[?(@.a @.b)]
                ^
        column 9: expected a comparison such as `=`, `and`, `or` or `)`
        ");
    insta::assert_snapshot!(told(r#"$["a\qb"]"#), @r#"
        $["a\qb"]
            ^
        column 5: expected an escape of JSON (`\"`, `\\`, `\/`, `\n`, `\u00e9`, …)
        "#);
    insta::assert_snapshot!(told("$[1.0]"), @"
        $[1.0]
          ^
        column 3: expected an integer
        ");
    insta::assert_snapshot!(told("$[01]"), @"
        $[01]
           ^
        column 4: expected `,` or `]` (a number has no leading zero)
        ");
    insta::assert_snapshot!(told("$.size()"), @"
        $.size()
          ^
        column 3: expected a function of jsonpath2 (`length`, `charAt`, `substring`, `keys`, `values` or `entries`)
        ");
    insta::assert_snapshot!(told(r#"$[?(@.a = {a: 1})]"#), @"
        $[?(@.a = {a: 1})]
                   ^
        column 12: expected a name in double quotes
        ");
    insta::assert_snapshot!(told("$[?(@.a = 1e400)]"), @"
        $[?(@.a = 1e400)]
                  ^
        column 11: this number is beyond what JSON can carry (1.8e308)
        ");
}

#[test]
fn errors_hint_at_what_the_author_meant() {
    let hint = |text: &str| parse(text).unwrap_err().hint.unwrap_or_default();
    insta::assert_snapshot!(hint("$[?(@.a == 1)]"), @"`==` is RFC 9535; jsonpath2 writes `=`");
    insta::assert_snapshot!(hint("$[?(@.a && @.b)]"), @"`&&` is RFC 9535; jsonpath2 writes `and`");
    insta::assert_snapshot!(hint("$[?(@.a = 1 || @.b)]"), @"`||` is RFC 9535; jsonpath2 writes `or`");
    insta::assert_snapshot!(hint("$[?(!@.a)]"), @"`!` is RFC 9535; jsonpath2 writes `not`");
    insta::assert_snapshot!(hint("$['a']"), @r#"single quotes are RFC 9535; jsonpath2 writes `"a"`"#);
    insta::assert_snapshot!(hint("$[?@.a]"), @"jsonpath2 puts a condition in parentheses, `?(…)`; without them it is RFC 9535");
    insta::assert_snapshot!(hint("$[?(length(@.a) > 1)]"), @"jsonpath2 writes a function behind a path: `@.name.length()`");
    insta::assert_snapshot!(hint("$[?(count(@.*) > 1)]"), @"`count()` is RFC 9535; jsonpath2 has nothing in its place");
    insta::assert_snapshot!(hint("$.a.match(1)"), @"`match()` is RFC 9535; jsonpath2 has nothing in its place");
    insta::assert_snapshot!(hint("$.a-b.c"), @r#"such a name is written `["a-b"]`"#);
    insta::assert_snapshot!(hint("$.größe"), @r#"such a name is written `["größe"]`"#);
    insta::assert_snapshot!(hint("$.or"), @r#"`or` is a word of jsonpath2; the name is written `["or"]`"#);
    insta::assert_snapshot!(hint(r#"$."a""#), @r#"a name in quotes is written `["a"]`"#);
    insta::assert_snapshot!(hint("$.[0]"), @"no `.` stands before a `[`");
    insta::assert_snapshot!(hint("$.0"), @r#"an index is written `[0]`, a name of digits `["0"]`"#);
    insta::assert_snapshot!(hint("$.1a"), @r#"such a name is written `["1a"]`"#);
    insta::assert_snapshot!(hint("$[name]"), @r#"a name in brackets is written `["name"]`"#);
    insta::assert_snapshot!(hint("$[?(name = 1)]"), @r#"a path begins with `@` or `$`: `@.name`; a text stands in quotes: `"name"`"#);
    insta::assert_snapshot!(hint("$[?(@.a AND @.b)]"), @"jsonpath2 writes `and`");
    insta::assert_snapshot!(hint("$[?(@.a <> 1)]"), @"jsonpath2 has the comparisons `=`, `!=`, `<`, `<=`, `>` and `>=`");
    insta::assert_snapshot!(hint("$[?(@.a =~ 1)]"), @"jsonpath2 has no regular expressions; RFC 9535 has `match()` and `search()`");
    insta::assert_snapshot!(hint("@.a"), @"a filter begins at `$`, the event; `@` stands inside `[?(…)]`");
    insta::assert_snapshot!(hint("data[0]"), @"a filter begins at `$`, the event: `data` is written `$.data`");
    insta::assert_snapshot!(hint("$\u{a0}.a"), @"U+00A0 is no plain space");
}

#[test]
fn only_brackets_nest() {
    let nested = |depth: usize| format!("$[?{}@.a{}]", "(".repeat(depth), ")".repeat(depth));
    assert!(parse(&nested(31)).is_ok());
    assert_eq!(parse(&nested(32)).unwrap_err().to_string(), "column 35: brackets nest at most 32 deep");
    let array = |depth: usize| format!("$[?({}{})]", "[".repeat(depth), "]".repeat(depth));
    assert!(parse(&array(30)).is_ok());
    assert!(parse(&array(31)).is_err());
    let object = |depth: usize| format!("$[?({}1{})]", r#"{"":"#.repeat(depth), "}".repeat(depth));
    assert!(parse(&object(30)).is_ok());
    assert!(parse(&object(31)).is_err());
    for long in [
        format!("$[?({}@.a)]", "not ".repeat(1000)),
        format!("$[?(1{})]", " and 1".repeat(600)),
        format!("$[?(1{})]", " or 1".repeat(600)),
        format!("${}", ".a".repeat(2000)),
        format!("${}", "[0]".repeat(1300)),
        format!("$[0{}]", ",0".repeat(2000)),
    ] {
        assert!(parse(&long).is_ok(), "{long}");
    }
}

/// Anything that may stand in an expression, and a little that may not.
fn token() -> impl Strategy<Value = String> {
    let fixed = prop::sample::select(vec![
        "$",
        "@",
        ".",
        "..",
        "*",
        "?",
        "?(",
        ":",
        ",",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        " and ",
        " or ",
        " not ",
        "true",
        "null",
        "=",
        "!=",
        "<",
        "<=",
        ">",
        ">=",
        "==",
        "&&",
        "!",
        "'a'",
        "a",
        "length()",
        "charAt(",
        "\"a\"",
        "\"",
        "\\",
        "'",
        "1",
        "-1",
        "1.5e3",
        "01",
        "99999999999999999999",
        "é",
        " ",
        "\n",
        "\u{a0}",
        "[?(@.a = 1)]",
        "[::-1]",
        "{\"a\":",
        "\u{0}",
    ]);
    prop_oneof![9 => fixed.prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from)]
}

/// Whatever the text is, the parser answers, and an error's place lies within the text or right behind it.
fn is_read_or_refused(text: &str) {
    if let Err(FilterError { column, message, .. }) = parse(text) {
        assert!((1..=text.chars().count() + 1).contains(&column), "{text}: {column}");
        assert!(!message.is_empty());
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        is_read_or_refused(&text);
    }

    #[test]
    fn no_row_of_tokens_makes_the_parser_panic(tokens in prop::collection::vec(token(), 0..40)) {
        is_read_or_refused(&tokens.concat());
        is_read_or_refused(&format!("$[?({})]", tokens.concat()));
        is_read_or_refused(&format!("$[{}]", tokens.concat()));
    }
}
