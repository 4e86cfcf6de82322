//! Who wants which events, and where they go.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::event::{ContentMode, EventFormat, StructuredType};
use crate::sending::{HeaderText, OAuth2, Sending, field};
use crate::{Order, PluginUse, RateLimit, RetrySchedule, Sealed, SubscriptionId, TargetUrl};

/// The longest name, in characters: the width of Pacifica's column.
pub const NAME_CHARS_MAX: usize = 255;
/// The version mark of a subscription whose owner gives none.
pub const VERSION: &str = "v0.1";

/// The name of the secret in [`Auth::Basic`], see [`Subscription::secrets`]. Such names are never changed: they are part
/// of what a tag covers.
pub const PASSWORD: &str = "subscription.auth.basic.password";
/// The name of the secret in [`Auth::Header`].
pub const CREDENTIALS: &str = "subscription.auth.header.credentials";

/// A subscription: a JSONPath filter and a target.
///
/// Before it is stored, `waypost_engine::directory` checks that `jsonpath` parses.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscription {
    /// Its id; random.
    pub id: SubscriptionId,
    /// A name for people, at most [`NAME_CHARS_MAX`] characters.
    pub name: String,
    /// Its owner: policy is asked about this user.
    pub user: String,
    /// The filter: an event matches when it finds at least one node.
    pub jsonpath: String,
    /// Where events are POSTed.
    pub target_url: TargetUrl,
    /// Pacifica's version mark of a subscription, `v0.1` unless given.
    pub version: String,
    /// The extensions that are overlaid on each event's.
    pub extensions: Map<String, Value>,
    /// How to authenticate with the target.
    pub auth: Auth,
    /// When it was created.
    pub created: Timestamp,
    /// When its owner changed it last.
    pub updated: Timestamp,
    /// When it was deleted; after that it only explains old deliveries.
    pub deleted: Option<Timestamp>,
    /// Whether events are matched and delivered.
    pub activity: Activity,
    /// Waits between attempts, where they differ from the service's.
    pub retry: Option<RetrySchedule>,
    /// The longest one attempt may take, where it differs from the service's.
    pub timeout: Option<Duration>,
    /// The most attempts at once, where fewer than the service's.
    pub max_in_flight: Option<u32>,
    /// How many attempts may be made in a time, if that is limited.
    pub rate_limit: Option<RateLimit>,
    /// In which order deliveries are made, if in any.
    pub order: Option<Order>,
    /// The language of `jsonpath`.
    pub filter_dialect: FilterDialect,
    /// The CloudEvents version that is sent.
    pub event_format: EventFormat,
    /// The CloudEvents mode that is sent.
    pub content_mode: ContentMode,
    /// The content type of structured 1.0 events.
    pub content_type: StructuredType,
    /// Its plugin, which decides, filters and transforms further, if any.
    pub plugin: Option<Arc<PluginUse>>,
    /// What it adds to its requests, if anything.
    pub sending: Option<Arc<Sending>>,
    /// Where its dead letters are told of, if not where those of the service are.
    pub dead_letter_url: Option<TargetUrl>,
}

/// The language of a subscription's filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FilterDialect {
    /// The text decides.
    #[default]
    Auto,
    /// JSONPath as the IETF defines it.
    Rfc9535,
    /// The language of Pacifica's subscriptions.
    Jsonpath2,
}

/// Whether a subscription is active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Events are matched and delivered.
    Enabled,
    /// Events are not matched; pending deliveries wait.
    Disabled {
        /// Since when.
        since: Timestamp,
        /// What went wrong, unless its owner paused it.
        error: Option<String>,
    },
}

/// How Waypost authenticates with a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// Not at all.
    #[default]
    None,
    /// `Authorization: Basic …`.
    Basic {
        /// The user name; without a colon.
        username: String,
        /// The password, sealed as [`PASSWORD`].
        password: Sealed,
    },
    /// `Authorization: <scheme> <credentials>`.
    Header {
        /// The scheme, such as `Bearer`.
        scheme: String,
        /// What follows it, sealed as [`CREDENTIALS`].
        credentials: Sealed,
    },
    /// `Authorization: Bearer …`, with a token that a server grants.
    OAuth2(Box<OAuth2>),
}

