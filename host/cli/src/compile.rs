//! `waypost compile`: the internal command that `waypost serve` runs to compile a module.

use std::process::ExitCode;

use waypost_sandbox::{Allowance, Task, compile_main};

/// Run a task that hostile input can make expensive, within limits: input on stdin, result on stdout
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The task to run
    #[arg(long)]
    task: Name,
    /// The limit on address space
    #[arg(long, value_name = "BYTES")]
    memory_bytes: u64,
    /// The limit on processor time
    #[arg(long, value_name = "SECONDS")]
    cpu_seconds: u64,
}

/// The name of a [`Task`].
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Name {
    Compile,
    Load,
    Check,
}

/// Runs the task.
pub(super) fn run(arguments: Arguments) -> ExitCode {
    let task = match arguments.task {
        Name::Compile => Task::Compile,
        Name::Load => Task::Load,
        Name::Check => Task::Check,
    };
    let Arguments { memory_bytes, cpu_seconds, .. } = arguments;
    compile_main(task, Allowance { memory_bytes, cpu_seconds })
}
