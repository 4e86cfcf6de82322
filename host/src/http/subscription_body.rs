//! A subscription as JSON: what REST shows of it, and what a body may set.
//!
//! Read-only members (`uuid`, `user`, `created`, `updated`, `deleted`, `filter_dialect_used`, `warnings`,
//! `index`, `held`, `breaker`) and unknown ones are ignored, so that the body of a GET can be PUT back. Members that a PUT
//! leaves out stay unchanged, secrets too.

mod auth;
mod plugin;
#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use waypost_api::v1;

use super::error::ApiError;
use super::{sending, words};
use waypost_domain::sending::Sending;
use waypost_domain::subscription::{NAME_CHARS_MAX, VERSION};
use waypost_domain::{
    Activity, FilterDialect, OnDead, Order, OrderBy, Subscription, SubscriptionId, TargetUrl,
};
use waypost_engine::directory::CompiledSubscription;
use waypost_matching::Filter;
use waypost_runtime::clock;
use waypost_secrets::signing::ServiceKey;
use waypost_secrets::{Label, Vault};

/// The longest time that one attempt may be given, in milliseconds.
const TIMEOUT_MS_MAX: u64 = 10 * 60 * 1000;

/// Returns a subscription as REST shows it: everything but secrets. `index` says how the index finds its
/// filter.
pub(super) fn show(
    known: &CompiledSubscription,
    index: Option<String>,
    service_key: &ServiceKey,
) -> v1::Subscription {
    let (subscription, filter) = (&known.subscription, known.filter.as_ref());
    let (disabled, error) = match &subscription.activity {
        Activity::Enabled => (None, None),
        Activity::Disabled { since, error } => (Some(*since), error.clone()),
    };
    let unset = Sending::default();
    let sending = subscription.sending.as_deref().unwrap_or(&unset);
    v1::Subscription {
        uuid: subscription.id.uuid(),
        name: subscription.name.clone(),
        jsonpath: subscription.jsonpath.clone(),
        filter_dialect: words::filter_dialect(subscription.filter_dialect),
        filter_dialect_used: filter.map(|filter| words::dialect(filter.dialect())),
        warnings: filter.map_or_else(Vec::new, |filter| filter.warnings().to_vec()),
        index,
        user: subscription.user.clone(),
        disabled: disabled.map(v1::Time),
        error,
        target_url: subscription.target_url.as_str().to_owned(),
        version: subscription.version.clone(),
        extensions: subscription.extensions.clone(),
        auth: auth::show(&subscription.auth),
        created: subscription.created.into(),
        updated: subscription.updated.into(),
        deleted: subscription.deleted.map(v1::Time),
        retry: subscription.retry.as_ref().map(ToString::to_string),
        timeout_ms: subscription.timeout.map(words::millis),
        max_in_flight: subscription.max_in_flight,
        rate_limit: subscription.rate_limit.map(|limit| limit.to_string()),
        ordering: subscription.order.as_ref().map(words::ordering),
        on_dead: subscription
            .order
            .as_ref()
            .map_or_else(Default::default, |order| words::on_dead(order.on_dead)),
        dead_letter_url: subscription.dead_letter_url.as_ref().map(|url| url.as_str().to_owned()),
        held: None,
        breaker: None,
        counts: None,
        event_format: words::event_format(subscription.event_format),
        content_mode: words::content_mode(subscription.content_mode),
        content_type: words::content_type(subscription.content_type),
        plugin: subscription.plugin.as_deref().map(plugin::show),
        headers: sending::show_headers(&sending.headers),
        signing: sending::show_signing(&sending.signing, service_key, clock::now()),
        client_certificate: sending
            .client_certificate
            .as_ref()
            .map(|identity| v1::Certificate { sha256: identity.fingerprint.clone() }),
        target_ca: sending.target_ca.as_deref().map(str::to_owned),
        handshake: words::handshake(sending.handshake),
        signing_secret: None,
    }
}

/// What of a new subscription the body does not decide.
#[derive(Default)]
pub(super) struct Fixed {
    /// Its id, instead of a random one.
    pub(super) id: Option<SubscriptionId>,
    /// Its target, instead of the body's.
    pub(super) target: Option<TargetUrl>,
}

