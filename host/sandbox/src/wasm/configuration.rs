//! Checks a subscription's configuration: first against the manifest's JSON Schema, then by the plugin itself.
//!
//! A schema is untrusted, and can be written so that evaluating it takes forever (thirty `allOf`s that each refer twice
//! to the next one). So a configuration is validated in a child process with limits, like those that compile modules.
//! Regular expressions take linear time, and nothing is fetched.

use std::time::Duration;

use boon::{Draft, ErrorKind, Schemas, UrlLoader, ValidationError};
use serde_json::{Map, Value, json};

use super::child::{self, Bounds, ChildEnd};
use super::error::Error;
use super::problem::{MESSAGE_BYTES_MAX, Problem};
use super::refusals::{MEMORY, Refusals};
use super::settings::CompilerProcess;
use super::text;
use super::worker::Task;
use waypost_domain::PluginDigest;
use waypost_domain::json::check_depth;
use waypost_domain::plugin::Failure;
use waypost_runtime::chain;
use waypost_runtime::fair_semaphore::FairSemaphore;

/// The largest configuration, and the largest schema, in bytes of JSON.
pub(super) const JSON_BYTES_MAX: usize = 64 * 1024;
/// What the child process of a long check may use.
const BOUNDS: Bounds = Bounds {
    time: Duration::from_secs(5),
    memory_bytes: 2 << 30,
    output_bytes: 1024 * 1024,
    what: "configuration check",
};
/// What the child process of a short check, which comes first, may use.
const SHORT_BOUNDS: Bounds = Bounds { time: Duration::from_millis(500), ..BOUNDS };
/// The most short checks that run at once, and the most long ones.
const CHECKS_MAX: usize = 2;
const LONG_CHECKS_MAX: usize = 1;
/// The most problems that are reported.
pub(super) const PROBLEMS_MAX: usize = 32;
/// What a schema is called while it is compiled: no address, so that a relative reference leads nowhere.
const SCHEMA: &str = "waypost:config-schema";

/// The result of validating a configuration against a schema.
#[derive(Debug)]
pub(super) enum SchemaCheck {
    /// These problems.
    Problems(Vec<Problem>),
    /// It is not a schema; why.
    NoSchema(String),
    /// It takes too much; the limit's name.
    Limit(String),
}

/// Returns a configuration as JSON, or what is wrong with it regardless of its plugin.
pub(super) fn text_of(config: &Value) -> Result<String, Problem> {
    let text = config.to_string();
    let wrong = |message: String| Problem { at: String::new(), message };
    if text.len() > JSON_BYTES_MAX {
        return Err(wrong(format!("it has {} bytes, the most are {JSON_BYTES_MAX}", text.len())));
    }
    match check_depth(text.as_bytes()) {
        Ok(()) => Ok(text),
        Err(error) => Err(wrong(format!("it is {error}"))),
    }
}

/// Validates configurations against schemas, first with a short time limit and then with a long one; each has a queue
/// of its own. One user's checks run one after the other.
pub(super) struct SchemaChecks {
    process: Option<CompilerProcess>,
    short: FairSemaphore,
    long: FairSemaphore,
    /// The modules whose schema exceeded a limit with a user's configuration, and the limit.
    slow: Refusals,
}

impl SchemaChecks {
    pub(super) fn new(process: Option<CompilerProcess>) -> Self {
        let short = FairSemaphore::new(CHECKS_MAX, 1);
        Self { process, short, long: FairSemaphore::new(LONG_CHECKS_MAX, 1), slow: Refusals::new() }
    }

