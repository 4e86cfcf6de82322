//! Properties that must hold for days: repeated crashes lose or duplicate nothing, and nothing accumulates.

use std::collections::BTreeMap;
use std::fs;

use serde_json::json;

use super::{ended, script};
use crate::harness::{Server, event, event_1_0, wait_until};

/// Logs the event that it ran on, and writes an output from it.
const LOG: &str = r#"
[[handler]]
name = "log"
filter = "$"
command = ["./log.sh"]
max_parallel = 6
upload = { local = "results" }
"#;
const LOG_SH: &str = r#"echo $WAYPOST_EVENT >> $(dirname "$0")/log; echo $WAYPOST_EVENT > output/id"#;

/// Returns how often each event's program has begun.
fn begun(server: &Server) -> BTreeMap<String, usize> {
    let mut begun = BTreeMap::new();
    for id in fs::read_to_string(server.folder().join("log")).unwrap_or_default().lines() {
        *begun.entry(id.to_owned()).or_default() += 1;
    }
    begun
}

fn runs(server: &Server) -> usize {
    fs::read_dir(server.data().join("runs")).map_or(0, Iterator::count)
}

async fn nothing_is_left(server: &Server) {
    wait_until("no folder of a run is left", async || (runs(server) == 0).then_some(())).await;
}

#[tokio::test]
async fn repeated_kill_9_loses_no_run_and_uploads_each_output_once() {
    let mut server = Server::configured(LOG, |folder| script(folder, "log.sh", LOG_SH)).await;
    let mut ids = Vec::new();
    for round in 0..12_u32 {
        for n in 0..5 {
            ids.push(server.receive(&event(&format!("{round}-{n}"))).await);
        }
        // At a different moment in each round: as soon as this many have begun.
        let enough = (round as usize * 5 + round as usize % 6).max(1);
        wait_until("some have begun", async || (begun(&server).len() >= enough.min(ids.len())).then_some(()))
            .await;
        server.kill9();
        server.restart().await;
    }
    for id in &ids {
        let delivery = ended(&server, id, "delivered").await;
        assert_eq!(delivery["attempts"].as_array().unwrap().len(), 1, "{delivery:#}");
    }
    assert_eq!(begun(&server).len(), ids.len());
    let mut outputs: Vec<_> = fs::read_dir(server.folder().join("results"))
        .unwrap()
        .map(|entry| entry.unwrap().path().join("data/id"))
        .filter_map(|place| fs::read_to_string(place).ok())
        .map(|id| id.trim().to_owned())
        .collect();
    outputs.sort();
    ids.sort();
    assert_eq!(outputs, ids, "each output is there once");
    nothing_is_left(&server).await;
}

#[tokio::test]
async fn two_hundred_runs_leave_no_process_thread_file_or_folder_behind() {
    let server = Server::configured(LOG, |folder| script(folder, "log.sh", LOG_SH)).await;
    let own = format!("/proc/{}", server.pid().as_raw_nonzero());
    let count = |what: &str| fs::read_dir(format!("{own}/{what}")).unwrap().count();
    let first: Vec<_> = (0..20).map(|n| event_1_0(&format!("first-{n}"))).collect();
    for event in first {
        server.receive(&event).await;
    }
    wait_until("the first have run", async || {
        (begun(&server).len() == 20 && runs(&server) == 0).then_some(())
    })
    .await;
    let (files, threads) = (count("fd"), count("task"));
    // More than one batch of the log, in one request.
    let batch: Vec<_> = (0..300).map(|n| event_1_0(&n.to_string())).collect();
    server.receive_as("application/cloudevents-batch+json", json!(batch).to_string()).await.ok();
    wait_until("all have run", async || (begun(&server).len() == 320 && runs(&server) == 0).then_some(()))
        .await;
    assert!(begun(&server).values().all(|count| *count == 1), "none ran twice");
    wait_until("files and processes are back to what they were", async || {
        // The fork server of the supervisors stays.
        let children = fs::read_to_string(format!("{own}/task/{}/children", server.pid().as_raw_nonzero()));
        let stays = |child: &str| {
            let command = fs::read_to_string(format!("/proc/{child}/cmdline"));
            command.map_or(true, |command| command.contains("--fork-server"))
        };
        let is_childless = children.map_or(true, |children| children.split_whitespace().all(stays));
        // Idle threads of the blocking pool end after ten seconds.
        (count("fd") <= files + 4 && count("task") <= threads + 4 && is_childless).then_some(())
    })
    .await;
}

