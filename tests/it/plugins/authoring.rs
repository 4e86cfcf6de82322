//! `waypost plugin` without a server: new, check, run and test.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use waypost_guests::{FETCH, PROBE};

use super::made::{importing, patched};
use crate::harness::{Output, Target, run, run_in, wait_until};

const EVENT: &str = r#"{"specversion": "1.0", "type": "t", "source": "/s", "id": "1", "data": {"a": "b"}}"#;

#[track_caller]
fn ended(output: &Output, code: i32) {
    assert_eq!(output.code, code, "{output:?}");
    assert!(!output.stderr.contains("panicked at host"), "{}", output.stderr);
}

async fn plugin(arguments: &[&str]) -> Output {
    run(&[&["plugin"], arguments].concat(), "").await
}

/// Runs the probe with a configuration.
async fn probe(config: &Value, more: &[&str]) -> Output {
    let config = config.to_string();
    plugin(&[&["run", PROBE, "--event", EVENT, "--config", &config], more].concat()).await
}

/// Writes a case file and runs it.
async fn cases(cases: &Value) -> Output {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("cases.json"), cases.to_string()).unwrap();
    run_in(folder.path(), &["plugin", "test", PROBE, "cases.json"], &[], "").await
}

// check

#[tokio::test]
async fn check_prints_the_report_of_an_upload() {
    let output = plugin(&["check", PROBE]).await;
    ended(&output, 0);
    for part in [
        "digest    sha256:",
        "\nsize      ",
        "\nexports   metadata, policy, filter, transform",
        "\nimports   ",
        "waypost:plugin/config@0.1.0",
        "\nmanifest  probe 1.0.0: Does what its configuration says",
        "example.org",
    ] {
        assert!(output.stdout.contains(part), "{part} is not in {}", output.stdout);
    }
    let output = plugin(&["check", PROBE, "--json"]).await;
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["manifest"]["name"], "probe");
    assert!(report["imports"].as_array().unwrap().iter().all(|import| import["fits"] == true), "{report}");
}

#[tokio::test]
async fn check_says_why_a_server_would_refuse_a_file() {
    let output = run(&["plugin", "check", "-"], "this is no wasm").await;
    ended(&output, 1);
    assert!(output.stderr.starts_with("error: stdin is refused: "), "{}", output.stderr);
    assert_eq!(output.stdout, "");
    let output = run(&["plugin", "check", "-", "--json"], "this is no wasm").await;
    ended(&output, 1);
    let shown: Value = serde_json::from_str(&output.stdout).unwrap();
    assert!(shown["refused"].is_string() && shown["report"].is_null(), "{shown}");
    let output = plugin(&["check", "absent.wasm"]).await;
    ended(&output, 1);
    assert_eq!(output.stderr, "error: failed to read absent.wasm: No such file or directory (os error 2)\n");
}

