use proptest::prelude::*;

use super::{Dialect, Read, read};
use crate::{Document, Filter};
use waypost_domain::FilterDialect;

fn auto(text: &str) -> Read {
    read(text, FilterDialect::Auto).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn error(text: &str) -> String {
    read(text, FilterDialect::Auto).unwrap_err().to_string()
}

#[test]
fn takes_the_only_dialect_that_accepts_a_text() {
    for text in [
        r#"$[?(@["eventType"] = "x")]"#,
        "$.data[*][?(@.a and @.b)]",
        "$.data[*][?(not @.a)]",
        "$.a.length()",
        "$.a[length()]",
        "$.list[$.i]",
        "$ . a",
        "\n$[?(@.a = 1)] ",
        r"$[?([1,2])]",
        "$[?(@.a = 1)]['a']".replace('\'', "\"").as_str(),
    ] {
        let read = auto(text);
        assert_eq!(read.dialect, Dialect::Jsonpath2, "{text}");
        assert!(read.warnings.is_empty(), "{text}");
    }
    for text in [
        "$.data[?@.value=='Blah'].value",
        "$['a']",
        "$.or",
        "$.é",
        "$[?(@.a == 1)]",
        "$[?@.a && !@.b]",
        "$[?length(@.a) > 1]",
        "$[?@.a]",
        r#"$[?@.a < "b"]"#,
    ] {
        let read = auto(text);
        assert_eq!(read.dialect, Dialect::Rfc9535, "{text}");
        assert!(read.warnings.is_empty(), "{text}");
    }
}

#[test]
fn warns_of_nothing_where_both_dialects_mean_the_same() {
    for text in [
        "$",
        "$.a.b[0][-1].*",
        "$..a",
        "$..*",
        "$..[0,1]",
        r#"$["a","b"][*]"#,
        "$[1:2]",
        "$[-3:]",
        "$[:-15]",
        "$[8:20:2]",
        "$[::1]",
        "$.a[0, 1] .b",
    ] {
        let read = auto(text);
        assert_eq!(read.dialect, Dialect::Rfc9535, "{text}");
        assert!(read.warnings.is_empty(), "{text}: {:?}", read.warnings);
    }
}

#[test]
fn warns_once_of_each_thing_that_jsonpath2_would_mean_otherwise() {
    for (text, warnings) in [
        ("$.data[?(@.a)]", vec!["`[?(…)]`"]),
        ("$[?(@.a < 1)][?(@.b)]", vec!["`[?(…)]`"]),
        ("$..[?(@.a != 1)]", vec!["`[?(…)]`"]),
        ("$[::-1]", vec!["a slice"]),
        ("$[1:2:0,::-2]", vec!["a slice"]),
        (r#"$["a\nb"]"#, vec!["a backslash"]),
        (r#"$["a\"b"]"#, vec!["a backslash"]),
        (r#"$["\\"][?(@)][::-1]"#, vec!["a backslash", "`[?(…)]`", "a slice"]),
    ] {
        let read = auto(text);
        assert_eq!(read.dialect, Dialect::Rfc9535, "{text}");
        assert_eq!(read.warnings.len(), warnings.len(), "{text}: {:?}", read.warnings);
        for (warning, begin) in read.warnings.iter().zip(warnings) {
            assert!(warning.starts_with(begin), "{text}: {warning}");
            assert!(warning.contains("`filter_dialect`"), "{text}: {warning}");
        }
    }
}

#[test]
fn a_line_end_behind_a_filter_decides_nothing() {
    for text in ["$.data[?(@.a)]\n", " $.data[?(@.a)]", "\r\n\t$.data[?(@.a)]  \n"] {
        let read = auto(text);
        assert_eq!((read.dialect, read.warnings.len()), (Dialect::Rfc9535, 1), "{text}");
    }
    assert_eq!(read("  $.a[", FilterDialect::Auto).unwrap_err().column, 6);
    assert_eq!(read(" é[", FilterDialect::Auto).unwrap_err().column, 3);
}

#[test]
fn a_choice_silences_the_warning() {
    for dialect in [FilterDialect::Rfc9535, FilterDialect::Jsonpath2] {
        assert!(read("$.data[?(@.a)]", dialect).unwrap().warnings.is_empty());
    }
    assert!(auto("$.data[?@.a]").warnings.is_empty(), "what the warning advises");
}

/// The documentation of Pacifica's notifications shows the filter `data`, which jsonpath2 0.4.5 does not accept.
#[test]
fn a_bare_name_is_a_path_in_every_dialect() {
    let event = Document::parse(r#"{"data": {"or": [1], "é_1": 2}}"#.as_bytes()).unwrap();
    for dialect in [FilterDialect::Auto, FilterDialect::Rfc9535, FilterDialect::Jsonpath2] {
        let found = |text: &str| Filter::parse(text, dialect).unwrap().find(&event).unwrap();
        assert_eq!(found("data"), [r#"{"or":[1],"é_1":2}"#]);
        assert_eq!(found("data.or"), ["[1]"]);
        assert_eq!(found(" data.é_1\n"), ["2"]);
        assert!(found("size").is_empty());
        assert_eq!(Filter::parse(" data", dialect).unwrap().text(), " data", "the text stays as written");
        for text in ["", ".", "data.", ".data", "1a", "da ta", "data-a", "data[0]", "data..a", "@", "data.*"]
        {
            assert!(Filter::parse(text, dialect).is_err(), "{text}");
        }
    }
    assert_eq!(auto("data").dialect, Dialect::Rfc9535);
}

#[test]
fn shows_the_error_of_the_dialect_that_the_text_looks_like() {
    insta::assert_snapshot!(error(r#"$[?(@["a"] = "x" and @["b"] == 1)]"#), @"column 29: expected a comparison such as `=`, `and`, `or` or `)` (`==` is RFC 9535; jsonpath2 writes `=`)");
    insta::assert_snapshot!(error(r#"$[?(@.a = 1 and not !@.b)]"#), @"column 21: expected a condition (`!` is RFC 9535; jsonpath2 writes `not`)");
    insta::assert_snapshot!(error("$.a.size()"), @"column 5: expected a function of jsonpath2 (`length`, `charAt`, `substring`, `keys`, `values` or `entries`)");
    insta::assert_snapshot!(error("$[?@.a = 1]"), @"column 8: expected `==` (`=` is jsonpath2; RFC 9535 writes `==`)");
    insta::assert_snapshot!(error("$[?(@.a == 'x' and @.b)]"), @"column 16: expected `&&` (`and` is jsonpath2; RFC 9535 writes `&&`)");
    insta::assert_snapshot!(error("$.a["), @"column 4: this `[` is not closed");
    insta::assert_snapshot!(error("$.a-b"), @r#"column 4: expected the end, `.name` or `[…]` or a name (such a name is written `["a-b"]`)"#);
    insta::assert_snapshot!(error(""), @"column 1: expected `$` (a filter begins at `$`, the event: `data` is written `$.data`)");
}

#[test]
fn an_error_says_when_the_other_dialect_accepts_the_text() {
    let hint = |text: &str, dialect| read(text, dialect).unwrap_err().hint.unwrap_or_default();
    for text in ["$.a.length()", "$.a[length()]", "$.list[$.i]", "$ . a", "$[?(1)]"] {
        assert_eq!(
            hint(text, FilterDialect::Rfc9535),
            "jsonpath2 accepts it: set `filter_dialect` to `auto` or `jsonpath2`",
            "{text}"
        );
    }
    assert_eq!(
        hint("$[?(@.a > 9 == 1)]", FilterDialect::Jsonpath2),
        "`==` is RFC 9535; jsonpath2 writes `=`",
        "a better hint stays"
    );
    assert_eq!(hint("$.größe['ü']", FilterDialect::Jsonpath2), r#"such a name is written `["größe"]`"#);
    assert_eq!(hint("$[?(@.a)", FilterDialect::Rfc9535), "", "neither accepts it");
}

#[test]
fn limits_hold_in_every_dialect() {
    let long = format!("$.{}", "a".repeat(4096));
    let deep = format!("$[?{}@.a{}]", "(".repeat(32), ")".repeat(32));
    let filters = format!("${}", "[?(@.a)]".repeat(65));
    for dialect in [FilterDialect::Auto, FilterDialect::Rfc9535, FilterDialect::Jsonpath2] {
        for (text, column, limit) in [(&long, 4097, "4096"), (&deep, 35, "32"), (&filters, 515, "64")] {
            let error = read(text, dialect).unwrap_err();
            assert_eq!(error.column, column, "{error}");
            assert!(error.message.contains(limit), "{error}");
        }
        let filters = format!("${}", "[?(@.a)]".repeat(64));
        assert!(read(&filters, dialect).is_ok());
    }
}

/// Paths that both dialects accept, for the most part.
fn path() -> impl Strategy<Value = String> {
    let bound = || prop_oneof![Just(String::new()), (-4..9_i64).prop_map(|bound| bound.to_string())];
    let selector = prop_oneof![
        4 => prop::sample::select(vec!["*", "\"a\"", "\"b c\"", "\"\\u0061\"", "?(@.a)", "?(@ != 1)"])
            .prop_map(str::to_owned),
        2 => (-4..5_i64).prop_map(|index| index.to_string()),
        2 => (bound(), bound()).prop_map(|(start, end)| format!("{start}:{end}")),
        3 => (bound(), bound(), bound()).prop_map(|(start, end, step)| format!("{start}:{end}:{step}")),
    ];
    let list = prop::collection::vec(selector, 1..3).prop_map(|list| format!("[{}]", list.join(",")));
    let name = prop::sample::select(vec![".a", ".b", ".*", "..a", "..*", ".."]).prop_map(str::to_owned);
    prop::collection::vec((prop::option::of(name), list), 0..4).prop_map(|steps| {
        steps.into_iter().fold("$".to_owned(), |path, (name, list)| path + &name.unwrap_or_default() + &list)
    })
}

fn event() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![Just(serde_json::Value::Null), (0..3_i64).prop_map(serde_json::Value::from)];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let name = prop::sample::select(vec!["a", "b", "b c"]).prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..7).prop_map(serde_json::Value::from),
            prop::collection::btree_map(name, inner, 0..4).prop_map(|members| members.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn where_no_warning_stands_both_dialects_find_the_same(path in path(), event in event()) {
        let parsed = |dialect| Filter::parse(&path, dialect);
        let (Ok(one), Ok(other)) = (parsed(FilterDialect::Rfc9535), parsed(FilterDialect::Jsonpath2)) else {
            return Ok(());
        };
        let auto = auto(&path);
        prop_assert_eq!(auto.dialect, Dialect::Rfc9535);
        if auto.warnings.is_empty() {
            let json = event.to_string();
            let document = Document::parse(json.as_bytes()).unwrap();
            prop_assert_eq!(one.find(&document), other.find(&document));
        }
    }
}
