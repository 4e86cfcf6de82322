//! What the host learns of a module before it is ever called.

use std::time::Duration;

use super::PluginDigest;

/// The answer to an upload.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Which module.
    pub digest: PluginDigest,
    /// The size of the module in bytes.
    pub bytes: u64,
    /// Those of `metadata`, `policy`, `filter` and `transform` that it exports, in the order in which they run.
    pub exports: Vec<String>,
    /// What it imports, and whether this host provides it.
    pub imports: Vec<Import>,
    /// What it says about itself, where it exports `metadata`.
    pub manifest: Option<Manifest>,
    /// How long compiling took.
    pub compile_time: Duration,
    /// The size of the compiled code in bytes.
    pub compiled_bytes: u64,
    /// The linear memory of a fresh instance, in bytes.
    pub memory_bytes: u64,
}

/// One imported interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// Its full name: `wasi:io/streams@0.2.6`.
    pub name: String,
    /// What the host provides.
    pub offered: Offer,
}

/// What the host provides of an imported interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offer {
    /// This version or a compatible one, with its full name.
    Yes(String),
    /// Only an incompatible version, with its full name.
    OtherVersion(String),
    /// Nothing of that name.
    No,
}

/// What a plugin says about itself (`metadata.describe`).
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it does.
    pub description: String,
    /// JSON Schema (2020-12) of its configuration.
    pub config_schema: Option<serde_json::Value>,
    /// Hosts that it would like to call; this grants nothing.
    pub wanted_hosts: Vec<String>,
}