/// A crash during the removal of a folder left it there forever, and a crash before it kept `event retry` from running
/// the program again.
#[tokio::test]
async fn folders_that_a_crash_leaves_of_ended_runs_are_removed_at_the_next_start() {
    let mut server = Server::configured(LOG, |folder| script(folder, "log.sh", LOG_SH)).await;
    let id = server.receive(&event("1")).await;
    let delivery = ended(&server, &id, "delivered").await;
    nothing_is_left(&server).await;
    server.kill9();
    let folder = server.data().join("runs");
    let over = folder.join(delivery["id"].as_str().unwrap());
    let began = json!({
        "event": id, "recipient": delivery["subscription"], "at": waypost_runtime::clock::now().as_microsecond(),
    });
    let removed =
        folder.join("0190b3c4-0000-7000-8000-000000000000.0190b3c4-0000-7000-8000-000000000001.removed");
    let nameless = folder.join("0190b3c4-0000-7000-8000-000000000000");
    for place in [&over, &removed, &nameless] {
        fs::create_dir_all(place.join("work/output")).unwrap();
    }
    fs::write(over.join("began.json"), began.to_string()).unwrap();
    fs::create_dir(folder.join("mine")).unwrap();
    server.restart().await;
    wait_until("only what is no run's is left", async || (runs(&server) == 1).then_some(())).await;
    assert!(folder.join("mine").exists());
    server.post(&format!("/events/{id}/retry"), &json!(null)).await.ok();
    wait_until("it has run again", async || (begun(&server)[&id] == 2).then_some(())).await;
}

#[tokio::test]
async fn the_recipient_id_of_a_handler_gives_no_access_to_subscription_routes() {
    let server = Server::configured(LOG, |folder| script(folder, "log.sh", LOG_SH)).await;
    let sent = server.user("sender").receive(&event("1")).await;
    let delivery = ended(&server.user("sender"), &sent, "delivered").await;
    let recipient = delivery["subscription"].as_str().unwrap().to_owned();
    for user in ["sender", "stranger"] {
        let user = server.user(user);
        let path = format!("/eventmatch/{recipient}");
        assert_eq!(user.get(&path).await.status, 403);
        assert_eq!(user.put(&path, &json!({"name": "mine"})).await.status, 403);
        assert_eq!(user.delete(&path).await.status, 403);
        assert_eq!(user.get(&format!("{path}/deliveries")).await.status, 403);
        let recover = user.post(&format!("{path}/recover"), &json!({"since": "2020-01-01T00:00:00Z"})).await;
        assert_eq!(recover.status, 403);
        let again = user.post(&format!("/events/{sent}/retry?subscription={recipient}"), &json!(null)).await;
        assert!(again.status == 404 || again.json()["deliveries"] == json!([]), "{}", again.text());
    }
    assert_eq!(begun(&server)[&sent], 1);
}

/// A handler that catches everything got the run instead.
#[tokio::test]
async fn a_dispatched_run_waits_for_its_own_handler_also_when_it_is_sent_again() {
    let asked = "[[handler]]\nname = \"asked\"\ndispatch = true\ncommand = [\"true\"]\n";
    let config = format!("{asked}{LOG}");
    let mut server = Server::configured(&config, |folder| script(folder, "log.sh", LOG_SH)).await;
    let id = server.get("/dispatch/asked/1").await.ok().text();
    ended(&server, &id, "delivered").await;
    server.kill9();
    fs::write(server.folder().join("waypost.toml"), LOG).unwrap();
    server.restart().await;
    server.post(&format!("/events/{id}/retry"), &json!(null)).await.ok();
    let other = server.receive(&event("1")).await;
    ended(&server, &other, "delivered").await;
    let deliveries = server.story(&id).await["deliveries"].clone();
    assert_eq!(deliveries.as_array().unwrap().len(), 1, "{deliveries:#}");
    assert!(deliveries[0]["reason"].as_str().unwrap().contains("not in the configuration any more"));
    fs::write(server.folder().join("waypost.toml"), config).unwrap();
    server.restart().await;
    wait_until("it has run again", async || {
        let attempts = server.story(&id).await["deliveries"][0]["attempts"].as_array().unwrap().len();
        (attempts == 2).then_some(())
    })
    .await;
    assert_eq!(begun(&server).get(&id), None);
}
