//! A plugin's state as JSON: the file of `plugin run --state`, and the `state` of a case.
//!
//! A text is a string, a counter (eight bytes, little-endian, as `increment` keeps it) is a number, and anything else
//! is `{"base64": …}`. A value with a time to live is `{"value": …, "expires": …}`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::Context;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use waypost_domain::json;
use waypost_domain::plugin::{StateChange, StateMap, StateValue};

/// All keys with their values.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct StateJson(BTreeMap<String, Entry>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a value of the state is a text, a whole number, {\"base64\": …}, or \
    {\"value\": one of these, \"expires\": a time}"
)]
enum Entry {
    Lasting(Scalar),
    Expiring(Expiring),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expiring {
    value: Scalar,
    expires: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Scalar {
    Counter(i64),
    Text(String),
    Bytes(Base64),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Base64 {
    base64: String,
}

impl StateJson {
    /// Reads a file; a missing file is an empty state.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let what = || format!("failed to read the state in {}", path.display());
        match fs::read(path) {
            Ok(json) => serde_json::from_slice(json::without_mark(&json)).with_context(what),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(what),
        }
    }

    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let json = serde_json::to_string_pretty(self).context("failed to write the state as JSON")?;
        fs::write(path, json + "\n").with_context(|| format!("failed to write {}", path.display()))
    }

    /// Returns the state in the sandbox's form.
    pub(super) fn map(&self) -> anyhow::Result<StateMap> {
        let value = |(key, entry): (&String, &Entry)| {
            let (text, expires) = match entry {
                Entry::Lasting(text) => (text, None),
                Entry::Expiring(Expiring { value, expires }) => (value, Some(*expires)),
            };
            let bytes = text.bytes().with_context(|| format!("`{key}` of the state is not base64"))?;
            Ok((key.clone(), StateValue { bytes, expires }))
        };
        self.0.iter().map(value).collect()
    }

    pub(super) fn of(state: &StateMap) -> Self {
        let entry = |(key, StateValue { bytes, expires }): (&String, &StateValue)| {
            let value = Scalar::of(bytes);
            let entry = match expires {
                None => Entry::Lasting(value),
                Some(expires) => Entry::Expiring(Expiring { value, expires: *expires }),
            };
            (key.clone(), entry)
        };
        Self(state.iter().map(entry).collect())
    }
}

impl Scalar {
    fn bytes(&self) -> Result<Vec<u8>, base64::DecodeError> {
        match self {
            Self::Counter(count) => Ok(count.to_le_bytes().to_vec()),
            Self::Text(text) => Ok(text.clone().into_bytes()),
            Self::Bytes(Base64 { base64 }) => BASE64_STANDARD.decode(base64),
        }
    }

    /// Chooses the form that reads best among those that keep every byte.
    fn of(bytes: &[u8]) -> Self {
        match (str::from_utf8(bytes), <[u8; 8]>::try_from(bytes)) {
            (Ok(text), _) if !text.contains(char::is_control) => Self::Text(text.to_owned()),
            (_, Ok(count)) => Self::Counter(i64::from_le_bytes(count)),
            _ => Self::Bytes(Base64 { base64: BASE64_STANDARD.encode(bytes) }),
        }
    }
}

/// Applies a call's changes to the state.
pub(super) fn apply(state: &mut StateMap, changes: Vec<StateChange>) {
    for StateChange { key, value } in changes {
        match value {
            Some(value) => drop(state.insert(key, value)),
            None => drop(state.remove(&key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> StateMap {
        serde_json::from_str::<StateJson>(json).unwrap().map().unwrap()
    }

    #[test]
    fn what_is_written_reads_back() {
        let json = r#"{"count":7,"expires":{"value":"t","expires":"2026-11-22T00:00:00Z"},"rest":{"base64":"AAE="},"text":"ä"}"#;
        let state = read(json);
        assert_eq!(state["count"].bytes, 7i64.to_le_bytes());
        assert_eq!(state["rest"].bytes, [0, 1]);
        assert_eq!(serde_json::to_string(&StateJson::of(&state)).unwrap(), json);
    }

    #[test]
    fn a_value_of_another_kind_is_refused_with_those_that_there_are() {
        let error = serde_json::from_str::<StateJson>(r#"{"a": [1]}"#).unwrap_err().to_string();
        assert!(error.contains("a value of the state is a text, a whole number"), "{error}");
        let kept: StateJson = serde_json::from_str(r#"{"a": {"base64": "?"}}"#).unwrap();
        insta::assert_snapshot!(format!("{:#}", kept.map().unwrap_err()), @"`a` of the state is not base64: Invalid symbol 63, offset 0.");
    }

    #[test]
    fn changes_set_and_remove() {
        let mut state = read(r#"{"a": 1, "b": "x"}"#);
        let value = StateValue { bytes: b"y".to_vec(), expires: None };
        let change = |key: &str, value| StateChange { key: key.to_owned(), value };
        apply(&mut state, vec![change("a", None), change("c", Some(value))]);
        assert_eq!(serde_json::to_string(&StateJson::of(&state)).unwrap(), r#"{"b":"x","c":"y"}"#);
    }
}
