//! Builds a [`Config`] from a file, the environment and flags. Later sources override earlier ones, key by
//! key.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use figment::providers::Format;
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider, Source};
use serde::de::DeserializeOwned;

use crate::config::{Config, Error, Invalid, KEYS, Note, RETIRED, handlers, kubernetes};

/// The prefix of environment variables that hold settings.
pub const ENV_PREFIX: &str = "WAYPOST_";
/// The variable that names the file. It is not a setting itself.
const FILE_VARIABLE: &str = "WAYPOST_CONFIG";
/// The variable with the token that commands send to a server. It is not a setting.
pub const TOKEN_VARIABLE: &str = "WAYPOST_TOKEN";
/// The variable that names the file of CAs that commands trust when they connect to a server. It is not a
/// setting.
pub const CA_FILE_VARIABLE: &str = "WAYPOST_CA_FILE";
/// How similar a known name has to be to be suggested (Jaro–Winkler; 1.0 is equal).
const SIMILARITY_MIN: f64 = 0.8;

/// Where settings come from besides the defaults, weakest first.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A TOML file; a missing one is an error.
    pub file: Option<PathBuf>,
    /// Settings from the environment, by key.
    pub environment: BTreeMap<String, String>,
    /// Settings from flags, by key.
    pub flags: BTreeMap<String, String>,
    /// Environment variables that look like settings but belong to a Kubernetes Service.
    pub foreign: Vec<String>,
}

impl Sources {
    /// Sorts the variables of the environment (`std::env::vars_os()`). Those that begin with `WAYPOST_` are
    /// settings, except `WAYPOST_CONFIG`, which names the file, `WAYPOST_TOKEN`, `WAYPOST_CA_FILE`, and those
    /// that Kubernetes sets for a Service named `waypost`.
    ///
    /// # Errors
    /// Fails when a setting is not UTF-8.
    pub fn from_environment(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Error> {
        let mut sources = Self::default();
        for (name, value) in variables {
            let Some(name) = name.to_str() else { continue };
            let Some(key) = name.strip_prefix(ENV_PREFIX) else { continue };
            if name == FILE_VARIABLE {
                sources.file = Some(PathBuf::from(value));
                continue;
            }
            if name == TOKEN_VARIABLE || name == CA_FILE_VARIABLE {
                continue;
            }
            let value = value.into_string().map_err(|_| Error::NotUnicode(name.to_owned()))?;
            sources.environment.insert(key.to_lowercase(), value);
        }
        let foreign =
            kubernetes::take(&mut sources.environment, |key| KEYS.iter().any(|known| known.name == key));
        sources.foreign = foreign.iter().map(|key| variable(key)).collect();
        Ok(sources)
    }
}

impl Config {
    /// Reads the settings: default < file < environment < flags.
    ///
    /// # Errors
    /// Names the first key that is unknown or has a wrong value, and where it came from.
    pub fn load(sources: Sources) -> Result<Self, Error> {
        Loaded::from(sources).map(|loaded| loaded.config)
    }
}

/// The settings as they were read.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Notes to log once the log is open.
    pub notes: Vec<Note>,
    /// Those that are set, with where each was set last. Handlers are not among them.
    pub set: BTreeMap<&'static str, SetBy>,
}

/// A value that was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetBy {
    /// The value, as a text.
    pub value: String,
    /// Where it was set.
    pub origin: String,
}

impl Loaded {
    /// Reads the settings as [`Config::load`] does.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from(sources: Sources) -> Result<Self, Error> {
        let mut notes: Vec<Note> = match sources.foreign.is_empty() {
            true => Vec::new(),
            false => vec![Note::Foreign { variables: sources.foreign }],
        };
        let mut figment = Figment::new();
        if let Some(path) = &sources.file {
            figment = figment.merge(Toml::file_exact(path));
        }
        let figment = figment
            .merge(Texts { kind: "environment variable", spell: variable, texts: sources.environment })
            .merge(Texts { kind: "flag", spell: flag, texts: sources.flags });
        let settings = figment.data().map_err(|error| Error::File {
            path: sources.file.unwrap_or_default(),
            reason: error.to_string().trim_end().to_owned(),
        })?;
        let settings = settings.get(&Profile::Default).cloned().unwrap_or_default();

