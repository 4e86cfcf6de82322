//! Version 1: members may be added to it, and none is removed or changed.
//!
//! Members that are null are written, so that a reader sees what there could be. A reader has to be as new as what it reads:
//! it does not know words that were added later.

mod access;
mod delivery;
mod dry_run;
mod event;
mod explanation;
mod job;
mod module;
mod plugin_run;
mod problem;
mod recovery;
mod run;
mod service;
mod subscription;
mod task;
mod time;

pub use access::{AuditEntry, AuditPage, Me, NewToken, Scope, Session, Token};
pub use delivery::{
    Answer, Attempt, Deliveries, Delivery, DeliveryCounts, DeliveryState, Hold, Outcome, RequestedBy,
    SubscriptionDelivery,
};
pub use dry_run::{Address, DryRun, PolicyAnswer, PolicyVerdict, Request, Target, TargetVerdict};
pub use event::{
    CloudEvent, DeliveryGap, EventGap, EventIds, EventPage, EventSummary, FailedFilter, FilterFailure, Mode,
    PurgeReport, Redelivery, RedeliveryFailure, RedeliveryTarget, Story, StreamEnd,
};
pub use explanation::{
    Condition, Explanation, FilterExplanation, HandlerExplanation, Step, SubscriptionExplanation,
};
pub use job::{Job, JobKind, JobScope, NewDiscard, NewRedeliver};
pub use module::{Breaker, Component, Import, Manifest, Module, SubscriptionModule};
pub use plugin_run::{LogLevel, LogLine, PluginRun, PluginVerdict};
pub use problem::{Problem, ProblemPart};
pub use recovery::{Mark, NewRecovery, Recovery, RecoveryState};
pub use run::{FetchSummary, HandlerRun, Phase, Program, Progress, Start, StartFrom, Stream, Upload};
pub use service::{Compaction, Health, Jwk, Jwks, Ready};
pub use subscription::{
    Algorithm, Auth, AuthBasic, AuthHeader, AuthKind, AuthOAuth2, BreakerState, Certificate, ClientAuth,
    ContentMode, ContentType, EventFormat, Fifo, FilterDialect, Handshake, NewSubscription,
    NewSubscriptionParts, OnDead, OnError, Ordering, OrderingKey, Plugin, PluginLimits, Rotation, Signing,
    Subscription, SubscriptionOrder, SubscriptionState, TargetBreaker,
};
pub use task::{ScriptLog, Task, TaskSummary};
pub use time::Time;

/// Declares an enum whose values are written as words.
macro_rules! words {
    (
        $(#[doc = $doc:expr])+
        $(#[derive($derive:ident)])?
        $name:ident { $($(#[$meta:meta])* $value:ident = $word:literal,)+ }
    ) => {
        $(#[doc = $doc])+
        $(#[derive($derive)])?
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$meta])* #[serde(rename = $word)] $value,)+
        }

        impl $name {
            /// Returns the word.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        // The derive does not read words that come from a macro.
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::schema::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .enum_values(Some([$($word),+]))
                    .description(Some(concat!($($doc),+).trim()))
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {}
    };
}
use words;
