//! Makes two outputs, the second of which cannot be sent, for the reason that its configuration chooses.

waypost_guest_programs::transform!(answer);

use exports::waypost::plugin::transform::{Output, RawBody};
use waypost::plugin::types::{Event, Payload};

fn answer(event: Event) -> Vec<Output> {
    let good = Output::Event(event.clone());
    let mut event = event;
    let raw = |name: &str, body| {
        Output::Raw(RawBody {
            content_type: "application/json".to_owned(),
            headers: vec![(name.to_owned(), "x".to_owned())],
            body,
        })
    };
    let bad = match waypost::plugin::config::get("what").unwrap_or_default().as_str() {
        "id" => {
            event.id.clear();
            Output::Event(event)
        }
        "time" => {
            event.time = Some("yesterday".to_owned());
            Output::Event(event)
        }
        "extension" => {
            event.extensions.push(("Not-A-Name".to_owned(), String::new()));
            Output::Event(event)
        }
        "data" => {
            event.data = Some(Payload::Json("{".to_owned()));
            Output::Event(event)
        }
        "deep" => raw("x-made-by", Payload::Json(format!("{}{}", "[".repeat(20_000), "]".repeat(20_000)))),
        "body" => raw("x-made-by", Payload::Json("{".to_owned())),
        header => raw(header, Payload::Json("{}".to_owned())),
    };
    vec![good, bad]
}
