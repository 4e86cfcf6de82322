//! Guests that mean harm: each ends with the name of what stopped it, and its neighbour goes on.

use super::*;

/// For each guest of `tests/guests` a test that runs it.
mod tested {
    pub(super) use super::super::admitting::{
        a_schema_that_is_slow_at_times_is_a_schema as slow_schema,
        an_endless_schema_is_a_schema as endless_schema,
    };
    pub(super) use super::super::commands::a_program_has_what_it_was_given_and_makes_what_it_likes as tool;
    pub(super) use super::super::commands::escaping::a_program_sees_and_changes_nothing_but_its_folder as escape;
    pub(super) use super::super::commands::filling::bytes_are_counted_exactly_however_they_are_written as fill;
    pub(super) use super::super::fetching::a_redirect_to_a_host_that_is_not_allowed_is_refused as fetch;
    pub(super) use super::super::running::{
        a_filter_alone_lets_pass_or_skips as sieve, a_plugin_filters_and_transforms as probe,
    };
    pub(super) use super::{
        a_deep_recursion_meets_the_stack_limit as deep_recursion,
        a_flood_of_logs_is_dropped_and_counted as log_flood,
        a_flood_of_output_leaves_the_end_of_it as write_flood,
        a_flood_of_state_meets_each_of_its_limits as state_flood,
        a_growing_memory_meets_its_limit as grow_memory, a_growing_table_meets_its_limit as grow_table,
        a_hoard_of_handles_meets_its_limit as hoard, a_loop_ends_at_the_time_limit as spin,
        a_loop_in_the_start_function_ends_at_the_time_limit as spin_in_start,
        a_trap_in_the_start_function_says_so as trap_in_start, a_trap_says_what_it_was as trap,
        a_wait_ends_at_the_time_limit as wait, an_output_may_be_as_large_as_the_limit as huge_output,
        an_output_that_cannot_be_sent_is_named as rubbish_output,
        files_and_environment_are_not_there as read_file,
        more_outputs_than_the_limit_are_refused as many_outputs, random_bytes_are_limited as random,
        sockets_are_refused as open_socket,
    };
}

macro_rules! has_a_test {
    ($guest:ident) => {
        #[expect(unused_imports, reason = "that it can be named is the check")]
        use tested::$guest as _;
    };
}

waypost_guests::for_each_guest!(has_a_test);

const TIME_LIMIT: &str = "plugin: time limit of 250 ms";

#[tokio::test]
async fn a_loop_ends_at_the_time_limit() {
    let sandbox = Sandbox::shared();
    let ran = sandbox.beside_a_neighbour(waypost_guests::SPIN, json!({})).await;
    assert_eq!(failure(&ran), TIME_LIMIT);
    assert!(ran.run.took >= Duration::from_millis(250), "{:?}", ran.run.took);
    let ran = sandbox.beside_a_neighbour(waypost_guests::SPIN, json!({"how": "copy"})).await;
    assert_eq!(failure(&ran), TIME_LIMIT);
}

#[tokio::test]
async fn a_loop_in_the_start_function_ends_at_the_time_limit() {
    let ran = Sandbox::shared().beside_a_neighbour(waypost_guests::SPIN_IN_START, json!({})).await;
    assert_eq!(failure(&ran), TIME_LIMIT);
}

#[tokio::test]
async fn a_wait_ends_at_the_time_limit() {
    let ran = Sandbox::shared().beside_a_neighbour(waypost_guests::WAIT, json!({})).await;
    assert_eq!(failure(&ran), TIME_LIMIT);
}

#[tokio::test]
async fn a_growing_memory_meets_its_limit() {
    let sandbox = Sandbox::shared();
    let ran = sandbox.beside_a_neighbour(waypost_guests::GROW_MEMORY, json!({})).await;
    assert_eq!(failure(&ran), "plugin: memory limit of 64 MiB");
    assert!(ran.run.stderr.contains("memory allocation of"), "{}", ran.run.stderr);
    assert!(ran.run.memory_bytes > 60 << 20, "{}", ran.run.memory_bytes);
}

#[tokio::test]
async fn a_refused_growth_is_no_failure_of_a_guest_that_copes() {
    let sandbox = Sandbox::shared();
    let guest = sandbox.load(waypost_guests::GROW_MEMORY).await;
    let ran = sandbox.run(&guest, json!({"cope": true})).await;
    assert_eq!(skipped(&ran), "refused: true");
    let ran = sandbox.run(&guest, json!({"cope": true, "then": "another reason"})).await;
    let failure = failure(&ran);
    assert!(
        failure.starts_with("plugin: it panicked or aborted: another reason, at examples/grow_memory.rs:"),
        "{failure}"
    );
    assert!(
        failure.ends_with("(before that, the memory limit of 64 MiB had kept it from growing)"),
        "{failure}"
    );
}

#[tokio::test]
async fn a_growing_table_meets_its_limit() {
    let ran = Sandbox::shared().beside_a_neighbour(waypost_guests::GROW_TABLE, json!({})).await;
    assert_eq!(failure(&ran), "plugin: table limit of 20000 elements");
}

