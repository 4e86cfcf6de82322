//! kill -9 and SIGTERM during a run: it begins again in a fresh folder, and its story says so.

use serde_json::{Value, json};

use super::cart::Cart;
use super::ingest::{Ingest, OnState, OnUpload};
use super::{ended, script, uploading_once};
use crate::harness::{Gate, Server, event, merged, wait_until};

const WAIT: &str = r#"
[[handler]]
name = "wait"
filter = "$"
command = ["./wait.sh"]
"#;

/// Writes its process id, leaves a file behind, and continues when there is a file `go`.
const WAIT_SH: &str = r#"
ls output | wc -l
touch output/half
top=$(dirname "$0")
echo $$ > "$top/pid"
until test -e "$top/go"; do sleep 0.02; done
"#;

async fn waiting() -> (Server, String, String) {
    let server = Server::configured(WAIT, |folder| script(folder, "wait.sh", WAIT_SH)).await;
    let id = server.receive(&event("1")).await;
    let pid = pid(&server).await;
    (server, id, pid)
}

/// Returns the process id of the running program.
async fn pid(server: &Server) -> String {
    let path = server.folder().join("pid");
    wait_until("the program runs", async || {
        let pid = std::fs::read_to_string(&path).ok()?;
        pid.ends_with('\n').then(|| pid.trim().to_owned())
    })
    .await
}

async fn is_gone(pid: &str) {
    let path = std::path::Path::new("/proc").join(pid);
    wait_until("the program is gone", async || (!path.exists()).then_some(())).await;
}

async fn goes_on(mut server: Server, id: &str, first: &str) -> Value {
    is_gone(first).await;
    std::fs::remove_file(server.folder().join("pid")).unwrap();
    server.restart().await;
    assert_ne!(pid(&server).await, first);
    std::fs::write(server.folder().join("go"), "").unwrap();
    let delivery = ended(&server, id, "delivered").await;
    let run = &delivery["attempts"][0]["run"];
    assert_eq!(run["program"]["stdout"]["tail"].as_str().unwrap().trim(), "0", "a fresh folder");
    delivery
}

#[tokio::test]
async fn a_run_cut_short_by_kill_9_ends_with_the_service_and_begins_again() {
    let (mut server, id, pid) = waiting().await;
    server.kill9();
    let delivery = goes_on(server, &id, &pid).await;
    assert_eq!(delivery["attempts"].as_array().unwrap().len(), 1);
    assert!(delivery["attempts"][0]["run"]["start"]["interrupted"].is_string(), "{delivery:#}");
}

#[tokio::test]
async fn a_run_that_outlasts_the_grace_of_a_shutdown_begins_again() {
    let config = format!("shutdown_grace_ms = 100\n{WAIT}");
    let mut server = Server::configured(&config, |folder| script(folder, "wait.sh", WAIT_SH)).await;
    let id = server.receive(&event("1")).await;
    let first = pid(&server).await;
    server.terminate();
    assert!(server.exited().await.success());
    let delivery = goes_on(server, &id, &first).await;
    assert!(delivery["attempts"][0]["run"]["start"]["interrupted"].is_string(), "{delivery:#}");
}

#[tokio::test]
async fn a_run_waits_while_its_handler_is_not_configured() {
    let (mut server, id, _) = waiting().await;
    server.kill9();
    let path = server.folder().join("waypost.toml");
    std::fs::write(&path, "").unwrap();
    server.restart().await;
    let story = server.get(&format!("/events/{id}")).await.ok().json();
    let delivery = &story["deliveries"][0];
    assert_eq!(delivery["state"], "pending");
    assert!(delivery["reason"].as_str().unwrap().contains("not in the configuration"), "{delivery:#}");
    std::fs::write(&path, WAIT).unwrap();
    std::fs::write(server.folder().join("go"), "").unwrap();
    server.restart().await;
    ended(&server, &id, "delivered").await;
}

#[tokio::test]
async fn after_a_crash_in_the_upload_it_uploads_again_without_another_run() {
    let (ingest, gate) = (Ingest::start().await, Gate::closed());
    ingest.on_upload([OnUpload::Stall(gate.clone())]);
    let mut server = uploading_once(&ingest, "").await;
    let id = server.receive(&event("1")).await;
    ingest.wait_for_attempts(1).await;
    server.kill9();
    gate.open();
    server.restart().await;
    let delivery = ended(&server, &id, "delivered").await;
    let attempts = delivery["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0]["run"]["start"]["from"], "upload");
    assert_eq!(std::fs::read_to_string(server.folder().join("ran")).unwrap(), "ran\n");
}

#[tokio::test]
async fn after_a_crash_while_a_job_is_ingested_the_run_continues_with_that_job() {
    let ingest = Ingest::start().await;
    ingest.on_state((0..1000).map(|_| OnState::Working("ingest files", 10)));
    let mut server = uploading_once(&ingest, "").await;
    let id = server.receive(&event("1")).await;
    ingest.wait_for_questions(2).await;
    server.kill9();
    ingest.on_state_anew([]);
    server.restart().await;
    ended(&server, &id, "delivered").await;
    assert_eq!(ingest.uploads().len(), 1, "nothing is uploaded twice");
}

#[tokio::test]
async fn after_a_crash_in_the_fetch_it_fetches_again_into_a_fresh_folder() {
    let cart = Cart::start().await.serving([("one", "x".repeat(1_000_000))]).stalling_after(700_000);
    let config = format!(
        r#"
[[handler]]
name = "h"
filter = "$"
command = ["wc", "-c", "download/one"]
fetch = {{ cart = "{}" }}
"#,
        cart.url()
    );
    let mut server = Server::configured(&config, |_| ()).await;
    let id = server.receive(&merged(event("1"), json!({"data": cart.rows()}))).await;
    wait_until("something is fetched", async || {
        let task = server.get(&format!("/get/{id}")).await.ok().json();
        task["progress"]["bytes_done"].as_u64().filter(|bytes| *bytes > 0)
    })
    .await;
    server.kill9();
    let cart = cart.whole_again();
    server.restart().await;
    let delivery = ended(&server, &id, "delivered").await;
    let run = &delivery["attempts"][0]["run"];
    assert!(run["start"]["interrupted"].is_string(), "{delivery:#}");
    assert!(run["program"]["stdout"]["tail"].as_str().unwrap().starts_with("1000000 "));
    drop(cart);
}

/// All runs that began while the disk was full for a moment became dead letters.
#[tokio::test]
async fn a_run_waits_while_there_is_no_folder_to_run_in() {
    let config = "[[handler]]\nname = \"h\"\nfilter = \"$\"\ncommand = [\"true\"]\n";
    let server = Server::configured(config, |folder| {
        std::fs::create_dir(folder.join("data")).unwrap();
        std::fs::write(folder.join("data/runs"), "in the way").unwrap();
    })
    .await;
    let id = server.receive(&event("1")).await;
    wait_until("the log tells of it", async || server.log().contains("cannot begin yet").then_some(())).await;
    std::fs::remove_file(server.data().join("runs")).unwrap();
    let delivery = ended(&server, &id, "delivered").await;
    assert_eq!(delivery["attempts"].as_array().unwrap().len(), 1);
}