/// Makes a new subscription from a body, and seals its secrets. `dialect` is the language of a filter that
/// does not name its own. It is stored with the filter: the setting may change, but the meaning of the filter does not.
///
/// # Errors
/// Names the first member that is missing or wrong.
pub(super) fn create(
    mut body: Map<String, Value>,
    user: String,
    dialect: FilterDialect,
    fixed: Fixed,
    vault: &Vault,
    now: Timestamp,
) -> Result<Subscription, ApiError> {
    let missing = |name: &str| ApiError::field(format!("/{name}"), format!("`{name}` is missing"));
    let name = take_name(&mut body)?.ok_or_else(|| missing("name"))?;
    let filter = take_filter(&mut body, None, dialect, dialect)?;
    let (jsonpath, filter_dialect) = filter.ok_or_else(|| missing("jsonpath"))?;
    let target_url = match fixed.target {
        Some(target) => target,
        None => take_target_url(&mut body)?.ok_or_else(|| missing("target_url"))?,
    };
    let mut subscription =
        Subscription { filter_dialect, ..Subscription::new(user, name, jsonpath, target_url, now) };
    // Before its secrets are sealed: they are bound to it.
    subscription.id = fixed.id.unwrap_or(subscription.id);
    apply_optional(body, &mut subscription, vault, now)?;
    Ok(subscription)
}

/// Applies the members of a body to a subscription, and seals its secrets. `dialect` is the language of a
/// filter whose `filter_dialect` is set to null.
///
/// # Errors
/// Names the first member that is wrong; the subscription must not be used then.
pub(super) fn update(
    mut body: Map<String, Value>,
    to: &mut Subscription,
    dialect: FilterDialect,
    vault: &Vault,
    now: Timestamp,
) -> Result<(), ApiError> {
    to.name = take_name(&mut body)?.unwrap_or_else(|| to.name.clone());
    if let Some(filter) = take_filter(&mut body, Some(&to.jsonpath), to.filter_dialect, dialect)? {
        (to.jsonpath, to.filter_dialect) = filter;
    }
    to.target_url = take_target_url(&mut body)?.unwrap_or_else(|| to.target_url.clone());
    to.updated = now;
    apply_optional(body, to, vault, now)
}

fn apply_optional(
    mut body: Map<String, Value>,
    to: &mut Subscription,
    vault: &Vault,
    now: Timestamp,
) -> Result<(), ApiError> {
    if let Some(version) = optional(&mut body, "version", "a string")? {
        to.version = version.unwrap_or_else(|| VERSION.to_owned());
    }
    if let Some(extensions) = optional(&mut body, "extensions", "an object")? {
        to.extensions = extensions.unwrap_or_default();
    }
    if let Some(auth) = body.remove("auth") {
        to.auth =
            auth::take(auth, &to.auth, |name, secret| vault.seal(Label::new(name, to.id.uuid()), &secret))?;
    }
    if let Some(retry) = optional::<String>(&mut body, "retry", "a string such as \"5s,5m\", or null")? {
        let parsed = retry.map(|text| text.parse()).transpose();
        to.retry = parsed.map_err(|error| ApiError::field("/retry", format!("{error}")))?;
    }
    if let Some(timeout) =
        optional::<u64>(&mut body, "timeout_ms", "a whole number of milliseconds, or null")?
    {
        to.timeout = timeout
            .map(|ms| bounded("timeout_ms", ms, TIMEOUT_MS_MAX))
            .transpose()?
            .map(Duration::from_millis);
    }
    if let Some(most) = optional::<u64>(&mut body, "max_in_flight", "a whole number, or null")? {
        let most = most.map(|most| bounded("max_in_flight", most, u64::from(u32::MAX))).transpose()?;
        to.max_in_flight = most.and_then(|most| u32::try_from(most).ok());
    }
    if let Some(limit) = optional::<String>(&mut body, "rate_limit", "a string such as \"50/s\", or null")? {
        let parsed = limit.map(|text| text.parse()).transpose();
        to.rate_limit = parsed.map_err(|error| ApiError::field("/rate_limit", format!("{error}")))?;
    }
    if let Some(url) = optional::<String>(&mut body, "dead_letter_url", "a URL, or null")? {
        let parsed = url.map(|text| text.parse()).transpose();
        to.dead_letter_url = parsed
            .map_err(|error| ApiError::field("/dead_letter_url", format!("`dead_letter_url` {error}")))?;
    }
    to.order = take_order(&mut body, to.order.take(), to.filter_dialect)?;
    if let Some(format) = optional(&mut body, "event_format", "\"original\" or \"1.0\"")? {
        to.event_format = format.unwrap_or_default();
    }
    if let Some(mode) = optional(&mut body, "content_mode", "\"structured\" or \"binary\"")? {
        to.content_mode = mode.unwrap_or_default();
    }
    let expected = "\"application/cloudevents+json\" or \"application/json\"";
    if let Some(content_type) = optional(&mut body, "content_type", expected)? {
        to.content_type = content_type.unwrap_or_default();
    }
    to.plugin = plugin::take(&mut body, to.plugin.as_ref())?;
    to.activity = activity(&mut body, &to.activity, now)?;
    Ok(())
}

