//! Delivers the events that have a file of the wanted kind and size, according to Pacifica's rows in their data:
//! `{"destinationTable": "Files", "mimetype": "text/plain", "size": 128, …}`.

use std::borrow::Cow;

use serde::Deserialize;
use waypost_plugin::{
    Context, Describe, Event, Filter, Manifest, Problem, Result, Verdict, deliver, manifest, skip,
};

/// The plugin.
pub struct KeepFiles;

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    mimetypes: Vec<String>,
    #[serde(default)]
    size_bytes_min: u64,
    #[serde(default = "any_size")]
    size_bytes_max: u64,
}

fn any_size() -> u64 {
    u64::MAX
}

/// The members of a row that are read.
#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow, default, rename = "destinationTable")]
    table: Cow<'a, str>,
    #[serde(borrow, default)]
    mimetype: Cow<'a, str>,
    #[serde(default)]
    size: u64,
}

impl Config {
    fn wants(&self, file: &Row<'_>) -> bool {
        (self.size_bytes_min..=self.size_bytes_max).contains(&file.size)
            && (self.mimetypes.is_empty()
                || self.mimetypes.iter().any(|wanted| is_of(&file.mimetype, wanted)))
    }
}

/// Returns whether a kind is the wanted one, without regard to case (RFC 2045 §5.1).
fn is_of(kind: &str, wanted: &str) -> bool {
    match wanted.strip_suffix("/*") {
        Some(ty) => kind.split('/').next().is_some_and(|found| found.eq_ignore_ascii_case(ty)),
        None => kind.eq_ignore_ascii_case(wanted),
    }
}

impl Filter for KeepFiles {
    fn evaluate(event: &Event, context: &Context) -> Result<Verdict> {
        let config: Config = context.config()?;
        let Ok(rows) = event.data::<Vec<Row<'_>>>() else {
            return skip("its data are no rows of Pacifica");
        };
        let mut files = rows.iter().filter(|row| row.table == "Files").peekable();
        if files.peek().is_none() {
            return skip("it has no files");
        }
        if files.any(|file| config.wants(file)) { deliver() } else { skip("none of its files is wanted") }
    }
}

impl Describe for KeepFiles {
    fn describe() -> Manifest {
        manifest!().with_config_schema(include_str!("../config.schema.json"))
    }

    fn check_config(config: &str) -> Result<(), Vec<Problem>> {
        let config: Config = Problem::or_config(config)?;
        if config.size_bytes_min > config.size_bytes_max {
            return Err(vec![Problem::new("/size_bytes_min", "is larger than size_bytes_max")]);
        }
        Ok(())
    }
}

waypost_plugin::export!(KeepFiles: filter, metadata);

#[cfg(test)]
mod tests {
    use waypost_plugin::serde_json::{Value, json};
    use waypost_plugin::testing::{Host, event};

    use super::*;

    fn verdict(config: Value, data: Value) -> Verdict {
        Host::new().with_config(config).filter::<KeepFiles>(&event(json!({"data": data}))).unwrap()
    }

    fn skipped(reason: &str) -> Verdict {
        Verdict::Skip(reason.to_owned())
    }

    #[test]
    fn a_file_of_the_wanted_kind_and_size_delivers_the_event() {
        let data = json!([
            {"destinationTable": "Transactions.size", "value": {"any": "thing"}},
            {"destinationTable": "Files", "mimetype": "image/png", "size": 5000},
            {"destinationTable": "Files", "mimetype": "text/plain", "size": 128},
        ]);
        let unwanted = skipped("none of its files is wanted");
        for (config, expected) in [
            (json!({}), Verdict::Deliver),
            (json!({"mimetypes": ["text/*"]}), Verdict::Deliver),
            (json!({"mimetypes": ["Image/PNG"], "size_bytes_min": 5000}), Verdict::Deliver),
            (json!({"mimetypes": ["text/*"], "size_bytes_min": 129}), unwanted.clone()),
            (json!({"size_bytes_max": 127}), unwanted.clone()),
            (json!({"mimetypes": ["text"]}), unwanted),
        ] {
            assert_eq!(verdict(config.clone(), data.clone()), expected, "{config}");
        }
    }

    #[test]
    fn an_event_without_files_is_skipped_and_not_an_error() {
        assert_eq!(verdict(json!({}), json!([{"destinationTable": "Other"}])), skipped("it has no files"));
        assert_eq!(verdict(json!({}), json!({"a": 1})), skipped("its data are no rows of Pacifica"));
        assert_eq!(verdict(json!({}), Value::Null), skipped("its data are no rows of Pacifica"));
    }

    #[test]
    fn a_range_without_a_size_is_refused() {
        let host = Host::new().with_config(json!({"size_bytes_min": 2, "size_bytes_max": 1}));
        let problems = host.check_config::<KeepFiles>().unwrap_err();
        assert_eq!(problems, [Problem::new("/size_bytes_min", "is larger than size_bytes_max")]);
    }
}
