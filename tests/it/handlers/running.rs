//! Runs are deliveries: routed, counted, limited, retried if configured, and shown in the story.

use serde_json::json;

use super::{ended, script};
use crate::harness::{Server, Target, event, wait_until};

#[tokio::test]
async fn the_first_handler_that_matches_runs_and_subscriptions_get_the_event_all_the_same() {
    let config = r#"
[[handler]]
name = "never"
filter = "$.nothing"
command = ["true"]
[[handler]]
name = "first"
filter = '$.data[*][?(@.key = "Taggy")]'
command = ["echo", "first"]
[[handler]]
name = "second"
filter = "$"
command = ["echo", "second"]
"#;
    let (server, target) = (Server::configured(config, |_| ()).await, Target::start().await);
    server.subscribe(json!({"target_url": target.url("/t")})).await;
    let id = server.receive(&event("1")).await;
    let delivery = ended(&server, &id, "delivered").await;
    assert_eq!(delivery["handler"], "first");
    target.wait_for("/t", 1).await;
    let story = server.get(&format!("/events/{id}")).await.ok().json();
    assert_eq!(story["deliveries"].as_array().unwrap().len(), 2);
    server.status_is(&id, "200 OK").await;
}

#[tokio::test]
async fn a_program_gets_the_event_its_folder_and_an_explicit_environment() {
    let config = r#"
[[handler]]
name = "show"
filter = "$"
command = ["./show.sh"]
env = { SECRET = "s" }
outputs = ["output", { folder = "more/inner", key_values = "k.csv" }]
"#;
    let text = r#"cmp - event.json && ls -d download output more/inner && pwd && env | sort"#;
    let server = Server::configured(config, |folder| script(folder, "show.sh", text)).await;
    let id = server.receive(&event("1")).await;
    let delivery = ended(&server, &id, "delivered").await;
    let stdout = delivery["attempts"][0]["run"]["program"]["stdout"]["tail"].as_str().unwrap().to_owned();
    let names: Vec<_> = stdout.lines().skip(4).filter_map(|line| line.split_once('=')).collect();
    let names: Vec<_> = names.iter().map(|(name, _)| *name).collect();
    // The shell adds PWD (and some shells more of their own).
    for name in ["PATH", "SECRET", "WAYPOST_ATTEMPT", "WAYPOST_EVENT", "WAYPOST_HANDLER", "WAYPOST_RUN"] {
        assert!(names.contains(&name), "{stdout}");
    }
    assert!(!names.contains(&"HOME") && !names.contains(&"CARGO"), "{stdout}");
    assert!(stdout.contains(&format!("WAYPOST_EVENT={id}\n")), "{stdout}");
    // Nothing remains of a run that is over.
    wait_until("the run's folder is gone", async || {
        let left = std::fs::read_dir(server.data().join("runs")).unwrap().count();
        (left == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_failed_run_is_final_unless_retries_are_configured() {
    let config = r#"
[[handler]]
name = "once"
filter = '$[?(@.eventID = "once")]'
command = ["sh", "-c", "echo out; echo the last words >&2; exit 3"]
[[handler]]
name = "thrice"
filter = "$"
command = ["sh", "-c", "test $WAYPOST_ATTEMPT = 3"]
retry_schedule = "10ms,10ms"
"#;
    let server = Server::configured(config, |_| ()).await;
    let once = server.receive(&event("once")).await;
    let delivery = ended(&server, &once, "dead").await;
    let reason = delivery["reason"].as_str().unwrap();
    assert!(reason.starts_with("the program ended with exit code 3: the last words"), "{reason}");
    assert_eq!(delivery["attempts"].as_array().unwrap().len(), 1);
    server.status_is(&once, "500 Internal Server Error").await;
    let task = server.get(&format!("/get/{once}")).await.ok().json();
    assert_eq!(task["exceptionValue"].as_str().unwrap(), reason);
    let thrice = server.receive(&event("thrice")).await;
    let delivery = ended(&server, &thrice, "delivered").await;
    assert_eq!(delivery["attempts"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn no_more_than_max_parallel_run_at_once_and_all_of_a_hundred_run() {
    let config = r#"
[[handler]]
name = "count"
filter = "$"
command = ["./count.sh"]
max_parallel = 5
"#;
    // Each counts how many run together with it.
    let text =
        r#"here=$(dirname "$0")/here; mkdir -p "$here"; touch "$here/$$"; ls "$here" | wc -l; rm "$here/$$""#;
    let server = Server::configured(config, |folder| script(folder, "count.sh", text)).await;
    let mut ids = Vec::new();
    for n in 0..100 {
        ids.push(server.receive(&event(&n.to_string())).await);
    }
    let mut most = 0;
    for id in ids {
        let delivery = ended(&server, &id, "delivered").await;
        assert_eq!(delivery["attempts"].as_array().unwrap().len(), 1);
        let stdout = delivery["attempts"][0]["run"]["program"]["stdout"]["tail"].as_str().unwrap().to_owned();
        most = most.max(stdout.trim().parse::<u32>().unwrap());
    }
    assert!((1..=5).contains(&most), "{most}");
}

#[tokio::test]
async fn a_run_that_is_under_way_shows_its_progress() {
    let config = r#"
[[handler]]
name = "wait"
filter = "$"
command = ["sh", "-c", "until test -e ../../../../go; do sleep 0.02; done"]
"#;
    let server = Server::configured(config, |_| ()).await;
    let id = server.receive(&event("1")).await;
    server.status_is(&id, "102 Processing").await;
    wait_until("it runs", async || {
        let task = server.get(&format!("/get/{id}")).await.ok().json();
        (task["progress"]["phase"] == "running").then_some(())
    })
    .await;
    let other = server.receive(&event("2")).await;
    std::fs::write(server.folder().join("go"), "").unwrap();
    for id in [id, other] {
        ended(&server, &id, "delivered").await;
        assert!(server.get(&format!("/get/{id}")).await.ok().json()["progress"].is_null());
    }
}

#[tokio::test]
async fn each_script_of_a_folder_is_a_handler_with_its_defaults() {
    let config = r#"
[[handler]]
scripts_dir = "scripts"
[handler.scripts."b.sh"]
filter = '$[?(@.eventID = "b")]'
"#;
    let server = Server::configured(config, |folder| {
        for name in ["a.sh", "b.sh"] {
            script(&folder.join("scripts"), name, "echo $WAYPOST_HANDLER");
        }
        std::fs::write(folder.join("scripts/README"), "no script").unwrap();
        // An editor's backup file, which kept the service from starting.
        script(&folder.join("scripts"), "a.sh~", "echo the last version");
    })
    .await;
    let process = json!({"destinationTable": "TransactionKeyValue", "key": "do_processing", "value": "True"});
    let a = server.receive(&crate::harness::merged(event("a"), json!({"data": [process]}))).await;
    assert_eq!(ended(&server, &a, "delivered").await["handler"], "a.sh");
    let log = server.log();
    assert!(log.lines().any(|line| line.contains("WARN") && line.contains("scripts/a.sh~")), "{log}");
    let b = server.receive(&event("b")).await;
    assert_eq!(ended(&server, &b, "delivered").await["handler"], "b.sh");
    let neither = server.receive(&event("c")).await;
    server.status_is(&neither, "422 Unprocessable Entity").await;
}

#[tokio::test]
async fn other_users_cannot_see_a_senders_runs() {
    let config = r#"
[[handler]]
name = "all"
filter = "$"
command = ["true"]
"#;
    let server = Server::configured(config, |_| ()).await;
    let id = server.user("sender").receive(&event("1")).await;
    ended(&server, &id, "delivered").await;
    ended(&server.user("sender"), &id, "delivered").await;
    for view in ["events", "get", "status", "scriptlog"] {
        assert_eq!(server.user("stranger").get(&format!("/{view}/{id}")).await.status, 404, "{view}");
    }
}
