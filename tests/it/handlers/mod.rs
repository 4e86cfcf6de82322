//! Handlers: programs that run on an event's data files. `cart` and `ingest` are scripted services: the source of the
//! files, and the destination of the outputs.

mod cart;
mod ingest;

mod crashing;
mod dispatching;
mod fetching;
mod hostile_carts;
mod hostile_programs;
mod lasting;
mod running;
mod uploading;
mod whole;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use self::ingest::Ingest;
use crate::harness::{Api, Server, merged, wait_until};

/// Writes a shell script into a folder and returns its path.
pub(crate) fn script(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Returns an event with these files' rows, as Pacifica's ingest sends it.
fn event_of(id: &str, files: &[(&str, &str, &str)]) -> Value {
    let mut data = vec![
        json!({"destinationTable": "Transactions._id", "value": 1234}),
        json!({"destinationTable": "Transactions.submitter", "value": 10}),
        json!({"destinationTable": "Transactions.instrument", "value": 54}),
        json!({"destinationTable": "Transactions.project", "value": "1236"}),
    ];
    for (place, (subdir, name, text)) in files.iter().enumerate() {
        use sha1::Digest;
        let sum: String = sha1::Sha1::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        data.push(json!({
            "destinationTable": "Files", "_id": place + 1, "name": name, "subdir": subdir, "size": text.len(),
            "hashtype": "sha1", "hashsum": sum, "mimetype": "text/plain",
            "ctime": "Tue Nov 29 14:09:05 PST 2016", "mtime": "Tue Nov 29 14:09:05 PST 2016",
        }));
    }
    merged(crate::harness::event(id), json!({"data": data}))
}

/// Starts a server with a handler that uploads one file to an ingest service, and writes a line to the file `ran` each
/// time that its program runs. `more` has further lines of its table.
async fn uploading_once(ingest: &Ingest, more: &str) -> Server {
    let config = format!(
        "[[handler]]\nname = \"once\"\nfilter = \"$\"\ncommand = [\"./once.sh\"]\n\
         upload = {{ ingest = \"{}\", status = \"{}\" }}\n{more}\n",
        ingest.url(),
        ingest.status_url(),
    );
    let text = "echo x > output/x; echo ran >> $(dirname $0)/ran";
    Server::configured(&config, |folder| script(folder, "once.sh", text)).await
}

/// Waits until the run of an event has ended in a state with this name, and returns its delivery.
async fn ended(api: &Api, id: &str, state: &str) -> Value {
    wait_until(&format!("the run of {id} is {state}"), async || {
        let story = api.get(&format!("/events/{id}")).await.ok().json();
        let found =
            story["deliveries"].as_array().unwrap().iter().find(|it| !it["handler"].is_null()).cloned();
        let found = found?;
        let is = found["state"].as_str().unwrap();
        assert!(
            is == state || !["delivered", "dead", "skipped"].contains(&is),
            "it is {is} instead: {found:#}"
        );
        (is == state).then_some(found)
    })
    .await
}
