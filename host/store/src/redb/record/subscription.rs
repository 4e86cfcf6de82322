//! The record of a subscription, as JSON.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use bytes::Bytes;
use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::form::{Form, record};
use super::plugin_use::PluginUseRecord;
use super::sending::{OAuth2Record, SendingRecord};
use super::{Error, body, json};
use crate::{Position, StoredSubscription};
use waypost_domain::event::{ContentMode, EventFormat, StructuredType};
use waypost_domain::{Activity, Auth, FilterDialect, OnDead, Order, OrderBy, Sealed, Subscription};

record! {
    /// A subscription. A member that later versions have added needs a default, as the last ones have.
    struct SubscriptionRecord<'a> of Subscription {
        id: Uuid,
        name: Cow<'a, str>,
        user: Cow<'a, str>,
        jsonpath: Cow<'a, str>,
        target_url: Cow<'a, str>,
        version: Cow<'a, str>,
        extensions: Cow<'a, Map<String, Value>>,
        auth: AuthRecord<'a>,
        created: Timestamp,
        updated: Timestamp,
        deleted: Option<Timestamp>,
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
        #[serde(default)]
        plugin: Option<PluginUseRecord<'a>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sending: Option<SendingRecord<'a>>,
        /// The limit's text.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rate_limit: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        order: Option<OrderRecord<'a>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dead_letter_url: Option<Cow<'a, str>>,
    }
    besides {
        /// The position of the group that wrote it; zero for one of an older version.
        #[serde(default, skip_serializing_if = "is_zero")]
        revision: u64,
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

record! {
    /// How Waypost authenticates with a target.
    enum AuthRecord<'a> of Auth {
        None,
        Basic { username: Cow<'a, str>, password: SealedRecord<'a> },
        Header { scheme: Cow<'a, str>, credentials: SealedRecord<'a> },
        OAuth2(OAuth2Record<'a>),
    }
}

/// A secret: sealed, in base64, or as schema versions before 4 have it.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum SealedRecord<'a> {
    Sealed { sealed: Cow<'a, str> },
    Plain(Cow<'a, str>),
}

impl<'a> Form<'a, Sealed> for SealedRecord<'a> {
    fn of(value: &'a Sealed) -> Self {
        match value.bytes() {
            Ok(bytes) => Self::Sealed { sealed: BASE64_STANDARD_NO_PAD.encode(bytes).into() },
            Err(plain) => Self::Plain(plain.expose_str().expect("it was read from a text").into()),
        }
    }

    fn read(self, _: &Bytes) -> Result<Sealed, Error> {
        match self {
            Self::Plain(text) => Ok(Sealed::unsealed(text.into_owned().into())),
            Self::Sealed { sealed } => {
                let bytes = BASE64_STANDARD_NO_PAD.decode(&*sealed);
                let bytes = bytes.map_err(|_| Error::Value("a sealed secret that is not base64"))?;
                Sealed::from_bytes(bytes.into())
                    .map_err(|_| Error::Value("a sealed secret that is too short"))
            }
        }
    }
}

record! {
    /// In which order deliveries are made.
    struct OrderRecord<'a> of Order {
        by: OrderByRecord<'a>,
        on_dead: OnDeadRecord,
    }
}

record! {
    /// Which deliveries wait for each other.
    enum OrderByRecord<'a> of OrderBy {
        Fifo,
        Key(Cow<'a, str>),
    }
}

record! {
    /// What becomes of the deliveries behind a dead letter.
    enum OnDeadRecord of OnDead {
        Continue,
        Stop,
    }
}

record! {
    /// Whether a subscription is active.
    enum ActivityRecord<'a> of Activity {
        Enabled,
        Disabled { since: Timestamp, error: Option<Cow<'a, str>> },
    }
}

record! {
    /// The language of a filter; the first versions had none to choose.
    #[derive(Default)]
    #[serde(rename_all = "lowercase")]
    enum FilterDialectRecord of FilterDialect {
        #[default]
        Auto,
        Rfc9535,
        Jsonpath2,
    }
}

record! {
    /// The CloudEvents version that is sent; the first versions had none to choose.
    #[derive(Default)]
    enum EventFormatRecord of EventFormat {
        #[default]
        #[serde(rename = "original")]
        Original,
        #[serde(rename = "1.0")]
        V1_0,
    }
}

record! {
    /// The CloudEvents mode that is sent; the first versions had none to choose.
    #[derive(Default)]
    #[serde(rename_all = "lowercase")]
    enum ContentModeRecord of ContentMode {
        #[default]
        Structured,
        Binary,
    }
}

record! {
    /// The content type of structured 1.0 events; the first versions had none to choose.
    #[derive(Default)]
    enum StructuredTypeRecord of StructuredType {
        #[default]
        #[serde(rename = "application/cloudevents+json")]
        CloudEvents,
        #[serde(rename = "application/json")]
        Json,
    }
}

/// Writes a subscription.
pub(crate) fn encode_subscription(subscription: &Subscription, revision: Position) -> Vec<u8> {
    json(&SubscriptionRecord { revision: revision.0, ..SubscriptionRecord::of(subscription) })
}

/// Reads a subscription.
pub(crate) fn decode_subscription(record: &[u8]) -> Result<StoredSubscription, Error> {
    let record = serde_json::from_slice::<SubscriptionRecord<'_>>(body(record)?)?;
    let revision = Position(record.revision);
    Ok(StoredSubscription { subscription: Arc::new(record.read(&Bytes::new())?), revision })
}

/// Whose a subscription is, and whether it still counts among theirs.
pub(crate) struct Owner<'a> {
    pub(crate) user: Cow<'a, str>,
    pub(crate) is_deleted: bool,
}

/// Reads these two alone: when a file is opened, they are read of all its subscriptions.
pub(crate) fn decode_owner(record: &[u8]) -> Result<Owner<'_>, Error> {
    #[derive(Deserialize)]
    struct Members<'a> {
        #[serde(borrow)]
        user: Cow<'a, str>,
        deleted: Option<IgnoredAny>,
    }
    let Members { user, deleted } = serde_json::from_slice(body(record)?)?;
    Ok(Owner { user, is_deleted: deleted.is_some() })
}