/// Takes the order out of a body. Its key is read in the filter's dialect, which may have changed.
fn take_order(
    body: &mut Map<String, Value>,
    known: Option<Order>,
    dialect: FilterDialect,
) -> Result<Option<Order>, ApiError> {
    let (known_by, known_on_dead) =
        known.map_or((None, OnDead::Continue), |Order { by, on_dead }| (Some(by), on_dead));
    let expected = "\"fifo\", {\"key\": \"<jsonpath>\"} or null";
    let by = match optional::<v1::Ordering>(body, "ordering", expected)? {
        None => known_by,
        Some(by) => by.map(|by| match by {
            v1::Ordering::All(v1::Fifo::Fifo) => OrderBy::Fifo,
            v1::Ordering::Key(v1::OrderingKey { key }) => OrderBy::Key(key),
        }),
    };
    let on_dead = match optional::<v1::OnDead>(body, "on_dead", "\"continue\" or \"stop\"")? {
        // An order that ends takes what it says about dead letters with it.
        None if by.is_none() => OnDead::Continue,
        None => known_on_dead,
        Some(None | Some(v1::OnDead::Continue)) => OnDead::Continue,
        Some(Some(v1::OnDead::Stop)) => OnDead::Stop,
    };
    match by {
        None if on_dead == OnDead::Stop => {
            let detail =
                "`on_dead` is for a subscription with an order: set `ordering`, or leave `on_dead` out";
            Err(ApiError::field("/on_dead", detail.to_owned()))
        }
        None => Ok(None),
        Some(by) => {
            if let OrderBy::Key(key) = &by {
                Filter::parse(key, dialect).map_err(|error| {
                    ApiError::field("/ordering/key", format!("`ordering.key` does not parse: {error}"))
                })?;
            }
            Ok(Some(Order { by, on_dead }))
        }
    }
}

/// Takes a string member out of a body; it may be left out, but not null.
fn required(body: &mut Map<String, Value>, name: &str) -> Result<Option<String>, ApiError> {
    match body.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(wrong(name, "a string", &other)),
    }
}

/// Takes a member out of a body: left out, null, or of the type.
pub(super) fn optional<T: DeserializeOwned>(
    body: &mut Map<String, Value>,
    name: &str,
    expected: &str,
) -> Result<Option<Option<T>>, ApiError> {
    let Some(value) = body.remove(name) else { return Ok(None) };
    Option::<T>::deserialize(&value).map(Some).map_err(|_| wrong(name, expected, &value))
}

pub(super) fn wrong(name: &str, expected: &str, found: &Value) -> ApiError {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "another string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    ApiError::field(format!("/{name}"), format!("`{}` must be {expected}, this is {found}", dotted(name)))
}

