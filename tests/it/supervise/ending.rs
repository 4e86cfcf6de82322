//! Nothing that a program starts outlives its run, however the run ends.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use waypost_domain::handler::Exit;

use super::{Run, gone, is_there};
use crate::harness::{WAYPOST, wait_until};

/// Starts sleepers that try to escape in different ways, and writes their process ids to files.
const RUNAWAYS: &str = r#"
    sleep 1000 & echo $! >plain
    setsid sh -c 'echo $$ >session; exec sleep 1000' &
    sh -c 'setsid sh -c "sh -c \"trap : TERM HUP INT; echo \\\$\\\$ >double; while :; do sleep 1; done\" & :" & :'
    sh -c 'trap "" TERM; echo $$ >stubborn; while :; do sleep 1; done' &
    until [ -s plain ] && [ -s session ] && [ -s double ] && [ -s stubborn ]; do sleep 0.01; done
"#;
const RUNAWAY_FILES: [&str; 4] = ["plain", "session", "double", "stubborn"];

/// Returns the process ids of [`RUNAWAYS`].
async fn runaways(run: &Run) -> Vec<i32> {
    let mut pids = Vec::new();
    for file in RUNAWAY_FILES {
        pids.push(run.pid(file).await);
    }
    pids
}

#[tokio::test]
async fn background_processes_are_dead_when_the_run_has_ended() {
    let run = Run::script(&format!("{RUNAWAYS} exit 4"));
    let ended = run.ended().await;
    assert_eq!(ended.exit, Exit::Code(4), "{ended:?}");
    for pid in runaways(&run).await {
        assert!(!is_there(pid), "{pid}");
    }
}

#[tokio::test]
async fn a_background_process_that_holds_stdout_delays_nothing() {
    let mut run = Run::script("echo before; setsid sleep 1000 & echo $! >holder; exit 0");
    run.call.limits.time = Duration::from_secs(1000);
    let begin = Instant::now();
    let ended = run.ended().await;
    assert_eq!((ended.exit, ended.stdout.tail), (Exit::Code(0), "before\n".to_owned()));
    assert!(begin.elapsed() < Duration::from_secs(100), "{:?} of its 1000 s", begin.elapsed());
    assert!(!is_there(run.pid("holder").await));
}

#[tokio::test]
async fn a_fork_bomb_in_its_own_session_is_ended() {
    let bomb = "b() { while :; do sleep 0.05 & sh -c : & done; }; b";
    let run = Run::script(&format!(
        "setsid sh -c 'echo $$ >bomb; {bomb}' & until [ -s bomb ]; do :; done; sleep 0.2"
    ));
    assert_eq!(run.ended().await.exit, Exit::Code(0));
    assert!(!is_there(run.pid("bomb").await));
}

#[tokio::test]
async fn a_timeout_sends_sigterm_first_and_then_kills_everything() {
    let mut run = Run::script("trap 'echo asked; exit 0' TERM; while :; do sleep 0.05; done");
    run.call.limits.time = Duration::from_secs(1);
    let ended = run.ended().await;
    assert_eq!(ended.exit, Exit::Limit("timeout of 1s (timeout)".to_owned()));
    assert_eq!(ended.stdout.tail, "asked\n");

    let mut run = Run::script(&format!("trap '' TERM; {RUNAWAYS} echo $$ >self; while :; do sleep 1; done"));
    run.call.limits.time = Duration::from_secs(3);
    let begin = Instant::now();
    let ended = run.ended().await;
    let took = begin.elapsed();
    assert_eq!(ended.exit, Exit::Limit("timeout of 3s (timeout)".to_owned()));
    assert!(took >= Duration::from_secs(5), "{took:?}: 2 s of grace after 3");
    for pid in runaways(&run).await {
        assert!(!is_there(pid), "{pid}");
    }
    assert!(!is_there(run.pid("self").await));
}

#[tokio::test]
async fn a_dropped_run_is_ended_at_once_and_leaves_no_zombie() {
    let run = Run::script(&format!(
        "trap ': >asked' TERM; {RUNAWAYS} echo $PPID >supervisor; while :; do sleep 1; done"
    ));
    let mut pids = Vec::new();
    tokio::select! {
        ended = run.ended() => panic!("it has ended: {ended:?}"),
        supervisor = run.pid("supervisor") => pids.push(supervisor),
    }
    pids.extend(runaways(&run).await);
    for pid in pids {
        gone(pid).await;
    }
    assert!(!run.place("asked").exists(), "nobody waits for its answer");
}

/// When the service ends, also by kill -9, the system closes its end of the socket.
#[tokio::test]
async fn programs_end_when_the_service_is_gone() {
    let run = Run::script("");
    let (control, stdin) = UnixStream::pair().unwrap();
    let mut supervisor = Command::new(WAYPOST)
        .args(["supervise", "--time-ms=60000", "--", "/bin/sh", "-c", &format!("{RUNAWAYS} wait")])
        .current_dir(&run.call.folder)
        .stdin(OwnedFd::from(stdin))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pids = runaways(&run).await;
    // A signal to the service's whole process group must not end its programs.
    let pid = rustix::process::Pid::from_child(&supervisor);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(pids.iter().copied().all(is_there) && supervisor.try_wait().unwrap().is_none());
    drop(control);
    wait_until("the supervisor ends", async || supervisor.try_wait().unwrap()).await;
    for pid in pids {
        gone(pid).await;
    }
}

#[tokio::test]
async fn a_killed_supervisor_fails_the_run_and_its_program_is_ended() {
    let run = Run::script("echo $$ >self; sleep 1000 & echo $! >child; kill -9 $PPID; wait");
    let ended = run.ended().await;
    assert!(matches!(&ended.exit, Exit::Failed(reason) if reason.contains("signal: 9")), "{ended:?}");
    for file in ["self", "child"] {
        gone(run.pid(file).await).await;
    }
}

#[tokio::test]
async fn the_command_says_that_it_is_internal() {
    let said = crate::harness::run(&["supervise", "--", "/bin/true"], "").await;
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("waypost serve"), "{said:?}");
}
