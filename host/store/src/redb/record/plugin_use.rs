//! The record of the plugin of a subscription, in that of the subscription.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::{Map, Value};

use super::form::record;
use waypost_domain::plugin::{OnError, PluginLimits, PluginUse};

record! {
    /// The plugin of a subscription. Only the digest is in all records.
    pub(super) struct PluginUseRecord<'a> of PluginUse {
        digest: Cow<'a, str>,
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
}

record! {
    /// What happens to a delivery whose plugin fails.
    #[derive(Default)]
    #[serde(rename_all = "snake_case")]
    enum OnErrorRecord of OnError {
        #[default]
        Retry,
        Skip,
        Deliver,
        DeadLetter,
    }
}

record! {
    /// The limits that a subscription has of its own; others are left out.
    #[derive(Default)]
    #[serde(default)]
    struct PluginLimitsRecord of PluginLimits {
        #[serde(skip_serializing_if = "Option::is_none")]
        time: Option<Duration>,
        #[serde(skip_serializing_if = "Option::is_none")]
        memory_bytes: Option<usize>,
        #[serde(skip_serializing_if = "Option::is_none")]
        output_bytes: Option<usize>,
        #[serde(skip_serializing_if = "Option::is_none")]
        log_bytes: Option<usize>,
        #[serde(skip_serializing_if = "Option::is_none")]
        state_bytes: Option<usize>,
        #[serde(skip_serializing_if = "Option::is_none")]
        state_keys: Option<usize>,
    }
}
