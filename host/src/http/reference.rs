//! The reference of the REST API for people: Markdown from the description of [`openapi`](super::openapi).

use std::fmt::Write as _;

use serde_json::Value;

use super::openapi;

/// The name of the page in the manual.
pub(crate) const NAME: &str = "api";

/// Writes the reference.
pub(crate) fn markdown() -> String {
    let document = serde_json::to_value(openapi::document()).expect("a description can be written");
    let mut out = "# API\n\nEach route of the REST API, and the form of each body. `GET /openapi.json` has the same for \
        programs (OpenAPI 3.1); [REST](rest.md) has what they have in common.\n\n"
        .to_owned();
    for tag in array(&document["tags"]) {
        let _infallible = writeln!(out, "## {}\n\n{}.\n", text(&tag["name"]), text(&tag["description"]));
        for (path, item) in members(&document["paths"]) {
            for (method, operation) in members(item) {
                if array(&operation["tags"]).contains(&tag["name"]) {
                    write_operation(&mut out, method, path, operation);
                }
            }
        }
    }
    out.push_str("## Bodies\n\n");
    for (name, schema) in members(&document["components"]["schemas"]) {
        write_schema(&mut out, name, schema);
    }
    out
}

fn write_operation(out: &mut String, method: &str, path: &str, operation: &Value) {
    let _infallible =
        writeln!(out, "### {} {path}\n\n{}.\n", method.to_uppercase(), text(&operation["summary"]));
    if let Some(description) = operation["description"].as_str() {
        let _infallible = writeln!(out, "{description}\n");
    }
    let scopes = array(&operation["security"]).iter().flat_map(members).flat_map(|(_, scopes)| array(scopes));
    out.push_str(&match scopes.map(text).next() {
        Some(scope) => format!("It needs the scope `{scope}`.\n\n"),
        None => "Anyone may ask.\n\n".to_owned(),
    });
    let parameters = array(&operation["parameters"]);
    if !parameters.is_empty() {
        out.push_str("| parameter | in | meaning |\n|---|---|---|\n");
        for parameter in parameters {
            let (name, place) = (text(&parameter["name"]), text(&parameter["in"]));
            let _infallible = writeln!(out, "| `{name}` | {place} | {} |", cell(parameter));
        }
        out.push('\n');
    }
    if let Some(bodies) = bodies(&operation["requestBody"]) {
        let _infallible = writeln!(out, "Body: {bodies}.\n");
    }
    for (status, response) in members(&operation["responses"]).filter(|(status, _)| *status != "default") {
        let what = text(&response["description"]);
        let bodies = bodies(response).map(|bodies| format!(" ({bodies})")).unwrap_or_default();
        let _infallible = writeln!(out, "- {status}: {what}{bodies}");
    }
    out.push('\n');
}

/// Lists the forms of a body: `Story as application/json`.
fn bodies(of: &Value) -> Option<String> {
    let forms: Vec<_> = members(&of["content"])
        .map(|(media_type, content)| format!("{} as `{media_type}`", kind(&content["schema"])))
        .collect();
    (!forms.is_empty()).then(|| forms.join(", or "))
}

fn write_schema(out: &mut String, name: &str, schema: &Value) {
    let _infallible = writeln!(out, "### {name}\n\n{}\n", text(&schema["description"]));
    let mut parts = array(&schema["allOf"]).iter().chain(std::iter::once(schema));
    let extended = array(&schema["allOf"]).iter().filter_map(|part| reference(part));
    extended.for_each(|name| {
        let _infallible = writeln!(out, "It has the members of {}, too.\n", link(name));
    });
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<_> = values.iter().map(|value| format!("`{}`", text(value))).collect();
        let _infallible = writeln!(out, "{}.\n", values.join(", "));
    }
    let Some(described) = parts.find(|part| part["properties"].is_object()) else { return };
    out.push_str("| member | form | meaning |\n|---|---|---|\n");
    for (member, form) in members(&described["properties"]) {
        let _infallible = writeln!(out, "| `{member}` | {} | {} |", kind(form), cell(form));
    }
    out.push('\n');
}

/// Names the form of a value.
fn kind(schema: &Value) -> String {
    if let Some(name) = reference(schema) {
        return link(name);
    }
    let choices: Vec<_> =
        ["oneOf", "anyOf", "allOf"].iter().flat_map(|of| array(&schema[of])).map(kind).collect();
    if !choices.is_empty() {
        return choices.join(" or ");
    }
    let one = |name: &str| match (name, &schema["items"]) {
        ("array", items) if items.is_object() => format!("list of {}", kind(items)),
        (name, _) => name.to_owned(),
    };
    let name = match &schema["type"] {
        Value::String(name) => one(name),
        Value::Array(names) => names.iter().map(|name| one(text(name))).collect::<Vec<_>>().join(" or "),
        _ => "any JSON".to_owned(),
    };
    match schema["format"].as_str() {
        Some(format @ ("uuid" | "date-time")) => name.replacen("string", format, 1),
        Some(_) | None => name,
    }
}

fn reference(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.rsplit('/').next()
}

fn link(name: &str) -> String {
    format!("[{name}](#{})", name.to_lowercase())
}

/// Returns what a value means, as a cell of a table has it.
fn cell(of: &Value) -> String {
    let choices = array(&of["oneOf"]).iter();
    let meaning = choices.map(|choice| &choice["description"]).find(|meaning| meaning.is_string());
    text(meaning.unwrap_or(&of["description"])).replace('\n', " ").replace('|', "\\|")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}
