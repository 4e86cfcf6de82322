use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{DeliveryCounts, Hold, Time, words};

/// A subscription, without its secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Subscription {
    /// Its id.
    pub uuid: Uuid,
    /// A name, for people.
    pub name: String,
    /// The filter: a JSONPath on the event's JSON. Events in which it finds something are delivered.
    #[schema(examples("$.data[?@.key == 'Tag']"))]
    pub jsonpath: String,
    /// The dialect that was asked for.
    pub filter_dialect: FilterDialect,
    /// The dialect in which the filter is read; null if it does not parse any more.
    pub filter_dialect_used: Option<FilterDialect>,
    /// What is odd about the filter: that it can never match, for example.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// How the index finds the filter.
    pub index: Option<String>,
    /// The owner.
    pub user: String,
    /// Since when it gets no events; null while it gets them.
    pub disabled: Option<Time>,
    /// Why it was disabled, unless its owner did that.
    pub error: Option<String>,
    /// Where events are sent.
    pub target_url: String,
    /// For Pacifica's clients: `v0.1` unless it was set.
    pub version: String,
    /// For clients: any object.
    #[schema(value_type = Object)]
    pub extensions: Map<String, Value>,
    /// How its requests are authorized; an empty object if they are not.
    pub auth: Auth,
    /// When it was made.
    pub created: Time,
    /// When it was last changed.
    pub updated: Time,
    /// Always null: a subscription that was deleted is not shown.
    pub deleted: Option<Time>,
    /// The waits between attempts; null for those of the service.
    #[schema(examples("5s,5m,30m"))]
    pub retry: Option<String>,
    /// How long an attempt may take, in milliseconds; null for that of the service.
    pub timeout_ms: Option<u64>,
    /// How many attempts may be under way at once; null for that of the service.
    pub max_in_flight: Option<u32>,
    /// How many attempts may be made in a time; null for as many as there are.
    #[serde(default)]
    #[schema(examples("50/s", "1000/h burst 20"))]
    pub rate_limit: Option<String>,
    /// In which order deliveries are made; null for none.
    #[serde(default)]
    pub ordering: Option<Ordering>,
    /// What becomes of those behind a dead letter, where there is an order.
    #[serde(default)]
    pub on_dead: OnDead,
    /// Where an event is sent of each dead letter; null for where those of the service go, if anywhere.
    #[serde(default)]
    pub dead_letter_url: Option<String>,
    /// What keeps its deliveries from the target now; null for nothing, and in lists.
    #[serde(default)]
    pub held: Option<Hold>,
    /// The breaker of the target; null unless the target has failed lately, and in lists.
    #[serde(default)]
    pub breaker: Option<TargetBreaker>,
    /// How many deliveries it has in each state; null in lists.
    #[serde(default)]
    pub counts: Option<DeliveryCounts>,
    /// In which version of CloudEvents events are sent.
    pub event_format: EventFormat,
    /// How an event is put into a request.
    pub content_mode: ContentMode,
    /// The media type of events in structured mode.
    pub content_type: ContentType,
    /// The plugin; null for none.
    pub plugin: Option<Plugin>,
    /// Headers of each request; the values of secret ones are shown as `…`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// How its requests are signed; null if they are not.
    pub signing: Option<Signing>,
    /// The certificate that Waypost shows to the target; null for none.
    pub client_certificate: Option<Certificate>,
    /// The certificate authorities of the target, in PEM; null for those of the service.
    pub target_ca: Option<String>,
    /// Whether the target is asked before the first delivery.
    pub handshake: Handshake,
    /// The secret that was generated for this request. It is shown once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_secret: Option<String>,
}

/// In which order the deliveries of a subscription are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Ordering {
    /// One after the other, in the order in which the events were accepted.
    All(Fifo),
    /// So for each value of a key; those of other keys go on beside it.
    Key(OrderingKey),
}

words! {
    /// The order of all deliveries.
    Fifo {
        /// One at a time, first in, first out.
        Fifo = "fifo",
    }
}

/// The key of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderingKey {
    /// A JSONPath in the subscription's dialect: events in which it finds the same are in order. Those in which it finds
    /// nothing have a key of their own.
    #[schema(examples("$.data.run"))]
    pub key: String,
}

words! {
    /// What becomes of the deliveries behind a dead letter.
    #[derive(Default)]
    OnDead {
        /// They go on.
        #[default]
        Continue = "continue",
        /// They wait until it is sent again or discarded.
        Stop = "stop",
    }
}

words! {
    /// Where the breaker of a target stands.
    BreakerState {
        /// The target has failed; its deliveries are still attempted.
        Failing = "failing",
        /// Its deliveries wait.
        Open = "open",
        /// One delivery tries whether it is well.
        Probing = "probing",
        /// It has answered again, and gets one delivery more at once with each that it takes.
        Opening = "opening",
    }
}

