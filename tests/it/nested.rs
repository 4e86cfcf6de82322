//! JSON that nests deeper than 120 levels: one limit wherever untrusted JSON is read or printed.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Api, Process, Server, run, run_in, wait_until};
use crate::plugins::upload;

const SAYS: &str = "nested deeper than 120 levels";

/// Returns `depth` nested arrays.
fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

/// Returns an event with this data.
fn event(data: &str) -> String {
    format!(r#"{{"specversion":"1.0","id":"1","source":"/it","type":"it.happened","data":{data}}}"#)
}

/// A body with 20,000 levels took 2.4 GiB, and 800 MB were printed.
#[tokio::test]
async fn listen_does_not_print_a_body_that_nests_too_deep_and_prints_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut listen = Process::waypost(&["listen", "--port", "0"], folder.path());
    let api = Api::new(listen.address().await);
    let json = [("content-type", "application/json")];
    api.send(Method::POST, "/", &json, nested(20_000)).await.ok();
    api.send(Method::POST, "/", &json, nested(120)).await.ok();
    api.send(Method::POST, "/", &[("content-type", "text/plain")], "a\n#4 POST /forged\u{202e}").await.ok();
    wait_until("all are shown", async || listen.stdout().contains("#3 POST /").then_some(())).await;
    let shown = listen.stdout();
    assert!(shown.contains(&format!("\n(40000 bytes of JSON, {SAYS})\n")), "{}", &shown[..200]);
    assert!(shown.len() < 100_000, "{} bytes", shown.len());
    wait_until("the text is shown", async || {
        listen.stdout().contains("\n| a\n| #4 POST /forged\\u{202e}\n").then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_command_line_refuses_json_that_nests_too_deep() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("event.json"), event(&nested(120))).unwrap();
    let send = run_in(folder.path(), &["send", "event.json"], &[], "").await;
    assert!(send.code == 1 && send.stderr.contains(SAYS), "{send:?}");
    for depth in [121, 20_000] {
        let found = run(&["match", "$", "-"], &nested(depth)).await;
        assert!(found.code == 2 && found.stderr.contains(SAYS), "{found:?}");
        let config = format!("{{\"a\":{}}}", nested(depth));
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        let arguments =
            ["plugin", "run", waypost_guests::PROBE, "--event", "event.json", "--config", "config.json"];
        std::fs::write(folder.path().join("event.json"), event("1")).unwrap();
        let ran = run_in(folder.path(), &arguments, &[], "").await;
        assert!(ran.code == 2 && ran.stderr.contains(SAYS), "{ran:?}");
    }
    assert_eq!(run(&["match", "$[0][0]", "-"], &nested(120)).await.code, 0);
}

/// A configuration was accepted that serde_json could just read by itself, but not inside its stored record.
#[tokio::test]
async fn the_deepest_accepted_configuration_can_be_stored_and_read_again() {
    let mut server = Server::start().await;
    let digest = upload(&server, waypost_guests::PROBE).await["digest"].clone();
    let body = |depth: usize| {
        let nested: Value = serde_json::from_str(&nested(depth)).unwrap();
        json!({"name": "n", "jsonpath": "$", "target_url": "http://127.0.0.1:9/",
            "plugin": {"digest": digest, "config": {"a": nested}}})
    };
    // The object, `plugin` and `config` are levels too.
    server.post("/eventmatch", &body(118)).await.refused(400).says(SAYS);
    let uuid = server.post("/eventmatch", &body(117)).await.ok().json()["uuid"].as_str().unwrap().to_owned();
    server.restart().await;
    assert_eq!(server.subscription(&uuid).await["plugin"]["config"], body(117)["plugin"]["config"]);
    let data = |depth: usize| event(&nested(depth));
    server.receive_as("application/cloudevents+json", data(119)).await.ok();
    server.receive_as("application/cloudevents+json", data(120)).await.refused(400).says(SAYS);
    server.receive_as("application/cloudevents+json", data(20_000)).await.refused(400).says(SAYS);
}
