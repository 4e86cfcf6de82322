//! What one call of a plugin costs: `cargo bench -p waypost-sandbox --bench plugins`.
//!
//! The filter of plugins/keep-files on the 2 KB event, in a fresh instance for each call. Bare wasmtime and Waypost's whole
//! host code take turns, with one module and with a hundred, measured in processor time of the calling thread. Then
//! calls on two threads at once, and calls with a limit on processor time beside threads that spin.

mod bare;
mod ours;
#[path = "../matching/stopwatch.rs"]
mod stopwatch;

use std::time::{Duration, Instant};

use stopwatch::{Contestant, race};

/// The length of each round in which threads are measured.
const ROUND: Duration = Duration::from_millis(400);
const ROUNDS: usize = 7;
/// How many modules are compared with one.
const MODULES: usize = 100;
/// The number of calls, and of the threads that spin beside them.
const CROWDED: (usize, usize) = (40, 8);

fn main() {
    let wasm = std::fs::read(waypost_guests::KEEP_FILES).expect("the build script has built it");
    let bare = bare::Bare::new(&wasm);
    let (ours, many) = (ours::Ours::new(&wasm, 1), ours::Ours::new(&wasm, MODULES));
    let (mut once, mut mine, mut mines) = (bare.caller(), ours.caller(), many.caller());
    let mut reused = bare.reusing();
    let mut contestants: Vec<Contestant<'_>> = vec![
        Box::new(|| once.call()),
        Box::new(|| mine.call()),
        Box::new(|| reused.call()),
        Box::new(|| mines.call()),
    ];
    let times = race(&mut contestants);
    drop(contestants);
    print(&format!("One call of keep-files ({} bytes) on an event of 2 KB, µs\n", wasm.len()));
    print(
        "| bare wasmtime, fresh instance | Waypost, fresh instance | ratio | bare wasmtime, reused instance | \
         Waypost, a hundred modules in turn | ratio |",
    );
    print("|---|---|---|---|---|---|");
    let [bare_us, ours_us, reused_us, many_us] = [0, 1, 2, 3].map(|place| times[place]);
    let (to_bare, to_one) = (ours_us / bare_us, many_us / ours_us);
    print(&format!(
        "| {bare_us:.1} | {ours_us:.1} | {to_bare:.2} | {reused_us:.1} | {many_us:.1} | {to_one:.2} |"
    ));

    let mut ratios = Vec::new();
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        let (one, two) = (ours.rate(1, ROUND), ours.rate(2, ROUND));
        ratios.push(two / one);
        rates[0].push(one);
        rates[1].push(two);
    }
    let [one, two] = rates.map(stopwatch::median);
    print(&format!(
        "\nCalls a second through Waypost: {one:.0} on one thread, {two:.0} on two: {:.2} times as many \
         (median of {ROUNDS} rounds)",
        stopwatch::median(ratios)
    ));

    let crowded = ours.crowded(CROWDED.1, CROWDED.0);
    print(&format!(
        "\nOf {} calls that take {:.1} ms of the processor and may take {:.1}, beside {} threads that spin, {} ended in time; by \
         the clock, {} took longer",
        CROWDED.0,
        crowded.takes.as_secs_f64() * 1e3,
        crowded.limit.as_secs_f64() * 1e3,
        CROWDED.1,
        crowded.in_time,
        crowded.late
    ));
}

/// Counts how often `call` can be made until `length` has passed.
fn count(length: Duration, mut call: impl FnMut() -> usize) -> usize {
    let end = Instant::now() + length;
    let mut count = 0;
    while Instant::now() < end {
        for _ in 0..50 {
            std::hint::black_box(call());
        }
        count += 50;
    }
    count
}

/// Prints a line of the table.
#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
fn print(line: &str) {
    println!("{line}");
}
