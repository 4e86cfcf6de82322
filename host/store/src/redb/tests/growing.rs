//! How much of the file is used for what plugins make.

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
