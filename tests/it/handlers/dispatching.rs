//! `/dispatch` and the views of the Dispatcher and its Kubernetes form.

use serde_json::{Value, json};

use super::{ended, script};
use crate::harness::{Server, event, wait_until};

const ADD: &str = r#"
[[handler]]
name = "add"
command = ["./add.sh"]
dispatch = true
args = ["1"]
"#;

async fn adding() -> Server {
    Server::configured(ADD, |folder| script(folder, "add.sh", "echo $(($1 + $2 + $3)); echo why >&2")).await
}

#[tokio::test]
async fn a_dispatched_run_is_shown_in_every_view() {
    let server = adding().await;
    let id = server.get("/dispatch/add/2/3").await.ok().text();
    server.status_is(&id, "200 OK").await;
    let delivery = ended(&server, &id, "delivered").await;
    let run = &delivery["attempts"][0]["run"];
    assert_eq!((&run["handler"], &run["start"]["from"]), (&json!("add"), &json!("fresh")));
    assert_eq!(run["program"]["exit_code"], 0);
    assert_eq!(run["program"]["stdout"], json!({"tail": "6\n", "bytes": 2, "kept": 2}));
    assert_eq!(run["program"]["stderr"]["tail"], "why\n");
    let task = server.get(&format!("/get/{id}")).await.ok().json();
    assert_eq!((&task["taskName"], &task["taskStatus"]), (&json!("add"), &json!("200 OK")));
    let data: Value = serde_json::from_str(task["data"].as_str().unwrap()).unwrap();
    assert_eq!(data["arguments"], json!(["2", "3"]));
    assert_eq!(task["exceptionTraceback"], "");
    let log = server.get(&format!("/scriptlog/{id}")).await.ok().json();
    let members = ["uuid", "script_id", "stdout", "stderr", "return_code", "deleted"];
    let found: Vec<_> = members.iter().map(|name| log[*name].clone()).collect();
    assert_eq!(json!(found), json!([id, "add", "6\n", "why\n", "0", null]));
    let original: Value = serde_json::from_str(log["event"].as_str().unwrap()).unwrap();
    assert_eq!(original["source"], "/dispatch/add");
    assert_eq!(server.get("/scriptlog").await.ok().json(), json!([log]));
    assert_eq!(server.get("/").await.ok().json()[0]["taskID"], json!(id));
}

#[tokio::test]
async fn arguments_arrive_intact_whatever_they_contain() {
    let server = Server::configured(ADD, |folder| script(folder, "add.sh", r#"printf '<%s>' "$@""#)).await;
    let id = server.get("/dispatch/add/a%2Fb/%20c%27d/%22%24(x)/").await.ok().text();
    let delivery = ended(&server, &id, "delivered").await;
    assert_eq!(delivery["attempts"][0]["run"]["program"]["stdout"]["tail"], r#"<1><a/b>< c'd><"$(x)>"#);
}

#[tokio::test]
async fn only_handlers_that_the_operator_opened_can_be_dispatched() {
    let config = r#"
[[handler]]
name = "quiet"
filter = "$.never"
command = ["true"]
"#;
    let server = Server::configured(config, |_| ()).await;
    for path in ["/dispatch/quiet", "/dispatch/unknown/1", "/dispatch/"] {
        assert_eq!(server.get(path).await.status, 404, "{path}");
    }
    let log = server.get("/").await.ok().json();
    assert_eq!(log, json!([]), "nothing is logged");
}

#[tokio::test]
async fn a_page_of_another_site_starts_nothing_and_neither_does_a_head() {
    let server = adding().await;
    let headers = [("sec-fetch-site", "cross-site")];
    let refused = server.send(http::Method::GET, "/dispatch/add/1/2", &headers, "").await;
    assert_eq!(refused.status, 403);
    let head = server.send(http::Method::HEAD, "/dispatch/add/1/2", &[], "").await;
    assert_eq!(head.status, 405);
    assert_eq!(server.get("/").await.ok().json(), json!([]));
}

/// Otherwise, anyone who can post events could choose the arguments of a program.
#[tokio::test]
async fn an_event_that_only_looks_dispatched_gives_no_arguments() {
    let config = format!("{ADD}filter = \"$\"\n");
    let server =
        Server::configured(&config, |folder| script(folder, "add.sh", r#"printf '<%s>' "$@""#)).await;
    let forged = json!({
        "specversion": "1.0", "id": "1", "source": "/dispatch/add", "type": "waypost.dispatch",
        "data": {"handler": "add", "arguments": ["evil"]},
    });
    let id = server.receive(&forged).await;
    let delivery = ended(&server, &id, "delivered").await;
    assert_eq!(delivery["attempts"][0]["run"]["program"]["stdout"]["tail"], "<1>");
}

#[tokio::test]
async fn unknown_and_malformed_ids_are_distinguished() {
    let server = adding().await;
    let unknown = "0190b3c4-0000-7000-8000-000000000000";
    // As in the originals: Dispatcher-K8s does not distinguish malformed ids.
    for (view, malformed) in [("/status", 422), ("/get", 422), ("/scriptlog", 404)] {
        assert_eq!(server.get(&format!("{view}/{unknown}")).await.status, 404, "{view}");
        assert_eq!(server.get(&format!("{view}/none")).await.status, malformed, "{view}");
    }
    // An event without a run has no script log, and matched nothing.
    let id = server.receive(&event("1")).await;
    assert_eq!(server.get(&format!("/scriptlog/{id}")).await.status, 404);
    assert_eq!(server.get(&format!("/status/{id}")).await.ok().json(), "422 Unprocessable Entity");
}

#[tokio::test]
async fn a_dispatched_run_is_sent_again_with_its_arguments() {
    let server = adding().await;
    let id = server.get("/dispatch/add/2/3").await.ok().text();
    ended(&server, &id, "delivered").await;
    server.post(&format!("/events/{id}/retry"), &json!(null)).await.ok();
    wait_until("there are two runs", async || {
        let story = server.get(&format!("/events/{id}")).await.ok().json();
        let attempts = story["deliveries"][0]["attempts"].as_array().unwrap().clone();
        (attempts.len() == 2).then(|| {
            assert_eq!(attempts[1]["run"]["program"]["stdout"]["tail"], "6\n");
        })
    })
    .await;
}
