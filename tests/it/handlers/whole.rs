//! Whole runs with real programs: from an event and its files to the uploaded outputs.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use waypost_domain::FilterDialect;
use waypost_matching::{Document, Filter};

use super::cart::Cart;
use super::ingest::{Ingest, OnUpload};
use super::{ended, event_of, script, uploading_once};
use crate::harness::{Server, event, merged};

/// Writes the files of [`event_of`] into a folder.
fn put(folder: &Path, files: &[(&str, &str, &str)]) {
    for (subdir, name, text) in files {
        fs::create_dir_all(folder.join(subdir)).unwrap();
        fs::write(folder.join(subdir).join(name), text).unwrap();
    }
}

/// Returns the files below a folder.
fn tree(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    files.sort();
    files
}

const FILES: [(&str, &str, &str); 2] = [("a/b/", "one.txt", "first\n"), ("", "two.txt", "zweite ü\n")];

/// The documentation of the Dispatcher: `UUID=$(curl http://127.0.0.1:8069/dispatch/add/2/2)`, then `curl …/status/$UUID`.
#[tokio::test]
async fn the_smoke_test_of_the_dispatcher() {
    let config =
        format!("[[handler]]\nname = \"add\"\ncomponent = {:?}\ndispatch = true\n", waypost_guests::ADD);
    let server = Server::configured(&config, |_| ()).await;
    let id = server.get("/dispatch/add/2/2").await.ok().text();
    server.status_is(&id, "200 OK").await;
    let log = server.get(&format!("/scriptlog/{id}")).await.ok().json();
    assert_eq!((&log["stdout"], &log["return_code"]), (&json!("4\n"), &json!("0")));
    let wrong = server.get("/dispatch/add/2/two").await.ok().text();
    server.status_is(&wrong, "500 Internal Server Error").await;
    // Clients of the original print it.
    let task = server.get(&format!("/get/{wrong}")).await.ok().json();
    let traceback = task["exceptionTraceback"].as_str().unwrap();
    assert!(traceback.contains("two"), "the end of stderr: {task}");
}

#[tokio::test]
async fn a_component_hashes_local_files_into_a_bundle() {
    let config = format!(
        r#"
[[handler]]
name = "sha512sum"
filter = "$.data"
component = {:?}
fetch = {{ local = "files" }}
upload = {{ local = "results" }}
"#,
        waypost_guests::SHA512SUM
    );
    let server = Server::configured(&config, |folder| put(&folder.join("files"), &FILES)).await;
    let id = server.receive(&event_of("1", &FILES)).await;
    let delivery = ended(&server, &id, "delivered").await;
    let run = &delivery["attempts"][0]["run"];
    assert_eq!((&run["fetched"]["files"], &run["fetched"]["bytes"]), (&json!(2), &json!(16)));
    let place = PathBuf::from(run["uploads"][0]["place"].as_str().unwrap());
    let place = server.folder().join(place);
    assert_eq!(tree(&place), ["data/sha512sums.txt", "metadata.txt"]);
    let sums = fs::read_to_string(place.join("data/sha512sums.txt")).unwrap();
    let paths: Vec<_> = sums.lines().map(|line| line.split_once("  ").unwrap().1).collect();
    assert_eq!(paths, ["a/b/one.txt", "two.txt"]);
    let metadata: Vec<Value> =
        serde_json::from_slice(&fs::read(place.join("metadata.txt")).unwrap()).unwrap();
    assert!(metadata.iter().any(|row| row["key"] == "do_processing" && row["value"] == "False"));
    assert!(metadata.iter().any(|row| row["destinationTable"] == "Transactions.submitter"));
}

#[tokio::test]
async fn a_native_program_works_between_a_cart_and_an_ingest_service() {
    let (cart, ingest) = (Cart::start().await, Ingest::start().await);
    let cart = cart.serving([("a/one.txt", "1"), ("two.txt", "22")]).staging(2);
    let config = format!(
        r#"
[[handler]]
name = "count"
filter = "$"
command = ["./count.sh"]
fetch = {{ cart = "{}" }}
upload = {{ ingest = "{}", status = "{}" }}
outputs = ["output", "more"]
"#,
        cart.url(),
        ingest.url(),
        ingest.status_url(),
    );
    let text = "cd download; find . -type f | sort | xargs wc -c > ../output/counts; echo k,v > ../more/kvp.csv; echo said";
    let server = Server::configured(&config, |folder| script(folder, "count.sh", text)).await;
    let data = merged(event("1"), json!({"data": cart.rows()}));
    let id = server.receive(&data).await;
    let delivery = ended(&server, &id, "delivered").await;
    let uploads = delivery["attempts"][0]["run"]["uploads"].as_array().unwrap().clone();
    assert_eq!(uploads.len(), 2);
    assert_eq!(uploads[0]["files"], 2, "the counts and what was said");
    assert_eq!(ingest.uploads().len(), 2);
    assert_eq!(cart.open_carts(), 0);
}

