//! Filters of both dialects, and events that they say something about.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;

use crate::Filter;
use waypost_domain::FilterDialect;

const NUMBERS: [&str; 13] = [
    "1",
    "1.0",
    "10e-1",
    "0",
    "-0",
    "2.5e0",
    "-3",
    "9007199254740991",
    "1e19",
    "0.1",
    "0.30000000000000004",
    "0.3",
    "2",
];

/// Returns a filter of either dialect.
pub(crate) fn filter() -> BoxedStrategy<Arc<Filter>> {
    prop_oneof![parsed(rfc9535(), FilterDialect::Rfc9535), parsed(jsonpath2(), FilterDialect::Jsonpath2)]
        .boxed()
}

fn parsed(text: BoxedStrategy<String>, dialect: FilterDialect) -> BoxedStrategy<Arc<Filter>> {
    text.prop_filter_map("within the language", move |text| Filter::parse(&text, dialect).ok())
        .prop_map(Arc::new)
        .boxed()
}

fn name() -> impl Strategy<Value = &'static str> {
    select(vec!["a", "b", "é", "k"])
}

fn operator(equal: &'static str) -> impl Strategy<Value = &'static str> {
    select(vec![equal, equal, equal, "!=", "<", "<=", ">", ">="])
}

fn rfc9535() -> BoxedStrategy<String> {
    let segment = prop_oneof![
        8 => name().prop_map(|n| format!(".{n}")),
        3 => Just("[*]".to_owned()),
        6 => rfc9535_condition().prop_map(|condition| format!("[?{condition}]")),
        1 => (rfc9535_condition(), name()).prop_map(|(condition, n)| format!("[?{condition},'{n}']")),
        1 => (-2..2).prop_map(|n| format!("[{n}]")),
        1 => Just("[0:1]".to_owned()),
        1 => (name(), name()).prop_map(|(one, other)| format!("['{one}','{other}']")),
        1 => name().prop_map(|n| format!("..{n}")),
        1 => rfc9535_condition().prop_map(|condition| format!("..[?{condition}]")),
    ];
    prop::collection::vec(segment, 0..4).prop_map(|segments| format!("${}", segments.concat())).boxed()
}

fn rfc9535_literal() -> BoxedStrategy<String> {
    let strings = vec!["'x'", r"'\u0078'", r#"'"'"#, r"'\\'", "'é'", "''", "'xyz'"];
    prop_oneof![select(NUMBERS.to_vec()), select(strings), select(vec!["true", "false", "null"])]
        .prop_map(str::to_owned)
        .boxed()
}

fn rfc9535_condition() -> BoxedStrategy<String> {
    let step =
        prop_oneof![4 => name().prop_map(|n| format!(".{n}")), 1 => (-2..2).prop_map(|n| format!("[{n}]"))];
    let singular = (select(vec!["@", "@", "@", "$"]), prop::collection::vec(step, 0..3))
        .prop_map(|(start, steps)| format!("{start}{}", steps.concat()))
        .boxed();
    let value = prop_oneof![
        6 => singular.clone(),
        1 => singular.clone().prop_map(|path| format!("length({path})")),
        1 => singular.clone().prop_map(|path| format!("count({path}[*])")),
        1 => singular.clone().prop_map(|path| format!("value({path}[*])")),
        1 => name().prop_map(|n| format!("value(@..{n})")),
    ]
    .boxed();
    let patterns = vec!["x.*", "xy?z*", "x|é", "(x)", "^x", "^é$", "x|.z", r"\\", "", "[x-z]+", "(?i)X|z"];
    let simple = prop_oneof![
        6 => (value.clone(), operator("=="), rfc9535_literal()).prop_map(|(v, o, literal)| format!("{v}{o}{literal}")),
        2 => (rfc9535_literal(), operator("=="), value.clone()).prop_map(|(literal, o, v)| format!("{literal}{o}{v}")),
        1 => (value.clone(), operator("=="), value).prop_map(|(left, o, right)| format!("{left}{o}{right}")),
        2 => singular.clone(),
        1 => name().prop_map(|n| format!("@.{n}[*]")),
        1 => (name(), rfc9535_literal()).prop_map(|(n, literal)| format!("@.{n}[?@=={literal}]")),
        2 => (select(vec!["match", "search"]), singular, select(patterns))
            .prop_map(|(function, path, pattern)| format!("{function}({path},'{pattern}')")),
    ];
    simple
        .boxed()
        .prop_recursive(3, 8, 3, |inner| {
            prop_oneof![
                3 => (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("{left} && {right}")),
                2 => (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("({left} || {right})")),
                1 => inner.prop_map(|inner| format!("!({inner})")),
            ]
        })
        .boxed()
}

fn jsonpath2() -> BoxedStrategy<String> {
    let condition = jsonpath2_condition(jsonpath2_path(2)).boxed();
    let segment = prop_oneof![
        6 => jsonpath2_segment(),
        6 => condition.clone().prop_map(|condition| format!("[?({condition})]")),
        1 => (condition.clone(), name()).prop_map(|(condition, n)| format!("[?({condition}),\"{n}\"]")),
        1 => (condition.clone(), condition).prop_map(|(one, other)| format!("..[?({one}),?({other})]")),
    ];
    prop::collection::vec(segment, 0..4).prop_map(|segments| format!("${}", segments.concat())).boxed()
}

/// A step without a condition.
fn jsonpath2_segment() -> BoxedStrategy<String> {
    prop_oneof![
        8 => name().prop_map(|n| format!("[\"{n}\"]")),
        3 => Just("[*]".to_owned()),
        1 => (-2..2).prop_map(|n| format!("[{n}]")),
        1 => select(vec!["[0:1]", "[::-1]", "[-1:]", "[::0]"]).prop_map(str::to_owned),
        1 => (name(), name()).prop_map(|(one, other)| format!("[\"{one}\",\"{other}\"]")),
        1 => name().prop_map(|n| format!("..{n}")),
        1 => (select(vec!["@", "$"]), name()).prop_map(|(start, n)| format!("[{start}.{n}]")),
        1 => select(vec![
            "[length()]", "[keys()]", "[values()]", "[entries()]", "[charAt(0)]", "[charAt(1)]", "[substring(0,1)]",
            "[substring(0)]", "[substring(1)]", "[substring(0,-1)]", "[charAt(@.a)]",
        ])
        .prop_map(str::to_owned),
    ].boxed()
}

fn jsonpath2_path(steps: usize) -> BoxedStrategy<String> {
    (select(vec!["@", "@", "@", "$"]), prop::collection::vec(jsonpath2_segment(), 0..=steps))
        .prop_map(|(start, steps)| format!("{start}{}", steps.concat()))
        .boxed()
}

fn jsonpath2_condition(path: BoxedStrategy<String>) -> BoxedStrategy<String> {
    let strings = vec![r#""x""#, r#""é""#, r#""""#, r#""xyz""#, r#""xy""#, r#""\"""#];
    let literal = prop_oneof![
        4 => select(NUMBERS.to_vec()),
        4 => select(strings),
        2 => select(vec!["true", "false", "null"]),
        1 => select(vec!["[]", "{}", "[1]", r#"{"a": 1}"#]),
    ]
    .prop_map(str::to_owned)
    .boxed();
    let (left, right) = (path.clone(), path.clone());
    let joined = (left, literal.clone(), right)
        .prop_map(|(left, literal, right)| format!("{left} = $[*][?(@.k = {literal})]{}", &right[1..]));
    let simple = prop_oneof![
        6 => (path.clone(), operator("="), literal.clone()).prop_map(|(p, o, literal)| format!("{p} {o} {literal}")),
        2 => (literal.clone(), operator("="), path.clone()).prop_map(|(literal, o, p)| format!("{literal} {o} {p}")),
        1 => (path.clone(), operator("="), path.clone()).prop_map(|(left, o, right)| format!("{left} {o} {right}")),
        1 => joined,
        1 => literal,
        2 => path,
    ];
    simple
        .boxed()
        .prop_recursive(3, 8, 3, |inner| {
            prop_oneof![
                3 => (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("{left} and {right}")),
                2 => (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("({left} or {right})")),
                1 => inner.prop_map(|inner| format!("not ({inner})")),
            ]
        })
        .boxed()
}

/// Returns JSON as a sender may write it, with duplicate members and every form of the same value.
pub(crate) fn json() -> BoxedStrategy<String> {
    let others = vec![
        "1e0",
        "-0.0",
        "1e-17",
        "2.5",
        "9007199254740992",
        "10000000000000000000",
        "true",
        "false",
        "null",
        r#""x""#,
        r#""\u0078""#,
        r#""xyz""#,
        r#""xy""#,
        r#""\"""#,
        r#""\\""#,
        r#""\u00e9""#,
        r#""é""#,
        r#""a""#,
        r#""""#,
    ];
    let scalar = prop_oneof![1 => select(NUMBERS.to_vec()), 2 => select(others)].prop_map(str::to_owned);
    scalar.prop_recursive(4, 24, 4, |inner| {
        let member = (select(vec!["a", r"\u0061", "b", "é", r"\u00e9", "k"]), inner.clone())
            .prop_map(|(name, value)| format!("\"{name}\":{value}"));
        prop_oneof![
            1 => prop::collection::vec(inner, 0..4).prop_map(|elements| format!("[{}]", elements.join(","))),
            2 => prop::collection::vec(member, 0..5).prop_map(|members| format!("{{{}}}", members.join(", "))),
        ]
    }).boxed()
}
