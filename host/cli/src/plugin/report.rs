//! The report of a module for people.

use serde_json::value::to_raw_value;
use waypost_api::v1;
use waypost_runtime::foreign;

use super::units;
use crate::pretty;

/// The greatest width of the column of names; a longer name shifts the next column. `format!` panics on a width beyond
/// 65,535.
const WIDTH_MAX: usize = 64;

/// Returns a short report of an accepted module. Its imports are left out because the host offers them all, and its
/// schema because it is long.
pub(super) fn brief(module: &v1::Module) -> String {
    head(module) + &module.manifest.as_ref().map(manifest_head).unwrap_or_default()
}

/// Returns the whole report.
pub(super) fn text(module: &v1::Module) -> String {
    head(module) + &imports(&module.imports) + &module.manifest.as_ref().map(manifest).unwrap_or_default()
}

fn head(module: &v1::Module) -> String {
    let v1::Module { digest, bytes, exports, compile_ms, compiled_bytes, memory_bytes, .. } = module;
    let size = units::bytes(*bytes);
    let exports = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
    let (digest, exports) = (foreign::line(digest), foreign::line(&exports));
    let cost = match *compiled_bytes {
        0 => ", not compiled".to_owned(),
        compiled => {
            let (compiled, memory) = (units::bytes(compiled), units::bytes(*memory_bytes));
            format!(", compiled {compiled} in {compile_ms} ms\nmemory    {memory} in a fresh instance")
        }
    };
    format!("digest    {digest}\nsize      {size}{cost}\nexports   {exports}\n")
}

fn imports(imports: &[v1::Import]) -> String {
    let shown: Vec<_> = imports.iter().map(|import| foreign::line(&import.name)).collect();
    let width = shown.iter().map(|name| name.chars().count().min(WIDTH_MAX)).max().unwrap_or_default();
    let (mut text, mut head) = (String::new(), "imports");
    for (name, v1::Import { offered, fits, name: wanted }) in shown.iter().zip(imports) {
        let offer = match offered {
            Some(offered) if *fits && offered == wanted => "offered".to_owned(),
            Some(offered) if *fits => format!("offered as {offered}"),
            Some(offered) => format!("DOES NOT FIT: the host offers {offered}"),
            None => "NOT OFFERED".to_owned(),
        };
        text.push_str(&format!("{head:10}{name:width$}  {}\n", foreign::line(&offer)));
        head = "";
    }
    text
}

fn manifest(manifest: &v1::Manifest) -> String {
    let mut text = manifest_head(manifest);
    if let Some(schema) = manifest.config_schema.as_ref().and_then(|schema| to_raw_value(schema).ok()) {
        text.push_str("config\n");
        pretty::json(&schema).lines().for_each(|line| text.push_str(&format!("  {line}\n")));
    }
    text
}

fn manifest_head(manifest: &v1::Manifest) -> String {
    let v1::Manifest { name, version, description, wanted_hosts, .. } = manifest;
    let (name, version) = (foreign::line(name), foreign::line(version));
    let description = foreign::continued(description, "          ");
    let mut text = format!("manifest  {name} {version}: {description}\n");
    if !wanted_hosts.is_empty() {
        let hosts = wanted_hosts.join(", ");
        text.push_str(&format!("hosts     it would like to call {}\n", foreign::line(&hosts)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_at_a_glance() {
        let json = r#"{"digest": "sha256:ab", "bytes": 80000, "exports": ["filter", "transform"], "imports": [
            {"name": "waypost:plugin/log@0.1.0", "offered": "waypost:plugin/log@0.1.0", "fits": true},
            {"name": "wasi:io/streams@0.2.6", "offered": "wasi:io/streams@0.2.9", "fits": true},
            {"name": "waypost:plugin/state@0.2.0", "offered": "waypost:plugin/state@0.1.0", "fits": false},
            {"name": "wasi:nn/tensor@0.2.0", "offered": null, "fits": false}],
            "manifest": {"name": "n", "version": "1.0.0", "description": "d",
                "config_schema": {"type": "object"}, "wanted_hosts": ["a.example", "b.example"]},
            "compile_ms": 52, "compiled_bytes": 307200, "memory_bytes": 1114112}"#;
        let module: v1::Module = serde_json::from_str(json).unwrap();
        insta::assert_snapshot!(text(&module), @r#"
        digest    sha256:ab
        size      78.1 KiB, compiled 300 KiB in 52 ms
        memory    1.1 MiB in a fresh instance
        exports   filter, transform
        imports   waypost:plugin/log@0.1.0    offered
                  wasi:io/streams@0.2.6       offered as wasi:io/streams@0.2.9
                  waypost:plugin/state@0.2.0  DOES NOT FIT: the host offers waypost:plugin/state@0.1.0
                  wasi:nn/tensor@0.2.0        NOT OFFERED
        manifest  n 1.0.0: d
        hosts     it would like to call a.example, b.example
        config
          {
            "type": "object"
          }
        "#);
        insta::assert_snapshot!(brief(&module), @r"
        digest    sha256:ab
        size      78.1 KiB, compiled 300 KiB in 52 ms
        memory    1.1 MiB in a fresh instance
        exports   filter, transform
        manifest  n 1.0.0: d
        hosts     it would like to call a.example, b.example
        ");
    }

    /// A name with line ends made a second report, and one of 66,000 characters a panic in `format!`.
    #[test]
    fn no_name_makes_lines_of_its_own_or_a_panic() {
        let forged = "x\\nerror: everything is fine\\ndigest    sha256:00\\u202e";
        let long = "n".repeat(66_000);
        let json = format!(
            r#"{{"digest": "sha256:ab", "bytes": 8, "exports": ["{forged}"], "imports": [
            {{"name": "{forged}", "offered": null, "fits": false}}, {{"name": "{long}", "offered": null, "fits": false}}],
            "manifest": {{"name": "{forged}", "version": "{forged}", "description": "{forged}",
                "config_schema": {{"title": "{forged}"}}, "wanted_hosts": ["{forged}"]}},
            "compile_ms": 5, "compiled_bytes": 3, "memory_bytes": 1}}"#
        );
        let module: v1::Module = serde_json::from_str(&json).unwrap();
        for shown in [text(&module), brief(&module)] {
            assert_eq!(shown.matches("\nerror").count() + shown.matches("\ndigest").count(), 0, "{shown}");
            assert!(
                !shown.contains('\u{202e}') && shown.contains(r"x\nerror: everything is fine"),
                "{shown}"
            );
            assert!(shown.contains("\n          | error: everything is fine\n"), "{shown}");
        }
    }
}
