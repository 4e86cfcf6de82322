//! `waypost compile`: what `waypost serve` runs to compile a module. It is not for people.

use std::process::ExitCode;

use waypost_sandbox::{Allowance, Task, compile_main};

/// Do what can be made to eat a machine, within limits: input on stdin, result on stdout
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What to do
    #[arg(long)]
    task: Name,
    /// The most address space
    #[arg(long, value_name = "BYTES")]
    memory_bytes: u64,
    /// The most time of the processors
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
