//! The sandbox with real guests.

use std::sync::Arc;

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::clock;
use crate::domain::plugin::{Output, Verdict};
use crate::domain::{Event, PluginUse, Subscription};

/// A host in a folder of its own.
struct Sandbox {
    host: Arc<Host>,
    _folder: TempDir,
}

impl Sandbox {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            limits: Limits::default(),
            compile: CompileLimits::default(),
            folder: folder.path().join("compiled"),
            compiler: Some(Compiler::InProcess),
            networks: Vec::new(),
            threads: 2,
        };
        Self { host: Arc::new(Host::new(settings)), _folder: folder }
    }

    async fn load(&self, path: &str) -> Arc<Plugin> {
        let wasm: bytes::Bytes = std::fs::read(path).unwrap().into();
        let report = self.host.admit(wasm.clone()).await.unwrap();
        self.host.load(report.digest, async { Ok(wasm) }).await.unwrap()
    }

    async fn run(&self, plugin: &Arc<Plugin>, config: serde_json::Value) -> Ran {
        self.host.run(Arc::clone(plugin), call(plugin, config)).await
    }
}

fn call(plugin: &Plugin, config: serde_json::Value) -> Call {
    let target = "http://localhost:1/".parse().unwrap();
    let subscription =
        Subscription::new("u".to_owned(), "n".to_owned(), "$".to_owned(), target, clock::now());
    let event = r#"{"specversion": "1.0", "type": "t", "source": "/s", "id": "1", "data": {"a": "b"}}"#;
    Call {
        event: Event::from_json(event).unwrap(),
        subscription: Arc::new(subscription),
        plugin: Arc::new(PluginUse {
            digest: plugin.digest(),
            config: config.as_object().unwrap().clone(),
            allow_hosts: Vec::new(),
            on_error: Default::default(),
            limits: Default::default(),
        }),
        attempt: 1,
        now: clock::now(),
        state: State::default(),
        steps: Steps::All,
        purpose: Purpose::Deliver,
    }
}

#[tokio::test]
async fn a_plugin_filters_and_transforms() {
    let sandbox = Sandbox::new();
    let probe = sandbox.load(waypost_guests::PROBE).await;
    let ran = sandbox.run(&probe, json!({"transform": "upper", "log": "hello"})).await;
    assert_eq!(ran.run.verdict, Verdict::Transformed { outputs: 1 });
    assert_eq!(ran.run.answered, ["policy", "filter", "transform"]);
    assert_eq!(ran.run.logs[0].message, "hello");
    assert!(matches!(&ran.outputs[..], [Output::Raw { body, .. }] if body.as_ref() == br#"{"A": "B"}"#));
    let ran = sandbox.run(&probe, json!({"filter": "no: too small"})).await;
    assert_eq!(ran.run.verdict, Verdict::Skipped { reason: "too small".to_owned() });
    let ran = sandbox.run(&probe, json!({"filter": "panic: oh no"})).await;
    assert!(ran.run.stderr.contains("oh no"), "{ran:?}", ran = ran.run);
}
