//! Runs the couplings that a run's event asks for; the working directory is the run's folder.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use proxymod::SystemClock;

#[expect(clippy::print_stderr, reason = "a command tells its error on stderr")]
fn main() -> ExitCode {
    let Err(error) = proxymod::run(Path::new(""), &SystemClock) else {
        return ExitCode::SUCCESS;
    };
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    eprintln!("{text}");
    ExitCode::FAILURE
}
