//! Keeps every handle that it gets.

waypost_guest_programs::filter!(answer);

fn answer() -> String {
    let mut kept = Vec::new();
    loop {
        kept.push(wasip2::clocks::monotonic_clock::subscribe_duration(1_000_000_000));
    }
}
