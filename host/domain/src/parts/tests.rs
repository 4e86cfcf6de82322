use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use serde_json::json;

use super::*;
use crate::event::{EventBody, decode};

fn event(data: &Value) -> Event {
    let event = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": data});
    Event::from_json(event.to_string()).unwrap()
}

fn parts(data: &Value) -> Parts {
    Parts::of(&event(data)).unwrap()
}

fn error(data: &Value) -> String {
    let error = Parts::of(&event(data)).unwrap_err();
    let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn file(subdir: &str, name: &str) -> Value {
    json!({"destinationTable": "Files", "_id": 1, "subdir": subdir, "name": name})
}

#[test]
fn pacificas_example_has_its_parts() {
    let text = include_str!("../event/tests/pacifica_event.json");
    let parts = Parts::of(&Event::from_json(text).unwrap()).unwrap();
    assert_eq!(parts.transaction.submitter(), Some(&json!(10)));
    assert_eq!(parts.transaction.text("project").unwrap(), "1236é");
    assert_eq!(parts.value_of("Taggy"), Some(&json!("Blah")));
    let first = &parts.files[0];
    assert_eq!((first.subdir(), first.name(), first.size), ("a/b", "foo.txt", Some(128)));
    assert_eq!(first.hash.as_ref().unwrap().sum, "f1d2d2f924e986ac86fdf7b36c94bcdf32beec15");
    assert_eq!((parts.files.len(), parts.bytes()), (3, 128 + 47 + 4));
    assert_eq!(parts.file("a/b/bar.txt").unwrap().id, json!(35));
}

#[test]
fn rows_of_all_tables_are_sorted_out() {
    let parts = parts(&json!([
        {"destinationTable": "Transactions._id", "value": 7},
        {"destinationTable": "Transactions.instrument", "value": "54"},
        {"destinationTable": "Transactions.description"},
        {"destinationTable": "TransactionKeyValue", "key": "k", "value": 1},
        {"destinationTable": "TransactionKeyValue", "key": "k", "value": "2"},
        {"destinationTable": "TransactionKeyValue", "key": "none"},
        {"destinationTable": "FileKeyValue", "key": "k", "value": "2", "file_id": 3},
        {"no": "table"}, 7, null, "text",
        {"destinationTable": "Files", "_id": "x", "name": "n", "size": "12", "hashtype": "SHA1", "hashsum": "AB12"},
    ]));
    assert_eq!(parts.transaction.id(), Some(&json!(7)));
    assert_eq!(parts.transaction.text("instrument").unwrap(), "54");
    assert_eq!(parts.transaction.field("description"), None, "as in the Dispatcher");
    assert_eq!(parts.values_of("k").collect::<Vec<_>>(), [&json!(1), &json!("2")]);
    assert_eq!(parts.value_of("none"), Some(&Value::Null));
    assert_eq!(parts.key_values[0].text(), "1");
    let file = &parts.files[0];
    assert_eq!((file.path.as_str(), file.size, &file.id), ("n", Some(12), &json!("x")));
    assert_eq!(file.hash, Some(FileHash { kind: "sha1".into(), sum: "ab12".into() }));
}

#[test]
fn data_that_are_no_rows_have_no_parts() {
    for data in [json!(null), json!({}), json!("[]"), json!([1, 2]), json!(7), json!([])] {
        assert_eq!(parts(&data), Parts::default(), "{data}");
    }
}

#[test]
fn rows_are_found_in_every_mode_and_encoding() {
    let rows = json!([file("a", "b")]).to_string();
    let encoded = |ty: &str| {
        let event = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "datacontenttype": ty,
            "data_base64": STANDARD.encode(&rows)});
        Event::from_json(event.to_string()).unwrap()
    };
    let mut headers = HeaderMap::new();
    for (name, value) in [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")] {
        headers.insert(name, value.parse().unwrap());
    }
    headers.insert("content-type", "application/json".parse().unwrap());
    let EventBody::One(binary) = decode(&headers, rows.clone().into()).unwrap() else { panic!("one event") };
    for event in [encoded("application/json"), binary] {
        assert_eq!(Parts::of(&event).unwrap().files.len(), 1, "{event:?}");
    }
    assert!(
        Parts::of(&encoded("application/octet-stream")).unwrap().files.is_empty(),
        "these are only bytes"
    );
}

#[test]
fn a_field_that_is_defined_twice_is_the_dispatchers_error() {
    let row = json!({"destinationTable": "Transactions.submitter", "value": null});
    assert_eq!(error(&json!([row, row])), "field 'Transactions.submitter' is already defined");
}

#[test]
fn an_error_names_row_and_field() {
    let with = |more: Value| {
        let mut row = file("a", "b");
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        error(&json!([1, row]))
    };
    for (more, text) in [
        (json!({"size": -1}), "data[1]: field 'size' must be a whole number of bytes, and is -1"),
        (json!({"size": "1k"}), "data[1]: field 'size' must be a whole number of bytes, and is \"1k\""),
        (json!({"size": 1.5}), "data[1]: field 'size' must be a whole number of bytes, and is 1.5"),
        (json!({"name": null}), "data[1]: field 'name' is missing"),
        (json!({"name": 7}), "data[1]: field 'name' must be a string, and is 7"),
        (json!({"hashsum": "aa"}), "data[1]: field 'hashtype' is missing"),
        (json!({"hashtype": "md5"}), "data[1]: field 'hashsum' is missing"),
        (
            json!({"hashtype": "md5", "hashsum": "xx"}),
            "data[1]: field 'hashsum' must be hexadecimal digits, and is \"xx\"",
        ),
        (
            json!({"subdir": "../a"}),
            "data[1]: fields 'subdir' and 'name' make no path for a file: the path `../a/b` has a `.` or `..` in it, \
             and only plain names are allowed",
        ),
    ] {
        assert_eq!(with(more), text);
    }
    let key = error(&json!([{"destinationTable": "TransactionKeyValue", "value": 1}]));
    assert_eq!(key, "data[0]: field 'key' is missing");
    let long = with(json!({"hashsum": "é".repeat(10_000), "hashtype": "md5"}));
    assert!(long.len() < 200, "{long}");
}

#[test]
fn two_files_that_cannot_lie_side_by_side_are_an_error() {
    assert_eq!(
        error(&json!([file("a", "b"), file("a", "c"), file("a/", "b")])),
        "data[2]: fields 'subdir' and 'name': data[0] has the file `a/b` already"
    );
    assert_eq!(
        error(&json!([file("a/x", "y"), file("", "a-b"), file("a.c", "d"), file("", "a")])),
        "data[0]: fields 'subdir' and 'name': `a/x/y` needs the folder `a`, which is a file in data[3]"
    );
    assert_eq!(parts(&json!([file("", "a"), file("ab", "c"), file("a-b", "c")])).files.len(), 3);
}
