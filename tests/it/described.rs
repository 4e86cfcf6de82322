//! The REST API keeps what its description says (`/openapi.json`): random requests and a generated client try it.

use std::process::{Command, Output};

use http::Method;
use serde_json::json;

use crate::harness::{Server, Target, event_1_0, merged, wait_until};

/// Returns the Python with the packages of these tests, if there is one.
#[expect(clippy::print_stderr, reason = "a test that is skipped has no other way to say so")]
fn python() -> Option<String> {
    let python = std::env::var("TEST_PYTHON").ok();
    if python.is_none() {
        eprintln!(
            "skipped: TEST_PYTHON names no Python with schemathesis and openapi-python-client (.ci/run does)"
        );
    }
    python
}

/// Runs a command without keeping the runtime from its work.
async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn assert_success(output: &Output) {
    let texts = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{}", texts.concat());
}

#[tokio::test]
async fn random_requests_get_what_the_description_promises() {
    let Some(python) = python() else { return };
    let (server, target) = (Server::start().await, Target::start().await);
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let event = server.receive(&event_1_0("run-7")).await;
    server.delivery_in(&event, &subscription, "delivered").await;
    let mut command = Command::new(python);
    command
        .args(["-m", "schemathesis.cli", "run"])
        .arg(format!("{}/openapi.json", server.url))
        .args(["--checks", "not_a_server_error,status_code_conformance,response_schema_conformance"])
        .args(["--max-examples", "15", "--max-time", "60", "--generation-deterministic", "--no-color"])
        .args(["--phases", "examples,coverage,fuzzing", "--continue-on-failure"])
        .env("SCHEMATHESIS_HOOKS", concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/it/described/hooks.py"))
        .env("TEST_SUBSCRIPTION", &subscription)
        .env("TEST_EVENT", &event)
        .current_dir(server.folder());
    assert_success(&run(command).await);
}

#[tokio::test]
async fn a_generated_client_subscribes_and_sends() {
    let Some(python) = python() else { return };
    let (server, target) = (Server::start().await, Target::start().await);
    let folder = server.folder().to_owned();
    let description = server.get("/openapi.json").await.ok();
    assert_eq!(description.header("content-type"), "application/json");
    std::fs::write(folder.join("openapi.json"), description.text()).unwrap();
    let mut command = Command::new(&python);
    command
        .args(["-m", "openapi_python_client", "generate", "--path", "openapi.json", "--meta", "none"])
        .args(["--output-path", "waypost_client"])
        .current_dir(&folder);
    assert_success(&run(command).await);
    let mut command = Command::new(&python);
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/it/described/client.py"))
        .args([server.url.as_str(), &target.url("/t")])
        .env("PYTHONPATH", &folder)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    assert_success(&run(command).await);
    let request = wait_until("the event is delivered", async || target.requests("/t").pop()).await;
    assert_eq!(request.event_id(), "run-7");
}

/// The server reads some bodies member by member, so that it can point at the wrong one. A member that is described and that
/// it does not know would be ignored, or refused.
#[tokio::test]
async fn each_member_that_is_described_is_read() {
    let (server, target) = (Server::start().await, Target::start().await);
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let description = server.get("/openapi.json").await.ok().json();
    let of_subscription = |part: &str| format!("/eventmatch/{subscription}{part}");
    for (schema, method, path, rest) in [
        ("NewSubscription", Method::PUT, of_subscription(""), json!({})),
        ("Rotation", Method::POST, of_subscription("/rotate-secret"), json!({})),
        ("NewRecovery", Method::POST, of_subscription("/recover"), json!({"since": "earliest"})),
        ("NewToken", Method::POST, "/tokens".to_owned(), json!({"user": "ann"})),
    ] {
        let members = description["components"]["schemas"][schema]["properties"].as_object().unwrap();
        assert!(!members.is_empty());
        for name in members.keys() {
            // No member is a list of numbers.
            let body = merged(rest.clone(), json!({name.as_str(): [7]})).to_string();
            let headers = [("content-type", "application/json")];
            let reply = server.send(method.clone(), &path, &headers, body).await;
            reply.refused(422).within(&format!("/{name}"));
        }
    }
}
