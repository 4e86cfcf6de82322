//! A run's folder with the example's event and files, which tests modify.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use proxymod::Clock;
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) struct Example {
    pub(crate) event: Value,
    folder: TempDir,
}

/// Counts the time to wait instead of waiting.
pub(crate) struct CountingClock(Cell<Duration>);

impl CountingClock {
    pub(crate) fn new() -> Self {
        Self(Cell::new(Duration::ZERO))
    }

    /// Returns the total time of all waits.
    pub(crate) fn elapsed(&self) -> Duration {
        self.0.get()
    }
}

impl Clock for CountingClock {
    fn now(&self) -> Timestamp {
        "2018-08-30T15:20:00.25Z".parse::<Timestamp>().unwrap() + self.0.get()
    }

    fn wait(&self, time: Duration) {
        self.0.set(self.0.get() + time);
    }
}

impl Example {
    pub(crate) fn new() -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("example");
        let event = serde_json::from_slice(&fs::read(here.join("event.json")).unwrap()).unwrap();
        let example = Self { event, folder: TempDir::new().unwrap() };
        fs::create_dir(example.path("output")).unwrap();
        for name in ["inputs/in_file_one.csv", "inputs/in_file_two.csv"] {
            example.download(name, &fs::read(here.join(name)).unwrap());
        }
        for name in ["loose_coupling", "tight_coupling", "tight_coupling_twoway"] {
            example.download(&format!("models/{name}.py"), b"");
        }
        example
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn download(&self, name: &str, content: &[u8]) {
        let path = self.path("download").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn rows(&mut self) -> &mut Vec<Value> {
        self.event["data"].as_array_mut().unwrap()
    }

    /// Adds a key-value below `proxymod.`.
    pub(crate) fn add(&mut self, key: &str, value: impl Into<Value>) {
        let value: Value = value.into();
        let key = format!("proxymod.{key}");
        self.rows().push(json!({"destinationTable": "TransactionKeyValue", "key": key, "value": value}));
    }

    /// Removes the key-values that begin with `proxymod.` and this.
    pub(crate) fn remove(&mut self, key: &str) {
        let key = format!("proxymod.{key}");
        self.rows().retain(|row| !row["key"].as_str().is_some_and(|found| found.starts_with(&key)));
    }

    pub(crate) fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.remove(key);
        self.add(key, value);
    }

    /// Removes all models.
    pub(crate) fn without_models(&mut self) {
        self.rows().retain(|row| row["mimetype"] != "text/x-python");
    }

    /// Adds a model's row.
    pub(crate) fn add_model(&mut self, name: &str) {
        self.rows().push(json!({
            "destinationTable": "Files", "name": name, "subdir": "models/", "mimetype": "text/x-python",
        }));
    }

    /// Writes folders as the metadata service does: without a `/` at the end.
    pub(crate) fn with_bare_folders(&mut self) {
        for row in self.rows() {
            if let Some(folder) = row["subdir"].as_str() {
                row["subdir"] = folder.trim_end_matches('/').into();
            }
        }
    }

    pub(crate) fn write_event(&self) {
        fs::write(self.path("event.json"), self.event.to_string()).unwrap();
    }

    pub(crate) fn run_with(&self, clock: &CountingClock) -> Result<(), String> {
        self.write_event();
        proxymod::run(self.folder.path(), clock).map_err(|error| {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                text += &format!(": {error}");
                cause = error.source();
            }
            // The folder differs from test to test.
            text.replace(&format!("{}/", self.folder.path().display()), "")
        })
    }

    pub(crate) fn run(&self) -> Result<(), String> {
        self.run_with(&CountingClock::new())
    }

    pub(crate) fn output(&self, name: &str) -> String {
        fs::read_to_string(self.path("output").join(name)).unwrap()
    }

    /// Returns the paths of all files in `output/`, sorted.
    pub(crate) fn outputs(&self) -> Vec<String> {
        let output = self.path("output");
        let (mut folders, mut files) = (vec![output.clone()], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.push(path.strip_prefix(&output).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        files.sort();
        files
    }
}
