//! The evaluator against two others, and against its budget.

use jsonpath_rust::parser::parse_json_path;
use jsonpath_rust::query::js_path_process;
use proptest::prelude::*;
use serde_json::{Value, json};
use serde_json_path::JsonPath;

use super::Failure;
use crate::tests::generate;
use crate::{Dialect, Document, Filter};
use waypost_domain::FilterDialect;

fn rfc9535(text: &str) -> Filter {
    Filter::parse(text, FilterDialect::Rfc9535).unwrap()
}

fn found(filter: &Filter, event: &Value) -> Vec<Value> {
    let json = event.to_string();
    let nodes = filter.find(&Document::parse(json.as_bytes()).unwrap()).unwrap();
    nodes.iter().map(|node| serde_json::from_str(node).unwrap()).collect()
}

#[test]
fn finds_nodes_in_order() {
    let event = json!({"data": [{"value": "Blah", "key": 1}, {"value": "x"}, {"value": "Blah", "key": 2}]});
    assert_eq!(found(&rfc9535("$.data[?@.value=='Blah'].key"), &event), [json!(1), json!(2)]);
    assert_eq!(found(&rfc9535("$.data[2,0].key"), &event), [json!(2), json!(1)]);
    assert!(found(&rfc9535("$.data[?@.value=='y']"), &event).is_empty());
}

/// Both other evaluators answer otherwise; RFC 9535 §2.3.5.2.2 says that nothing equals nothing.
#[test]
fn functions_of_nothing_are_what_the_standard_says() {
    let event = json!([2.5]);
    assert_eq!(found(&rfc9535("$[?value(@[*]) <= @.a]"), &event).len(), 1);
    assert_eq!(found(&rfc9535("$[?count(@[*]) < 0.1]"), &event).len(), 1);
    assert_eq!(found(&rfc9535("$[?length(@) == @.a]"), &event).len(), 1);
    assert!(found(&rfc9535("$[?$.a.b > @]"), &json!({"a": {"b": {}}})).is_empty(), "objects have no order");
}

/// A wide event on which filters that multiply would take minutes, and gigabytes.
fn wide() -> String {
    let rows: Vec<_> = (0..20_000).map(|row| json!({"x": [row, {"y": row}]})).collect();
    json!({"data": rows}).to_string()
}

#[test]
fn what_multiplies_ends_as_too_expensive() {
    let (wide, deep) = (wide(), format!("[{}]", vec!["[".repeat(100) + &"]".repeat(100); 1_000].join(",")));
    let (wide, deep) = (Document::parse(wide.as_bytes()).unwrap(), Document::parse(deep.as_bytes()).unwrap());
    for (text, event) in [
        ("$..[?@..[?@..z]]", &deep),
        ("$..*..*..*..z", &deep),
        ("$.data[*,*,*,*,*,*,*,*][*,*,*,*,*,*,*,*][*,*,*,*,*,*,*,*].z", &wide),
        ("$.data[?count($.data[*][?@.x]) > 1 && @.z]", &wide),
    ] {
        let failure = rfc9535(text).matches(event).unwrap_err();
        assert!(failure.to_string().starts_with("filter too expensive: one filter may visit "), "{text}");
    }
    let joined = "$.data[*][?(@.x[*] = $.data[*][?(@.z)].x[*])]";
    let joined = Filter::parse(joined, FilterDialect::Jsonpath2).unwrap();
    assert_eq!(joined.matches(&wide), Ok(false), "a join looks at the right side once");
    assert_eq!(rfc9535("$..y").count(&wide), Ok(20_000));
}

#[test]
fn patterns_of_the_event_are_bounded_too() {
    let event = json!({"a": ["x", "y"], "p": "(((a{99}){99}){99}){99}", "q": "[", "r": "."}).to_string();
    let event = Document::parse(event.as_bytes()).unwrap();
    let failure = rfc9535("$.a[?search(@, $.p)]").matches(&event).unwrap_err();
    assert!(matches!(failure, Failure::TooExpensive { .. }));
    assert_eq!(rfc9535("$.a[?search(@, $.q)]").matches(&event), Ok(false));
    assert_eq!(rfc9535("$.a[?match(@, $.r)]").count(&event), Ok(2));
}