/// The breaker of a target, which keeps deliveries from it while it is down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TargetBreaker {
    /// Where it stands.
    pub state: BreakerState,
    /// How often the target has failed since it was well.
    pub failures: u32,
    /// Since when deliveries wait; null while they do not.
    pub since: Option<Time>,
    /// How it failed last.
    pub reason: String,
    /// When one delivery tries it next; null while one does, and while they do not wait.
    pub next_probe: Option<Time>,
}

/// A subscription to make, or what to change of one. Members that are left out stay as they are, or get their default;
/// read-only ones are ignored, so that the answer to a GET can be sent back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct NewSubscription {
    /// A name, for people, of at most 255 characters; a new subscription needs one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_length = 255)]
    pub name: Option<String>,
    /// The filter; a new subscription needs one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, examples("$.data[?@.key == 'Tag']"))]
    pub jsonpath: Option<String>,
    /// The dialect of the filter; null for that of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_dialect: Option<FilterDialect>,
    /// Where events are sent; a new subscription needs one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, examples("http://127.0.0.1:9000/events"))]
    pub target_url: Option<String>,
    /// From when on a new subscription gets the events that are in the log: `now` (the default), `earliest`, or a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("now", "earliest", "2026-01-31T12:00:00Z"))]
    pub start_at: Option<String>,
    /// True, or the time since when it gets no events; false or null to enable it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    pub disabled: Option<Value>,
    /// Why it is disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// For Pacifica's clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// For clients: any object.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub extensions: Option<Map<String, Value>>,
    /// How its requests are authorized; null or an empty object for not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// The waits between attempts, or `none`; null for those of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("5s,5m,30m"))]
    pub retry: Option<String>,
    /// How long an attempt may take, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 600_000)]
    pub timeout_ms: Option<u64>,
    /// How many attempts may be under way at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_in_flight: Option<u32>,
    /// How many attempts may be made in a second, minute, hour or day, and how many of them at once after a pause; null for
    /// as many as there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("50/s", "1000/h burst 20"))]
    pub rate_limit: Option<String>,
    /// Where an `io.waypost.delivery.dead` is sent for each dead letter; null for where those of the service go, if anywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("http://127.0.0.1:9000/dead"))]
    pub dead_letter_url: Option<String>,
    /// In which order deliveries are made: `"fifo"`, one after the other as the events were accepted, or so for each value
    /// of a key; null for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ordering: Option<Ordering>,
    /// What becomes of those behind a dead letter, where there is an order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_dead: Option<OnDead>,
    /// In which version of CloudEvents events are sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_format: Option<EventFormat>,
    /// How an event is put into a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_mode: Option<ContentMode>,
    /// The media type of events in structured mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<ContentType>,
    /// The plugin; null for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin: Option<Plugin>,
    /// Headers of each request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, String>>,
    /// The secret of its signatures (`whsec_…`), or `generate`; null for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(examples("generate"))]
    pub signing_secret: Option<String>,
    /// How its requests are signed; null for not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing: Option<Signing>,
    /// The certificate that Waypost shows to the target, with its key, in PEM; null for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    pub client_certificate: Option<Value>,
    /// The certificate authorities of the target, in PEM; null for those of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_ca: Option<String>,
    /// Whether the target is asked before the first delivery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshake: Option<Handshake>,
}

/// A subscription to make, together with its module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NewSubscriptionParts {
    /// The subscription.
    pub subscription: NewSubscription,
    /// The module, a component.
    #[schema(value_type = String, format = Binary, content_media_type = "application/wasm")]
    pub plugin: Option<Vec<u8>>,
}

words! {
    /// Whether a subscription gets events.
    SubscriptionState {
        /// It does.
        Active = "active",
        /// Its owner, or Waypost, has disabled it.
        Disabled = "disabled",
    }
}

words! {
    /// The order of a list of subscriptions.
    SubscriptionOrder {
        /// The oldest first.
        Created = "created",
        /// The newest first.
        CreatedLast = "-created",
        /// The one first whose last change is the oldest.
        Updated = "updated",
        /// The one first that was changed last.
        UpdatedLast = "-updated",
        /// By name, in capital letters or not.
        Name = "name",
        /// By name, backwards.
        NameLast = "-name",
    }
}

words! {
    /// In which language a filter is read.
    FilterDialect {
        /// RFC 9535, or jsonpath2 where only that parses it.
        Auto = "auto",
        /// RFC 9535.
        Rfc9535 = "rfc9535",
        /// That of Pacifica, the Python package jsonpath2.
        Jsonpath2 = "jsonpath2",
    }
}

words! {
    /// In which version of CloudEvents events are sent.
    EventFormat {
        /// That in which they came.
        Original = "original",
        /// 1.0.
        V1_0 = "1.0",
    }
}

words! {
    /// How an event is put into a request (CloudEvents HTTP binding §3).
    ContentMode {
        /// All of it in the body.
        Structured = "structured",
        /// Its data in the body, and its attributes in headers.
        Binary = "binary",
    }
}

