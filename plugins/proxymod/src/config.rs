//! The configurations, from an event's key-values `proxymod.config_N.SECTION.key`.

use std::path::PathBuf;
use std::time::Duration;

use crate::Error;
use crate::event::{self, KeyValue};

/// The most configurations of an event.
const CONFIGS_MAX: usize = 64;

/// How many configurations the couplings need, whatever the event says.
const CONFIGS_MIN: usize = 3;

/// The longest time that a model may wait: a day.
const RUNTIME_SECONDS_MAX: u64 = 24 * 60 * 60;

/// The sections, each with all its keys.
const SECTIONS: [(&str, &[&str]); 3] = [
    ("PROJECT", &["runtime", "failure"]),
    ("INPUTS", &["in_dir", "in_file_one", "in_file_two"]),
    ("OUTPUTS", &["out_dir"]),
];

/// What is wrong with the number of configurations.
#[derive(Debug, thiserror::Error)]
pub enum CountError {
    /// There is none.
    #[error("key-value 'proxymod.configs_count' not found")]
    Missing,
    /// It is not a number, out of its range, or there are several.
    #[error("key-value 'proxymod.configs_count' is {found}: it must be one number from 1 to {CONFIGS_MAX}")]
    Wrong {
        /// The value that was found.
        found: String,
    },
    /// A key belongs to none of them.
    #[error("key-value '{key}' belongs to no configuration of 1 to {count} (proxymod.configs_count)")]
    Beyond {
        /// The key.
        key: String,
        /// How many there are.
        count: usize,
    },
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A key has too few or too many parts.
    #[error("key-value '{0}' is not of the form proxymod.config_N.SECTION.key")]
    Form(String),
    /// A section is unknown.
    #[error("section '{0}' is unknown: there are PROJECT, INPUTS and OUTPUTS")]
    UnknownSection(String),
    /// A key is unknown.
    #[error("key '{0}' is unknown")]
    UnknownKey(String),
    /// A key is missing in a section.
    #[error("key '{section}.{key}' is missing")]
    MissingKey {
        /// The section.
        section: &'static str,
        /// The key.
        key: &'static str,
    },
    /// A key occurs twice, with different values.
    #[error("key '{0}' has two values")]
    TwoValues(String),
    /// A value would break the lines of the `.ini` file.
    #[error("key '{0}' has a control character")]
    ControlCharacter(String),
    /// A value is not a number, or out of its range.
    #[error("key 'PROJECT.{key}': Value '{value}' is not within range 0 to {max}")]
    Range {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// The largest.
        max: u64,
    },
    /// The outputs would lie outside the output folder.
    #[error("key 'OUTPUTS.out_dir': '{0}' leaves the output folder")]
    OutDir(String),
}

/// A configuration. Each section may be missing; the coupling says which it needs.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) id: String,
    pub(crate) project: Option<Project>,
    pub(crate) inputs: Option<Inputs>,
    pub(crate) outputs: Option<PathBuf>,
    sections: Vec<Section>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Project {
    pub(crate) runtime: Duration,
    pub(crate) failure: bool,
}

#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) dir: String,
    pub(crate) files: [String; 2],
}

/// A section with its keys in the order of the event.
#[derive(Debug)]
struct Section {
    name: String,
    keys: Vec<(String, String)>,
}

/// Makes the configurations `config_1`, `config_2`, ….
pub(crate) fn read(key_values: &[KeyValue]) -> Result<Vec<Config>, Error> {
    let count = count(key_values).map_err(Error::Count)?.max(CONFIGS_MIN);
    let ids: Vec<_> = (1..=count).map(|number| format!("config_{number}")).collect();
    let mut found: Vec<Vec<(&str, &KeyValue)>> = vec![Vec::new(); count];
    for key_value in key_values {
        // `proxymod.task` and the like belong to no configuration.
        let Some((id, rest)) = key_value.key.strip_prefix("proxymod.").and_then(|key| key.split_once('.'))
        else {
            continue;
        };
        let Some(place) = ids.iter().position(|known| known == id) else {
            return Err(Error::Count(CountError::Beyond { key: key_value.key.clone(), count }));
        };
        found[place].push((rest, key_value));
    }
    let configs = ids.into_iter().zip(found).map(|(id, found)| {
        if found.is_empty() {
            return Err(Error::ConfigNotFound { config: id });
        }
        Config::of(&id, &found).map_err(|source| Error::InvalidConfig { config: id, source })
    });
    configs.collect()
}

