//! Asks a plugin about itself and its configuration: in a call like any other, with the usual limits and no grants.

use std::sync::Arc;

use wasmtime::Store;
use wasmtime::component::Instance;

use super::bindings::exports::waypost::plugin::metadata;
use super::component::Plugin;
use super::configuration::{JSON_BYTES_MAX, PROBLEMS_MAX, SchemaCheck, SchemaChecks};
use super::error::Refused;
use super::guest::Guest;
use super::problem::Problem;
use super::runner::Runner;
use super::text;
use waypost_domain::json;
use waypost_domain::plugin::{Failure, Manifest};

/// The longest name, version or wanted host, and the longest description, in bytes; and the most wanted hosts.
const NAME_BYTES_MAX: usize = 256;
const DESCRIPTION_BYTES_MAX: usize = 4 * 1024;
const HOSTS_MAX: usize = 64;

/// A question to a plugin.
pub(super) enum Question {
    /// The plugin's manifest.
    Describe,
    /// The plugin's opinion of this configuration.
    CheckConfig(String),
}

/// A plugin's answer.
pub(super) enum Answer {
    /// It does not export `metadata`.
    Nothing,
    /// The answer to [`Question::Describe`].
    Manifest(metadata::Manifest),
    /// The answer to [`Question::CheckConfig`].
    Problems(Vec<Problem>),
}

/// Returns a plugin's manifest, where it has one, and the memory of a fresh instance.
pub(super) async fn describe(
    runner: &Runner,
    schemas: &SchemaChecks,
    user: &str,
    plugin: &Arc<Plugin>,
) -> Result<(Option<Manifest>, u64), Refused> {
    let (answer, memory_bytes) = runner.ask(user, plugin, Question::Describe).await;
    let manifest = match answer {
        Ok(Answer::Manifest(manifest)) => manifest,
        Ok(Answer::Nothing | Answer::Problems(_)) => return Ok((None, memory_bytes)),
        Err(failure) if plugin.exports.metadata.is_some() => return Err(Refused::Metadata(reason(failure))),
        Err(failure) => return Err(Refused::DoesNotStart(reason(failure))),
    };
    Ok((Some(read(schemas, user, manifest).await?), memory_bytes))
}

/// Checks what a plugin says about itself.
async fn read(schemas: &SchemaChecks, user: &str, manifest: metadata::Manifest) -> Result<Manifest, Refused> {
    let wrong = |what: String| Err(Refused::Metadata(what));
    let metadata::Manifest { name, version, description, config_schema, wanted_hosts } = manifest;
    if name.trim().is_empty() {
        return wrong("the manifest's `name` is empty".to_owned());
    }
    let bounds = [
        ("name", name.len(), NAME_BYTES_MAX),
        ("version", version.len(), NAME_BYTES_MAX),
        ("description", description.len(), DESCRIPTION_BYTES_MAX),
        ("config-schema", config_schema.as_ref().map_or(0, String::len), JSON_BYTES_MAX),
        ("wanted-hosts", wanted_hosts.iter().map(String::len).max().unwrap_or(0), NAME_BYTES_MAX),
    ];
    if let Some((field, bytes, most)) = bounds.into_iter().find(|(_, bytes, most)| bytes > most) {
        return wrong(format!("the manifest's `{field}` has {bytes} bytes, the most are {most}"));
    }
    if wanted_hosts.len() > HOSTS_MAX {
        let hosts = wanted_hosts.len();
        return wrong(format!("the manifest's `wanted-hosts` has {hosts} hosts, the most are {HOSTS_MAX}"));
    }
    let config_schema = match config_schema {
        None => None,
        Some(schema) => {
            let schema = json::read(schema.as_bytes());
            let not = |error: json::Error| {
                Refused::Metadata(format!("the manifest's `config-schema` is not JSON: {error}"))
            };
            Some(schema.map_err(not)?)
        }
    };
    if let Some(schema) = &config_schema {
        match schemas.try_schema(user, schema).await? {
            SchemaCheck::Problems(_) => {}
            SchemaCheck::NoSchema(reason) => {
                return wrong(format!("the manifest's `config-schema` is not a JSON Schema: {reason}"));
            }
            SchemaCheck::Limit(limit) => return Err(Refused::SchemaTooExpensive(limit)),
        }
    }
    let clean = |text: &String| text::without_escapes(text).into_owned();
    Ok(Manifest {
        name: clean(&name),
        version: clean(&version),
        description: clean(&description),
        config_schema,
        wanted_hosts: wanted_hosts.iter().map(clean).collect(),
    })
}

/// Asks an instance a question.
pub(super) async fn put(
    plugin: &Plugin,
    store: &mut Store<Guest>,
    instance: Instance,
    question: Question,
) -> wasmtime::Result<Answer> {
    let Some(indices) = &plugin.exports.metadata else { return Ok(Answer::Nothing) };
    let guest = indices.load(&mut *store, &instance)?;
    Ok(match question {
        Question::Describe => Answer::Manifest(guest.call_describe(&mut *store).await?),
        Question::CheckConfig(config) => {
            let checked = guest.call_check_config(&mut *store, &config).await?;
            let problem = |problem: metadata::Problem| Problem::new(&problem.at, &problem.message);
            let problems = checked.err().unwrap_or_default();
            Answer::Problems(problems.into_iter().take(PROBLEMS_MAX).map(problem).collect())
        }
    })
}

/// Returns a failure's text, for use after `its metadata failed:`.
fn reason(failure: Failure) -> String {
    let reason = failure.reason();
    reason.strip_prefix("plugin: ").map_or(reason.clone(), str::to_owned)
}
