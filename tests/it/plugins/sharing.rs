//! Resources that users share: the processes that compile and check, and the places for uploads. No user has to wait for
//! all the work of another.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::made::{bomb, numbered};
use super::{post, upload, wasm};
use crate::harness::{Answer, Api, Reply, Server, Target, run, wait_until};

/// The longest that a user's upload may take beside the work of others, each of whose uploads takes a minute. It allows for
/// other tests on the machine.
const SOON: Duration = Duration::from_secs(30);

async fn save(api: &Api, digest: &Value, config: Value) -> Reply {
    let plugin = json!({"digest": digest, "config": config});
    let body = json!({"name": "n", "jsonpath": "$", "target_url": "http://127.0.0.1:9/", "plugin": plugin});
    api.post("/eventmatch", &body).await
}

/// Eight users saved configurations with a slow schema: another user's save took 19.5 s.
#[tokio::test]
async fn a_save_does_not_wait_for_slow_saves_of_other_users() {
    let server = Server::start().await;
    let slow = upload(&server, waypost_guests::SLOW_SCHEMA).await["digest"].clone();
    let probe = upload(&server, waypost_guests::PROBE).await["digest"].clone();
    let mut saving = JoinSet::new();
    for user in 0..8 {
        for _ in 0..2 {
            let (api, slow) = (server.user(&format!("slow {user}")), slow.clone());
            saving.spawn(async move { (user, save(&api, &slow, json!({"slow": {}})).await) });
        }
    }
    let (user, first) = saving.join_next().await.unwrap().unwrap();
    first.refused(422).at("/plugin").says("configuration check time limit of 5 s");
    // By now all others wait for their turns of 5 s each, one after the other.
    save(&server.user("ann"), &probe, json!({"filter": "ok"})).await.ok();
    let mut answered = 1;
    while saving.try_join_next().is_some() {
        answered += 1;
    }
    assert!(answered < 12, "{answered} of the 16 were answered before her");
    // A user who has had an answer gets it again without another check, and others may use the module.
    let again =
        save(&server.user(&format!("slow {user}")), &slow, json!({"slow": {"a": 1}})).await.refused(422);
    again.says("by a configuration of yours within the last 10 minutes");
    save(&server.user("ann"), &slow, json!({"quick": true})).await.ok();
    saving.abort_all();
}

/// Four users occupied all places with modules that take a minute to compile.
#[tokio::test]
async fn an_upload_does_not_wait_for_slow_uploads_of_other_users() {
    let server = Server::start().await;
    let mut uploading = JoinSet::new();
    for n in 0..8 {
        let api = server.user(&format!("slow {}", n % 4));
        uploading.spawn(async move {
            // The poll below may occupy the place at that moment.
            while matches!(post(&api, numbered(bomb(), n)).await.status, 429 | 503) {}
        });
    }
    // A user's third module is refused while two of his are being compiled.
    let slow = server.user("slow 0");
    wait_until("two of one user are under way", async || {
        let refused = post(&slow, b"\0asm".as_slice()).await;
        (refused.status == 429).then_some(refused)
    })
    .await
    .refused(429)
    .says("2 modules of yours");
    let begun = Instant::now();
    upload(&server.user("ann"), waypost_guests::PROBE).await;
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    uploading.abort_all();
}

/// `push` failed at a busy server's 503.
#[tokio::test]
async fn push_waits_for_a_busy_server_and_says_so() {
    let (server, stand_in) = (Server::start().await, Target::start().await);
    let uuid = server.subscribe(json!({"target_url": "http://127.0.0.1:9/"})).await;
    let path = format!("/eventmatch/{uuid}/plugin");
    let report = upload(&server, waypost_guests::PROBE).await;
    let busy = json!({"status": "503", "message": "8 modules are being uploaded or compiled: try again"});
    let busy = Answer::status(503).header("retry-after", "1").body(busy.to_string());
    stand_in.answers(&path, [busy, Answer::status(200).body(report.to_string())]);
    let arguments = ["plugin", "push", waypost_guests::PROBE, "--subscription", &uuid, "--server"];
    let output = run(&[&arguments[..], &[&stand_in.url("")]].concat(), "").await;
    assert_eq!(output.code, 0, "{output:?}");
    assert!(
        output.stderr.contains("8 modules are being uploaded or compiled: try again; retrying in 1 s"),
        "{output:?}"
    );
    let sent = stand_in.requests(&path);
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|request| request.body == wasm(waypost_guests::PROBE)));
}
