//! How programs end: by themselves, at a limit, or by cancellation.

use std::time::Instant;

use super::super::fetching::{Server, answer};
use super::*;

async fn tool(arguments: &[&str], limits: CommandLimits) -> (Run, Exit) {
    once(waypost_guests::TOOL, arguments, limits).await
}

fn limit(text: &str) -> Exit {
    Exit::Limit(text.to_owned())
}

#[tokio::test]
async fn an_exit_code_is_kept() {
    assert_eq!(tool(&[], LIMITS).await.1, Exit::Code(0));
    assert_eq!(tool(&["exit", "0"], LIMITS).await.1, Exit::Code(0));
    assert_eq!(tool(&["exit-with-code", "7"], LIMITS).await.1, Exit::Code(7));
    // Rust's own `exit` has no other word for it in WASI 0.2.
    assert_eq!(tool(&["exit", "7"], LIMITS).await.1, Exit::Code(1));
    let sandbox = Sandbox::shared();
    let command = sandbox.host.load_command(component("nop", 1).into()).await.unwrap();
    let end = sandbox.host.run_command(&command, Run::new().call(&[], LIMITS)).await;
    assert_eq!(end.exit, Exit::Code(1));
}

#[tokio::test]
async fn a_panic_fails_the_run_and_its_text_is_on_stderr() {
    let (run, exit) = tool(&["panic"], LIMITS).await;
    assert!(matches!(&exit, Exit::Failed(why) if why.starts_with("it panicked or aborted")), "{exit:?}");
    assert!(run.stderr.text().contains("oh no"), "{}", run.stderr.text());
}

/// A component that does something and returns something, with the functions' names, which the other guests have not.
fn component(code: &str, returns: u8) -> Vec<u8> {
    let text = format!(
        r#"(component
            (core module $module
                (memory 1)
                (func $inner {code})
                (func $outer (export "run") (result i32) call $inner i32.const {returns}))
            (core instance $instance (instantiate $module))
            (func $run (result (result)) (canon lift (core func $instance "run")))
            (instance $runs (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $runs)))"#
    );
    wat::parse_str(text).unwrap()
}

#[tokio::test]
async fn a_trap_is_told_with_the_function_where_it_was() {
    let sandbox = Sandbox::shared();
    for (code, says) in [
        ("unreachable", "it panicked or aborted"),
        ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", "trap: integer divide by zero, in `inner`"),
        ("(drop (i32.load (i32.const -4)))", "trap: out of bounds memory access, in `inner`"),
    ] {
        let command = sandbox.host.load_command(component(code, 0).into()).await.unwrap();
        let end = sandbox.host.run_command(&command, Run::new().call(&[], LIMITS)).await;
        assert_eq!(end.exit, Exit::Failed(says.to_owned()));
        assert_eq!(end.memory_bytes, 64 * 1024);
    }
}

#[tokio::test]
async fn a_stack_that_grows_on_meets_its_limit() {
    assert_eq!(tool(&["recurse"], LIMITS).await.1, limit("stack limit of 512 KiB"));
}

#[tokio::test]
async fn a_timeout_ends_a_loop_and_a_wait() {
    let limits = CommandLimits { time: Duration::from_millis(50), ..LIMITS };
    for how in ["spin", "sleep"] {
        let (_, exit) = tool(&[how], limits).await;
        assert_eq!(exit, limit("timeout of 50ms (timeout)"), "{how}");
    }
}

#[tokio::test]
async fn memory_meets_its_limit_unless_the_program_copes() {
    assert_eq!(tool(&["memory"], LIMITS).await.1, limit("memory limit of 16 MiB (memory_bytes)"));
    let (run, exit) = tool(&["try-memory"], LIMITS).await;
    assert_eq!((exit, &*run.stdout.text()), (Exit::Code(0), "true\n"));
    // What it begins with goes through the same meter.
    let little = CommandLimits { memory_bytes: 64 * 1024, ..LIMITS };
    assert_eq!(tool(&[], little).await.1, limit("memory limit of 64 KiB (memory_bytes)"));
}

