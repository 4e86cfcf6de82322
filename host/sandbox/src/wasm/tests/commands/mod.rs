//! Programs: what they are given, how they end, and what they cannot do.

mod ending;
pub(super) mod escaping;
pub(super) mod filling;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use super::Sandbox;
use crate::{Command, CommandCall, CommandLimits, Refused};
use waypost_domain::handler::Exit;

/// A folder for one run, inside a temporary folder.
struct Run {
    outside: TempDir,
    stdout: Kept,
    stderr: Kept,
}

/// What a stream took.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap()
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

const LIMITS: CommandLimits = CommandLimits {
    time: Duration::from_secs(60),
    memory_bytes: 16 << 20,
    output_bytes: 100_000,
    output_files: 50,
};

impl Run {
    fn new() -> Self {
        let outside = tempfile::tempdir().unwrap();
        let folder = outside.path().join("run");
        for output in ["output", "results/deep", "download/sub", "empty"] {
            std::fs::create_dir_all(folder.join(output)).unwrap();
        }
        std::fs::write(outside.path().join("secret"), "secret").unwrap();
        std::fs::write(folder.join("event.json"), r#"{"id": "1"}"#).unwrap();
        std::fs::write(folder.join("download/sub/data.txt"), "data").unwrap();
        Self { outside, stdout: Kept::default(), stderr: Kept::default() }
    }

    fn folder(&self) -> PathBuf {
        self.outside.path().join("run")
    }

    fn output(&self) -> PathBuf {
        self.folder().join("output")
    }

    fn call(&self, arguments: &[&str], limits: CommandLimits) -> CommandCall {
        CommandCall {
            folder: self.folder(),
            outputs: vec!["output".to_owned(), "results/deep".to_owned()],
            arguments: ["me"].iter().chain(arguments).map(|text| (*text).to_owned()).collect(),
            environment: vec![("WAYPOST_HANDLER".to_owned(), "me".to_owned())],
            stdout: Box::new(self.stdout.clone()),
            stderr: Box::new(self.stderr.clone()),
            allow_hosts: Arc::new([]),
            limits,
        }
    }
}

/// Loads a guest.
async fn loaded(sandbox: &Sandbox, path: impl AsRef<Path>) -> Arc<Command> {
    sandbox.host.load_command(std::fs::read(path).unwrap().into()).await.unwrap()
}

/// Runs a guest once in a folder of its own.
async fn once(path: &str, arguments: &[&str], limits: CommandLimits) -> (Run, Exit) {
    let sandbox = Sandbox::shared();
    let command = loaded(&sandbox, path).await;
    let run = Run::new();
    let end = sandbox.host.run_command(&command, run.call(arguments, limits)).await;
    (run, end.exit)
}

async fn refusal(wasm: Vec<u8>) -> String {
    match Sandbox::shared().host.load_command(wasm.into()).await {
        Ok(_) => "it is accepted".to_owned(),
        Err(refused) => refused.to_string(),
    }
}

#[tokio::test]
pub(super) async fn a_program_has_what_it_was_given_and_makes_what_it_likes() {
    let (run, exit) = once(waypost_guests::TOOL, &["show", "a b"], LIMITS).await;
    assert_eq!(exit, Exit::Code(0), "{}", run.stderr.text());
    let expected = r#"arguments: ["me", "show", "a b"]
environment: [("WAYPOST_HANDLER", "me")]
stdin: {"id": "1"}
event: {"id": "1"}
.: ["download", "empty", "event.json", "output", "results"]
download: ["sub"]
results/deep: []
data: data
"#;
    assert_eq!(run.stdout.text(), expected);
    assert_eq!(run.stderr.text(), "done\n");
    let read = |path: &str| std::fs::read_to_string(run.folder().join(path)).unwrap();
    assert_eq!((&*read("output/a/b/made.txt"), &*read("results/deep/made.txt")), ("made", "made too"));
}

#[tokio::test]
async fn what_is_no_program_is_refused_with_what_to_do() {
    let core = refusal(wat::parse_str("(module)").unwrap()).await;
    assert!(
        core.contains("this is a core module") && core.contains("cargo build --target wasm32-wasip2"),
        "{core}"
    );
    let nothing = refusal(wat::parse_str("(component)").unwrap()).await;
    assert_eq!(
        nothing,
        "it exports no wasi:cli/run@0.2, but nothing: a handler is a program with a `main`, as `cargo build --target \
         wasm32-wasip2` makes it"
    );
    let plugin = refusal(std::fs::read(waypost_guests::SIEVE).unwrap()).await;
    assert!(plugin.contains("but waypost:plugin/filter@0.1.0: a handler is a program"), "{plugin}");
    let wanting = r#"(component (import "wasi:keyvalue/store@0.2.0" (instance))
        (import "waypost:plugin/log@0.1.0" (instance)) (import "wasi:io/poll@0.2.0" (instance))
        (instance $run) (export "wasi:cli/run@0.2.0" (instance $run)))"#;
    assert_eq!(
        refusal(wat::parse_str(wanting).unwrap()).await,
        "it imports wasi:keyvalue/store@0.2.0, which this waypost does not have; it imports waypost:plugin/log@0.1.0, \
         which this waypost does not have; a handler has what wasm32-wasip2 has, and wasi:http"
    );
}

#[tokio::test]
async fn a_program_uploaded_as_a_plugin_is_told_what_it_is() {
    let wasm = std::fs::read(waypost_guests::TOOL).unwrap();
    // In a folder of its own: what is refused does not stay in it.
    let refused = Sandbox::new().host.admit("u", wasm.into()).await.unwrap_err();
    let Refused::DoesNotFit { reason, .. } = refused else { panic!("{refused}") };
    assert!(reason.contains("but wasi:cli/run@0.2") && reason.ends_with("`waypost handler run`"), "{reason}");
}

#[tokio::test]
async fn a_program_stays_compiled_though_no_subscription_has_it() {
    let sandbox = Sandbox::new();
    let kept = || sandbox.host.kept_bytes().unwrap() > 32;
    loaded(&sandbox, waypost_guests::TOOL).await;
    sandbox.host.sweep(&std::collections::HashSet::new(), Duration::ZERO).unwrap();
    assert!(kept());
}
