//! Waits in a host call, longer than any limit.

waypost_guest_programs::filter!(answer);

fn answer() -> String {
    std::thread::sleep(std::time::Duration::from_secs(3600));
    "awake".to_owned()
}
