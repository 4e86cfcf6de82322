//! The index against the naive answer: every filter evaluated on the parsed event.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;
use uuid::Uuid;

use super::{Filter, Index};
use crate::domain::ids::SubscriptionId;

fn id(number: usize) -> SubscriptionId {
    SubscriptionId::from_uuid(Uuid::from_u128(number as u128))
}

fn index(filters: &[&str]) -> Index {
    let mut index = Index::default();
    for (number, text) in filters.iter().enumerate() {
        index.insert(id(number), Arc::new(Filter::parse(text).unwrap()));
    }
    index
}

fn matching(filters: &[&str], event: &str) -> Vec<usize> {
    let found = index(filters).matches(event.as_bytes()).unwrap();
    (0..filters.len()).filter(|number| found.contains(&id(*number))).collect()
}

#[test]
fn equal_numbers_match_however_they_are_written() {
    let filters = ["$[?@==1]", "$[?@==1.0]", "$[?@==10e-1]", "$[?@==2]", "$[?@==-0]"];
    for one in ["[1]", "[1.0]", "[1e0]", "[0.1e1]"] {
        assert_eq!(matching(&filters, one), [0, 1, 2]);
    }
    for zero in ["[0]", "[-0]", "[0.0]", "[-0.0]", "[1e-17]"] {
        assert_eq!(matching(&filters, zero), [4]);
    }
    assert_eq!(matching(&["$[?@==9007199254740991]", "$[?@==9007199254740990]"], "[9007199254740991]"), [0]);
    assert_eq!(matching(&["$[?@==1e19]"], "[10000000000000000000]"), [0]);
}

