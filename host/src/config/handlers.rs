//! `[[handler]]` in the file: from TOML tables to [`Definition`]s.
//!
//! Each error names the handler, the key, what is expected and what was found.

mod explain;
mod program;
mod table;

use std::collections::HashSet;
use std::path::PathBuf;

use figment::Figment;

use table::{Output, Table};
use waypost_domain::parts::FilePath;
use waypost_domain::{FilterDialect, HandlerName, RetrySchedule};
use waypost_handlers::{Definition, HandlerLimits, OutputFolder, Selection};
use waypost_matching::Filter;

/// The key of the tables in the file.
pub(super) const KEY: &str = "handler";
/// The most runs of one handler at once.
const PARALLEL_MAX: usize = 256;
/// The names in a run's folder that outputs cannot use.
const TAKEN: [&str; 2] = ["download", "event.json"];

/// Reads the tables. `dialect` is the language of filters that do not name theirs. Also returns the files in
/// script folders that were skipped because they are copies.
///
/// # Errors
/// Says what is wrong with the first invalid table.
pub(super) fn read(
    figment: &Figment,
    dialect: FilterDialect,
) -> Result<(Vec<Definition>, Vec<PathBuf>), String> {
    let tables: Vec<Table> = figment.extract_inner(KEY).map_err(|error| explain::explain(&error, figment))?;
    let (mut handlers, mut skipped) = (Vec::new(), Vec::new());
    for (place, table) in (1..).zip(tables) {
        let called = table.name.clone().map_or_else(|| format!("number {place}"), |name| format!("`{name}`"));
        let read = program::split(table, &mut skipped).and_then(|tables| {
            let define = |(name, table)| definition(name, table, dialect);
            tables.into_iter().map(define).collect::<Result<Vec<_>, _>>()
        });
        handlers.extend(read.map_err(|reason| format!("handler {called}: {reason}"))?);
    }
    let mut names = HashSet::new();
    match handlers.iter().find(|handler| !names.insert(&handler.name)) {
        Some(twice) => Err(format!("two handlers have the name `{}`: each needs one of its own", twice.name)),
        None => Ok((handlers, skipped)),
    }
}

fn definition(name: HandlerName, table: Table, default_dialect: FilterDialect) -> Result<Definition, String> {
    let default = Definition::new(name.clone(), program::of(&table)?);
    let filter = match (filter_text(&table)?, table.filter_dialect) {
        (Some(text), dialect) => Some(selection(text, dialect.unwrap_or(default_dialect))?),
        (None, Some(_)) => return Err("`filter_dialect` goes with `filter`".to_owned()),
        (None, None) => None,
    };
    let dispatch = table.dispatch.unwrap_or(false);
    if filter.is_none() && !dispatch {
        return Err(
            "nothing starts it: give it a `filter` (`$` takes every event), or `dispatch = true`".to_owned()
        );
    }
    let max_parallel = table.max_parallel.unwrap_or(default.max_parallel);
    within("max_parallel", max_parallel, PARALLEL_MAX)?;
    Ok(Definition {
        filter,
        dispatch,
        arguments: table.args.clone().unwrap_or_default(),
        source: table.fetch.as_ref().map_or(Ok(default.source), table::Fetch::source)?,
        destination: table.upload.as_ref().map_or(Ok(default.destination), table::Upload::destination)?,
        outputs: table.outputs.as_ref().map_or(Ok(default.outputs), |outputs| folders(outputs))?,
        max_parallel,
        retry_schedule: schedule("retry_schedule", table.retry_schedule.as_deref(), default.retry_schedule)?,
        upload_retry_schedule: schedule(
            "upload_retry_schedule",
            table.upload_retry_schedule.as_deref(),
            default.upload_retry_schedule,
        )?,
        limits: limits(&table, default.limits)?,
        name,
        program: default.program,
    })
}

/// Parses a filter. The error shows the text with a caret where parsing stopped.
fn selection(text: String, dialect: FilterDialect) -> Result<Selection, String> {
    match Filter::parse(&text, dialect) {
        Ok(_) => Ok(Selection { text, dialect }),
        Err(error) => Err(format!("`filter`: {error}\n{}", error.caret(&text))),
    }
}

fn filter_text(table: &Table) -> Result<Option<String>, String> {
    match (&table.filter, &table.filter_file) {
        (Some(_), Some(_)) => Err("expected either `filter` or `filter_file`, found both".to_owned()),
        (text, None) => Ok(text.clone()),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path);
            text.map(Some).map_err(|error| format!("`filter_file`: {}: {error}", path.display()))
        }
    }
}

fn limits(table: &Table, default: HandlerLimits) -> Result<HandlerLimits, String> {
    let timeout = table::duration("timeout", table.timeout.as_deref(), default.timeout)?;
    let limits = HandlerLimits {
        timeout,
        memory_bytes: table.memory_bytes.or(default.memory_bytes),
        download_bytes_max: table.download_bytes_max.unwrap_or(default.download_bytes_max),
        download_files_max: table.download_files_max.unwrap_or(default.download_files_max),
        output_bytes_max: table.output_bytes_max.unwrap_or(default.output_bytes_max),
        output_files_max: table.output_files_max.unwrap_or(default.output_files_max),
        log_bytes_max: table.log_bytes_max.unwrap_or(default.log_bytes_max),
    };
    for (key, value) in [
        ("memory_bytes", limits.memory_bytes.unwrap_or(1)),
        ("download_bytes_max", limits.download_bytes_max),
        ("output_bytes_max", limits.output_bytes_max),
    ] {
        if value == 0 {
            return Err(format!("`{key}`: expected a number of bytes above 0, found 0"));
        }
    }
    Ok(limits)
}

fn schedule(key: &str, text: Option<&str>, default: RetrySchedule) -> Result<RetrySchedule, String> {
    text.map_or(Ok(default), |text| text.parse().map_err(|error| format!("`{key}`: {error}")))
}

fn within(key: &str, number: usize, most: usize) -> Result<(), String> {
    match (1..=most).contains(&number) {
        true => Ok(()),
        false => Err(format!("`{key}`: expected 1 to {most}, found {number}")),
    }
}

/// Reads the output folders. They must not overlap, because a file in two of them would be uploaded twice.
fn folders(outputs: &[Output]) -> Result<Vec<OutputFolder>, String> {
    let mut folders: Vec<OutputFolder> = Vec::new();
    for output in outputs {
        let folder = output.folder();
        let fault = |reason: String| format!("`outputs`: `{}`: {reason}", folder.folder);
        FilePath::parse(&folder.folder).map_err(|error| fault(error.to_string()))?;
        FilePath::parse(&folder.key_values).map_err(|error| fault(format!("`key_values`: {error}")))?;
        let first = folder.folder.split('/').next().unwrap_or_default();
        if TAKEN.contains(&first) {
            return Err(fault("the run's folder already uses this name".to_owned()));
        }
        let lies_in = |one: &str, other: &str| format!("{one}/").starts_with(&format!("{other}/"));
        let clash = folders
            .iter()
            .find(|known| lies_in(&folder.folder, &known.folder) || lies_in(&known.folder, &folder.folder));
        if let Some(known) = clash {
            return Err(fault(format!("it overlaps with `{}`", known.folder)));
        }
        let flat = |folder: &OutputFolder| folder.folder.replace('/', "-");
        if let Some(known) = folders.iter().find(|known| flat(known) == flat(&folder)) {
            return Err(fault(format!("its uploads would be named like those of `{}`", known.folder)));
        }
        folders.push(folder);
    }
    Ok(folders)
}

#[cfg(test)]
mod tests;