/// Counts what comes.
#[derive(Clone, Default)]
struct Counted(Arc<Mutex<usize>>);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        *self.0.lock().unwrap() += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_flood_of_stdout_passes() {
    let (sandbox, run, counted) = (Sandbox::shared(), Run::new(), Counted::default());
    let command = loaded(&sandbox, waypost_guests::TOOL).await;
    let call = CommandCall { stdout: Box::new(counted.clone()), ..run.call(&["say", "64"], LIMITS) };
    assert_eq!(sandbox.host.run_command(&command, call).await.exit, Exit::Code(0));
    assert_eq!(*counted.0.lock().unwrap(), 64 << 20);
}

#[tokio::test]
async fn a_program_ends_when_its_future_is_dropped() {
    let server = Server::answering(None).await;
    let address = server.address.to_string();
    for arguments in [&["spin"][..], &["sleep"], &["fetch", &address, "1"]] {
        let sandbox = Sandbox::with(&["127.0.0.0/8"], crate::Limits::default());
        let run = Run::new();
        let command = loaded(&sandbox, waypost_guests::TOOL).await;
        let allow_hosts = Arc::new([address.parse().unwrap()]);
        let running =
            sandbox.host.run_command(&command, CommandCall { allow_hosts, ..run.call(arguments, LIMITS) });
        let waited = tokio::time::timeout(Duration::from_millis(50), running).await;
        assert!(waited.is_err(), "{arguments:?}");
        // Its streams go with its store.
        let begun = Instant::now();
        while Arc::strong_count(&run.stdout.0) > 1 {
            assert!(begun.elapsed() < Duration::from_secs(10), "{arguments:?} runs on");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn sockets_are_refused() {
    let (run, exit) = tool(&["sockets"], LIMITS).await;
    assert_eq!(
        (exit, &*run.stdout.text()),
        (Exit::Code(0), "Some(PermissionDenied) Some(PermissionDenied)\n")
    );
}

#[tokio::test]
async fn http_goes_to_allowed_hosts_where_the_operator_has_opened_their_networks() {
    let sandbox = Sandbox::with(&["127.0.0.0/8"], crate::Limits::default());
    let server = Server::answering(answer("200 OK", &vec![0; 5 << 20])).await;
    let address = server.address.to_string();
    let command = loaded(&sandbox, waypost_guests::TOOL).await;
    // Each run has threads of its own, and the client is the same.
    for _ in 0..2 {
        let run = Run::new();
        let call = run.call(&["fetch", &address, "20"], LIMITS);
        let allowed = CommandCall { allow_hosts: Arc::new([address.parse().unwrap()]), ..call };
        assert_eq!(sandbox.host.run_command(&command, allowed).await.exit, Exit::Code(0));
        assert_eq!(run.stdout.text(), "200, 5242880 bytes\n".repeat(20));
    }
    // By this header, another Waypost knows that the program acts for none of its users.
    assert!(server.heads().iter().all(|head| head.contains("\r\nwaypost-agent: handler\r\n")));
    let (run, closed) = (Run::new(), Sandbox::shared());
    let call = run.call(&["fetch", &address, "1"], LIMITS);
    let allowed = CommandCall { allow_hosts: Arc::new([address.parse().unwrap()]), ..call };
    let command = loaded(&closed, waypost_guests::TOOL).await;
    let end = closed.host.run_command(&command, allowed).await;
    assert_eq!((end.exit, &*run.stdout.text()), (Exit::Code(0), "ErrorCode::HttpRequestDenied\n"));
    let refused = format!("waypost: HTTP request to {address} refused: its address 127.0.0.1 is not public");
    assert!(run.stderr.text().starts_with(&refused), "{}", run.stderr.text());
    let run = Run::new();
    let end = closed.host.run_command(&command, run.call(&["fetch", &address, "1"], LIMITS)).await;
    assert_eq!((end.exit, &*run.stdout.text()), (Exit::Code(0), "ErrorCode::HttpRequestDenied\n"));
    assert_eq!(
        run.stderr.text(),
        format!("waypost: HTTP request to {address} refused: add \"{address}\" to allow_hosts\n")
    );
}
