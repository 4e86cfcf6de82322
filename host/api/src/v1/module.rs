use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Time;

/// A module, and what Waypost found out about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Module {
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// Its size.
    pub bytes: u64,
    /// When it was uploaded last; null for one that was only checked.
    pub uploaded: Option<Time>,
    /// Those of `metadata`, `policy`, `filter`, `transform` and `handler` that it exports, in the order in which they run.
    pub exports: Vec<String>,
    /// What it imports.
    pub imports: Vec<Import>,
    /// What it says about itself, where it exports `metadata`.
    pub manifest: Option<Manifest>,
    /// How long compiling took, in milliseconds.
    pub compile_ms: u64,
    /// The size of the compiled code.
    pub compiled_bytes: u64,
    /// The memory of a fresh instance.
    pub memory_bytes: u64,
    /// In a list: the subscriptions of yours that use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub used_by: Option<Vec<Uuid>>,
}

/// The module of a subscription.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SubscriptionModule {
    /// The module.
    #[serde(flatten)]
    pub module: Module,
    /// What the plugin is told.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub config: Map<String, Value>,
    /// The breaker; null unless the plugin has failed recently.
    pub breaker: Option<Breaker>,
}

/// The bytes of a module: a WebAssembly component.
#[derive(Clone, Debug, PartialEq, Eq, ToSchema)]
#[schema(value_type = String, format = Binary, content_media_type = "application/wasm")]
pub struct Component(pub Vec<u8>);

/// An interface that a module imports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Import {
    /// Its full name: `wasi:io/streams@0.2.6`.
    pub name: String,
    /// What the host offers of that name; null for nothing.
    pub offered: Option<String>,
    /// Whether that fits.
    pub fits: bool,
}

/// What a plugin says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Manifest {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it does.
    pub description: String,
    /// The JSON Schema (2020-12) of its configuration.
    pub config_schema: Option<Value>,
    /// Hosts that it would like to call; this grants nothing.
    #[serde(default)]
    pub wanted_hosts: Vec<String>,
}

/// The breaker of a plugin, which keeps events from it while it fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Breaker {
    /// How often it has failed in a row.
    pub failures: u32,
    /// Until when no event reaches it; null if events do.
    pub open_until: Option<Time>,
    /// How it failed last.
    pub reason: String,
}
