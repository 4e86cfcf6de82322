//! What filters cost: `cargo bench --bench matching`.
//!
//! First the evaluator beside the crates serde_json_path and jsonpath-rust, on seven expressions; then the index, from
//! an event's bytes to the subscriptions that match, with up to 100,000 filters. The contestants of a row take turns in
//! short rounds, and each figure is the median of its rounds, so that changes of the machine's speed affect all alike.

mod evaluator;
mod index;
mod stopwatch;

fn main() -> std::io::Result<()> {
    if let Some(form) =
        std::env::args().find_map(|argument| argument.strip_prefix(index::FORM).map(str::to_owned))
    {
        index::measure_form(&form);
        return Ok(());
    }
    evaluator::compare();
    index::measure()
}

/// Prints a line of the table.
#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
fn print(line: &str) {
    println!("{line}");
}
