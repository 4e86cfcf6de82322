//! Prints the sum of the arguments.

use std::io::{self, Write};
use std::process::ExitCode;

#[expect(clippy::print_stderr, reason = "a command tells its error on stderr")]
fn main() -> ExitCode {
    let numbers = std::env::args_os().skip(1).map(|number| number.to_string_lossy().into_owned());
    let written = match add::sum(numbers) {
        Ok(sum) => writeln!(io::stdout(), "{sum}").map_err(|error| format!("cannot write the sum: {error}")),
        Err(error) => Err(error.to_string()),
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("add: {error}");
            ExitCode::FAILURE
        }
    }
}