        let (mut config, mut all) = (Config::default(), BTreeMap::new());
        for (name, value) in &settings {
            let origin = || origin(&figment, name, value);
            if name == handlers::KEY {
                continue;
            }
            if let Some((_, instead)) = RETIRED.iter().find(|(retired, _)| retired == name) {
                return Err(Error::Retired { key: name.clone(), origin: origin(), instead });
            }
            let Some(key) = KEYS.iter().find(|key| key.name == name) else {
                return Err(Error::UnknownKey {
                    key: name.clone(),
                    origin: origin(),
                    nearest: nearest(name),
                });
            };
            let set = text(value).and_then(|text| (key.set)(&mut config, &text).map(|()| text));
            let value = set.map_err(|reason| Error::Value { key: key.name, origin: origin(), reason })?;
            all.insert(key.name, SetBy { value, origin: origin() });
        }
        // Handlers are read after the settings, one of which is the default language of their filters.
        if let Some(value) = settings.get(handlers::KEY) {
            let fault = |reason| Error::Value {
                key: handlers::KEY,
                origin: origin(&figment, handlers::KEY, value),
                reason,
            };
            let (handlers, skipped) =
                handlers::read(&figment, config.filter_dialect_default).map_err(fault)?;
            config.handlers = handlers;
            notes.extend(skipped.into_iter().map(|path| Note::Skipped { path }));
        }
        config.check().map_err(|Invalid { key, reason }| {
            let value = settings.get(key).expect("what the defaults set passes the check");
            Error::Value { key, origin: origin(&figment, key, value), reason }
        })?;
        Ok(Self { config, notes, set: all })
    }
}

/// A TOML file. figment's own TOML provider depends on `toml_edit`, which added nine seconds to each build.
pub(super) struct Toml;

impl Format for Toml {
    type Error = toml::de::Error;

    const NAME: &'static str = "TOML";

    fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, Self::Error> {
        toml::from_str(text)
    }
}

/// Settings as text. figment's own `Env` would read `007` as a number.
struct Texts {
    kind: &'static str,
    spell: fn(&str) -> String,
    texts: BTreeMap<String, String>,
}

impl Provider for Texts {
    fn metadata(&self) -> Metadata {
        let (kind, spell) = (self.kind, self.spell);
        Metadata::named(kind).interpolater(move |_, keys| format!("the {kind} {}", spell(&keys.concat())))
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        let values = self.texts.iter().map(|(key, text)| (key.clone(), Value::from(text.clone())));
        Ok(Map::from([(Profile::Default, values.collect())]))
    }
}

fn variable(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.to_uppercase())
}

fn flag(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}

fn origin(figment: &Figment, key: &str, value: &Value) -> String {
    let Some(metadata) = figment.get_metadata(value.tag()) else { return "the defaults".to_owned() };
    match &metadata.source {
        Some(Source::File(path)) => path.display().to_string(),
        Some(_) | None => metadata.interpolate(&Profile::Default, &[key]),
    }
}

/// Converts a value of the file to the text that the environment would have; lists are joined with commas.
fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(_, text) => Ok(text.clone()),
        Value::Num(_, number) => match number.to_i128() {
            Some(whole) => Ok(whole.to_string()),
            None => Err("expected a string or a whole number, found a fraction".to_owned()),
        },
        Value::Array(_, items) => {
            let items = items.iter().map(text).collect::<Result<Vec<_>, _>>()?;
            match items.iter().find(|item| item.contains(',')) {
                None => Ok(items.join(",")),
                Some(item) => Err(format!("expected items without a comma, found `{item}`")),
            }
        }
        Value::Bool(_, found) => Err(format!("expected a string or a whole number, found `{found}`")),
        Value::Char(_, letter) => Ok(letter.to_string()),
        Value::Empty(..) => Ok(String::new()),
        Value::Dict(..) => Err("expected a string or a whole number, found a table".to_owned()),
    }
}

/// Names that other programs use for a setting.
const ELSEWHERE: [(&str, &str); 6] = [
    ("port", "listen"),
    ("host", "listen"),
    ("bind", "listen"),
    ("address", "listen"),
    ("service_port", "listen"),
    ("database", "data"),
];

/// Returns the key that was probably meant: one that other programs know by this name, or the most similar
/// one.
fn nearest(name: &str) -> Option<&'static str> {
    let elsewhere = ELSEWHERE.iter().find(|(other, _)| *other == name).map(|(_, key)| *key);
    elsewhere.or_else(|| nearest_spelt(name))
}

fn nearest_spelt(name: &str) -> Option<&'static str> {
    alike(name, KEYS.iter().map(|key| key.name).chain([handlers::KEY]))
}

/// Returns the most similar of some names, if one is similar enough.
pub(super) fn alike<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let likeness = |known: &str| strsim::jaro_winkler(&name, known);
    let nearest = known.max_by(|one, other| likeness(one).total_cmp(&likeness(other)))?;
    (likeness(nearest) >= SIMILARITY_MIN).then_some(nearest)
}

#[cfg(test)]
mod tests;
