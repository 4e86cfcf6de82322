//! Makes as many outputs as its configuration says.

waypost_guest_programs::transform!(answer);

use exports::waypost::plugin::transform::Output;
use waypost::plugin::types::Event;

fn answer(event: Event) -> Vec<Output> {
    let count = waypost::plugin::config::get("count").and_then(|text| text.parse().ok()).unwrap_or(65);
    vec![Output::Event(event); count]
}