#[tokio::test]
async fn outputs_named_in_an_event_reach_the_next_handler() {
    let config = format!(
        r#"
[[handler]]
name = "hash"
filter = '$[?(@.type = "upper.done")]'
component = {:?}
fetch = {{ local = "between" }}
upload = {{ local = "results" }}
[[handler]]
name = "upper"
filter = "$.data"
component = {:?}
fetch = {{ local = "files" }}
upload = {{ events = "between", type = "upper.done" }}
"#,
        waypost_guests::SHA512SUM,
        waypost_guests::UPPERCASE
    );
    let server = Server::configured(&config, |folder| put(&folder.join("files"), &FILES)).await;
    let id = server.user("sender").receive(&event_of("1", &FILES)).await;
    let delivery = ended(&server, &id, "delivered").await;
    let next = delivery["attempts"][0]["run"]["uploads"][0]["place"].as_str().unwrap().to_owned();
    let next = next.rsplit([' ', '/']).next().unwrap().to_owned();
    // The sender of the first event may see the follow-up event.
    let delivery = ended(&server.user("sender"), &next, "delivered").await;
    assert_eq!(delivery["handler"], "hash");
    let place = delivery["attempts"][0]["run"]["uploads"][0]["place"].as_str().unwrap().to_owned();
    let sums = fs::read_to_string(server.folder().join(place).join("data/sha512sums.txt")).unwrap();
    assert_eq!(sums.lines().count(), 2, "{sums}");
    assert_eq!(tree(&server.folder().join("between")).len(), 2, "nothing but what is named");
}

#[tokio::test]
async fn a_handler_that_feeds_itself_ends() {
    let config = r#"
[[handler]]
name = "echo"
filter = "$"
command = ["sh", "-c", "echo x > output/x"]
upload = { events = "out", type = "again" }
"#;
    let server = Server::configured(config, |_| ()).await;
    let mut id = server.receive(&event("1")).await;
    for _ in 0..16 {
        let delivery = ended(&server, &id, "delivered").await;
        let place = delivery["attempts"][0]["run"]["uploads"][0]["place"].as_str().unwrap().to_owned();
        id = place.rsplit([' ', '/']).next().unwrap().to_owned();
    }
    let last = ended(&server, &id, "dead").await;
    assert!(last["reason"].as_str().unwrap().contains("16"), "{last:#}");
    assert_eq!(last["attempts"].as_array().unwrap().len(), 1, "trying again would be of no use");
}

