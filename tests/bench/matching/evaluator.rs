//! Our evaluator compared with two others.

use bytes::Bytes;
use jsonpath_rust::parser::parse_json_path;
use jsonpath_rust::query::js_path_process;
use serde_json::Value;
use serde_json_path::JsonPath;
use waypost_domain::{Event, FilterDialect};
use waypost_matching::{Document, Filter};

use crate::print;
use crate::stopwatch::{Contestant, race};

/// The expressions, each with its equivalent in jsonpath2 where there is one.
const EXPRESSIONS: [(&str, Option<&str>); 7] = [
    ("$.eventType", Some("$.eventType")),
    ("$.data[*].value", Some("$.data[*].value")),
    ("$.data[?@.value=='Blah'].value", Some(r#"$.data[*][?(@.value="Blah")].value"#)),
    (
        "$.data[?@.destinationTable=='TransactionKeyValue' && @.key=='Taggy']",
        Some(r#"$.data[*][?(@.destinationTable="TransactionKeyValue" and @.key="Taggy")]"#),
    ),
    (
        "$.data[?@.size>=100 || @.mimetype=='text/csv'].name",
        Some(r#"$.data[*][?(@.size>=100 or @.mimetype="text/csv")].name"#),
    ),
    ("$.data[?match(@.name, '[a-z]+[.]txt')].size", None),
    ("$..value", Some("$..value")),
];

/// Prints the table of evaluators. Each finds all nodes, and does not stop at the first.
pub(crate) fn compare() {
    let json = include_bytes!("../src/event.json");
    let value: Value = serde_json::from_slice(json).expect("the event is JSON");
    let document = Document::parse(json).expect("the event is JSON");
    print(&format!("Evaluating on an event of {} bytes, µs (× serde_json_path)\n", json.len()));
    print("| expression | ours | ours, jsonpath2 | serde_json_path | jsonpath-rust |");
    print("|---|---|---|---|---|");
    for (expression, jsonpath2) in EXPRESSIONS {
        let ours = Filter::parse(expression, FilterDialect::Rfc9535).expect("it is RFC 9535");
        let second =
            jsonpath2.map(|text| Filter::parse(text, FilterDialect::Jsonpath2).expect("it is jsonpath2"));
        let theirs = JsonPath::parse(expression).expect("it is RFC 9535");
        let others = parse_json_path(expression).expect("it is RFC 9535");
        let found = ours.find(&document).expect("it is cheap").len();
        assert_eq!(found, theirs.query(&value).len(), "{expression}");
        let mut contestants: Vec<Contestant<'_>> = vec![
            Box::new(|| ours.count(&document).unwrap_or_default()),
            Box::new(|| theirs.query(&value).len()),
            Box::new(|| js_path_process(&others, &value).map_or(0, |nodes| nodes.len())),
        ];
        if let Some(second) = &second {
            assert_eq!(found, second.count(&document).expect("it is cheap"), "{expression}");
            contestants.push(Box::new(|| second.count(&document).unwrap_or_default()));
        }
        let times = race(&mut contestants);
        let cell = |time: f64| format!("{time:.2} ({:.2})", time / times[1]);
        let second = times.get(3).map_or_else(|| "–".to_owned(), |time| cell(*time));
        print(&format!(
            "| `{}` | {} | {second} | {:.2} | {} |",
            expression.replace('|', "\\|"),
            cell(times[0]),
            times[1],
            cell(times[2])
        ));
    }
    let reading = race(&mut [
        Box::new(|| Document::parse(json).map_or(0, |_| 1)),
        Box::new(|| serde_json::from_slice::<Value>(json).map_or(0, |_| 1)),
    ]);
    decode(json);
    print(&format!(
        "\nReading the event: ours {:.2} µs, `serde_json::Value` {:.2} µs\n",
        reading[0], reading[1]
    ));
}

/// Prints what decoding costs (`domain::event::strict`): for the event, which passes a quick scan, and for the same event
/// with an emoji as two escapes, for which every value is read.
fn decode(json: &'static [u8]) {
    let text = str::from_utf8(json).expect("the event is UTF-8");
    let doubtful = text.replacen("14:09:05 PST", r"\ud83d\ude00", 1);
    assert_ne!(doubtful, text);
    let bodies = [Bytes::from_static(json), Bytes::from(doubtful)];
    let decoding = |body: &Bytes| Event::from_json(body.clone()).expect("it is an event").id().len();
    let times = race(&mut [Box::new(|| decoding(&bodies[0])), Box::new(|| decoding(&bodies[1]))]);
    print(&format!(
        "\nDecoding the event: {:.2} µs by the quick scan, {:.2} µs by reading every value ({:.2} times)",
        times[0],
        times[1],
        times[1] / times[0]
    ));
}
