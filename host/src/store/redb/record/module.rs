//! The record of a module, as JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::digest::DigestRecord;
use super::{Error, SEALED, body, seal};
use crate::domain::plugin::{Import, Manifest, Offer, Report};
use crate::store::Module;

/// A module.
#[derive(Serialize, Deserialize)]
struct ModuleRecord<'a> {
    #[serde(borrow)]
    report: ReportRecord<'a>,
    uploaded: Timestamp,
    #[serde(borrow)]
    by: Cow<'a, str>,
    /// Absent in older rows, which have no more than `by`.
    #[serde(default)]
    uploads: Cow<'a, BTreeMap<String, Timestamp>>,
}

/// What is known of a module.
#[derive(Serialize, Deserialize)]
struct ReportRecord<'a> {
    #[serde(borrow)]
    digest: DigestRecord<'a>,
    bytes: u64,
    exports: Cow<'a, [String]>,
    #[serde(borrow)]
    imports: Vec<ImportRecord<'a>>,
    #[serde(borrow)]
    manifest: Option<ManifestRecord<'a>>,
    compile_time: Duration,
    compiled_bytes: u64,
    memory_bytes: u64,
}

/// One imported interface.
#[derive(Serialize, Deserialize)]
struct ImportRecord<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    offered: OfferRecord<'a>,
}

/// What the host provides of an imported interface.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OfferRecord<'a> {
    #[serde(borrow)]
    Yes(Cow<'a, str>),
    #[serde(borrow)]
    OtherVersion(Cow<'a, str>),
    No,
}

/// What a plugin says about itself.
#[derive(Serialize, Deserialize)]
struct ManifestRecord<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    version: Cow<'a, str>,
    #[serde(borrow)]
    description: Cow<'a, str>,
    config_schema: Option<Cow<'a, Value>>,
    wanted_hosts: Cow<'a, [String]>,
}

/// Writes a module.
pub(in crate::store::redb) fn encode_module(module: &Module) -> Vec<u8> {
    let mut buffer = vec![SEALED];
    serde_json::to_writer(&mut buffer, &ModuleRecord::from(module)).expect("a report has only string keys");
    seal(buffer)
}

/// Reads a module.
pub(in crate::store::redb) fn decode_module(record: &[u8]) -> Result<Module, Error> {
    serde_json::from_slice::<ModuleRecord<'_>>(body(record)?)?.try_into()
}

impl<'a> From<&'a Module> for ModuleRecord<'a> {
    fn from(module: &'a Module) -> Self {
        let Module { report, uploaded, by, uploads } = module;
        Self { report: report.into(), uploaded: *uploaded, by: by.into(), uploads: Cow::Borrowed(uploads) }
    }
}

impl TryFrom<ModuleRecord<'_>> for Module {
    type Error = Error;

    fn try_from(record: ModuleRecord<'_>) -> Result<Self, Error> {
        let ModuleRecord { report, uploaded, by, uploads } = record;
        let (by, mut uploads) = (by.into_owned(), uploads.into_owned());
        if uploads.is_empty() {
            uploads.insert(by.clone(), uploaded);
        }
        Ok(Self { report: report.try_into()?, uploaded, by, uploads })
    }
}

impl<'a> From<&'a Report> for ReportRecord<'a> {
    fn from(report: &'a Report) -> Self {
        let Report { digest, bytes, exports, imports, manifest, compile_time, compiled_bytes, memory_bytes } =
            report;
        Self {
            digest: (*digest).into(),
            bytes: *bytes,
            exports: exports.into(),
            imports: imports.iter().map(ImportRecord::from).collect(),
            manifest: manifest.as_ref().map(ManifestRecord::from),
            compile_time: *compile_time,
            compiled_bytes: *compiled_bytes,
            memory_bytes: *memory_bytes,
        }
    }
}

impl TryFrom<ReportRecord<'_>> for Report {
    type Error = Error;

    fn try_from(record: ReportRecord<'_>) -> Result<Self, Error> {
        let ReportRecord {
            digest,
            bytes,
            exports,
            imports,
            manifest,
            compile_time,
            compiled_bytes,
            memory_bytes,
        } = record;
        Ok(Self {
            digest: digest.try_into()?,
            bytes,
            exports: exports.into_owned(),
            imports: imports.into_iter().map(Import::from).collect(),
            manifest: manifest.map(Manifest::from),
            compile_time,
            compiled_bytes,
            memory_bytes,
        })
    }
}

impl<'a> From<&'a Import> for ImportRecord<'a> {
    fn from(import: &'a Import) -> Self {
        let Import { name, offered } = import;
        Self { name: name.into(), offered: offered.into() }
    }
}

impl From<ImportRecord<'_>> for Import {
    fn from(record: ImportRecord<'_>) -> Self {
        let ImportRecord { name, offered } = record;
        Self { name: name.into_owned(), offered: offered.into() }
    }
}

impl<'a> From<&'a Offer> for OfferRecord<'a> {
    fn from(offer: &'a Offer) -> Self {
        match offer {
            Offer::Yes(name) => Self::Yes(name.into()),
            Offer::OtherVersion(name) => Self::OtherVersion(name.into()),
            Offer::No => Self::No,
        }
    }
}

impl From<OfferRecord<'_>> for Offer {
    fn from(record: OfferRecord<'_>) -> Self {
        match record {
            OfferRecord::Yes(name) => Self::Yes(name.into_owned()),
            OfferRecord::OtherVersion(name) => Self::OtherVersion(name.into_owned()),
            OfferRecord::No => Self::No,
        }
    }
}

impl<'a> From<&'a Manifest> for ManifestRecord<'a> {
    fn from(manifest: &'a Manifest) -> Self {
        let Manifest { name, version, description, config_schema, wanted_hosts } = manifest;
        Self {
            name: name.into(),
            version: version.into(),
            description: description.into(),
            config_schema: config_schema.as_ref().map(Cow::Borrowed),
            wanted_hosts: wanted_hosts.into(),
        }
    }
}

impl From<ManifestRecord<'_>> for Manifest {
    fn from(record: ManifestRecord<'_>) -> Self {
        let ManifestRecord { name, version, description, config_schema, wanted_hosts } = record;
        Self {
            name: name.into_owned(),
            version: version.into_owned(),
            description: description.into_owned(),
            config_schema: config_schema.map(Cow::into_owned),
            wanted_hosts: wanted_hosts.into_owned(),
        }
    }
}
