//! How large the file is under a steady load after a burst, and how long it takes to give room back.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::future::try_join_all;
use uuid::Uuid;
use waypost_domain::{Event, EventId, RecipientId};
use waypost_runtime::clock;
use waypost_store::{Arrival, Position, Purge, ReadyQuery, Store};

use super::{print, settlement};

const MIB: u64 = 1024 * 1024;
/// The size of an event, in bytes.
const EVENT: u64 = 2_000;
/// The log of the steady load is this part of the burst, and goes through the file so often.
const PART: u64 = 8;
const TIMES: u64 = 10;
/// After so many batches, what is past its time is removed.
const PURGE_EVERY: u64 = 64;

/// Writes a burst, lets most of it go, and then ten times what stays.
pub(crate) async fn run(burst: u64) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path(), Duration::ZERO)?;
    let (burst, kept) = (burst * MIB, burst * MIB / PART);
    let (mut written, mut live, mut batches) = (0, 0, VecDeque::new());
    let (mut compacted, mut pause, mut ratio) = (0, Duration::ZERO, 0.0_f64);
    for number in 0.. {
        let count = number * 37 % 200 + 1;
        batches.push_back((clock::now(), count * EVENT));
        accept(&store, number, count).await?;
        (written, live) = (written + count * EVENT, live + count * EVENT);
        if number % PURGE_EVERY != 0 || written < burst {
            continue;
        }
        if compacted == 0 {
            show(&store, "after the burst").await?;
        }
        while let Some((_, bytes)) = batches.pop_front_if(|(_, bytes)| live - *bytes >= kept) {
            live -= bytes;
        }
        store.purge(Purge::Before(batches[0].0), None).await?;
        let disk = store.disk().await?;
        if disk.spare() > disk.file / 4 {
            let begun = Instant::now();
            store.compact().await?;
            (compacted, pause) = (compacted + 1, pause.max(begun.elapsed()));
            print(&format!("{:.2} s to give {} MiB back", begun.elapsed().as_secs_f64(), disk.spare() / MIB));
            show(&store, "after that").await?;
        } else if compacted > 0 {
            ratio = ratio.max(disk.file as f64 / disk.live as f64);
        }
        if written > burst + TIMES * kept {
            break;
        }
    }
    show(&store, "at the end").await?;
    print(&format!(
        "compacted {compacted} times, the longest {:.2} s; the file was at most {ratio:.2} of its live data",
        pause.as_secs_f64()
    ));
    store.close().await;
    Ok(())
}

async fn accept(store: &Store, batch: u64, count: u64) -> Result<()> {
    let recipient = RecipientId::from_uuid(Uuid::from_u128(1));
    let data = "x".repeat(usize::try_from(EVENT)? - 80);
    let arrivals = (0..count).map(|place| {
        let json = format!(
            r#"{{"specversion":"1.0","type":"t","source":"/s","id":"{batch}-{place}","data":"{data}"}}"#
        );
        let (event, received, sender) = (Event::from_json(json)?, clock::now(), "bench".to_owned());
        Ok(Arrival { event, received, sender, matched: vec![recipient], failed: Vec::new() })
    });
    store.accept(arrivals.collect::<Result<_>>()?, Position::default()).await?;
    let (after, now) = (EventId::NIL, clock::now());
    let query = ReadyQuery { recipient, after, first_attempts: 1_000, now, due: 0 };
    let pending = store.ready(query).await?.first_attempts;
    try_join_all(pending.iter().map(|pending| store.settle(settlement(recipient, pending, false)))).await?;
    Ok(())
}

async fn show(store: &Store, when: &str) -> Result<()> {
    let disk = store.disk().await?;
    let ratio = disk.file as f64 / disk.live as f64;
    print(&format!("{when}: {} MiB in a file of {} MiB ({ratio:.2})", disk.live / MIB, disk.file / MIB));
    Ok(())
}
