//! The member `plugin` of a subscription: its module, and how it is used.
//!
//! Members that an object leaves out stay unchanged, as everywhere in a subscription; `null` removes the plugin.
//! Unknown members are refused: a limit with a typo would have no effect.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use waypost_api::v1;

use super::{ApiError, bounded, words, wrong};
use waypost_domain::PluginUse;
use waypost_domain::plugin::{AllowHost, PluginLimits};

/// The members, for the error about an unknown one.
const MEMBERS: &str = "`digest`, `config`, `allow_hosts`, `on_error` and `limits`";
const LIMITS: &str = "`time_ms`, `memory_bytes`, `output_bytes`, `log_bytes`, `state_bytes` and `state_keys`";

/// Returns the member as REST shows it.
pub(super) fn show(plugin: &PluginUse) -> v1::Plugin {
    let limits = &plugin.limits;
    v1::Plugin {
        digest: plugin.digest.to_string(),
        config: plugin.config.clone(),
        allow_hosts: plugin.allow_hosts.iter().map(ToString::to_string).collect(),
        on_error: words::on_error(plugin.on_error),
        limits: v1::PluginLimits {
            time_ms: limits.time.map(words::millis),
            memory_bytes: limits.memory_bytes,
            output_bytes: limits.output_bytes,
            log_bytes: limits.log_bytes,
            state_bytes: limits.state_bytes,
            state_keys: limits.state_keys,
        },
    }
}

/// Takes the member out of a body and applies it to the stored one.
pub(super) fn take(
    body: &mut Map<String, Value>,
    known: Option<&Arc<PluginUse>>,
) -> Result<Option<Arc<PluginUse>>, ApiError> {
    match body.remove("plugin") {
        None => Ok(known.cloned()),
        Some(Value::Null) => Ok(None),
        Some(Value::Object(given)) => {
            merge(given, known.map(Arc::as_ref)).map(|merged| Some(Arc::new(merged)))
        }
        Some(other) => Err(wrong("plugin", "an object or null", &other)),
    }
}

fn merge(mut given: Map<String, Value>, known: Option<&PluginUse>) -> Result<PluginUse, ApiError> {
    let digest = match given.remove("digest") {
        Some(Value::String(text)) => text
            .parse()
            .map_err(|error| ApiError::field("/plugin/digest", format!("`plugin.digest`: {error}")))?,
        Some(other) => return Err(wrong("plugin/digest", "a string, `sha256:…`", &other)),
        None => {
            let missing = || ApiError::field("/plugin/digest", "`plugin.digest` is missing");
            known.map(|known| known.digest).ok_or_else(missing)?
        }
    };
    let mut merged = PluginUse::moved(known, digest);
    if let Some(config) = part(&mut given, "plugin/config", "an object")? {
        merged.config = config.unwrap_or_default();
    }
    if let Some(hosts) = part::<Vec<String>>(&mut given, "plugin/allow_hosts", "an array of strings")? {
        merged.allow_hosts =
            hosts.unwrap_or_default().iter().enumerate().map(host).collect::<Result<_, _>>()?;
    }
    let choices = "\"retry\", \"skip\", \"deliver\" or \"dead_letter\"";
    if let Some(on_error) = part(&mut given, "plugin/on_error", choices)? {
        merged.on_error = on_error.unwrap_or_default();
    }
    if let Some(limits) = part::<Map<_, _>>(&mut given, "plugin/limits", "an object")? {
        merged.limits =
            limits.map_or(Ok(PluginLimits::default()), |given| merge_limits(given, merged.limits))?;
    }
    match given.keys().next() {
        None => Ok(merged),
        Some(name) => Err(unknown("plugin", name, MEMBERS)),
    }
}

fn host((place, text): (usize, &String)) -> Result<AllowHost, ApiError> {
    let wrong = |error| {
        let detail = format!("`plugin.allow_hosts`: `{text}`: {error}");
        ApiError::field(format!("/plugin/allow_hosts/{place}"), detail)
    };
    text.parse().map_err(wrong)
}

fn merge_limits(mut given: Map<String, Value>, mut limits: PluginLimits) -> Result<PluginLimits, ApiError> {
    if let Some(time) = limit(&mut given, "time_ms")? {
        limits.time = time.map(|ms| Duration::from_millis(ms as u64));
    }
    for (name, field) in [
        ("memory_bytes", &mut limits.memory_bytes),
        ("output_bytes", &mut limits.output_bytes),
        ("log_bytes", &mut limits.log_bytes),
        ("state_bytes", &mut limits.state_bytes),
        ("state_keys", &mut limits.state_keys),
    ] {
        if let Some(given) = limit(&mut given, name)? {
            *field = given;
        }
    }
    match given.keys().next() {
        None => Ok(limits),
        Some(name) => Err(unknown("plugin.limits", name, LIMITS)),
    }
}

/// Takes a limit out of an object: left out, null for the service's own, or a number.
fn limit(given: &mut Map<String, Value>, name: &str) -> Result<Option<Option<usize>>, ApiError> {
    let path = format!("plugin/limits/{name}");
    let Some(number) = part::<u64>(given, &path, "a whole number, or null")? else { return Ok(None) };
    let number = number.map(|number| bounded(&path, number, u64::from(u32::MAX))).transpose()?;
    Ok(Some(number.and_then(|number| usize::try_from(number).ok())))
}

/// Takes the member that a path ends with out of its object: left out, null, or of the type.
fn part<T: DeserializeOwned>(
    given: &mut Map<String, Value>,
    path: &str,
    expected: &str,
) -> Result<Option<Option<T>>, ApiError> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let Some(value) = given.remove(name) else { return Ok(None) };
    Option::<T>::deserialize(&value).map(Some).map_err(|_| wrong(path, expected, &value))
}

fn unknown(object: &str, name: &str, members: &str) -> ApiError {
    let pointer = format!("/{}/{}", object.replace('.', "/"), name.replace('~', "~0").replace('/', "~1"));
    ApiError::field(pointer, format!("`{object}` has no member `{name}`: it has {members}"))
}
