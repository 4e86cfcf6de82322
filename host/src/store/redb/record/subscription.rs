//! The record of a subscription, as JSON.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::choice::choice;
use super::plugin_use::PluginUseRecord;
use super::{Error, SEALED, body, seal};
use crate::domain::event::{ContentMode, EventFormat, StructuredType};
use crate::domain::{Activity, Auth, FilterDialect, PluginUse, Subscription, SubscriptionId, TargetUrl};
use crate::store::{Position, StoredSubscription};

/// A subscription. A member that later versions have added needs a default, as the last ones have.
#[derive(Serialize, Deserialize)]
struct SubscriptionRecord<'a> {
    id: Uuid,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    user: Cow<'a, str>,
    #[serde(borrow)]
    jsonpath: Cow<'a, str>,
    #[serde(borrow)]
    target_url: Cow<'a, str>,
    #[serde(borrow)]
    version: Cow<'a, str>,
    extensions: Cow<'a, Map<String, Value>>,
    #[serde(borrow)]
    auth: AuthRecord<'a>,
    created: Timestamp,
    updated: Timestamp,
    deleted: Option<Timestamp>,
    #[serde(borrow)]
    activity: ActivityRecord<'a>,
    /// The schedule's text.
    retry: Option<String>,
    timeout: Option<Duration>,
    max_in_flight: Option<u32>,
    #[serde(default)]
    filter_dialect: FilterDialectRecord,
    #[serde(default)]
    event_format: EventFormatRecord,
    #[serde(default)]
    content_mode: ContentModeRecord,
    #[serde(default)]
    content_type: StructuredTypeRecord,
    #[serde(borrow, default)]
    plugin: Option<PluginUseRecord<'a>>,
    /// The position of the group that wrote it; zero for one of an older version.
    #[serde(default, skip_serializing_if = "is_zero")]
    revision: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How Waypost authenticates with a target.
#[derive(Serialize, Deserialize)]
enum AuthRecord<'a> {
    None,
    Basic {
        #[serde(borrow)]
        username: Cow<'a, str>,
        #[serde(borrow)]
        password: Cow<'a, str>,
    },
    Header {
        #[serde(borrow)]
        scheme: Cow<'a, str>,
        #[serde(borrow)]
        credentials: Cow<'a, str>,
    },
}

/// Whether a subscription is active.
#[derive(Serialize, Deserialize)]
enum ActivityRecord<'a> {
    Enabled,
    Disabled {
        since: Timestamp,
        #[serde(borrow)]
        error: Option<Cow<'a, str>>,
    },
}

choice! {
    /// The language of a filter; the first versions had none to choose.
    #[derive(Default)]
    #[serde(rename_all = "lowercase")]
    FilterDialectRecord of FilterDialect {
        #[default]
        Auto,
        Rfc9535,
        Jsonpath2,
    }
}

choice! {
    /// The CloudEvents version that is sent; the first versions had none to choose.
    #[derive(Default)]
    EventFormatRecord of EventFormat {
        #[default]
        #[serde(rename = "original")]
        Original,
        #[serde(rename = "1.0")]
        V1_0,
    }
}

choice! {
    /// The CloudEvents mode that is sent; the first versions had none to choose.
    #[derive(Default)]
    #[serde(rename_all = "lowercase")]
    ContentModeRecord of ContentMode {
        #[default]
        Structured,
        Binary,
    }
}

choice! {
    /// The content type of structured 1.0 events; the first versions had none to choose.
    #[derive(Default)]
    StructuredTypeRecord of StructuredType {
        #[default]
        #[serde(rename = "application/cloudevents+json")]
        CloudEvents,
        #[serde(rename = "application/json")]
        Json,
    }
}

/// Writes a subscription.
pub(in crate::store::redb) fn encode_subscription(
    subscription: &Subscription,
    revision: Position,
) -> Vec<u8> {
    let record = SubscriptionRecord { revision: revision.0, ..SubscriptionRecord::from(subscription) };
    let mut buffer = vec![SEALED];
    serde_json::to_writer(&mut buffer, &record).expect("a subscription has only string keys");
    seal(buffer)
}

/// Reads a subscription.
pub(in crate::store::redb) fn decode_subscription(record: &[u8]) -> Result<StoredSubscription, Error> {
    let record = serde_json::from_slice::<SubscriptionRecord<'_>>(body(record)?)?;
    let revision = Position(record.revision);
    Ok(StoredSubscription { subscription: Arc::new(record.try_into()?), revision })
}

