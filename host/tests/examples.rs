//! Runs the examples as their readers would.
#![expect(clippy::unwrap_used, reason = "what goes wrong here fails the test, which is the point")]

use std::process::Command;

/// Runs an example, which asserts what it shows, and returns what it prints.
fn run(name: &str) -> String {
    let tests = std::env::current_exe().unwrap();
    let example = tests.ancestors().nth(2).unwrap().join("examples").join(name);
    // `cargo test` builds all examples; with `--test`, `cargo build --examples` does.
    let ended =
        Command::new(&example).output().unwrap_or_else(|error| panic!("{}: {error}", example.display()));
    assert!(ended.status.success(), "{name}: {}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8(ended.stdout).unwrap()
}

#[test]
fn waypost_nests_in_an_application_that_knows_its_users() {
    assert!(run("embed").contains("\"ann\""));
}

#[test]
fn a_function_gets_what_its_filter_matches_again_after_it_failed() {
    assert_eq!(run("in_process"), "/camera arrived with attempt 2\n");
}

#[test]
fn a_policy_keeps_events_from_others() {
    assert!(!run("policy").contains(r#"("bob", "/home/ann")"#));
}

#[test]
fn a_closure_runs_on_data_files() {
    assert_eq!(run("handlers"), "words,3\n");
}