impl Subscription {
    /// Makes an active subscription with a new id and Pacifica's defaults.
    pub fn new(user: String, name: String, jsonpath: String, target_url: TargetUrl, now: Timestamp) -> Self {
        Self {
            id: SubscriptionId::from_uuid(uuid::Uuid::new_v4()),
            name,
            user,
            jsonpath,
            target_url,
            version: VERSION.to_owned(),
            extensions: Map::new(),
            auth: Auth::None,
            created: now,
            updated: now,
            deleted: None,
            activity: Activity::Enabled,
            retry: None,
            timeout: None,
            max_in_flight: None,
            rate_limit: None,
            order: None,
            filter_dialect: FilterDialect::default(),
            event_format: EventFormat::default(),
            content_mode: ContentMode::default(),
            content_type: StructuredType::default(),
            plugin: None,
            sending: None,
            dead_letter_url: None,
        }
    }

    /// Returns what is kept of it when its owner deletes it: enough to explain old deliveries, without secrets.
    pub fn deleted(&self, now: Timestamp) -> Self {
        Self {
            jsonpath: String::new(),
            target_url: self.target_url.without_query(),
            extensions: Map::new(),
            auth: Auth::None,
            plugin: None,
            sending: None,
            dead_letter_url: None,
            updated: now,
            deleted: Some(now),
            ..self.clone()
        }
    }

    /// Returns its secrets, each with its name.
    pub fn secrets(&self) -> Vec<(&'static str, &Sealed)> {
        let mut secrets = match &self.auth {
            Auth::None => Vec::new(),
            Auth::Basic { username: _, password } => vec![(PASSWORD, password)],
            Auth::Header { scheme: _, credentials } => vec![(CREDENTIALS, credentials)],
            Auth::OAuth2(oauth2) => vec![(field::CLIENT_SECRET, &oauth2.client_secret)],
        };
        secrets.extend(self.sending.iter().flat_map(|sending| sending.secrets()));
        secrets
    }

    /// Returns those secrets that its requests carry as they are, each with the member that has it.
    pub fn carried_secrets(&self) -> Vec<(&'static str, &Sealed)> {
        let mut carried = match &self.auth {
            Auth::None => Vec::new(),
            Auth::Basic { username: _, password: secret }
            | Auth::Header { scheme: _, credentials: secret } => {
                vec![("auth", secret)]
            }
            // What its token opens is carried.
            Auth::OAuth2(oauth2) => vec![("auth", &oauth2.client_secret)],
        };
        let headers = self.sending.iter().flat_map(|sending| sending.headers.values());
        carried.extend(headers.filter_map(|text| match text {
            HeaderText::Plain(_) => None,
            HeaderText::Secret(secret) => Some(("headers", secret)),
        }));
        carried
    }

    /// Returns its secrets to be changed: the same ones as [`Self::secrets`].
    pub fn secrets_mut(&mut self) -> Vec<(&'static str, &mut Sealed)> {
        let mut secrets = match &mut self.auth {
            Auth::None => Vec::new(),
            Auth::Basic { username: _, password } => vec![(PASSWORD, password)],
            Auth::Header { scheme: _, credentials } => vec![(CREDENTIALS, credentials)],
            Auth::OAuth2(oauth2) => vec![(field::CLIENT_SECRET, &mut oauth2.client_secret)],
        };
        secrets.extend(self.sending.iter_mut().flat_map(|sending| Arc::make_mut(sending).secrets_mut()));
        secrets
    }

    /// Tells whether its requests hold the event and nothing else of its own: no credentials, headers or signatures.
    pub fn is_bare(&self) -> bool {
        self.sending.is_none() && self.auth == Auth::None
    }

    /// Tells whether events are matched and delivered now.
    pub fn is_active(&self) -> bool {
        self.deleted.is_none() && self.activity == Activity::Enabled
    }
}
