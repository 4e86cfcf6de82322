//! Makes one output whose body has as many bytes as its configuration says.

waypost_guest_programs::transform!(answer);

use exports::waypost::plugin::transform::{Output, RawBody};
use waypost::plugin::types::{Event, Payload};

fn answer(_event: Event) -> Vec<Output> {
    let bytes = waypost::plugin::config::get("bytes").and_then(|text| text.parse().ok()).unwrap_or(8 << 20);
    let body = Payload::Binary(vec![7; bytes]);
    vec![Output::Raw(RawBody {
        content_type: "application/octet-stream".to_owned(),
        headers: Vec::new(),
        body,
    })]
}
