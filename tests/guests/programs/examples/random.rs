//! Requests an excessive number of random bytes at once.

waypost_guest_programs::filter!(answer);

fn answer() -> String {
    wasip2::random::random::get_random_bytes(32 << 20).len().to_string()
}