fn count(key_values: &[KeyValue]) -> Result<usize, CountError> {
    let mut values: Vec<_> = key_values
        .iter()
        .filter(|one| one.key == "proxymod.configs_count")
        .map(|one| one.value.as_str())
        .collect();
    values.sort_unstable();
    values.dedup();
    let found = || values.iter().map(|value| format!("'{value}'")).collect::<Vec<_>>().join(" and ");
    let count = match values[..] {
        [] => return Err(CountError::Missing),
        [value] => value.parse().ok().filter(|count| (1..=CONFIGS_MAX).contains(count)),
        _ => None,
    };
    count.ok_or_else(|| CountError::Wrong { found: found() })
}

impl Config {
    fn of(id: &str, found: &[(&str, &KeyValue)]) -> Result<Self, Problem> {
        let mut sections: Vec<Section> = Vec::new();
        for (rest, key_value) in found {
            let (section, key) = rest.split_once('.').ok_or_else(|| Problem::Form(key_value.key.clone()))?;
            let place = sections.iter().position(|known| known.name == section);
            let place = place.unwrap_or_else(|| {
                sections.push(Section { name: section.to_owned(), keys: Vec::new() });
                sections.len() - 1
            });
            sections[place].add(key, &key_value.value)?;
        }
        for section in &sections {
            section.check()?;
        }
        let values = |name| sections.iter().find(|section| section.name == name);
        Ok(Self {
            id: id.to_owned(),
            project: values("PROJECT").map(Section::project).transpose()?,
            inputs: values("INPUTS").map(Section::inputs),
            outputs: values("OUTPUTS").map(Section::outputs).transpose()?,
            sections,
        })
    }

    /// Returns the text of its `.ini` file.
    pub(crate) fn ini(&self) -> String {
        let mut text = String::new();
        for section in &self.sections {
            text += &format!("[{}]\n", section.name);
            for (key, value) in &section.keys {
                text += &format!("{key} = {value}\n");
            }
        }
        text
    }
}

impl Section {
    fn add(&mut self, key: &str, value: &str) -> Result<(), Problem> {
        let full = || format!("{}.{key}", self.name);
        if value.contains(char::is_control) {
            return Err(Problem::ControlCharacter(full()));
        }
        match self.keys.iter().find(|(known, _)| known == key) {
            Some((_, same)) if same == value => {}
            Some(_) => return Err(Problem::TwoValues(full())),
            None => self.keys.push((key.to_owned(), value.to_owned())),
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Problem> {
        let Some((section, keys)) = SECTIONS.iter().find(|(name, _)| *name == self.name) else {
            return Err(Problem::UnknownSection(self.name.clone()));
        };
        let has = |wanted: &str| self.keys.iter().any(|(key, _)| key == wanted);
        if let Some(key) = keys.iter().find(|key| !has(key)) {
            return Err(Problem::MissingKey { section, key });
        }
        match self.keys.iter().find(|(key, _)| !keys.contains(&key.as_str())) {
            Some((key, _)) => Err(Problem::UnknownKey(format!("{section}.{key}"))),
            None => Ok(()),
        }
    }

    /// Returns a value; all keys of a checked section are there.
    fn value(&self, wanted: &str) -> &str {
        self.keys.iter().find(|(key, _)| key == wanted).map_or("", |(_, value)| value)
    }

    fn number(&self, key: &'static str, max: u64) -> Result<u64, Problem> {
        let value = self.value(key);
        let number = value.trim().parse().ok().filter(|number| *number <= max);
        number.ok_or_else(|| Problem::Range { key, value: value.to_owned(), max })
    }

    fn project(&self) -> Result<Project, Problem> {
        let runtime = Duration::from_secs(self.number("runtime", RUNTIME_SECONDS_MAX)?);
        Ok(Project { runtime, failure: self.number("failure", 1)? == 1 })
    }

    fn inputs(&self) -> Inputs {
        let files = ["in_file_one", "in_file_two"].map(|key| self.value(key).to_owned());
        Inputs { dir: self.value("in_dir").to_owned(), files }
    }

    fn outputs(&self) -> Result<PathBuf, Problem> {
        let dir = self.value("out_dir");
        event::inside(dir).ok_or_else(|| Problem::OutDir(dir.to_owned()))
    }
}