    /// Validates a user's configuration against the schema of a module's manifest.
    pub(super) async fn check(
        &self,
        user: &str,
        digest: PluginDigest,
        schema: &Value,
        config: Value,
    ) -> Result<Vec<Problem>, Failure> {
        // Saving a subscription again does not start another child process that would delay others.
        if let Some(limit) = self.slow.get(user, digest).await {
            let minutes = MEMORY.as_secs() / 60;
            return Err(Failure::Limit(format!(
                "{limit} (by a configuration of yours within the last {minutes} minutes; for that long, none is tried \
                 again with this module)"
            )));
        }
        let checked = self.validate(user, schema, Some(config)).await;
        match checked.map_err(|error| Failure::Host(chain::text(&error)))? {
            SchemaCheck::Problems(problems) => Ok(problems),
            SchemaCheck::NoSchema(reason) => Err(Failure::Trap(format!("its `config-schema`: {reason}"))),
            SchemaCheck::Limit(limit) => {
                self.slow.remember(user, digest, limit.clone()).await;
                Err(Failure::Limit(limit))
            }
        }
    }

    /// Checks that a manifest's schema is valid, and validates an empty configuration against it, so that a schema
    /// whose evaluation never ends is found at the upload, before a subscription waits for it.
    pub(super) async fn try_schema(&self, user: &str, schema: &Value) -> Result<SchemaCheck, Error> {
        let trial = match self.process {
            Some(CompilerProcess::Program(_)) | None => Some(Value::Object(Map::new())),
            // In this process, the validation could not be ended.
            Some(CompilerProcess::InProcess) => None,
        };
        self.validate(user, schema, trial).await
    }

    /// Validates a configuration against a schema, or only the schema itself.
    async fn validate(
        &self,
        user: &str,
        schema: &Value,
        config: Option<Value>,
    ) -> Result<SchemaCheck, Error> {
        let program = match &self.process {
            None => return Err(Error::NoCompiler),
            Some(CompilerProcess::Program(program)) => program,
            Some(CompilerProcess::InProcess) => {
                let _permit = self.short.take(user, 1).await;
                let schema = schema.clone();
                let checking = tokio::task::spawn_blocking(move || problems(&schema, config.as_ref()));
                let checked = checking.await.expect("checking does not panic");
                return Ok(checked.map_or_else(SchemaCheck::NoSchema, SchemaCheck::Problems));
            }
        };
        let question = json!({"schema": schema, "config": config}).to_string();
        let short = self.short.take(user, 1).await;
        let ended = child::run(program, Task::Check, SHORT_BOUNDS, question.as_bytes()).await?;
        drop(short);
        if !matches!(ended, ChildEnd::Late(_)) {
            return Ok(checked(ended));
        }
        let _permit = self.long.take(user, 1).await;
        Ok(checked(child::run(program, Task::Check, BOUNDS, question.as_bytes()).await?))
    }
}

fn checked(ended: ChildEnd) -> SchemaCheck {
    match ended {
        ChildEnd::Done(output) => match serde_json::from_slice(&output) {
            Ok(problems) => SchemaCheck::Problems(problems),
            Err(error) => SchemaCheck::NoSchema(format!("the check gave no answer: {error}")),
        },
        ChildEnd::Failed(reason) => SchemaCheck::NoSchema(reason),
        ChildEnd::Late(limit) | ChildEnd::Limit(limit) => SchemaCheck::Limit(limit),
    }
}

/// Returns the problems that a schema finds in a configuration.
///
/// # Errors
/// When the schema is not valid.
pub(super) fn problems(schema: &Value, config: Option<&Value>) -> Result<Vec<Problem>, String> {
    let (mut compiler, mut schemas) = (boon::Compiler::new(), Schemas::new());
    compiler.set_default_draft(Draft::V2020_12);
    compiler.use_loader(Box::new(Offline));
    let refused = |error| text::clean(&why_not(&error), MESSAGE_BYTES_MAX);
    compiler.add_resource(SCHEMA, schema.clone()).map_err(refused)?;
    let compiled = compiler.compile(SCHEMA, &mut schemas).map_err(refused)?;
    let mut problems = Vec::new();
    if let Some(config) = config
        && let Err(error) = schemas.validate(config, compiled)
    {
        collect(&error, &mut problems);
    }
    Ok(problems)
}

