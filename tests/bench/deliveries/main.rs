//! What a long log costs: opening it, and listing a subscription's deliveries by state. `cargo bench -p waypost --bench
//! deliveries -- 1000000` needs half a gigabyte of disk. With `steady 1024`, how large the file is after a burst of so many MiB.

mod steady;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use uuid::Uuid;
use waypost_domain::{Attempt, Event, EventId, Outcome, RecipientId};
use waypost_runtime::clock;
use waypost_store::{
    Arrival, DeliveriesQuery, PendingDelivery, Position, Progress, ReadyQuery, Settlement, Store, StoredState,
};

/// How many events are accepted at once, and settled at once.
const AT_ONCE: usize = 256;
/// One delivery in this many becomes a dead letter.
const DEAD_EVERY: usize = 10;
/// How long a page is, and how often each is read.
const PAGE: usize = 100;
const READS: usize = 200;

#[tokio::main]
async fn main() -> Result<()> {
    if let Some("steady") = std::env::args().nth(1).as_deref() {
        let burst = std::env::args().nth(2).and_then(|burst| burst.parse().ok()).unwrap_or(256);
        return steady::run(burst).await;
    }
    let count = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(10_000);
    let folder = tempfile::tempdir()?;
    let recipient = RecipientId::from_uuid(Uuid::from_u128(1));
    let store = Store::open(folder.path(), Duration::ZERO)?;
    let begun = Instant::now();
    fill(&store, recipient, count).await?;
    print(&format!("{count} events accepted, delivered or dead in {:.1} s", begun.elapsed().as_secs_f64()));
    store.close().await;
    drop(store);
    let begun = Instant::now();
    let store = Store::open(folder.path(), Duration::ZERO)?;
    print(&format!("opened in {:.3} s", begun.elapsed().as_secs_f64()));
    let counts = store.counts(recipient).await?;
    print(&format!("{} dead of {}", counts.of(StoredState::Dead), counts.total()));
    for state in [Some(StoredState::Dead), Some(StoredState::Delivered), None] {
        lists(&store, recipient, state, None).await?;
        let middle =
            store.histories(waypost_store::Range { before: None, since: None, until: None, limit: 1 });
        let newest = middle.await?.first().context("the log is empty")?.event.id;
        lists(&store, recipient, state, Some(newest)).await?;
    }
    store.close().await;
    Ok(())
}

/// Accepts events for the recipient, and settles each.
async fn fill(store: &Store, recipient: RecipientId, count: usize) -> Result<()> {
    let json =
        r#"{"specversion":"1.0","type":"t","source":"/s","id":"ID","data":{"run":12,"file":"scan.tif"}}"#;
    let mut number = 0;
    while number < count {
        let some = AT_ONCE.min(count - number);
        let arrivals = (number..number + some).map(|id| {
            let event = Event::from_json(json.replace("ID", &id.to_string()))?;
            let (received, sender) = (clock::now(), "bench".to_owned());
            Ok(Arrival { event, received, sender, matched: vec![recipient], failed: Vec::new() })
        });
        store.accept(arrivals.collect::<Result<_>>()?, Position::default()).await?;
        let query =
            ReadyQuery { recipient, after: EventId::NIL, first_attempts: AT_ONCE, now: clock::now(), due: 0 };
        let pending = store.ready(query).await?.first_attempts;
        let settled = pending.iter().enumerate().map(|(place, pending)| {
            store.settle(settlement(recipient, pending, (number + place) % DEAD_EVERY == 0))
        });
        try_join_all(settled).await?;
        number += some;
    }
    Ok(())
}

fn settlement(recipient: RecipientId, pending: &PendingDelivery, is_dead: bool) -> Settlement {
    let (at, took) = (clock::now(), Duration::from_millis(1));
    let outcome = if is_dead { Outcome::Dead { reason: "410 Gone".to_owned() } } else { Outcome::Delivered };
    let attempt = Attempt { number: 1, at, took, policy: None, target: None, outcome };
    let progress = Progress { failed: 1, first_attempt: Some(at), allowed: true, ..Progress::default() };
    let (event, position) = (pending.event.id, pending.position);
    Settlement { recipient, event, position, plugin: None, run: None, attempt, progress, rendered: false }
}

async fn lists(
    store: &Store,
    recipient: RecipientId,
    state: Option<StoredState>,
    before: Option<EventId>,
) -> Result<()> {
    let mut times = Vec::with_capacity(READS);
    for _ in 0..READS {
        let begun = Instant::now();
        let listed = store
            .deliveries(DeliveriesQuery { recipient, state, since: None, until: None, before, limit: PAGE })
            .await?;
        times.push(begun.elapsed());
        anyhow::ensure!(listed.len() == PAGE, "{} of {PAGE} are listed", listed.len());
    }
    times.sort_unstable();
    let name = state.map_or("any state", StoredState::name);
    let from = if before.is_some() { "before the newest" } else { "from the newest" };
    print(&format!(
        "{PAGE} in {name}, {from}: p50 {:.3} ms, p99 {:.3} ms",
        times[READS / 2].as_secs_f64() * 1e3,
        times[READS * 99 / 100].as_secs_f64() * 1e3
    ));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "its results are for people")]
fn print(text: &str) {
    println!("{text}");
}
