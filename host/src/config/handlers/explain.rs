//! Explains, in the file's own terms, why a `[[handler]]` table cannot be deserialized.

use figment::Figment;
use figment::error::Kind;
use figment::value::Value;

use super::KEY;
use crate::config::KEYS;
use crate::config::load::alike;

/// Says where the file is wrong, and what to write instead.
pub(super) fn explain(error: &figment::Error, figment: &Figment) -> String {
    let place: Vec<&str> = error.path.iter().map(String::as_str).filter(|part| *part != KEY).collect();
    // figment counts from 0.
    let Some((number, keys)) =
        place.split_first().and_then(|(number, keys)| Some((number.parse().ok()?, keys)))
    else {
        return "handlers are a list of tables: write `[[handler]]`, with two brackets".to_owned();
    };
    let key = keys.join(".");
    let what = match &error.kind {
        Kind::UnknownField(field, known) => unknown(field, known),
        Kind::InvalidType(found, wanted) | Kind::InvalidValue(found, wanted) => {
            format!("`{key}`: expected {}, found {found}", in_toml(wanted))
        }
        kind if key.is_empty() => kind.to_string(),
        kind => format!("`{key}`: {kind}"),
    };
    format!("handler {}: {what}", called(number, figment))
}

/// Returns the name of a handler, or its number if it has none.
fn called(place: usize, figment: &Figment) -> String {
    let name = figment.find_value(KEY).ok().and_then(|tables| match tables {
        Value::Array(_, tables) => tables.get(place)?.find_ref("name")?.as_str().map(str::to_owned),
        _ => None,
    });
    name.map_or_else(|| format!("number {}", place + 1), |name| format!("`{name}`"))
}

fn unknown(field: &str, known: &[&str]) -> String {
    if KEYS.iter().any(|key| key.name == field) {
        return format!(
            "`{field}` is a setting of the service: move it above the first `[[handler]]` of the file"
        );
    }
    match alike(field, known.iter().copied()) {
        Some(nearest) => format!("unknown key `{field}`; did you mean `{nearest}`?"),
        None => format!("unknown key `{field}`; the keys are: {}", known.join(", ")),
    }
}

/// Describes how to write a Rust type in TOML.
fn in_toml(wanted: &str) -> String {
    match wanted {
        "a sequence" => "a list, such as `[\"a\", \"b\"]`".to_owned(),
        "a string" | "a borrowed string" | "path string" => {
            "a string in quotes, such as `\"90s\"`".to_owned()
        }
        "a map" => "a table, such as `{ key = \"value\" }`".to_owned(),
        "a boolean" => "`true` or `false`".to_owned(),
        wanted if wanted.starts_with("struct") => "a table, such as `{ local = \"folder\" }`".to_owned(),
        wanted if wanted.starts_with(['u', 'i']) => "a whole number without quotes".to_owned(),
        wanted => wanted.to_owned(),
    }
}
