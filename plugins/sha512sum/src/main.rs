//! Writes the SHA-512 sums of the files of a run; the working directory is the run's folder.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

#[expect(clippy::print_stderr, reason = "a command tells its errors on stderr")]
fn main() -> ExitCode {
    let error = match sha512sum::run(Path::new("")) {
        Ok(others) => {
            for path in others {
                eprintln!("sha512sum: left out {}: neither a file nor a folder", path.display());
            }
            return ExitCode::SUCCESS;
        }
        Err(error) => error,
    };
    let why = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    eprintln!("sha512sum: {error}{why}");
    ExitCode::FAILURE
}
