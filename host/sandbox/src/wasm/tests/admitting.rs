//! What an upload is told about a module, by the sandbox without a server.

use super::*;
use waypost_domain::plugin::{Offer, Report};

async fn admitted(path: &str) -> Result<Report, Refused> {
    let sandbox = Sandbox::new();
    sandbox.host.admit("u", std::fs::read(path).unwrap().into()).await
}

#[tokio::test]
async fn a_report_has_what_the_module_exports_imports_and_says() {
    let report = admitted(waypost_guests::PROBE).await.unwrap();
    assert_eq!(report.exports, ["metadata", "policy", "filter", "transform"]);
    assert!(report.imports.iter().all(|import| matches!(import.offered, Offer::Yes(_))), "{report:?}");
    assert_eq!(report.manifest.unwrap().name, "probe");
    assert!(report.memory_bytes > 0 && report.compiled_bytes > report.bytes);
    let report = admitted(waypost_guests::SPIN).await.unwrap();
    assert_eq!((report.exports.as_slice(), report.manifest), (&["filter".to_owned()][..], None));
    assert!(report.memory_bytes > 0);
}

#[tokio::test]
async fn what_does_not_start_is_not_taken() {
    for (body, says) in [("unreachable", "unreachable"), ("(loop (br 0))", "time limit of 250 ms")] {
        let component = format!(
            r#"(component
                (core module $m (func $start {body}) (start $start) (func (export "f")))
                (core instance $i (instantiate $m))
                (func $f (canon lift (core func $i "f")))
                (instance $filter (export "evaluate" (func $f)))
                (export "waypost:plugin/filter@0.1.0" (instance $filter)))"#
        );
        let wasm = wat::parse_str(component).unwrap();
        let refused = Sandbox::new().host.admit("u", wasm.into()).await.unwrap_err().to_string();
        assert!(refused.starts_with("it does not start: ") && refused.contains(says), "{refused}");
    }
}

/// It is found out where there is a process with limits (`tests/it/plugins/refusing.rs`).
#[tokio::test]
pub(super) async fn an_endless_schema_is_a_schema() {
    let report = admitted(waypost_guests::ENDLESS_SCHEMA).await.unwrap();
    assert!(report.manifest.unwrap().config_schema.is_some());
}

/// The same (`tests/it/plugins/sharing.rs`).
#[tokio::test]
pub(super) async fn a_schema_that_is_slow_at_times_is_a_schema() {
    let report = admitted(waypost_guests::SLOW_SCHEMA).await.unwrap();
    assert!(report.manifest.unwrap().config_schema.is_some());
}

#[tokio::test]
async fn machine_code_is_kept_and_dropped_when_it_is_not_what_was_kept() {
    let sandbox = Sandbox::new();
    let wasm = std::fs::read(waypost_guests::PROBE).unwrap();
    let digest = PluginDigest::of(&wasm);
    let compiled = sandbox.host.admit("u", wasm.clone().into()).await.unwrap();
    assert!(compiled.compile_time > Duration::ZERO);
    let again = sandbox.host.admit("u", wasm.into()).await.unwrap();
    assert_eq!(again.compile_time, Duration::ZERO, "it was there");
    let files = std::fs::read_dir(&sandbox.host.settings.folder).unwrap().map(|file| file.unwrap().path());
    let path = files.into_iter().find(|path| path.extension().is_some()).unwrap();
    std::fs::write(&path, "not what was kept").unwrap();
    assert!(sandbox.host.artefacts.get(digest, &engine::compiler().unwrap()).await.unwrap().is_none());
    assert!(!path.exists());
}
