//! Wants more random bytes at once than anybody needs.

waypost_guest_programs::filter!(answer);

fn answer() -> String {
    wasip2::random::random::get_random_bytes(32 << 20).len().to_string()
}