#[tokio::test]
async fn a_failed_upload_is_tried_again_without_another_run() {
    let ingest = Ingest::start().await;
    ingest.on_upload([OnUpload::Answer(500, "no"), OnUpload::Drop(100)]);
    let server = uploading_once(&ingest, "upload_retry_schedule = \"10ms,10ms\"").await;
    let id = server.receive(&event("1")).await;
    let delivery = ended(&server, &id, "delivered").await;
    let attempts = delivery["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 3);
    assert!(attempts[0]["reason"].as_str().unwrap().starts_with("upload of output: "), "{delivery:#}");
    assert_eq!(attempts[2]["run"]["start"]["from"], "upload");
    assert_eq!(attempts[2]["run"]["program"]["exit_code"], 0);
    assert_eq!(fs::read_to_string(server.folder().join("ran")).unwrap(), "ran\n");
}

#[tokio::test]
async fn an_upload_that_is_a_dead_letter_can_be_sent_again_without_another_run() {
    let ingest = Ingest::start().await;
    ingest.on_upload([OnUpload::Answer(500, "no")]);
    let server = uploading_once(&ingest, "upload_retry_schedule = \"none\"").await;
    let id = server.receive(&event("1")).await;
    ended(&server, &id, "dead").await;
    server.post(&format!("/events/{id}/retry"), &json!(null)).await.ok();
    let delivery = ended_again(&server, &id).await;
    assert_eq!(delivery["attempts"][1]["run"]["start"]["from"], "upload");
    assert_eq!(fs::read_to_string(server.folder().join("ran")).unwrap(), "ran\n");
    assert_eq!(ingest.uploads().len(), 1);
}

async fn ended_again(server: &Server, id: &str) -> Value {
    crate::harness::wait_until("it is delivered", async || {
        let story = server.get(&format!("/events/{id}")).await.ok().json();
        (story["deliveries"][0]["state"] == "delivered").then(|| story["deliveries"][0].clone())
    })
    .await
}

#[tokio::test]
async fn a_file_that_is_not_what_the_event_says_stops_the_run_before_the_program() {
    let config = r#"
[[handler]]
name = "h"
filter = "$"
command = ["./h.sh"]
fetch = { local = "files" }
"#;
    let server = Server::configured(config, |folder| {
        put(&folder.join("files"), &[("", "one", "other")]);
        script(folder, "h.sh", "touch $(dirname $0)/ran");
    })
    .await;
    let id = server.receive(&event_of("1", &[("", "one", "right")])).await;
    let delivery = ended(&server, &id, "dead").await;
    assert!(delivery["reason"].as_str().unwrap().starts_with("fetch: "), "{delivery:#}");
    assert!(!server.folder().join("ran").exists());
    let twice = json!({"destinationTable": "Transactions.project", "value": 1});
    let id = server.receive(&merged(event("2"), json!({"data": [twice, twice]}))).await;
    let delivery = ended(&server, &id, "dead").await;
    let reason = delivery["reason"].as_str().unwrap();
    assert!(reason.contains("field 'Transactions.project' is already defined"), "{reason}");
}

/// The real metadata service sends another `source`, and folders without a `/` at the end: nothing ran.
#[test]
fn the_filter_of_proxymod_takes_what_metadata_sends() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/proxymod");
    let filter =
        Filter::parse(&fs::read_to_string(root.join("filter.txt")).unwrap(), FilterDialect::Auto).unwrap();
    let event: Value = serde_json::from_slice(&fs::read(root.join("example/event.json")).unwrap()).unwrap();
    let matches = |event: &Value| {
        let json = event.to_string();
        filter.matches(&Document::parse(json.as_bytes()).unwrap()).unwrap()
    };
    assert!(matches(&event), "the original's");
    let with = |change: &dyn Fn(&mut Value)| {
        let mut event = event.clone();
        event["source"] = json!("http://metadata.pacifica.org/transactions?_id=1234");
        event["eventTime"] = json!("2026-11-22T04:05:06");
        event["data"].as_array_mut().unwrap().iter_mut().for_each(|row| {
            if let Some(folder) = row["subdir"].as_str() {
                row["subdir"] = folder.trim_end_matches('/').into();
            }
        });
        change(&mut event);
        matches(&event)
    };
    assert!(with(&|_| ()));
    assert!(!with(&|event| event["source"] = json!("http://elsewhere.example/transactions?_id=1234")));
    let folder = |from: &'static str, to: &'static str| {
        move |event: &mut Value| {
            let rows = event["data"].as_array_mut().unwrap().iter_mut();
            rows.filter(|row| row["subdir"] == from).for_each(|row| row["subdir"] = to.into());
        }
    };
    assert!(!with(&folder("models", "model")));
    assert!(!with(&folder("inputs", "input")));
}

/// The example of Dispatcher-Proxymod, except that its models do not wait.
#[tokio::test]
async fn the_proxymod_component_carries_models_from_inputs_to_outputs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/proxymod");
    let config = format!(
        r#"
[[handler]]
name = "proxymod"
filter_file = {:?}
component = {:?}
fetch = {{ local = {:?} }}
upload = {{ local = "results" }}
"#,
        root.join("filter.txt"),
        waypost_guests::PROXYMOD,
        root.join("example"),
    );
    let server = Server::configured(&config, |_| ()).await;
    let mut event: Value =
        serde_json::from_slice(&fs::read(root.join("example/event.json")).unwrap()).unwrap();
    for row in event["data"].as_array_mut().unwrap() {
        if row["key"].as_str().is_some_and(|key| key.ends_with(".runtime")) {
            row["value"] = json!("0");
        }
    }
    let id = server.receive(&event).await;
    let delivery = ended(&server, &id, "delivered").await;
    let place = delivery["attempts"][0]["run"]["uploads"][0]["place"].as_str().unwrap().to_owned();
    let files = tree(&server.folder().join(place).join("data"));
    for expected in ["config_1.ini", "config_3.ini", "stdout.log"] {
        assert!(files.iter().any(|file| file == expected), "{files:?}");
    }
    let tables = files.iter().filter(|file| file.contains("_outputs/output")).count();
    assert_eq!(tables, 54, "{files:?}");
    // Without models the original refuses the event, and so does the filter.
    let mut incomplete = event.clone();
    incomplete["data"].as_array_mut().unwrap().retain(|row| row["subdir"] != "models/");
    incomplete["eventID"] = json!("other");
    let id = server.receive(&incomplete).await;
    server.status_is(&id, "422 Unprocessable Entity").await;
}
