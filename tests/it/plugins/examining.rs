//! The operator's policy plugin, `--policy-plugin`.

use serde_json::{Value, json};

use crate::harness::{Server, Target, event_1_0, run_in};

/// Starts a server whose policy plugin has this configuration.
async fn examined(folder: &tempfile::TempDir, config: &Value) -> Server {
    let file = folder.path().join("config.json");
    std::fs::write(&file, config.to_string()).unwrap();
    let file = file.to_str().unwrap();
    let flags = ["--policy-plugin", waypost_guests::PROBE, "--policy-plugin-config", file];
    Server::with(&[&flags[..], &["--retry-schedule", "10m"]].concat()).await
}

#[tokio::test]
async fn the_operators_plugin_allows_denies_or_gives_no_answer() {
    let (folder, target) = (tempfile::tempdir().unwrap(), Target::start().await);
    for (policy, state) in [("ok", "delivered"), ("no: not yours", "denied"), ("internal: oops", "retrying")]
    {
        let server = examined(&folder, &json!({"policy": policy})).await;
        assert!(!server.log().contains("every user may see every event"));
        let ann = server.user("ann");
        let uuid = ann.subscribe(json!({"target_url": target.url("/t")})).await;
        let id = server.receive(&event_1_0("a")).await;
        let delivery = server.delivery_in(&id, &uuid, state).await;
        let attempt = &delivery["attempts"][0];
        assert_eq!(attempt["plugin"], Value::Null, "it is the operator's, not hers");
        match state {
            "delivered" => assert_eq!(attempt["policy"], json!({"status": 200, "body": ""})),
            "denied" => assert_eq!(attempt["policy"], json!({"status": 403, "body": "not yours"})),
            _ => {
                assert_eq!(attempt, &Value::Null, "nothing is counted");
                assert_eq!(delivery["reason"], "the policy plugin: internal error: oops");
                assert_eq!(delivery["held"]["by"], "policy");
            }
        }
        let status = ann.get(&format!("/events/{id}")).await.status;
        assert_eq!(status == 200, state == "delivered", "who was not allowed does not see the event");
    }
    assert_eq!(target.requests("/t").len(), 1);
}

#[tokio::test]
async fn the_start_fails_with_the_name_of_a_file_that_is_not_a_policy_plugin() {
    let folder = tempfile::tempdir().unwrap();
    let junk = folder.path().join("junk.wasm");
    std::fs::write(&junk, "junk").unwrap();
    let missing = folder.path().join("missing.wasm");
    for (file, says) in [
        (junk.to_str().unwrap(), "junk.wasm is not accepted"),
        (missing.to_str().unwrap(), "missing.wasm"),
        (waypost_guests::SIEVE, "exports no `policy`"),
    ] {
        let flags = ["serve", "--listen", "127.0.0.1:0", "--data", "data", "--policy-plugin", file];
        let output = run_in(folder.path(), &flags, &[], "").await;
        assert_ne!(output.code, 0);
        assert!(output.stderr.contains(says), "{}", output.stderr);
    }
}
