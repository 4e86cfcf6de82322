//! How much of the file is used, and that it gives back what is not.

use std::collections::VecDeque;

use redb::ReadableTable as _;

use super::super::history::HISTORY;
use super::super::log::BATCHES;
use super::super::pieces;
use super::super::schema::{LOG_BYTES_KEY, META};
use super::*;
use waypost_domain::plugin::Output;

/// Bytes that nothing compresses.
fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(bytes).collect()
}

/// Returns how many bytes the pages in use have.
fn pages(store: &Store) -> u64 {
    let pages = store.reader.handle.write(|txn| {
        let stats = txn.stats()?;
        Ok(stats.allocated_pages() * stats.page_size() as u64)
    });
    pages.unwrap()
}

fn outputs(bytes: usize, seed: u64) -> PluginResult {
    let output = |place| Output::Raw {
        content_type: "text/plain".to_owned(),
        headers: Vec::new(),
        body: noise(bytes, seed * 64 + place).into(),
    };
    PluginResult::Outputs((0..64).map(output).collect())
}

/// Freezes a delivery's outputs and gives the delivery up: its outputs stay.
async fn give_up(store: &Store, number: u64, bytes: usize) {
    accept(store, &number.to_string(), &[sub(1)]).await;
    let pending = only(store, sub(1)).await;
    let mut rendering = counting(sub(1), &pending, 0);
    rendering.payload.result = outputs(bytes, number);
    assert!(store.freeze(rendering).await.unwrap());
    settle(store, sub(1), &PendingDelivery { rendered: true, ..pending }, dead()).await;
}

/// 300 events of 64 outputs of 16 KiB took 600 MiB: 1 MiB and a few bytes take 2 MiB.
#[tokio::test]
async fn outputs_take_about_their_own_size() {
    // Pages are free again after the next sync, which a journal puts off.
    if ON_JOURNAL {
        return;
    }
    for bytes in [100, 1_000, 16 * 1024] {
        let (_folder, store) = fresh();
        let before = pages(&store);
        for number in 0..12 {
            give_up(&store, number, bytes).await;
        }
        let (taken, made) = (pages(&store) - before, 12 * 64 * bytes as u64);
        // A page more for each event and table is no matter.
        assert!(taken < made + made / 5 + 256 * 1024, "{taken} for {made}");
        for pending in store.histories(ALL).await.unwrap() {
            let number: u64 = pending.event.event.id().parse().unwrap();
            let rendered = store.rendered(pending.event.id, sub(1)).await.unwrap().unwrap();
            assert_eq!(rendered.result, outputs(bytes, number));
        }
        assert_eq!(purge(&store, Purge::Before(Timestamp::MAX)).await, (12, 0));
        assert!(pages(&store) < before + 128 * 1024, "nothing is left");
    }
}

/// The records of a file are counted as they are written and removed, and those of an older Waypost's when it is opened.
#[tokio::test]
async fn the_size_of_the_log_is_kept_exactly() {
    let (folder, store) = fresh();
    let counted = |store: &Store| {
        let read = store.reader.handle.read(|txn| {
            let kept = txn.open_table(META)?.get(LOG_BYTES_KEY)?.map_or(0, |bytes| bytes.value());
            let (mut walked, table) = (0, txn.open_table(BATCHES)?);
            for row in table.iter()? {
                walked += pieces::bytes(row?.1.value());
            }
            for row in txn.open_table(HISTORY)?.iter()? {
                walked += pieces::bytes(row?.1.value());
            }
            Ok((kept, walked))
        });
        let (kept, walked) = read.unwrap();
        assert_eq!(kept, walked);
        kept
    };
    let mut events = Vec::new();
    for (number, bytes) in [10, 3_000, 5_000, 200_000, 70_000, 1].into_iter().enumerate() {
        let id = number.to_string();
        let large = Arrival { event: event(&id, bytes), ..arrival(&id, &[sub(1)]) };
        events.extend(store.log(vec![arrival(&format!("{id}-"), &[]), large]).await.unwrap());
        counted(&store);
        let pending = ready(&store, sub(1)).await.first_attempts.pop().unwrap();
        settle(&store, sub(1), &pending, if number % 2 == 0 { dead() } else { Outcome::Delivered }).await;
    }
    let full = counted(&store);
    purge(&store, Purge::Events(events.iter().step_by(3).copied().collect())).await;
    let left = counted(&store);
    assert!(left < full);
    close(store).await;
    let store = open(folder.path());
    let read = |event: EventId| {
        let store = &store;
        async move { store.history(event).await.unwrap().is_some() }
    };
    assert!(!read(events[0]).await && read(events[1]).await);
    let forgotten = store.reader.handle.write(|txn| {
        set_version(txn, 5);
        Ok(txn.open_table(META)?.remove(LOG_BYTES_KEY).map(drop)?)
    });
    forgotten.unwrap();
    close(store).await;
    let store = open(folder.path());
    assert_eq!(counted(&store), left);
    purge(&store, Purge::Before(Timestamp::MAX)).await;
    assert_eq!(counted(&store), 0);
}

/// A file stayed as large as it ever was: sixteen times what was in it.
#[tokio::test]
async fn a_file_gives_room_back_after_a_burst_and_stays_small_under_a_steady_load() {
    const KEPT: u64 = 4 << 20;
    // A journal's transactions are on disk later.
    if ON_JOURNAL {
        return;
    }
    let (_folder, store) = fresh();
    let (mut written, mut live, mut begun) = (0, 0, VecDeque::new());
    let mut compacted = 0;
    for batch in 0_u64.. {
        let count = batch * 37 % 150 + 1;
        let arrivals = (0..count).map(|place| {
            let id = format!("{batch}-{place}");
            Arrival { event: event(&id, 2_000), ..arrival(&id, &[sub(1)]) }
        });
        begun.push_back((clock::now(), count * 2_000));
        store.log(arrivals.collect()).await.unwrap();
        let pending = ready_at(&store, sub(1), clock::now()).await.first_attempts;
        let settled = pending.iter().map(|pending| store.settle(ending(sub(1), pending, Outcome::Delivered)));
        futures_util::future::try_join_all(settled).await.unwrap();
        (written, live) = (written + count * 2_000, live + count * 2_000);
        if written < 6 * KEPT || batch % 20 != 0 {
            continue;
        }
        while let Some((_, bytes)) = begun.pop_front_if(|(_, bytes)| live - *bytes >= KEPT) {
            live -= bytes;
        }
        purge(&store, Purge::Before(begun[0].0)).await;
        let disk = store.disk().await.unwrap();
        assert!((live..live + live / 2).contains(&disk.live), "{disk:?} for {live}");
        if disk.spare() > KEPT / 4 {
            store.compact().await.unwrap();
            let after = store.disk().await.unwrap();
            assert!(after.file < after.live + after.live / 3, "{after:?}");
            compacted += 1;
        }
        if written > 16 * KEPT {
            break;
        }
    }
    let disk = store.disk().await.unwrap();
    assert!(disk.file < disk.live + disk.live / 2, "{disk:?}");
    assert!((1..20).contains(&compacted), "{compacted}");
    let counts = store.counts(sub(1)).await.unwrap();
    assert_eq!(counts.total(), listed(&store, ALL).await.len() as u64, "and all is there");
}