/// Fetches nothing: a schema must be self-contained.
struct Offline;

impl UrlLoader for Offline {
    fn load(&self, _url: &str) -> Result<Value, Box<dyn std::error::Error>> {
        Err("a schema cannot refer to others: put them below `$defs`".into())
    }
}

/// Says why a value is not a schema: the places that its metaschema refuses, or else the error and its source.
fn why_not(error: &boon::CompileError) -> String {
    let src = match error {
        boon::CompileError::ValidationError { src, .. } => src,
        // The one mistake that the metaschema does not find, and for which boon has no error of its own.
        boon::CompileError::Bug(reason) => return format!("a regex is too large: {reason}"),
        other => return chain::text(other),
    };
    let mut problems = Vec::new();
    collect(src, &mut problems);
    let texts: Vec<_> = problems.iter().map(|Problem { at, message }| format!("{at}: {message}")).collect();
    texts.join("; ").trim_start_matches(": ").to_owned()
}

/// Adds the places that are wrong. Errors nest: an error that only says that something below it failed is left out, and
/// so are the branches of an alternative, since one of them would have been enough.
fn collect(error: &ValidationError<'_, '_>, problems: &mut Vec<Problem>) {
    let is_alternative = matches!(error.kind, ErrorKind::AnyOf | ErrorKind::OneOf(_));
    if !error.causes.is_empty() && !is_alternative {
        return error.causes.iter().for_each(|cause| collect(cause, problems));
    }
    if problems.len() < PROBLEMS_MAX {
        problems.push(Problem::new(&error.instance_location.to_string(), &error.kind.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(schema: Value, config: Value) -> Vec<(String, String)> {
        let found = problems(&schema, Some(&config)).unwrap();
        found.into_iter().map(|problem| (problem.at, problem.message)).collect()
    }

    #[test]
    fn every_problem_has_its_place() {
        let schema = json!({
            "type": "object",
            "properties": {"name": {}, "size": {"type": "integer"}, "list": {"items": {"type": "string"}}},
            "required": ["name"],
            "additionalProperties": false,
        });
        let mut found = told(schema.clone(), json!({"size": "x", "list": ["a", 1], "a/b": 1}));
        found.sort();
        let places: Vec<_> = found.iter().map(|(at, _)| at.as_str()).collect();
        assert_eq!(places, ["", "", "/list/1", "/size"]);
        assert_eq!(found[3].1, "want integer, but got string");
        assert!(told(schema, json!({"name": "n", "size": 1})).is_empty());
    }

    #[test]
    fn what_is_no_schema_says_why() {
        for (schema, says) in [
            (json!(1), "want boolean or object, but got number"),
            (json!({"type": "strange"}), "/type"),
            (json!({"pattern": "("}), "regex"),
            (json!({"pattern": "a{1000}{1000}"}), "regex"),
            (json!({"pattern": "(?=a)"}), "regex"),
            (json!({"$ref": "https://example.com/s"}), "https://example.com/s"),
            (json!({"$ref": "file:///etc/passwd"}), "file:///etc/passwd"),
        ] {
            let refused = problems(&schema, None).unwrap_err();
            assert!(refused.contains(says), "{schema}: {refused}");
        }
    }

    #[test]
    fn a_schema_that_refers_to_itself_ends() {
        let value = json!({"a": {"a": {"a": 1}}});
        let by_properties = json!({"properties": {"a": {"$ref": "#"}}, "type": "object"});
        assert_eq!(told(by_properties, value.clone())[0].0, "/a/a/a");
        // A schema that is only a reference to itself holds for no value.
        let round =
            json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"});
        for (schema, value) in [(json!({"$ref": "#"}), value), (round, json!({}))] {
            let found = told(schema, value);
            assert_eq!(found.len(), 1);
            assert!(found[0].1.contains("reference cycle"), "{found:?}");
        }
    }
}
