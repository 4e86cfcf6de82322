//! Recurses until the stack overflows.

waypost_guest_programs::filter!(answer);

fn answer() -> String {
    down(0).to_string()
}

#[expect(unconditional_recursion, reason = "that is the point")]
fn down(depth: u64) -> u64 {
    let kept = std::hint::black_box([depth; 8]);
    down(depth + 1) + kept[std::hint::black_box(3)]
}
