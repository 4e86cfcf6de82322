//! The record of a module, as JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;

use super::form::{Form as _, record};
use super::{Error, body, json};
use crate::Module;
use waypost_domain::plugin::{Import, Manifest, Offer, Report};

record! {
    /// A module.
    struct ModuleRecord<'a> of Module {
        report: ReportRecord<'a>,
        uploaded: Timestamp,
        by: Cow<'a, str>,
        /// Absent in older rows, which have no more than `by`.
        #[serde(default)]
        uploads: Cow<'a, BTreeMap<String, Timestamp>>,
    }
}

record! {
    /// What is known of a module.
    struct ReportRecord<'a> of Report {
        digest: Cow<'a, str>,
        bytes: u64,
        exports: Cow<'a, [String]>,
        imports: Vec<ImportRecord<'a>>,
        manifest: Option<ManifestRecord<'a>>,
        compile_time: Duration,
        compiled_bytes: u64,
        memory_bytes: u64,
    }
}

record! {
    /// One imported interface.
    struct ImportRecord<'a> of Import {
        name: Cow<'a, str>,
        offered: OfferRecord<'a>,
    }
}

record! {
    /// What the host provides of an imported interface.
    #[serde(rename_all = "snake_case")]
    enum OfferRecord<'a> of Offer {
        Yes(Cow<'a, str>),
        OtherVersion(Cow<'a, str>),
        No,
    }
}

record! {
    /// What a plugin says about itself.
    struct ManifestRecord<'a> of Manifest {
        name: Cow<'a, str>,
        version: Cow<'a, str>,
        description: Cow<'a, str>,
        config_schema: Option<Cow<'a, Value>>,
        wanted_hosts: Cow<'a, [String]>,
    }
}

/// Writes a module.
pub(crate) fn encode_module(module: &Module) -> Vec<u8> {
    json(&ModuleRecord::of(module))
}

/// Reads a module.
pub(crate) fn decode_module(record: &[u8]) -> Result<Module, Error> {
    let mut module: Module = serde_json::from_slice::<ModuleRecord<'_>>(body(record)?)?.read(&Bytes::new())?;
    if module.uploads.is_empty() {
        module.uploads.insert(module.by.clone(), module.uploaded);
    }
    Ok(module)
}
