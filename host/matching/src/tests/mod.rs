//! The index against the naive answer: every filter evaluated for itself.

mod differential;
pub(crate) mod generate;

use std::sync::Arc;

use uuid::Uuid;

use super::{Failure, Filter, Index};
use waypost_domain::FilterDialect;
use waypost_domain::ids::RecipientId;

fn id(number: usize) -> RecipientId {
    RecipientId::from_uuid(Uuid::from_u128(number as u128))
}

fn filter(text: &str) -> Arc<Filter> {
    Arc::new(Filter::parse(text, FilterDialect::Auto).unwrap())
}

fn index(filters: &[&str]) -> Index {
    let mut index = Index::default();
    for (number, text) in filters.iter().enumerate() {
        index.insert(id(number), filter(text));
    }
    index
}

fn matched(index: &Index, event: &str) -> Vec<RecipientId> {
    index.matches(event.as_bytes(), |id| id).unwrap().matched
}

fn matching(filters: &[&str], event: &str) -> Vec<usize> {
    let found = matched(&index(filters), event);
    (0..filters.len()).filter(|number| found.contains(&id(*number))).collect()
}

#[test]
fn equal_numbers_match_however_they_are_written() {
    let filters = ["$[?@==1]", "$[?@==1.0]", "$[?@==10e-1]", "$[?@==2]", "$[?@==-0]"];
    for one in ["[1]", "[1.0]", "[1e0]", "[0.1e1]"] {
        assert_eq!(matching(&filters, one), [0, 1, 2]);
    }
    for zero in ["[0]", "[-0]", "[0.0]", "[-0.0]"] {
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
fn prefixes_and_ranges_find_all_that_a_value_passes() {
    let filters = ["$[?match(@,'é.*')]", "$[?search(@,'^éa')]", "$[?match(@,'éa|b')]", "$[?match(@,'b.+')]"];
    assert_eq!(matching(&filters, r#"["éa"]"#), [0, 1, 2]);
    assert_eq!(matching(&filters, r#"["é"]"#), [0]);
    assert_eq!(matching(&filters, r#"["b"]"#), [2]);
    assert_eq!(matching(&filters, r#"[""]"#), [0; 0]);
    let filters = ["$[?@>1]", "$[?@>=1]", "$[?@<1]", "$[?@<=1]", "$[?@>1.5]", "$[?@<-1e300]"];
    assert_eq!(matching(&filters, "[1]"), [1, 3]);
    assert_eq!(matching(&filters, "[1.25]"), [0, 1]);
    assert_eq!(matching(&filters, "[true, 2, 0]"), [0, 1, 2, 3, 4]);
}

#[test]
fn one_expression_serves_many_and_another_filter_replaces_the_first() {
    let mut index = index(&["$.a", "$.b", "$.a", "$..b"]);
    assert_eq!(matched(&index, "{\"a\":1}"), [id(0), id(2)]);
    let before = index.clone();
    index.insert(id(0), filter("$..b"));
    index.remove(id(3));
    index.remove(id(9));
    assert_eq!(matched(&index, "{\"a\":1}"), [id(2)]);
    assert_eq!(matched(&index, "{\"b\":1}"), [id(0), id(1)]);
    assert_eq!(matched(&before, "{\"a\":1}"), [id(0), id(2)]);
    assert_eq!(index.len(), 3);
}

#[test]
fn one_text_in_two_dialects_is_two_filters() {
    let text = r#"$.a["b","b"][?(@.c)]"#;
    let mut index = Index::default();
    for (number, dialect) in [FilterDialect::Rfc9535, FilterDialect::Jsonpath2].into_iter().enumerate() {
        index.insert(id(number), Arc::new(Filter::parse(text, dialect).unwrap()));
    }
    assert_eq!(matched(&index, r#"{"a":{"b":{"c":1}}}"#), [id(1)]);
    assert_eq!(matched(&index, r#"{"a":{"b":[{"c":1}]}}"#), [id(0)]);
}

#[test]
fn what_is_not_json_is_an_error() {
    for text in ["", "{", "{\"a\":}", "{} {}", "{\"a\":1}x"] {
        assert!(index(&["$.a"]).matches(text.as_bytes(), |id| id).is_err(), "{text}");
        assert!(index(&[]).matches(text.as_bytes(), |id| id).is_err(), "{text}");
    }
}

#[test]
fn a_failed_evaluation_hides_no_other_match() {
    let mut index = index(&["$.a", "$.a"]);
    for number in [2, 3] {
        index.insert(id(number), Arc::new(Filter::parse("$.a[::0]", FilterDialect::Jsonpath2).unwrap()));
    }
    let found = index.matches(br#"{"a": [1]}"#, |id| id).unwrap();
    assert_eq!(found.matched, [id(0), id(1)]);
    assert_eq!(found.failed, [(id(2), Failure::ZeroStep), (id(3), Failure::ZeroStep)]);
}

#[test]
fn a_filter_is_filed_under_its_rarest_condition() {
    let index = index(&[
        "$.d[?@.t=='T' && @.k=='a']",
        "$.d[?@.k=='b' && @.t=='T']",
        "$.d[?@.k=='c' && @.t=='T']",
        "$.d[?@.k=='d' || @.k=='e']",
        "$..k",
        "$.d",
    ]);
    let access_path = |number| index.access_path(id(number));
    let on_k = Some("equality on $.d[*].k".to_owned());
    assert_eq!(access_path(0), on_k);
    assert_eq!(access_path(1), Some("equality on $.d[*].t".to_owned()));
    assert_eq!(access_path(2), on_k);
    assert_eq!(access_path(3), Some("membership on $.d[*].k".to_owned()));
    assert_eq!(access_path(4), Some("scan".to_owned()));
    assert_eq!(access_path(5), Some("existence of $.d".to_owned()));
    assert_eq!(access_path(6), None);
}

/// Each subscription is added to a snapshot of its own, as the directory does: quadratic work would take minutes.
#[test]
fn many_subscriptions_share_a_filter_or_a_condition_without_copying_each_other() {
    const COUNT: usize = 10_000;
    let (mut index, shared) = (Index::default(), filter("$.a"));
    for number in 0..COUNT {
        let mut next = index.clone();
        next.insert(id(number), Arc::clone(&shared));
        next.insert(id(COUNT + number), filter(&format!("$.a[?@.b != {number}]")));
        index = next;
    }
    assert_eq!(matched(&index, r#"{"a": [{"b": 3}]}"#).len(), 2 * COUNT - 1);
    for number in 0..2 * COUNT {
        let mut next = index.clone();
        next.remove(id(number));
        index = next;
    }
    assert!(index.is_bare());
}

/// Every number of the event lies in every range: the pairs must not be counted one by one.
#[test]
fn many_numbers_in_many_ranges_are_looked_up_once() {
    const COUNT: usize = 10_000;
    let mut index = Index::default();
    for number in 0..COUNT {
        index.insert(id(number), filter(&format!("$.n[?@ > {number}]")));
    }
    let event = format!("{{\"n\": [{}]}}", vec!["20000"; COUNT].join(","));
    assert_eq!(matched(&index, &event).len(), COUNT);
}

/// A user with very many expensive filters uses up that user's budget, and no other user's.
#[test]
fn expensive_filters_of_one_owner_do_not_stall_others() {
    let mut index = Index::default();
    for number in 0..300 {
        index.insert(id(number), filter(&format!("$..[?@..[?@..z{number}]]")));
    }
    index.insert(id(1_000), filter("$..y"));
    let event = format!("[{},{{\"y\": 1}}]", vec!["[".repeat(100) + &"]".repeat(100); 20].join(","));
    let owner = |subscription| subscription == id(1_000);
    let found = index.matches(event.as_bytes(), owner).unwrap();
    assert_eq!(found.matched, [id(1_000)]);
    assert_eq!(found.failed.len(), 300);
    let together = |failure: &Failure| matches!(failure, Failure::TooExpensiveTogether { limit: 2_000_000 });
    let late = found.failed.iter().filter(|(_, failure)| together(failure)).count();
    assert!((250..300).contains(&late), "{late}");
}