/// Names in the imports and the manifest could forge lines of the report.
#[tokio::test]
async fn no_name_in_a_module_can_forge_a_line_of_the_report() {
    let folder = tempfile::tempdir().unwrap();
    let check = async |wasm: Vec<u8>| {
        std::fs::write(folder.path().join("m.wasm"), wasm).unwrap();
        run_in(folder.path(), &["plugin", "check", "m.wasm"], &[], "").await
    };
    let output =
        check(importing(&["url=<x\nerror: everything is fine\ndigest    sha256:0000\u{202e}>"])).await;
    ended(&output, 1);
    let shown = format!("{}{}", output.stdout, output.stderr);
    assert_eq!(shown.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{shown}");
    assert_eq!(shown.lines().filter(|line| line.starts_with("digest ")).count(), 1, "{shown}");
    assert!(shown.contains(", not compiled\nexports   nothing\nimports   url"), "{shown}");
    assert!(shown.contains(r"url=<x\nerror: everything is fine\ndigest    sha256:0000\u{202e}>"), "{shown}");
    let said = "Does what its configuration says";
    let forged = "All is well\nerror: no\ndigest \u{202e}";
    let output = check(patched(&super::wasm(PROBE), said, forged)).await;
    ended(&output, 0);
    let marked = "All is well\n          | error: no\n          | digest \\u{202e}\n";
    assert!(output.stdout.contains(marked), "{}", output.stdout);
}

// run

#[tokio::test]
async fn run_shows_the_verdict_and_sets_its_exit_code() {
    let output = probe(&json!({"transform": "upper", "log": "hello"}), &[]).await;
    ended(&output, 0);
    for part in [
        "verdict   transformed\nanswered  policy, filter, transform\n",
        "output 1  raw body, text/plain\n  x-made-by: probe\n  {\n    \"A\": \"B\"\n  }\n",
        "log       info: hello  from=filter\n",
        "time      used ",
        " of 250 ms\nmemory    used ",
        " of 64 MiB\n",
    ] {
        assert!(output.stdout.contains(part), "{part} is not in {}", output.stdout);
    }
    let output = probe(&json!({"filter": "no: too small"}), &[]).await;
    ended(&output, 1);
    assert!(output.stdout.starts_with("verdict   skipped: too small\n"), "{}", output.stdout);
    let output = probe(&json!({"policy": "no: not you"}), &["--json"]).await;
    ended(&output, 1);
    let shown: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!((&shown["verdict"], &shown["reason"]), (&json!("denied"), &json!("not you")));
    assert_eq!((&shown["answered"], &shown["outputs"]), (&json!(["policy"]), &json!([])));
    let output = probe(&json!({"filter": "panic: oh no"}), &[]).await;
    ended(&output, 2);
    assert!(output.stdout.starts_with("verdict   failed: plugin: "), "{}", output.stdout);
    assert!(output.stdout.contains("\nstderr    ") && output.stdout.contains("oh no"), "{}", output.stdout);
}

#[tokio::test]
async fn run_exits_2_if_it_cannot_run_the_plugin() {
    let output = plugin(&["run", PROBE, "--event", "{}"]).await;
    ended(&output, 2);
    assert!(output.stderr.starts_with("error: the argument is not an event: "), "{}", output.stderr);
    let output = plugin(&["run", PROBE, "--event", EVENT, "--config", "{\"a\""]).await;
    ended(&output, 2);
    assert_eq!(
        output.stderr,
        "error: the argument is not JSON: EOF while parsing an object at line 1 column 4\n"
    );
    let output = probe(&json!({"filter": 1}), &[]).await;
    ended(&output, 2);
    assert!(
        output.stderr.starts_with("error: the configuration is wrong:\n  /filter: "),
        "{}",
        output.stderr
    );
    let output = plugin(&["run", "absent.wasm", "--event", EVENT]).await;
    ended(&output, 2);
}

/// The sandbox of the command line opened every network, and a downloaded case file could grant itself any hosts.
#[tokio::test]
async fn only_hosts_that_the_command_line_grants_can_be_reached() {
    let target = Target::start().await;
    let (url, host) = (target.url("/"), target.url("/").replace("http://", "").replace('/', ""));
    let config = json!({"url": url}).to_string();
    let fetch = async |more: &[&str]| {
        plugin(&[&["run", FETCH, "--event", EVENT, "--config", &config], more].concat()).await
    };
    let output = fetch(&[]).await;
    assert!(output.stdout.contains(&format!("refused: add \"{host}\" to allow_hosts")), "{output:?}");
    let output = fetch(&["--allow-host", &host]).await;
    assert!(output.stdout.contains("its address 127.0.0.1 is not public"), "{output:?}");
    assert!(output.stdout.contains("--allow-network") && target.all().is_empty(), "{output:?}");
    let granted = ["--allow-host", &host, "--allow-network", "127.0.0.0/8"];
    // On a machine under load, the answer may come after the plugin's time limit.
    let output = wait_until("the host is reached", async || {
        Some(fetch(&granted).await).filter(|output| output.stdout.contains("verdict   skipped: 200, "))
    });
    let output = output.await;
    let shown = format!("granted   HTTP to {host}; networks 127.0.0.0/8\n");
    assert!(output.stdout.ends_with(&shown), "{output:?}");

    let folder = tempfile::tempdir().unwrap();
    let event: Value = serde_json::from_str(EVENT).unwrap();
    let case = json!({"name": "asks", "config": {"url": url}, "allow_hosts": [host], "event": event,
        "expect": {"verdict": "skipped", "logs": []}});
    std::fs::write(folder.path().join("cases.json"), case.to_string()).unwrap();
    let test = async |more: &[&str]| {
        run_in(folder.path(), &[&["plugin", "test", FETCH, "cases.json"], more].concat(), &[], "").await
    };
    let asked = target.all().len();
    let output = test(&["--allow-network", "127.0.0.0/8"]).await;
    ended(&output, 1);
    let why =
        format!("it asks for HTTP to `{host}`, which is not granted: if it may, add --allow-host {host}\n");
    assert!(output.stdout.contains(&format!("FAILED  asks\n        {why}")), "{}", output.stdout);
    assert_eq!(target.all().len(), asked);
    let output =
        wait_until("the case passes", async || Some(test(&granted).await).filter(|output| output.code == 0));
    let output = output.await;
    let shown = format!("granted HTTP to {host}; networks 127.0.0.0/8\nok      asks\n");
    assert!(output.stdout.starts_with(&shown), "{}", output.stdout);
}

#[tokio::test]
async fn run_keeps_the_state_in_a_file_and_each_repeat_starts_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({"count": "seen", "transform": "count"}).to_string();
    let arguments =
        ["plugin", "run", PROBE, "--event", EVENT, "--config", &config, "--state", "state.json", "--json"];
    for count in 1..=2 {
        let arguments = [&arguments[..], &["--repeat", "5"]].concat();
        let output = run_in(folder.path(), &arguments, &[], "").await;
        ended(&output, 0);
        let shown: Value = serde_json::from_str(&output.stdout).unwrap();
        assert_eq!(shown["outputs"][0]["raw"]["body"], count.to_string());
        let calls = &shown["calls"];
        assert_eq!(calls["count"], 5);
        let time = |name: &str| calls[name].as_f64().unwrap();
        assert!(time("min_ms") <= time("median_ms") && time("median_ms") <= time("p99_ms"), "{calls}");
        let state = std::fs::read_to_string(folder.path().join("state.json")).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&state).unwrap(), json!({"seen": count}));
    }
}

