//! The only place that prints.

/// Prints a line to stdout.
#[expect(clippy::print_stdout, reason = "this is the printer")]
pub(crate) fn line(text: &str) {
    println!("{text}");
}
