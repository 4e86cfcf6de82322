//! The JSONPath Compliance Test Suite.

use serde_json::Value;

use super::parse;
use crate::matching::{Document, evaluate};

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
