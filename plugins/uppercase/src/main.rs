//! Writes the files of a run in upper case; the working directory is the run's folder.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

#[expect(clippy::print_stderr, reason = "a command tells its errors on stderr")]
fn main() -> ExitCode {
    let error = match uppercase::run(Path::new("")) {
        Ok(others) => {
            for path in others {
                eprintln!("uppercase: left out {}: neither a file nor a folder", path.display());
            }
            return ExitCode::SUCCESS;
        }
        Err(error) => error,
    };
    let why = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    eprintln!("uppercase: {error}{why}");
    ExitCode::FAILURE
}
