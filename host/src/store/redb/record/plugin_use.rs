//! The record of the plugin of a subscription, in that of the subscription.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Error;
use super::choice::choice;
use super::digest::DigestRecord;
use crate::domain::plugin::{AllowHost, OnError, PluginLimits, PluginUse};

/// The plugin of a subscription. Only the digest is in all records.
#[derive(Serialize, Deserialize)]
pub(super) struct PluginUseRecord<'a> {
    #[serde(borrow)]
    digest: DigestRecord<'a>,
    #[serde(default)]
    config: Cow<'a, Map<String, Value>>,
    /// Their texts.
    #[serde(default)]
    allow_hosts: Vec<String>,
    #[serde(default)]
    on_error: OnErrorRecord,
    #[serde(default)]
    limits: PluginLimitsRecord,
}

choice! {
    /// What happens to a delivery whose plugin fails.
    #[derive(Default)]
    #[serde(rename_all = "snake_case")]
    OnErrorRecord of OnError {
        #[default]
        Retry,
        Skip,
        Deliver,
        DeadLetter,
    }
}

/// The limits that a subscription has of its own; others are left out.
#[derive(Default, Serialize, Deserialize)]
struct PluginLimitsRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output_bytes: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log_bytes: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state_bytes: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state_keys: Option<usize>,
}

impl<'a> From<&'a PluginUse> for PluginUseRecord<'a> {
    fn from(plugin: &'a PluginUse) -> Self {
        let PluginUse { digest, config, allow_hosts, on_error, limits } = plugin;
        Self {
            digest: (*digest).into(),
            config: Cow::Borrowed(config),
            allow_hosts: allow_hosts.iter().map(ToString::to_string).collect(),
            on_error: (*on_error).into(),
            limits: (*limits).into(),
        }
    }
}

impl TryFrom<PluginUseRecord<'_>> for PluginUse {
    type Error = Error;

    fn try_from(record: PluginUseRecord<'_>) -> Result<Self, Error> {
        let PluginUseRecord { digest, config, allow_hosts, on_error, limits } = record;
        Ok(Self {
            digest: digest.try_into()?,
            config: config.into_owned(),
            allow_hosts: allow_hosts.into_iter().map(allow_host).collect::<Result<_, _>>()?,
            on_error: on_error.into(),
            limits: limits.into(),
        })
    }
}

fn allow_host(text: String) -> Result<AllowHost, Error> {
    text.parse().map_err(|error| Error::AllowHost { text, error })
}

impl From<PluginLimits> for PluginLimitsRecord {
    fn from(limits: PluginLimits) -> Self {
        let PluginLimits { time, memory_bytes, output_bytes, log_bytes, state_bytes, state_keys } = limits;
        Self { time, memory_bytes, output_bytes, log_bytes, state_bytes, state_keys }
    }
}

impl From<PluginLimitsRecord> for PluginLimits {
    fn from(record: PluginLimitsRecord) -> Self {
        let PluginLimitsRecord { time, memory_bytes, output_bytes, log_bytes, state_bytes, state_keys } =
            record;
        Self { time, memory_bytes, output_bytes, log_bytes, state_bytes, state_keys }
    }
}
