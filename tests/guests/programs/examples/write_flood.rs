//! Writes a lot to stdout and stderr, and then panics.

waypost_guest_programs::filter!(answer);

use std::io::Write;

fn answer() -> String {
    let line = "noise ".repeat(100);
    for _ in 0..200 {
        println!("{line}");
        eprintln!("\x1b[31m{line}");
    }
    std::io::stdout().flush().unwrap();
    panic!("at last");
}
