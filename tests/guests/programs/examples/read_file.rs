//! Looks for things that it has no access to: files, environment, arguments, input.

waypost_guest_programs::filter!(answer);

use std::io::Read;

fn answer() -> String {
    let read = std::fs::read("/etc/passwd").is_ok();
    let written = std::fs::write("/tmp/waypost", b"x").is_ok();
    let listed = std::fs::read_dir("/").is_ok();
    let input = std::io::stdin().read(&mut [0]).unwrap_or(0);
    format!("{read} {written} {listed} {} {} {input}", std::env::vars().count(), std::env::args().count())
}
