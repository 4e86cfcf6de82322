//! Uploads of a program's outputs. These tests call the library, and build the event and the run by hand.

mod following;
mod giving_up;
mod ingesting;
mod local;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use waypost_domain::handler::UploadSummary;
use waypost_domain::parts::Parts;
use waypost_domain::{DeliveryId, Event, EventId};
use waypost_handlers::upload::{Accept, Error, Origin, Refusal, Uploader};
use waypost_handlers::{Destination, IngestAuth, KEY_VALUES_FILE, Meter, Output, OutputLimits};
use waypost_runtime::clock;

use super::ingest::Ingest;

const RUN: &str = "00000000-0000-0000-0000-0000000000aa";
const LIMITS: OutputLimits = OutputLimits { files_max: 100_000, bytes_max: 1 << 40 };

/// A run whose program has ended: its outputs, and its uploads' notes.
struct Run {
    folder: TempDir,
    origin: Arc<Origin>,
}

impl Run {
    fn new() -> Self {
        Self::of(&pacifica_event())
    }

    fn of(event: &Value) -> Self {
        let event = Event::from_json(event.to_string()).unwrap();
        let origin = Origin {
            transaction: Parts::of(&event).unwrap().transaction,
            event,
            sender: "u".to_owned(),
            event_id: EventId::NIL,
            handler: "hash.it".parse().unwrap(),
            run: RUN.parse::<DeliveryId>().unwrap(),
        };
        Self { folder: tempfile::tempdir().unwrap(), origin: Arc::new(origin) }
    }

    fn notes(&self) -> PathBuf {
        self.folder.path().join("notes")
    }

    /// Writes files into an output.
    fn write<'a>(&self, output: &str, files: impl IntoIterator<Item = (&'a str, &'a [u8])>) {
        for (path, bytes) in files {
            let path = self.folder.path().join(output).join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    fn output(&self, place: usize, name: &str) -> Arc<Output> {
        let folder = self.folder.path().join(name);
        Arc::new(Output::collect(place, name, &folder, KEY_VALUES_FILE, &[], LIMITS).unwrap())
    }

    /// Writes an output of a few files with key-values, and scans it.
    fn small(&self) -> Arc<Output> {
        self.write("output", [("a.txt", &b"hello"[..]), ("b/c.csv", b"1,2\n"), ("kvp.csv", b"key,value\n")]);
        self.output(0, "output")
    }

    /// Writes an output that is larger than connections and channels hold, and scans it.
    fn large(&self) -> Arc<Output> {
        self.write("output", [("large.bin", &vec![7; 64 << 20][..])]);
        self.output(0, "output")
    }

    async fn upload(&self, uploader: &Uploader, output: &Arc<Output>) -> Result<UploadSummary, Error> {
        uploader.upload(output, &self.origin, &self.notes(), &meter()).await
    }
}

fn pacifica_event() -> Value {
    json!({
        "cloudEventsVersion": "0.1",
        "contentType": "application/json",
        "data": [
            {"destinationTable": "Transactions._id", "value": 1234},
            {"destinationTable": "Transactions.project", "value": "1236é"},
            {"destinationTable": "Transactions.submitter", "value": 10},
            {"destinationTable": "Transactions.instrument", "value": 54},
            {"destinationTable": "TransactionKeyValue", "key": "Tag", "value": "of the event, no output"},
        ],
        "eventID": "C234",
        "eventType": "org.pacifica.metadata.ingest",
        "source": "/pacifica/metadata/ingest",
    })
}

fn meter() -> Arc<Meter> {
    Arc::new(Meter::new(clock::now()))
}

fn nobody() -> Accept {
    Arc::new(|_, _| Box::pin(async { Err(Refusal::Other("nobody takes events here".to_owned())) }))
}

fn uploader(destination: &Destination) -> Result<Uploader, Error> {
    Uploader::new(destination, Duration::from_secs(5), nobody())
}

fn to(service: &Ingest) -> Destination {
    Destination::Ingest {
        url: service.url().parse().unwrap(),
        status_url: service.status_url().parse().unwrap(),
        auth: IngestAuth::None,
        timeout: Duration::from_secs(20),
    }
}

/// Returns the contents of the files below a folder, by their paths.
fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![folder.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found
}
