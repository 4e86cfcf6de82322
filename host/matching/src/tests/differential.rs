//! Generated subscriptions and events: the index ≡ naive evaluation.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::{Document, Filter, Index, Matches};
use super::generate::{filter, json};
use super::id;

/// Evaluates each filter for itself.
fn naive(filters: &BTreeMap<usize, Arc<Filter>>, event: &str) -> Matches {
    let event = Document::parse(event.as_bytes()).unwrap();
    let mut matches = Matches::default();
    for (number, filter) in filters {
        match filter.matches(&event) {
            Ok(true) => matches.matched.push(id(*number)),
            Ok(false) => {}
            Err(failure) => matches.failed.push((id(*number), failure)),
        }
    }
    matches
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn the_index_answers_as_naive_evaluation_does(
        filters in prop::collection::vec((0_usize..30, filter()), 0..40),
        removed in prop::collection::vec(0_usize..30, 0..6),
        events in prop::collection::vec(json(), 1..6),
    ) {
        let (mut index, mut now) = (Index::default(), BTreeMap::new());
        for (number, filter) in &filters {
            index.insert(id(*number), Arc::clone(filter));
            now.insert(*number, Arc::clone(filter));
        }
        let (snapshot, all) = (index.clone(), now.clone());
        for number in &removed {
            index.remove(id(*number));
            now.remove(number);
        }
        prop_assert_eq!(index.len(), now.len());
        for event in &events {
            for (index, filters) in [(&index, &now), (&snapshot, &all)] {
                let (found, expected) = (index.matches(event.as_bytes(), |id| id).unwrap(), naive(filters, event));
                prop_assert_eq!(&found.matched, &expected.matched, "{} {:?}", event, filters);
                // Those that could not match anyway are not asked.
                prop_assert!(found.failed.iter().all(|failed| expected.failed.contains(failed)));
            }
        }
        for number in 0..30 {
            prop_assert_eq!(index.access_path(id(number)).is_some(), now.contains_key(&number));
            index.remove(id(number));
        }
        prop_assert!(index.is_bare());
    }
}
