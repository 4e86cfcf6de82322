//! What is known of a module before it runs: its exports, its imports, and its manifest. A module that cannot be of use
//! is refused before it is compiled.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::Component;

use super::configuration::SchemaChecks;
use super::error::Refused;
use super::metadata;
use super::outline::{Outline, Wanted, and_more};
use super::runner::Runner;
use super::text;
use waypost_domain::PluginDigest;
use waypost_domain::plugin::{Import, Offer, Report};

/// The interfaces that this waypost calls, in the order of the calls.
const CALLED: [&str; 4] = ["metadata", "policy", "filter", "transform"];
/// The package of these interfaces.
const PACKAGE: &str = "waypost:plugin";
/// The version of that package.
const VERSION: &str = "0.1.0";

/// Looks at a plugin before it is compiled.
///
/// # Errors
/// When it can be of no use here: it exports nothing that is called, or imports what is not offered.
pub(super) fn outline(digest: PluginDigest, wasm: &[u8]) -> Result<Outline, Refused> {
    let mut outline = Outline::read(wasm).map_err(Refused::Invalid)?;
    let exports = [Wanted::Policy, Wanted::Filter, Wanted::Transform].into_iter().any(|one| outline.has(one));
    let reason = outline.excess().or_else(|| missing(&outline.imports));
    match reason.or_else(|| (!exports).then(|| nothing_to_call(&outline))) {
        None => Ok(outline),
        Some(reason) => Err(misfit(reason, blank(digest, wasm.len() as u64, &outline))),
    }
}

/// Looks at a program before it is compiled, as [`outline()`] does.
pub(super) fn outline_of_command(digest: PluginDigest, wasm: &[u8]) -> Result<(), Refused> {
    let mut outline = Outline::read(wasm).map_err(Refused::Invalid)?;
    let excess = outline.excess();
    for import in &mut outline.imports {
        if import.name.starts_with(PACKAGE) {
            import.offered = Offer::No;
        }
    }
    let reason = excess.or_else(|| {
        if outline.has(Wanted::Run) {
            let missing = missing(&outline.imports)?;
            return Some(format!("{missing}; a handler has what {TARGET} has, and wasi:http"));
        }
        Some(format!(
            "it exports no {RUN}, but {}: a handler is a program with a `main`, as `cargo build --target {TARGET}` \
             makes it",
            outline.exported()
        ))
    });
    match reason {
        None => Ok(()),
        Some(reason) => Err(misfit(reason, blank(digest, wasm.len() as u64, &outline))),
    }
}

/// Completes the report of a module that has been compiled: links it, and asks it about itself.
pub(super) async fn complete(
    mut report: Report,
    outline: &Outline,
    component: &Component,
    runner: &Runner,
    schemas: &SchemaChecks,
    user: &str,
) -> Result<Report, Refused> {
    let plugin = match runner.link(report.digest, component) {
        Ok(plugin) => Arc::new(plugin),
        // A newer patch of an interface may have functions that an older one lacks.
        Err(error) => return Err(misfit(format!("it does not link: {}", text::of(&error)), report)),
    };
    let exports = &plugin.exports;
    let has = [
        exports.metadata.is_some(),
        exports.policy.is_some(),
        exports.filter.is_some(),
        exports.transform.is_some(),
    ];
    let known = CALLED.into_iter().zip(has).filter(|(_, has)| *has);
    report.exports = known.map(|(name, _)| name.to_owned()).collect();
    // An export with the right name need not be the interface that is called.
    if !has[1..].contains(&true) {
        return Err(misfit(nothing_to_call(outline), report));
    }
    (report.manifest, report.memory_bytes) = metadata::describe(runner, schemas, user, &plugin).await?;
    Ok(report)
}

/// What a program exports, and what it is built for.
const RUN: &str = "wasi:cli/run@0.2";
const TARGET: &str = "wasm32-wasip2";

/// Returns the report of a module of which only the outline is known.
pub(super) fn blank(digest: PluginDigest, bytes: u64, outline: &Outline) -> Report {
    Report {
        digest,
        bytes,
        exports: Vec::new(),
        imports: outline.imports.clone(),
        manifest: None,
        compile_time: Duration::ZERO,
        compiled_bytes: 0,
        memory_bytes: 0,
    }
}

fn misfit(reason: String, report: Report) -> Refused {
    Refused::DoesNotFit { reason, report: Box::new(report) }
}

/// Says which imports are not offered, and what is offered instead.
fn missing(imports: &[Import]) -> Option<String> {
    let tell = |import: &Import| {
        let name = &import.name;
        match &import.offered {
            Offer::Yes(_) => None,
            Offer::OtherVersion(offered) => Some(format!("it imports {name}, this waypost has {offered}")),
            Offer::No => Some(format!("it imports {name}, which this waypost does not have")),
        }
    };
    let told: Vec<_> = imports.iter().filter_map(tell).collect();
    (!told.is_empty()).then(|| and_more(&told, told.len(), "; "))
}

/// Says that there is nothing to call, and what there is instead.
fn nothing_to_call(outline: &Outline) -> String {
    let found = outline.exported();
    let hint = if outline.has(Wanted::Run) {
        ": it is a program, which cannot be a subscription's plugin, but a handler: name it as the `component` of a \
         [[handler]], and try it with `waypost handler run`"
    } else {
        ""
    };
    format!(
        "it exports none of {PACKAGE}/policy@{VERSION}, {PACKAGE}/filter@{VERSION} and \
         {PACKAGE}/transform@{VERSION}, but {found}{hint}"
    )
}