impl<'a> From<&'a Subscription> for SubscriptionRecord<'a> {
    fn from(subscription: &'a Subscription) -> Self {
        let Subscription {
            id,
            name,
            user,
            jsonpath,
            target_url,
            version,
            extensions,
            auth,
            created,
            updated,
            deleted,
            activity,
            retry,
            timeout,
            max_in_flight,
            filter_dialect,
            event_format,
            content_mode,
            content_type,
            plugin,
        } = subscription;
        Self {
            id: id.uuid(),
            name: name.into(),
            user: user.into(),
            jsonpath: jsonpath.into(),
            target_url: target_url.as_str().into(),
            version: version.into(),
            extensions: Cow::Borrowed(extensions),
            auth: auth.into(),
            created: *created,
            updated: *updated,
            deleted: *deleted,
            activity: activity.into(),
            retry: retry.as_ref().map(ToString::to_string),
            timeout: *timeout,
            max_in_flight: *max_in_flight,
            filter_dialect: (*filter_dialect).into(),
            event_format: (*event_format).into(),
            content_mode: (*content_mode).into(),
            content_type: (*content_type).into(),
            plugin: plugin.as_deref().map(PluginUseRecord::from),
            revision: 0,
        }
    }
}

impl TryFrom<SubscriptionRecord<'_>> for Subscription {
    type Error = Error;

    fn try_from(record: SubscriptionRecord<'_>) -> Result<Self, Error> {
        let SubscriptionRecord {
            id,
            name,
            user,
            jsonpath,
            target_url,
            version,
            extensions,
            auth,
            created,
            updated,
            deleted,
            activity,
            retry,
            timeout,
            max_in_flight,
            filter_dialect,
            event_format,
            content_mode,
            content_type,
            plugin,
            revision: _,
        } = record;
        Ok(Self {
            id: SubscriptionId::from_uuid(id),
            name: name.into_owned(),
            user: user.into_owned(),
            jsonpath: jsonpath.into_owned(),
            target_url: TargetUrl::from_stored(target_url.into_owned()),
            version: version.into_owned(),
            extensions: extensions.into_owned(),
            auth: auth.into(),
            created,
            updated,
            deleted,
            activity: activity.into(),
            retry: retry.map(|text| text.parse()).transpose()?,
            timeout,
            max_in_flight,
            filter_dialect: filter_dialect.into(),
            event_format: event_format.into(),
            content_mode: content_mode.into(),
            content_type: content_type.into(),
            plugin: plugin.map(PluginUse::try_from).transpose()?.map(Arc::new),
        })
    }
}

impl<'a> From<&'a Auth> for AuthRecord<'a> {
    fn from(auth: &'a Auth) -> Self {
        match auth {
            Auth::None => Self::None,
            Auth::Basic { username, password } => {
                Self::Basic { username: username.into(), password: password.into() }
            }
            Auth::Header { scheme, credentials } => {
                Self::Header { scheme: scheme.into(), credentials: credentials.into() }
            }
        }
    }
}

impl From<AuthRecord<'_>> for Auth {
    fn from(record: AuthRecord<'_>) -> Self {
        match record {
            AuthRecord::None => Self::None,
            AuthRecord::Basic { username, password } => {
                Self::Basic { username: username.into_owned(), password: password.into_owned() }
            }
            AuthRecord::Header { scheme, credentials } => {
                Self::Header { scheme: scheme.into_owned(), credentials: credentials.into_owned() }
            }
        }
    }
}

impl<'a> From<&'a Activity> for ActivityRecord<'a> {
    fn from(activity: &'a Activity) -> Self {
        match activity {
            Activity::Enabled => Self::Enabled,
            Activity::Disabled { since, error } => {
                Self::Disabled { since: *since, error: error.as_deref().map(Cow::Borrowed) }
            }
        }
    }
}

impl From<ActivityRecord<'_>> for Activity {
    fn from(record: ActivityRecord<'_>) -> Self {
        match record {
            ActivityRecord::Enabled => Self::Enabled,
            ActivityRecord::Disabled { since, error } => {
                Self::Disabled { since, error: error.map(Cow::into_owned) }
            }
        }
    }
}