words! {
    /// The media type of events in structured mode.
    ContentType {
        /// That of CloudEvents.
        CloudEvents = "application/cloudevents+json",
        /// That of Pacifica.
        Json = "application/json",
    }
}

words! {
    /// Whether the target is asked before the first delivery (CloudEvents webhooks §4).
    Handshake {
        /// It is not asked.
        Skip = "skip",
        /// It is asked, and gets events without an answer, too.
        Try = "try",
        /// It has to allow them.
        Require = "require",
    }
}

/// How requests are authorized: by a name and a password, by a header, or by OAuth 2.0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Auth {
    /// Which.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub kind: Option<AuthKind>,
    /// Of the type `basic` (RFC 7617).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub basic: Option<AuthBasic>,
    /// Of the type `header`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub header: Option<AuthHeader>,
    /// Of the type `oauth2`: the client credentials grant (RFC 6749 §4.4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub oauth2: Option<AuthOAuth2>,
}

words! {
    /// How requests are authorized.
    AuthKind {
        /// By a name and a password.
        Basic = "basic",
        /// By the header `authorization`.
        Header = "header",
        /// By an access token that is fetched.
        OAuth2 = "oauth2",
    }
}

/// A name and a password.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuthBasic {
    /// The name.
    pub username: String,
    /// The password, which is never shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(write_only, nullable = false)]
    pub password: Option<String>,
}

/// What the header `authorization` has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuthHeader {
    /// Its scheme: `Bearer`.
    #[serde(rename = "type")]
    pub scheme: String,
    /// What follows, which is never shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(write_only, nullable = false)]
    pub credentials: Option<String>,
}

/// Where to fetch access tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuthOAuth2 {
    /// From here.
    pub token_url: String,
    /// As this client.
    pub client_id: String,
    /// With this secret, which is never shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(write_only, nullable = false)]
    pub client_secret: Option<String>,
    /// Where the request has the secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_auth: Option<ClientAuth>,
    /// For these scopes.
    pub scope: Option<String>,
    /// For this audience.
    pub audience: Option<String>,
}

words! {
    /// Where a request for an access token has the client's secret (RFC 6749 §2.3.1).
    ClientAuth {
        /// In the header `authorization`.
        Basic = "basic",
        /// In the body.
        Post = "post",
    }
}

/// How a subscription uses a module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Plugin {
    /// The module: `sha256:` and 64 hexadecimal digits.
    #[schema(pattern = "^sha256:[0-9a-f]{64}$")]
    pub digest: String,
    /// What the plugin is told.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub config: Map<String, Value>,
    /// The hosts that it may call.
    #[serde(default)]
    pub allow_hosts: Vec<String>,
    /// What becomes of a delivery whose plugin fails.
    #[serde(default)]
    pub on_error: OnError,
    /// Limits below those of the service.
    #[serde(default)]
    pub limits: PluginLimits,
}

words! {
    /// What becomes of a delivery whose plugin fails.
    #[derive(Default)]
    OnError {
        /// It is tried again.
        #[default]
        Retry = "retry",
        /// It is skipped.
        Skip = "skip",
        /// The event is delivered unchanged.
        Deliver = "deliver",
        /// It becomes a dead letter.
        DeadLetter = "dead_letter",
    }
}

/// Limits of a plugin's call; null for those of the service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct PluginLimits {
    /// Milliseconds of a call.
    pub time_ms: Option<u64>,
    /// Bytes of its memory.
    pub memory_bytes: Option<usize>,
    /// Bytes of what it makes of an event.
    pub output_bytes: Option<usize>,
    /// Bytes of its log lines.
    pub log_bytes: Option<usize>,
    /// Bytes of its state.
    pub state_bytes: Option<usize>,
    /// Keys of its state.
    pub state_keys: Option<usize>,
}

/// How requests are signed (Standard Webhooks).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Signing {
    /// By which signatures.
    pub algorithms: Vec<Algorithm>,
    /// Since when with this secret, or this key.
    pub since: Option<Time>,
    /// Until when the secret before signs, too.
    pub old_until: Option<Time>,
    /// The key that verifies Ed25519 (`whpk_…`).
    pub public_key: Option<String>,
}

words! {
    /// A kind of signature.
    Algorithm {
        /// HMAC-SHA256 with a secret that sender and target share.
        Hmac = "hmac-sha256",
        /// Ed25519 with the key of the service.
        Ed25519 = "ed25519",
    }
}

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Certificate {
    /// The SHA-256 of its DER form.
    pub sha256: String,
}

/// A new secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rotation {
    /// The new secret (`whsec_…`); left out for a generated one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub signing_secret: Option<String>,
    /// How long the old one signs, too: `24h` unless it is set, at most `30d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub keep_old_for: Option<String>,
}