/// What a pattern compiles to was remembered by its text alone: `search()` of a pattern that `match()` had compiled for
/// the same event wanted the whole text.
#[test]
fn one_pattern_of_the_event_serves_match_and_search() {
    let event = json!({"a": ["xyz"], "p": "y"}).to_string();
    let event = Document::parse(event.as_bytes()).unwrap();
    assert_eq!(rfc9535("$.a[?!match(@, $.p) && search(@, $.p)]").count(&event), Ok(1));
    assert_eq!(rfc9535("$.a[?search(@, $.p) && match(@, $.p)]").count(&event), Ok(0));
}

/// Such a pattern closed the group that `match()` puts around it. It matched parts of texts, and `b` without the `a`
/// that the index took for its beginning.
#[test]
fn a_pattern_that_closes_what_it_did_not_open_matches_nothing() {
    let event = json!({"a": ["b", "ab", "axx"], "p": "a)?(?:b"}).to_string();
    let event = Document::parse(event.as_bytes()).unwrap();
    for pattern in ["'a)?(?:b'", "'a)|(?:b'", "$.p"] {
        assert_eq!(rfc9535(&format!("$.a[?match(@, {pattern})]")).count(&event), Ok(0), "{pattern}");
    }
    assert_eq!(rfc9535(r"$.a[?match(@, '[)]|\\(|(a)b')]").count(&event), Ok(1));
}

/// Comparing two texts cost nothing, however long they were, and neither did a copy of one or a look at what a join
/// knew already: an event of 3 MB kept a filter busy for many seconds.
#[test]
fn long_texts_and_joins_are_paid_for() {
    let text = "x".repeat(1_000_000);
    let rows: Vec<_> = (0..5_000).collect();
    let event = json!({"a": text, "b": text, "c": format!("{text}\n"), "rows": rows}).to_string();
    let event = Document::parse(event.as_bytes()).unwrap();
    for (text, dialect) in [
        ("$.rows[?$.a == $.b && @ == -1]", FilterDialect::Rfc9535),
        ("$.rows[?$.a < $.b]", FilterDialect::Rfc9535),
        ("$.rows[*][?(@ = $.rows[*] and @ = -1)]", FilterDialect::Jsonpath2),
    ] {
        let failure = Filter::parse(text, dialect).unwrap().matches(&event).unwrap_err();
        assert!(matches!(failure, Failure::TooExpensive { .. }), "{text}");
    }
    let copies = Filter::parse("$.rows[*][?($[values()] = 1)]", FilterDialect::Jsonpath2).unwrap();
    assert!(copies.matches(&event).is_err(), "5,000 copies of 5,000 rows");
}

