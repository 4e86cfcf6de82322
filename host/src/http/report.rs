//! What Waypost knows of a module, as REST and `waypost plugin check` show it.

use jiff::Timestamp;
use waypost_api::v1;

use super::words;
use waypost_domain::plugin::{Import, Manifest, Offer, Report};

/// Shows a report. `uploaded` is when the module was uploaded last; `None` for one that is only checked.
pub fn show(report: &Report, uploaded: Option<Timestamp>) -> v1::Module {
    v1::Module {
        digest: report.digest.to_string(),
        bytes: report.bytes,
        uploaded: uploaded.map(v1::Time),
        exports: report.exports.clone(),
        imports: report.imports.iter().map(import).collect(),
        manifest: report.manifest.as_ref().map(manifest),
        compile_ms: words::millis(report.compile_time),
        compiled_bytes: report.compiled_bytes,
        memory_bytes: report.memory_bytes,
        used_by: None,
    }
}

fn import(import: &Import) -> v1::Import {
    let (offered, fits) = match &import.offered {
        Offer::Yes(name) => (Some(name.clone()), true),
        Offer::OtherVersion(name) => (Some(name.clone()), false),
        Offer::No => (None, false),
    };
    v1::Import { name: import.name.clone(), offered, fits }
}

fn manifest(manifest: &Manifest) -> v1::Manifest {
    v1::Manifest {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        description: manifest.description.clone(),
        config_schema: manifest.config_schema.clone(),
        wanted_hosts: manifest.wanted_hosts.clone(),
    }
}
