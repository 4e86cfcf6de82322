//! `waypost supervise`: the internal command by which `waypost serve` runs handlers' programs.

use std::ffi::OsString;
use std::iter;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use waypost_handlers::{Supervision, become_main, fork_server_main, supervise_main};

/// Run a program within limits, and end all that it starts; stdin is a socket for orders and reports
#[derive(Debug, clap::Parser)]
#[command(name = "waypost supervise")]
pub(super) struct Arguments {
    /// The limit on running time
    #[arg(long, value_name = "MS", default_value_t = u64::MAX)]
    time_ms: u64,
    /// The largest file that it may write
    #[arg(long, value_name = "BYTES", default_value_t = u64::MAX)]
    output_bytes: u64,
    /// The limit on address space
    #[arg(long, value_name = "BYTES")]
    memory_bytes: Option<u64>,
    /// Limit the address space of this process, and replace it with the program
    #[arg(long, requires = "memory_bytes")]
    r#become: bool,
    /// Run the programs that are ordered on stdin, each under a copy of this process
    #[arg(long)]
    fork_server: bool,
    /// The program and its arguments
    #[arg(last = true, required_unless_present = "fork_server", value_name = "PROGRAM")]
    command: Vec<OsString>,
}

/// Returns the arguments if the process was started with this command. It is parsed apart from the others: building the
/// whole command line takes longer than running a small program, and each run with a memory limit would pay for it.
pub(super) fn asked() -> Option<Arguments> {
    let mut arguments = std::env::args_os().skip(1);
    (arguments.next()? == "supervise")
        .then(|| Arguments::parse_from(iter::once(OsString::new()).chain(arguments)))
}

/// Runs the supervisor.
pub(super) fn run(arguments: Arguments) -> ExitCode {
    let Arguments { time_ms, output_bytes, memory_bytes, r#become, fork_server, command } = arguments;
    if fork_server {
        return fork_server_main();
    }
    if let (true, Some(memory_bytes)) = (r#become, memory_bytes) {
        return become_main(memory_bytes, &command);
    }
    supervise_main(Supervision {
        folder: ".".into(),
        time: Duration::from_millis(time_ms),
        output_bytes,
        memory_bytes,
        command,
        environment: std::env::vars_os().collect(),
    })
}