fn bounded(name: &str, value: u64, most: u64) -> Result<u64, ApiError> {
    match value {
        0 => Err(ApiError::field(format!("/{name}"), format!("`{}` must be at least 1", dotted(name)))),
        value if value > most => {
            Err(ApiError::field(format!("/{name}"), format!("`{}` is at most {most}", dotted(name))))
        }
        value => Ok(value),
    }
}

/// Writes the path of a member as people do: `plugin.config` for `plugin/config`.
fn dotted(name: &str) -> String {
    name.replace('/', ".")
}

fn take_name(body: &mut Map<String, Value>) -> Result<Option<String>, ApiError> {
    let name = required(body, "name")?;
    let length = name.as_ref().map_or(0, |name| name.chars().count());
    if length > NAME_CHARS_MAX {
        let detail = format!("`name` has {length} characters, and at most {NAME_CHARS_MAX} are allowed");
        return Err(ApiError::field("/name", detail));
    }
    Ok(name)
}

/// Takes the filter and its dialect, each of which may be the known one; `None` if the body has neither.
///
/// A dialect of null is `default`. Both are read together, because a change of either can make the other
/// wrong.
fn take_filter(
    body: &mut Map<String, Value>,
    known: Option<&str>,
    known_dialect: FilterDialect,
    default: FilterDialect,
) -> Result<Option<(String, FilterDialect)>, ApiError> {
    let jsonpath = required(body, "jsonpath")?;
    let expected = "\"auto\", \"rfc9535\" or \"jsonpath2\"";
    let dialect = optional(body, "filter_dialect", expected)?;
    let dialect = dialect.map(|dialect: Option<FilterDialect>| dialect.unwrap_or(default));
    if jsonpath.is_none() && dialect.is_none() {
        return Ok(None);
    }
    let Some(jsonpath) = jsonpath.or_else(|| known.map(str::to_owned)) else { return Ok(None) };
    let dialect = dialect.unwrap_or(known_dialect);
    Filter::parse(&jsonpath, dialect)?;
    Ok(Some((jsonpath, dialect)))
}

fn take_target_url(body: &mut Map<String, Value>) -> Result<Option<TargetUrl>, ApiError> {
    let url = required(body, "target_url")?.map(|text| text.parse::<TargetUrl>()).transpose();
    url.map_err(|error| ApiError::field("/target_url", format!("`target_url` {error}")))
}

/// What `disabled` may be.
const DISABLED: &str = "null, true, false or an ISO 8601 time such as 2026-01-31T12:00:00Z";

/// Reads `disabled` and `error`: a time (or true: from now on) pauses, null (or false) re-enables and clears the error.
fn activity(body: &mut Map<String, Value>, known: &Activity, now: Timestamp) -> Result<Activity, ApiError> {
    let disabled = optional::<Value>(body, "disabled", DISABLED)?;
    let error = optional::<String>(body, "error", "a string or null")?;
    let since = match disabled {
        // Left out: `error` can change only if the subscription is disabled.
        None => match known {
            Activity::Enabled => return Ok(Activity::Enabled),
            Activity::Disabled { since, .. } => *since,
        },
        Some(None | Some(Value::Bool(false))) => return Ok(Activity::Enabled),
        Some(Some(Value::Bool(true))) => match known {
            Activity::Enabled => now,
            // It is disabled already, and keeps its time.
            Activity::Disabled { since, .. } => *since,
        },
        Some(Some(value)) => read_time(&value)?,
    };
    let known_error = match known {
        Activity::Enabled => None,
        Activity::Disabled { error, .. } => error.clone(),
    };
    Ok(Activity::Disabled { since, error: error.unwrap_or(known_error) })
}

/// Reads an ISO 8601 time; one without an offset, as Pacifica writes them, counts as UTC.
fn read_time(value: &Value) -> Result<Timestamp, ApiError> {
    let wrong = || ApiError::field("/disabled", format!("`disabled` must be {DISABLED}"));
    match value {
        Value::String(text) => text
            .parse()
            .or_else(|_| {
                text.parse::<jiff::civil::DateTime>()
                    .and_then(|time| Ok(time.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp()))
            })
            .map_err(|_: jiff::Error| wrong()),
        _ => Err(wrong()),
    }
}
