//! The nouns of Waypost: no I/O, no clock, no tasks.
//!
//! Everything here is a value that the other modules pass around. `waypost::http` owns its form on a socket,
//! `waypost_store` its form on disk.

pub mod access;
pub mod delivery;
pub mod event;
pub mod handler;
pub mod ids;
pub mod json;
pub mod order;
pub mod parts;
pub mod plugin;
pub mod rate;
pub mod recovery;

pub mod job;
pub mod operator;
pub mod retry;
pub mod secret;
pub mod sending;
pub mod status;
pub mod subscription;
pub mod target;

pub use access::{Action, Actor, AuditEntry, Scope, Scopes, SecretHash, Token, Via};
pub use delivery::{Answer, Attempt, Entry, Holder, Outcome, State};
pub use event::Event;
pub use handler::{HandlerName, HandlerRun};
pub use ids::{DeliveryId, EventId, RecipientId, SubscriptionId, TokenId};
pub use job::Job;
pub use operator::{Announcement, Guarded, Notice, OPERATOR};
pub use order::{OnDead, Order, OrderBy};
pub use plugin::{PluginDigest, PluginUse};
pub use rate::RateLimit;
pub use recovery::Recovery;
pub use retry::RetrySchedule;
pub use secret::{KeyId, Sealed, Secret};
pub use status::TaskStatus;
pub use subscription::{Activity, Auth, FilterDialect, Subscription};
pub use target::TargetUrl;
