//! The resource limits of programs.

use rustix::process::{Resource, Rlimit, getpriority_process, getrlimit, setrlimit};
use waypost_domain::handler::{Exit, TAIL_BYTES_MAX};
use waypost_handlers::Shortage;

use super::{Run, gone};

#[tokio::test]
async fn a_gibibyte_of_stdout_is_read_and_a_bounded_part_kept() {
    let mut run = Run::script("head -c 1G /dev/zero; echo end");
    run.call.limits.log_bytes = 1000;
    let ended = run.ended().await;
    assert_eq!(ended.exit, Exit::Code(0), "{ended:?}");
    assert_eq!((ended.stdout.bytes, ended.stdout.kept), ((1 << 30) + 4, 1000));
    assert!(ended.stdout.tail.ends_with("end\n") && ended.stdout.tail.len() <= TAIL_BYTES_MAX);
    assert_eq!(std::fs::metadata(&run.call.stdout).unwrap().len(), 1000);
}

/// When memory ran out, the system could kill the service instead of a handler's program, and a program could become root
/// with `sudo`.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_program_is_killed_before_the_service_and_gains_no_privileges() {
    for memory_bytes in [None, Some(1 << 32)] {
        let mut run = Run::script(
            "cat /proc/self/oom_score_adj; grep NoNewPrivs /proc/self/status; cat /proc/$PPID/oom_score_adj",
        );
        run.call.limits.memory_bytes = memory_bytes;
        let ended = run.ended().await;
        let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        assert_eq!(ended.stdout.tail, format!("500\nNoNewPrivs:\t1\n{own}"), "{ended:?}");
    }
}

#[tokio::test]
async fn one_file_that_is_too_large_ends_the_run() {
    for script in [
        "head -c 3000000 /dev/zero >output/large",
        "head -c 3000000 /dev/zero >output/large; echo $$ >self; sleep 1000; exit 0",
        "exec head -c 3000000 /dev/zero >output/large",
    ] {
        let mut run = Run::script(script);
        run.call.limits.output_bytes = 1_000_000;
        let ended = run.ended().await;
        let Exit::Limit(limit) = &ended.exit else { panic!("{script}: {ended:?}") };
        assert!(limit.contains("output_bytes_max"), "{limit}");
        assert_eq!(std::fs::metadata(run.place("output/large")).unwrap().len(), 1_000_001);
    }
}

#[tokio::test]
async fn many_small_files_end_the_run_by_their_number_and_by_their_bytes() {
    let script = "echo $$ >self; trap '' TERM; n=0; while :; do n=$((n+1)); echo 123456789 >output/$n; done";
    for (files, bytes, key) in [
        (50, 1 << 30, "50 files and folders of output (output_files_max)"),
        (1_000_000, 500, "500 bytes of output (output_bytes_max)"),
    ] {
        let mut run = Run::script(script);
        (run.call.limits.output_files, run.call.limits.output_bytes) = (files, bytes);
        let ended = run.ended().await;
        assert_eq!(ended.exit, Exit::Limit(format!("more than {key}")));
        gone(run.pid("self").await).await;
    }
}

#[tokio::test]
async fn output_at_its_limits_is_accepted() {
    let mut run = Run::script("head -c 1000 /dev/zero >output/a");
    (run.call.limits.output_files, run.call.limits.output_bytes) = (1, 1000);
    assert_eq!(run.ended().await.exit, Exit::Code(0));
    run.call.limits.output_bytes = 999;
    assert!(matches!(run.ended().await.exit, Exit::Limit(_)));
}

#[tokio::test]
async fn an_address_space_limit_applies_to_the_program_and_its_children() {
    // The service raises its own limit on open files at its start; programs must not inherit that.
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }).unwrap();
    let mut run = Run::script("ulimit -v; ulimit -c; ulimit -n; sh -c 'ulimit -v'; nice; echo $0 $1");
    run.native.command.extend(["a".to_owned(), "b c".to_owned()]);
    run.call.limits.memory_bytes = Some(256 << 20);
    let ended = run.ended().await;
    // Programs have a higher niceness than the service, whose own may not be 0.
    let niceness = (getpriority_process(None).unwrap() + 5).min(19);
    let expected = format!("262144\n0\n1024\n262144\n{niceness}\na b c\n");
    assert_eq!((ended.exit, ended.stdout.tail), (Exit::Code(0), expected));
    run.call.limits.memory_bytes = None;
    assert!(run.ended().await.stdout.tail.starts_with("unlimited\n0\n1024\n"), "none is set");
}

/// A full disk failed the run, permanently without a retry schedule.
#[tokio::test]
async fn a_log_that_cannot_be_written_ends_the_run_and_a_full_disk_is_not_its_failure() {
    let mut run = Run::script("echo $$ >self; echo 1; exec sleep 1000");
    run.call.stdout = "/dev/full".into();
    let Shortage(reason) = run.native.run(&run.call).await.unwrap_err();
    assert!(reason.contains("disk"), "{reason}");
    gone(run.pid("self").await).await;
    run.call.stdout = run.folder.path().join("absent/stdout");
    let ended = run.ended().await;
    assert!(matches!(&ended.exit, Exit::Failed(reason) if reason.contains("absent")), "{ended:?}");
}