#[test]
fn strings_match_unescaped() {
    let filters = [r#"$["caf\u00e9"]"#, "$.a[?@=='\\\\']", "$.a[?@=='é']", "$.a[?@=='\"']"];
    assert_eq!(matching(&filters, r#"{"caf\u00e9": 1}"#), [0]);
    assert_eq!(matching(&filters, r#"{"a": ["\u005c", "\u00E9", "\""]}"#), [1, 2, 3]);
}

#[test]
fn the_last_of_duplicate_members_counts() {
    let filters = ["$[?$.a=='x']", "$[?@=='x']", "$.a.b", "$.c"];
    assert_eq!(matching(&filters, r#"{"a": "x", "a": "y"}"#), [0; 0]);
    assert_eq!(matching(&filters, r#"{"a": "y", "\u0061": "x"}"#), [0, 1]);
    assert_eq!(matching(&filters, r#"{"a": {"b": 1}, "c": 1, "a": {}}"#), [3]);
}

#[test]
fn any_child_is_an_elements_or_a_members() {
    let filters = ["$.data[*].v", "$.data.*[?@.v==1]", "$.data.k.v", "$.*.k"];
    assert_eq!(matching(&filters, r#"{"data": {"k": {"v": 1}}}"#), [0, 2, 3]);
    assert_eq!(matching(&filters, r#"{"data": [[{"v": 1}], {"v": null}]}"#), [0, 1]);
}

#[test]
fn one_text_serves_many_and_another_filter_replaces_the_first() {
    let mut index = index(&["$.a", "$.b", "$.a", "$..b"]);
    assert_eq!(index.matches(b"{\"a\":1}").unwrap(), [id(0), id(2)]);
    let before = index.clone();
    index.insert(id(0), Arc::new(Filter::parse("$..b").unwrap()));
    index.remove(id(3));
    index.remove(id(9));
    assert_eq!(index.matches(b"{\"a\":1}").unwrap(), [id(2)]);
    assert_eq!(index.matches(b"{\"b\":1}").unwrap(), [id(0), id(1)]);
    assert_eq!(before.matches(b"{\"a\":1}").unwrap(), [id(0), id(2)]);
    assert_eq!(index.len(), 3);
}

#[test]
fn what_is_not_json_is_an_error() {
    for text in ["", "{", "{\"a\":}", "{} {}", "{\"a\":1}x"] {
        assert!(index(&["$.a"]).matches(text.as_bytes()).is_err(), "{text}");
        assert!(index(&[]).matches(text.as_bytes()).is_err(), "{text}");
    }
}

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "é", "k"])
}

fn literal() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "1",
            "1.0",
            "10e-1",
            "0",
            "-0",
            "2.5e0",
            "9007199254740991",
            "1e19",
            "0.1",
            "0.30000000000000004",
            "0.3",
        ])
        .prop_map(str::to_owned),
        prop::sample::select(vec!["'x'", r"'\u0078'", r#"'"'"#, r"'\\'", "'é'", "''"])
            .prop_map(str::to_owned),
        prop::sample::select(vec!["true", "false", "null"]).prop_map(str::to_owned),
    ]
}

fn singular() -> impl Strategy<Value = String> {
    let step =
        prop_oneof![4 => name().prop_map(|n| format!(".{n}")), 1 => (-2..2).prop_map(|n| format!("[{n}]"))];
    (prop::sample::select(vec!["@", "@", "@", "$"]), prop::collection::vec(step, 0..3))
        .prop_map(|(start, steps)| format!("{start}{}", steps.concat()))
}

fn condition() -> impl Strategy<Value = String> {
    let operator = prop::sample::select(vec!["==", "==", "==", "==", "!=", "<", ">="]);
    let simple = prop_oneof![
        6 => (singular(), operator, literal()).prop_map(|(path, operator, literal)| format!("{path}{operator}{literal}")),
        1 => (literal(), singular()).prop_map(|(literal, path)| format!("{literal}=={path}")),
        1 => (singular(), singular()).prop_map(|(left, right)| format!("{left}=={right}")),
        2 => singular(),
        1 => name().prop_map(|n| format!("@.{n}[*]")),
        1 => (name(), literal()).prop_map(|(n, literal)| format!("@.{n}[?@=={literal}]")),
        1 => name().prop_map(|n| format!("length(@.{n})==1")),
    ];
    simple.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            3 => (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("{left} && {right}")),
            1 => (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("({left} || {right})")),
            1 => inner.prop_map(|inner| format!("!({inner})")),
        ]
    })
}

fn filter() -> impl Strategy<Value = Arc<Filter>> {
    let segment = prop_oneof![
        8 => name().prop_map(|n| format!(".{n}")),
        3 => Just("[*]".to_owned()),
        6 => condition().prop_map(|condition| format!("[?{condition}]")),
        1 => (-2..2).prop_map(|n| format!("[{n}]")),
        1 => Just("[0:1]".to_owned()),
        1 => (name(), name()).prop_map(|(one, other)| format!("['{one}','{other}']")),
        1 => name().prop_map(|n| format!("..{n}")),
    ];
    prop::collection::vec(segment, 0..4)
        .prop_filter_map("within the limits", |segments| {
            Filter::parse(&format!("${}", segments.concat())).ok()
        })
        .prop_map(Arc::new)
}

/// JSON as a sender may write it, with duplicate members and every form of the same value.
fn json() -> impl Strategy<Value = String> {
    let scalar = prop::sample::select(vec![
        "1",
        "1.0",
        "1e0",
        "0",
        "-0",
        "-0.0",
        "1e-17",
        "2.5",
        "9007199254740991",
        "9007199254740992",
        "10000000000000000000",
        "0.1",
        "0.30000000000000004",
        "true",
        "false",
        "null",
        r#""x""#,
        r#""\u0078""#,
        r#""\"""#,
        r#""\\""#,
        r#""\u00e9""#,
        r#""é""#,
        r#""""#,
    ]);
    scalar.prop_map(str::to_owned).prop_recursive(4, 24, 4, |inner| {
        let member = (prop::sample::select(vec!["a", r"\u0061", "b", "é", r"\u00e9", "k"]), inner.clone())
            .prop_map(|(name, value)| format!("\"{name}\":{value}"));
        prop_oneof![
            1 => prop::collection::vec(inner, 0..4).prop_map(|elements| format!("[{}]", elements.join(","))),
            2 => prop::collection::vec(member, 0..5).prop_map(|members| format!("{{{}}}", members.join(", "))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_index_answers_as_naive_evaluation_does(
        filters in prop::collection::vec((0_usize..20, filter()), 0..30),
        removed in prop::collection::vec(0_usize..20, 0..6),
        events in prop::collection::vec(json(), 1..6),
    ) {
        let (mut index, mut naive) = (Index::default(), BTreeMap::new());
        for (number, filter) in &filters {
            index.insert(id(*number), Arc::clone(filter));
            naive.insert(id(*number), filter);
        }
        let (snapshot, all) = (index.clone(), naive.clone());
        for number in &removed {
            index.remove(id(*number));
            naive.remove(&id(*number));
        }
        for text in &events {
            let event: Value = serde_json::from_str(text).unwrap();
            for (index, naive) in [(&index, &naive), (&snapshot, &all)] {
                let expected: Vec<_> =
                    naive.iter().filter(|(_, filter)| filter.matches(&event)).map(|(id, _)| *id).collect();
                prop_assert_eq!(index.matches(text.as_bytes()).unwrap(), expected, "{}", text);
            }
        }
        for number in 0..20 {
            index.remove(id(number));
        }
        prop_assert!(index.is_bare());
    }
}
