//! Listing the log: no event is missing, repeated or foreign.

use super::*;

/// Twelve commits of 1–6 events, received a second apart, long before they get their ids.
async fn log(store: &Store) -> Vec<(EventId, Timestamp)> {
    let mut log = Vec::new();
    let mut second = 0;
    for commit in 0..12usize {
        let arrivals: Vec<_> = (0..=commit % 6)
            .map(|number| {
                second += 1;
                let received = Timestamp::from_second(1_700_000_000 + second).unwrap();
                Arrival { received, ..arrival(&format!("{commit}-{number}"), &[sub(1)]) }
            })
            .collect();
        let received = arrivals.iter().map(|arrival| arrival.received).collect::<Vec<_>>();
        log.extend(store.log(arrivals).await.unwrap().into_iter().zip(received));
    }
    log.reverse();
    log
}

#[tokio::test]
async fn pages_of_any_size_make_up_the_log() {
    let (_folder, store) = fresh();
    let log = log(&store).await;
    let ids: Vec<_> = log.iter().map(|(id, _)| *id).collect();
    for limit in [1, 2, 3, 5, 7, 41, 42, 43] {
        let mut range = Range { limit, ..ALL };
        let mut seen = Vec::new();
        loop {
            let page = listed(&store, range).await;
            assert!(page.len() <= limit);
            let Some(last) = page.last() else { break };
            range.before = Some(*last);
            seen.extend(page);
        }
        assert_eq!(seen, ids, "limit {limit}");
    }
    assert!(listed(&store, Range { limit: 0, ..ALL }).await.is_empty());
    assert!(listed(&store, Range { before: Some(EventId::NIL), ..ALL }).await.is_empty());
}

#[tokio::test]
async fn since_and_until_bound_the_time_of_receipt() {
    let (_folder, store) = fresh();
    let log = log(&store).await;
    for (_, since) in log.iter().step_by(5) {
        for (_, until) in log.iter().step_by(3) {
            let range = Range { since: Some(*since), until: Some(*until), ..ALL };
            let expected: Vec<_> =
                log.iter().filter(|(_, at)| at >= since && at < until).map(|(id, _)| *id).collect();
            assert_eq!(listed(&store, range).await, expected, "{since}..{until}");
        }
    }
}

#[tokio::test]
async fn before_since_until_and_limit_hold_together() {
    let (_folder, store) = fresh();
    let log = log(&store).await;
    let (before, since, until) = (log[10].0, log[30].1, log[5].1);
    let range = Range { before: Some(before), since: Some(since), until: Some(until), limit: 7 };
    let expected: Vec<_> = log[11..18].iter().map(|(id, _)| *id).collect();
    assert_eq!(listed(&store, range).await, expected);
    let rest = Range { before: expected.last().copied(), limit: 100, ..range };
    assert_eq!(listed(&store, rest).await, log[18..=30].iter().map(|(id, _)| *id).collect::<Vec<_>>());
}

#[tokio::test]
async fn since_a_moment_ago_finds_all_that_came_since() {
    let (_folder, store) = fresh();
    let mut log = Vec::new();
    for number in 0..10 {
        let sent = arrival(&number.to_string(), &[]);
        let id = store.log(vec![sent.clone()]).await.unwrap()[0];
        log.insert(0, (id, sent.received));
    }
    for (place, (_, since)) in log.iter().enumerate() {
        let expected: Vec<_> = log[..=place].iter().map(|(id, _)| *id).collect();
        assert_eq!(listed(&store, Range { since: Some(*since), ..ALL }).await, expected);
    }
    assert!(listed(&store, Range { since: Some(clock::now()), ..ALL }).await.is_empty());
}