// test

#[tokio::test]
async fn cases_that_hold_pass() {
    let event: Value = serde_json::from_str(EVENT).unwrap();
    let count =
        |expected: &str| json!({"event": event, "expect": {"outputs": [{"raw": {"body": expected}}]}});
    let output = cases(&json!([
        {"name": "skips", "config": {"filter": "no: why"}, "event": event,
            "expect": {"verdict": "skipped", "reason": "why"}},
        {"name": "logs", "config": {"log": "hello"}, "event": event,
            "expect": {"verdict": "transformed", "outputs": [{"event": {"type": "t"}}],
                "logs": [{"level": "info", "message": "hello"}]}},
        {"name": "fails", "config": {"filter": "invalid-event: no size"}, "event": event,
            "expect": {"verdict": "failed", "reason": "plugin: invalid event: no size"}},
        {"name": "upper", "config": {"transform": "upper"}, "event": event,
            "expect": {"outputs": [{"raw": {"content_type": "text/plain", "headers": {"x-made-by": "probe"},
                "body": {"A": "B"}}}]}},
        {"name": "counts", "config": {"count": "n", "transform": "count"}, "state": {"n": 40},
            "steps": [count("41"), count("42")]},
    ]))
    .await;
    ended(&output, 0);
    assert_eq!(
        output.stdout,
        "ok      skips\nok      logs\nok      fails\nok      upper\nok      counts\n5 cases: 5 passed, 0 failed\n"
    );
}

#[tokio::test]
async fn a_case_that_does_not_hold_shows_the_difference() {
    let event: Value = serde_json::from_str(EVENT).unwrap();
    let output = cases(&json!([
        {"name": "skips", "config": {"filter": "no: too small"}, "event": event,
            "expect": {"verdict": "deliver", "outputs": []}},
        {"name": "wrong", "config": {"filter": 1}, "event": event, "expect": {"verdict": "deliver"}},
    ]))
    .await;
    ended(&output, 1);
    let expected = "\
FAILED  skips
        - expected, + found
          {
            \"outputs\": [],
        -   \"verdict\": \"deliver\"
        +   \"verdict\": \"skipped\"
          }
        reason    too small
FAILED  wrong
        the configuration is wrong:
          /filter: ";
    assert!(output.stdout.starts_with(expected), "{}", output.stdout);
    assert!(output.stdout.ends_with("\n2 cases: 0 passed, 2 failed\n"), "{}", output.stdout);
}