#[tokio::test]
async fn a_deep_recursion_meets_the_stack_limit() {
    let ran = Sandbox::shared().beside_a_neighbour(waypost_guests::DEEP_RECURSION, json!({})).await;
    assert_eq!(failure(&ran), "plugin: stack limit of 512 KiB");
}

#[tokio::test]
async fn an_output_may_be_as_large_as_the_limit() {
    let sandbox = Sandbox::shared();
    let guest = sandbox.load(waypost_guests::HUGE_OUTPUT).await;
    let ran = sandbox.run(&guest, json!({"bytes": 1 << 20})).await;
    assert!(matches!(&ran.outputs[..], [Output::Raw { body, .. }] if body.len() == 1 << 20), "{:?}", ran.run);
    let ran = sandbox.run(&guest, json!({"bytes": (1 << 20) + 1})).await;
    assert_eq!(failure(&ran), "plugin: output limit of 1 MiB: the transform made 1048577 bytes");
    let ran = sandbox.beside_a_neighbour(waypost_guests::HUGE_OUTPUT, json!({"bytes": 32 << 20})).await;
    assert_eq!(failure(&ran), "plugin: output limit of 1 MiB");
}

#[tokio::test]
async fn more_outputs_than_the_limit_are_refused() {
    let sandbox = Sandbox::shared();
    let guest = sandbox.load(waypost_guests::MANY_OUTPUTS).await;
    assert_eq!(
        sandbox.run(&guest, json!({"count": 64})).await.run.verdict,
        Verdict::Transformed { outputs: 64 }
    );
    let ran = sandbox.run(&guest, json!({"count": 65})).await;
    assert_eq!(failure(&ran), "plugin: limit of 64 outputs: the transform made 65");
    let ran = sandbox.beside_a_neighbour(waypost_guests::MANY_OUTPUTS, json!({"count": 100_000})).await;
    assert_eq!(failure(&ran), "plugin: output limit of 1 MiB");
}

#[tokio::test]
async fn a_flood_of_logs_is_dropped_and_counted() {
    let sandbox = Sandbox::shared();
    let ran = sandbox.beside_a_neighbour(waypost_guests::LOG_FLOOD, json!({})).await;
    assert_eq!(skipped(&ran), "logged");
    assert_eq!((ran.run.logs.len(), ran.run.logs_dropped), (564, 10_000 - 564));
    let guest = sandbox.load(waypost_guests::LOG_FLOOD).await;
    let ran = sandbox.run(&guest, json!({"lines": 2, "bytes": 3 << 19})).await;
    assert_eq!(skipped(&ran), "logged");
    assert!(ran.run.logs[1].message.ends_with("x… (cut at 4096 bytes)"));
    let ran = sandbox.run(&guest, json!({"lines": 1, "bytes": 4 << 20})).await;
    assert_eq!(failure(&ran), "plugin: limit of 2 MiB for one call of a host function");
}

#[tokio::test]
async fn a_flood_of_state_meets_each_of_its_limits() {
    let sandbox = Sandbox::shared();
    let ran = sandbox.beside_a_neighbour(waypost_guests::STATE_FLOOD, json!({})).await;
    assert_eq!(
        skipped(&ran),
        "StateError::ValueTooLarge, StateError::KeyTooLong, after 1000 keys StateError::QuotaExceeded"
    );
    assert_eq!(ran.state.changes().len(), 1000);
}

#[tokio::test]
async fn a_trap_says_what_it_was() {
    let sandbox = Sandbox::shared();
    let ran = sandbox.beside_a_neighbour(waypost_guests::TRAP, json!({})).await;
    assert_eq!(
        failure(&ran),
        "plugin: it panicked or aborted (`unreachable` was executed), and wrote nothing to stderr"
    );
    let guest = sandbox.load(waypost_guests::TRAP).await;
    let ran = sandbox.run(&guest, json!({"how": "memory"})).await;
    assert_eq!(failure(&ran), "plugin: trap: out of bounds memory access");
    let ran = sandbox.run(&guest, json!({"how": "exit"})).await;
    assert_eq!(failure(&ran), "plugin: it called `exit` with the status 1");
}

#[tokio::test]
async fn a_trap_in_the_start_function_says_so() {
    let ran = Sandbox::shared().beside_a_neighbour(waypost_guests::TRAP_IN_START, json!({})).await;
    let failure = failure(&ran);
    assert!(failure.starts_with("plugin: it panicked or aborted: not even begun, at "), "{failure}");
    assert_eq!(ran.run.answered, Vec::<String>::new());
}

