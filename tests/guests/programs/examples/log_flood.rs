//! Logs `lines` lines of `bytes` bytes each, then answers.

waypost_guest_programs::filter!(answer);

use waypost::plugin::{config, log};

fn answer() -> String {
    let number = |key, default| config::get(key).and_then(|text| text.parse().ok()).unwrap_or(default);
    let line = "x".repeat(number("bytes", 100));
    for _ in 0..number("lines", 10_000) {
        log::write(log::Level::Info, &line, &[]);
    }
    "logged".to_owned()
}