#[tokio::test]
async fn an_invalid_case_file_is_refused_with_the_reason() {
    let output = cases(&json!([{"evnt": {}}])).await;
    ended(&output, 1);
    assert_eq!(
        output.stderr,
        "error: cases.json is not a case file: case 1: unknown field `evnt`, expected one of `name`, `event`, \
         `config`, `user`, `allow_hosts`, `state`, `now`, `expect`, `steps`\n"
    );
    assert_eq!(output.stdout, "");
}

#[tokio::test]
async fn the_plugins_of_the_repository_pass_their_cases() {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
    for (name, wasm) in [
        ("join", waypost_guests::JOIN),
        ("keep-files", waypost_guests::KEEP_FILES),
        ("once", waypost_guests::ONCE),
        ("project-policy", waypost_guests::PROJECT_POLICY),
        ("slack", waypost_guests::SLACK),
    ] {
        let cases = plugins.join(name).join("cases.json");
        let output = plugin(&["test", wasm, cases.to_str().unwrap()]).await;
        ended(&output, 0);
    }
}

// new

#[tokio::test]
async fn new_writes_a_project_and_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let new = async |arguments: &[&str]| {
        run_in(folder.path(), &[&["plugin", "new"], arguments].concat(), &[], "").await
    };
    let output = new(&["to-slack", "--lang", "js", "--kind", "transform"]).await;
    ended(&output, 0);
    for part in ["  cd to-slack\n", "  npm run build\n", "plugin test to-slack.wasm cases.json\n"] {
        assert!(output.stdout.contains(part), "{part} is not in {}", output.stdout);
    }
    for file in ["README.md", "package.json", "plugin.js", "rule.test.js", "cases.json", "wit/worlds.wit"] {
        assert!(folder.path().join("to-slack").join(file).is_file(), "{file}");
    }
    let output = new(&["to-slack"]).await;
    ended(&output, 1);
    assert_eq!(
        output.stderr,
        "error: to-slack exists already: nothing is overwritten; choose another name\n"
    );
    assert!(folder.path().join("to-slack/package.json").is_file());
    ended(&new(&["../up"]).await, 2);
    assert!(new(&["Upper"]).await.stderr.contains("lower case letters, digits and single hyphens"));
    ended(&new(&["for-python", "--lang", "python", "--kind", "policy"]).await, 0);
    assert!(folder.path().join("for-python/app.py").is_file());
}

#[tokio::test]
async fn a_new_rust_project_of_each_kind_passes_its_tests() {
    // One folder for all runs, beside the guests, so that dependencies are built only once.
    let folder = Path::new(PROBE).ancestors().nth(4).unwrap().join("new");
    std::fs::create_dir_all(&folder).unwrap();
    for kind in ["filter", "policy", "transform"] {
        let project = folder.join(kind);
        drop(std::fs::remove_dir_all(&project));
        ended(&run_in(&folder, &["plugin", "new", kind, "--kind", kind], &[], "").await, 0);
        // This machine already has the versions of the workspace.
        let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock");
        std::fs::copy(lock, project.join("Cargo.lock")).unwrap();
        let (in_project, target) = (project.clone(), folder.join("target"));
        let build = move || {
            cargo(&in_project, &target, &["test", "--quiet"]);
            cargo(&in_project, &target, &["build", "--release", "--quiet", "--target", "wasm32-wasip2"]);
            target.join("wasm32-wasip2/release").join(format!("{kind}.wasm"))
        };
        let wasm = tokio::task::spawn_blocking(build).await.unwrap();
        let wasm = wasm.to_str().unwrap();
        let output = run_in(&project, &["plugin", "test", wasm, "cases.json"], &[], "").await;
        ended(&output, 0);
        assert!(output.stdout.ends_with(" 0 failed\n"), "{}", output.stdout);
    }
}

/// Runs cargo in a project, without the registry.
fn cargo(project: &Path, target: &Path, arguments: &[&str]) {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .arg("--offline")
        .current_dir(project)
        .env("CARGO_TARGET_DIR", target)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