#[tokio::test]
async fn an_output_that_cannot_be_sent_is_named() {
    let sandbox = Sandbox::shared();
    let guest = sandbox.load(waypost_guests::RUBBISH_OUTPUT).await;
    for (what, reason) in [
        ("id", "`id` must not be empty"),
        ("time", "`time` is no RFC 3339 time; write it like \"2026-11-22T04:00:00Z\""),
        ("extension", "`Not-A-Name` is no attribute name: CloudEvents 1.0 allows a-z and 0-9 alone"),
        ("data", "`data` is said to be JSON and is none: EOF while parsing an object at line 1 column 1"),
        (
            "body",
            "its body is declared to be JSON, but is not: EOF while parsing an object at line 1 column 1",
        ),
        // Nested 20,000 deep it was sent, and took 800 MB to be printed.
        ("deep", "its body is JSON nested deeper than 120 levels"),
        ("host", "header `host` is not a plugin's to set: it is the target's, which the URL names"),
        ("a b", "`a b` is not a header's name"),
    ] {
        let ran = sandbox.run(&guest, json!({"what": what})).await;
        assert_eq!(failure(&ran), format!("plugin: output 2 of 2 cannot be sent: {reason}"));
        assert!(ran.outputs.is_empty());
    }
}

#[tokio::test]
async fn sockets_are_refused() {
    let ran = Sandbox::shared().beside_a_neighbour(waypost_guests::OPEN_SOCKET, json!({})).await;
    assert_eq!(
        skipped(&ran),
        "Some(PermissionDenied), Some(PermissionDenied), Some(PermissionDenied), false"
    );
}

#[tokio::test]
async fn files_and_environment_are_not_there() {
    let ran = Sandbox::shared().beside_a_neighbour(waypost_guests::READ_FILE, json!({})).await;
    assert_eq!(skipped(&ran), "false false false 0 0 0");
}

#[tokio::test]
async fn a_flood_of_output_leaves_the_end_of_it() {
    let ran = Sandbox::shared().beside_a_neighbour(waypost_guests::WRITE_FLOOD, json!({})).await;
    let failure = failure(&ran);
    assert!(failure.starts_with("plugin: it panicked or aborted: at last, at "), "{failure}");
    assert!(ran.run.stderr.len() <= 8 * 1024 && ran.run.stderr.contains("at last"), "{}", ran.run.stderr);
    assert!(!ran.run.stderr.contains('\x1b'));
}

#[tokio::test]
async fn a_hoard_of_handles_meets_its_limit() {
    let ran = Sandbox::shared().beside_a_neighbour(waypost_guests::HOARD, json!({})).await;
    assert_eq!(failure(&ran), "plugin: limit of 512 handles at once");
}

#[tokio::test]
async fn random_bytes_are_limited() {
    let ran = Sandbox::shared().beside_a_neighbour(waypost_guests::RANDOM, json!({})).await;
    assert_eq!(failure(&ran), "plugin: limit of 64 KiB of random bytes at once");
}

/// Returns the resident memory of this process, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size()
}

/// What other tests leave in the memory of a process is not the guests': this one has a process of its own.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn memory_is_back_to_normal_after_ten_thousand_hostile_calls() {
    const ALONE: &str = "WAYPOST_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let (_, module) = module_path!().split_once("::").unwrap();
        let name = format!("{module}::memory_is_back_to_normal_after_ten_thousand_hostile_calls");
        let mut test = tokio::process::Command::new(std::env::current_exe().unwrap());
        let ended = test.args([&name, "--exact"]).env(ALONE, "1").kill_on_drop(true).output().await.unwrap();
        let said = String::from_utf8_lossy(&ended.stdout);
        assert!(ended.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let sandbox = Sandbox::with(&[], Limits::default());
    let mut calls = Vec::new();
    for (path, config) in [
        (waypost_guests::TRAP, json!({})),
        (waypost_guests::HOARD, json!({})),
        (waypost_guests::DEEP_RECURSION, json!({})),
        (waypost_guests::GROW_TABLE, json!({})),
        (waypost_guests::GROW_MEMORY, json!({})),
        (waypost_guests::HUGE_OUTPUT, json!({"bytes": 1 << 17})),
        (waypost_guests::STATE_FLOOD, json!({})),
        (waypost_guests::LOG_FLOOD, json!({"lines": 100})),
        (waypost_guests::SPIN, json!({})),
        (waypost_guests::WAIT, json!({})),
    ] {
        let plugin = sandbox.load(path).await;
        let mut call = call(&plugin, config);
        let used = Arc::make_mut(&mut call.plugin);
        used.limits.time = Some(Duration::from_millis(1));
        used.limits.memory_bytes = Some(4 << 20);
        calls.push((plugin, call));
    }
    let rounds = async |count: usize| {
        for _ in 0..count {
            // Several of each at once.
            let round = calls.iter().cycle().take(10 * calls.len()).map(|(plugin, call)| {
                let call = Call {
                    event: call.event.clone(),
                    subscription: Arc::clone(&call.subscription),
                    plugin: Arc::clone(&call.plugin),
                    state: State::default(),
                    ..*call
                };
                sandbox.host.run(Arc::clone(plugin), call)
            });
            for ran in futures_util::future::join_all(round).await {
                assert!(!matches!(ran.run.verdict, Verdict::Failed(Failure::Host(_))), "{:?}", ran.run);
            }
        }
    };
    // The pool's slots keep some pages from their first use on.
    rounds(3).await;
    let before = resident();
    rounds(100).await;
    let growth = resident().saturating_sub(before);
    assert!(growth < 64 << 20, "{growth} bytes more than before");
}
