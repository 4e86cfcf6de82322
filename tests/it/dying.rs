//! A stage of the service dies: the process ends with the stage's name, and the next start works normally.

use redb::{Database, ReadableTable, TableDefinition};
use serde_json::json;

use crate::harness::{Server, Target, event};

const BATCHES: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("batches");
const HISTORY: TableDefinition<'_, (u128, u64), &[u8]> = TableDefinition::new("history");

/// Adds a row of history with the highest key, or removes it. With it, the writer of a debug build panics when it records
/// the end of an attempt, because the next key overflows.
fn change_last_row(server: &Server, is_there: bool) {
    let database = Database::open(crate::disk_full::database(server)).unwrap();
    let txn = database.begin_write().unwrap();
    {
        let batch = txn.open_table(BATCHES).unwrap().first().unwrap().unwrap().0.value();
        let mut history = txn.open_table(HISTORY).unwrap();
        if is_there {
            history.insert((batch, u64::MAX), &[1, 0][..]).unwrap();
        } else {
            history.remove((batch, u64::MAX)).unwrap();
        }
    }
    txn.commit().unwrap();
}

/// The process looked alive: it answered 200 on /healthz, but accepted nothing, and sent its backlog every half minute.
#[tokio::test]
async fn a_writer_that_panics_ends_the_process_with_its_name_and_the_next_start_works() {
    let (mut server, target) = (Server::start().await, Target::start().await);
    let gate = target.hang("/t");
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let id = server.receive(&event("a")).await;
    target.wait_for("/t", 1).await;
    server.kill9();
    change_last_row(&server, true);
    server.restart().await;
    target.wait_for("/t", 2).await;
    gate.open();
    let status = server.exited().await;
    assert!(!status.success(), "{status}");
    let log = server.log();
    let last = log.lines().last().unwrap_or_default();
    assert!(last.contains("the store's writer has ended"), "{log}");
    assert_eq!(target.requests("/t").len(), 2, "it is not sent again and again");

    change_last_row(&server, false);
    server.restart().await;
    server.delivery_in(&id, &subscription, "delivered").await;
    server.get("/healthz").await.ok();
    server.terminate();
    assert!(server.exited().await.success());
}