/// serde_json hands over `-0` as the fraction -0.0, which is no index.
#[test]
fn minus_0_is_an_index() {
    let event = Document::parse(br#"{"i": -0, "f": -0.0, "l": ["x"], "s": "yz"}"#).unwrap();
    for (text, count) in [("$.l[$.i]", 1), ("$.l[$.f]", 0), ("$.s[charAt($.i)]", 1), ("$.s[charAt($.f)]", 0)]
    {
        assert_eq!(Filter::parse(text, FilterDialect::Jsonpath2).unwrap().count(&event), Ok(count), "{text}");
    }
}

#[test]
fn a_slice_of_step_0_is_nothing_or_a_failure() {
    let event = Document::parse(b"[1]").unwrap();
    assert_eq!(rfc9535("$[::0]").matches(&event), Ok(false));
    let jsonpath2 = Filter::parse("$[::0]", FilterDialect::Jsonpath2).unwrap();
    assert_eq!(jsonpath2.matches(&event), Err(Failure::ZeroStep));
}

#[test]
fn integers_are_compared_exactly() {
    let event = json!({"a": [9_007_199_254_740_993_u64, 18_446_744_073_709_551_615_u64]});
    assert_eq!(found(&rfc9535("$.a[?@ > 9.007199254740992e15]"), &event).len(), 2);
    assert_eq!(found(&rfc9535("$.a[?@ == $.a[0]]"), &event).len(), 1);
    let jsonpath2 = Filter::parse("$.a[*][?(@ = 9007199254740993)]", FilterDialect::Jsonpath2).unwrap();
    assert_eq!(found(&jsonpath2, &event).len(), 1);
    assert_eq!(found(&rfc9535("$.a[?@ == 9.007199254740992e15]"), &event).len(), 0);
}

/// Numbers that every evaluator compares exactly: jsonpath-rust tells -0.0 from 0, and 1e-17 not.
fn is_ordinary(event: &Value) -> bool {
    match event {
        Value::Number(number) => number.as_f64().is_some_and(|number| {
            let is_zero = number == 0.0 && number.is_sign_positive();
            is_zero || (1e-9..1e15).contains(&number.abs())
        }),
        Value::Array(elements) => elements.iter().all(is_ordinary),
        Value::Object(members) => members.values().all(is_ordinary),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

/// serde_json_path gives booleans and objects an order, knows no nothing as a function's value, and finds no `$[-1]` of
/// one element within a filter.
const UNLIKE_SERDE_JSON_PATH: &str = r"\[-|value\(|[<>]=?(@|\$|length|true|false|null)|(true|false|null)[<>]";
/// jsonpath-rust has no functions of nothing.
const UNLIKE_JSONPATH_RUST: &str = r"(value|count|length)\(";

/// RFC 9535 filters without what another evaluator gets wrong: large integers, and more.
fn rfc9535_filter(unlike: &str) -> BoxedStrategy<std::sync::Arc<Filter>> {
    let unlike = regex::Regex::new(&format!("9007199254740991|1e19|0.30000000000000004|{unlike}")).unwrap();
    generate::filter()
        .prop_filter("RFC 9535", move |filter| {
            filter.dialect() == Dialect::Rfc9535 && !unlike.is_match(filter.text())
        })
        .boxed()
}

proptest! {
    #![proptest_config(ProptestConfig { max_global_rejects: 100_000, failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

    #[test]
    fn finds_what_serde_json_path_finds(filter in rfc9535_filter(UNLIKE_SERDE_JSON_PATH), json in generate::json()) {
        let event: Value = serde_json::from_str(&json).unwrap();
        prop_assume!(is_ordinary(&event));
        let Ok(theirs) = JsonPath::parse(filter.text()) else { return Ok(()) };
        let theirs: Vec<Value> = theirs.query(&event).all().into_iter().cloned().collect();
        prop_assert_eq!(found(&filter, &event), theirs, "{} on {}", filter.text(), event);
    }

    #[test]
    fn finds_what_jsonpath_rust_finds(filter in rfc9535_filter(UNLIKE_JSONPATH_RUST), json in generate::json()) {
        let event: Value = serde_json::from_str(&json).unwrap();
        prop_assume!(is_ordinary(&event));
        let theirs = js_path_process(&parse_json_path(filter.text()).unwrap(), &event).unwrap();
        let mut theirs: Vec<String> = theirs.into_iter().map(|node| node.val().to_string()).collect();
        let mut ours: Vec<String> = found(&filter, &event).iter().map(Value::to_string).collect();
        theirs.sort_unstable();
        ours.sort_unstable();
        prop_assert_eq!(ours, theirs, "{} on {}", filter.text(), event);
    }

    #[test]
    fn no_text_makes_parser_or_evaluator_panic(text in any::<String>()) {
        harmless(&text)?;
    }

    #[test]
    fn no_text_made_of_tokens_makes_parser_or_evaluator_panic(
        tokens in prop::collection::vec(
            prop::sample::select(vec![
                "$", "@", ".", "..", "[", "]", "(", ")", "?", "?(", "*", ",", ":", "-1", "0", "7", "1e400", "'a'", "\"", "a",
                "\"a\"", "==", "!=", "<", "=", "&&", "||", "!", " and ", " or ", " not ", "length(", "match(", "value(", " ",
                "\\u00", "é", "keys()", "substring(", "charAt(0)",
            ]),
            0..24,
        ),
    ) {
        harmless(&format!("${}", tokens.concat()))?;
    }
}

/// Reads a text in every dialect, evaluates and explains it.
fn harmless(text: &str) -> Result<(), TestCaseError> {
    let event = Document::parse("{\"a\": [{\"a\": \"x\"}, [0, -1, \"é\"], null]}".as_bytes()).unwrap();
    for dialect in [FilterDialect::Auto, FilterDialect::Rfc9535, FilterDialect::Jsonpath2] {
        match Filter::parse(text, dialect) {
            Ok(filter) => {
                let explanation = filter.explain(&event);
                prop_assert_eq!(
                    filter.matches(&event),
                    explanation.failure.map_or(Ok(explanation.matches), Err)
                );
                prop_assert!(!explanation.reason().is_empty());
            }
            Err(error) => {
                prop_assert!(error.column <= text.chars().count() + 1);
                prop_assert_eq!(error.caret(text).lines().count(), 2);
            }
        }
    }
    Ok(())
}
