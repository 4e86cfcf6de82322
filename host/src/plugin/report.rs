//! What is known of a module before it ever runs: what it exports, what it wants, and what it says about itself.

use std::sync::Arc;

use wasmtime::component::Component;

use super::compile::Compiled;
use super::error::Refused;
use super::host::Host;
use super::loaded::Plugin;
use super::offered;
use crate::domain::PluginDigest;
use crate::domain::plugin::{Import, Offer, Report};

/// What this waypost calls, in the order in which it does.
const CALLED: [&str; 4] = ["metadata", "policy", "filter", "transform"];
/// The package of that.
const PACKAGE: &str = "waypost:plugin";
/// And its version.
const VERSION: &str = "0.1.0";

/// Makes the report of a module that has been compiled.
pub(super) async fn of(
    host: &Arc<Host>,
    digest: PluginDigest,
    bytes: u64,
    component: &Component,
    compiled: Compiled,
) -> Result<Report, Refused> {
    let running = host.running()?;
    let imports = imports(component);
    let mut report = blank(digest, bytes, imports, compiled);
    let misfit = |reason: String, report: &Report| Err(misfit(reason, report.clone()));
    if let Some(reason) = missing(&report.imports) {
        return misfit(reason, &report);
    }
    let plugin = match Plugin::link(digest, &running.linker, component) {
        Ok(plugin) => Arc::new(plugin),
        // A newer patch of an interface may have functions that the older one has not.
        Err(error) => return misfit(format!("it does not link: {error:#}"), &report),
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
    if !has[1..].contains(&true) {
        return misfit(nothing_to_call(component), &report);
    }
    (report.manifest, report.memory_bytes) = host.describe(&plugin).await?;
    Ok(report)
}

/// Says why a component that has been compiled is no program, if it is none.
pub(super) fn of_command(
    digest: PluginDigest,
    bytes: u64,
    component: &Component,
    compiled: Compiled,
) -> Result<(), Refused> {
    let mut imports = imports(component);
    for import in &mut imports {
        if import.name.starts_with(PACKAGE) {
            import.offered = Offer::No;
        }
    }
    let reason = if is_command(component) {
        missing(&imports).map(|missing| format!("{missing}; a handler has what {TARGET} has, and wasi:http"))
    } else {
        let found = exports(component);
        Some(format!(
            "it exports no {RUN}, but {found}: a handler is a program with a `main`, as `cargo build --target \
             {TARGET}` makes it"
        ))
    };
    reason.map_or(Ok(()), |reason| Err(misfit(reason, blank(digest, bytes, imports, compiled))))
}

/// What a program exports, and what it is built for.
const RUN: &str = "wasi:cli/run@0.2";
const TARGET: &str = "wasm32-wasip2";

/// Tells whether a component is a program: a WASI 0.2 command.
fn is_command(component: &Component) -> bool {
    component.component_type().exports(component.engine()).any(|(name, _)| name.starts_with(RUN))
}

fn blank(digest: PluginDigest, bytes: u64, imports: Vec<Import>, compiled: Compiled) -> Report {
    Report {
        digest,
        bytes,
        exports: Vec::new(),
        imports,
        manifest: None,
        compile_time: compiled.took,
        compiled_bytes: compiled.bytes,
        memory_bytes: 0,
    }
}

fn misfit(reason: String, report: Report) -> Refused {
    Refused::DoesNotFit { reason, report: Box::new(report) }
}

fn imports(component: &Component) -> Vec<Import> {
    let ty = component.component_type();
    let import = |name: &str| Import { name: name.to_owned(), offered: offered::offer(name) };
    ty.imports(component.engine()).map(|(name, _)| import(name)).collect()
}

fn exports(component: &Component) -> String {
    let ty = component.component_type();
    let found: Vec<_> = ty.exports(component.engine()).map(|(name, _)| name.to_owned()).collect();
    if found.is_empty() { "nothing".to_owned() } else { found.join(", ") }
}

/// Says which imports are not to be had, with what is.
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
    (!told.is_empty()).then(|| told.join("; "))
}

/// Says that there is nothing to call, and what there is instead.
fn nothing_to_call(component: &Component) -> String {
    let found = exports(component);
    let hint = if is_command(component) {
        ": it is a program, which is no plugin of a subscription but a handler: name it as the `component` of a \
         [[handler]], and try it with `waypost handler run`"
    } else {
        ""
    };
    format!(
        "it exports none of {PACKAGE}/policy@{VERSION}, {PACKAGE}/filter@{VERSION} and \
         {PACKAGE}/transform@{VERSION}, but {found}{hint}"
    )
}
