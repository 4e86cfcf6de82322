//! The JSONPath Compliance Test Suite.

use serde_json::Value;

use super::parse;
use crate::{Document, evaluate};

#[test]
fn the_compliance_test_suite_passes() {
    let suite: Value = serde_json::from_str(include_str!("../cases/compliance_suite.json")).unwrap();
    let cases = suite["tests"].as_array().unwrap();
    let wrong: Vec<String> = cases.iter().filter_map(|case| failure(case).err()).collect();
    assert!(wrong.is_empty(), "{} of {} fail:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert_eq!(cases.len(), 703);
}

fn failure(case: &Value) -> Result<(), String> {
    let (name, selector) = (&case["name"], case["selector"].as_str().unwrap());
    let parsed = parse(selector);
    if case["invalid_selector"] == true {
        return parsed.err().map(drop).ok_or(format!("{name}: {selector:?} is let through"));
    }
    let query = parsed.map_err(|error| format!("{name}: {selector:?}: {error}"))?;
    let json = case["document"].to_string();
    let document = Document::parse(json.as_bytes()).unwrap();
    let mut found = Vec::new();
    evaluate::find(&query, &document, &mut |node| {
        found.push(serde_json::from_str::<Value>(&node.to_string()).unwrap());
    })
    .map_err(|error| format!("{name}: {selector:?}: {error}"))?;
    let found = Value::Array(found);
    let expected = match &case["results"] {
        Value::Array(results) => results.clone(),
        _ => vec![case["result"].clone()],
    };
    if expected.contains(&found) {
        return Ok(());
    }
    Err(format!("{name}: {selector:?} finds {found} instead of {}", Value::Array(expected)))
}

#[test]
fn refuses_what_the_parser_lets_through() {
    for (text, column) in [("$.a ", 4), ("$.a\n", 4), ("$.a b", 5), ("$.é b", 5), ("$[?length(@.*) == 1]", 4)]
    {
        assert_eq!(parse(text).unwrap_err().column, column, "{text}");
    }
    for text in ["$[?count(@.a)]", "$[?match(@.a, 'b') == true]", "$[?in(@.a, $.b)]", "$[?@.a == 1e309]"] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn refuses_what_passes_a_limit() {
    let long = format!("$.{}", "a".repeat(4095));
    assert!(parse(&long[..4096]).is_ok());
    assert!(parse(&long).unwrap_err().message.contains("at most 4096 bytes"));
    let nested = |depth: usize| format!("$[?{}@.a{}]", "(".repeat(depth), ")".repeat(depth));
    assert!(parse(&nested(31)).is_ok());
    assert_eq!(parse(&nested(32)).unwrap_err().column, 35);
    assert!(parse("$[?@.a == '((((((((((((((((((((((((((((((((((((((((((((']").is_ok());
    // The grammar's time triples with every two levels of these: 1.5 s at 16.
    let calls = format!("$[?{}@.a{}]", "value(@[?".repeat(5), "])".repeat(5));
    assert!(parse(&calls).unwrap_err().message.contains("function calls"));
    assert!(parse(&format!("${}", "[?@.a]".repeat(64))).is_ok());
    assert!(parse(&format!("${}", "[?@.a]".repeat(65))).is_err());
    assert!(parse("$.a[?match(@.b, '((a{99}){99}){9}')]").unwrap_err().message.contains("too large"));
    let patterns = |number: usize| format!("$[?{}]", vec![r"search(@.a,'\\w{5}')"; number].join("||"));
    assert!(parse(&patterns(4)).is_ok());
    let error = parse(&patterns(170)).unwrap_err().message;
    assert!(error.contains("more than 1048576 bytes together"), "{error}");
}
