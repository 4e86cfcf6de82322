//! The `waypost` command: arguments in, exit code out.

use std::process::ExitCode;

/// A quarter of the time of a small event goes to allocation with the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    waypost::cli::main()
}
