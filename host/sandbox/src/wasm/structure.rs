//! Counts what a component is made of before it is compiled: instances of instances can multiply without bound.
//!
//! A component may define another one and instantiate it twice, and that one a third: thirty such lines are a billion
//! instances. The compiler writes out each of them, and a process that loads the code holds each in memory. So they are
//! counted from the definitions alone, in the time that it takes to read them. Bytes that are not a component are left
//! to the compiler, which reports what is wrong with them.

use wasmparser::{
    ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind, Encoding, Instance,
    Parser, Payload,
};

use super::limits::size;

/// The most of each that an instance may be made of. Python's plugins, the largest known, have 3 components and 14 core
/// modules with a memory and a few tables. The pool allows less than this, which is checked later.
const MOST: Parts = Parts { components: 1000, instances: 256, memories: 16, tables: 256 };
/// The largest custom section, in bytes. The largest that tools make are names of functions: 240 KB in Python's
/// plugins.
const CUSTOM_BYTES_MAX: usize = 1024 * 1024;
/// The largest section of debug information. The smallest plugin in Rust has 1.2 MB of `.debug_str` without
/// `--release`.
const DEBUG_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What the names of those begin with.
const DEBUG: &str = ".debug_";

/// What one instance is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Parts {
    components: u64,
    instances: u64,
    memories: u64,
    tables: u64,
}

impl Parts {
    fn add(&mut self, other: Self) {
        self.components = self.components.saturating_add(other.components);
        self.instances = self.instances.saturating_add(other.instances);
        self.memories = self.memories.saturating_add(other.memories);
        self.tables = self.tables.saturating_add(other.tables);
    }
}

/// What is being read: a core module or a component, with what it has defined so far.
struct Definition {
    is_component: bool,
    parts: Parts,
    /// The index spaces. `None` stands for what comes from outside, whose parts are unknown.
    modules: Vec<Option<Parts>>,
    components: Vec<Option<Parts>>,
}

/// Checks what a component is made of.
///
/// # Errors
/// The limit that it exceeds, with the setting's or the limit's value.
pub(super) fn check(wasm: &[u8]) -> Result<(), String> {
    let mut open: Vec<Definition> = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        // The compiler reports what is wrong.
        let Ok(payload) = payload else { return Ok(()) };
        match read(payload, &mut open) {
            Ok(()) => {}
            Err(Stop::Malformed) => return Ok(()),
            Err(Stop::Limit(limit)) => return Err(limit),
        }
    }
    Ok(())
}

/// Why nothing more is read.
enum Stop {
    Malformed,
    Limit(String),
}

impl From<wasmparser::BinaryReaderError> for Stop {
    fn from(_: wasmparser::BinaryReaderError) -> Self {
        Self::Malformed
    }
}

fn read(payload: Payload<'_>, open: &mut Vec<Definition>) -> Result<(), Stop> {
    match payload {
        Payload::Version { encoding, .. } => open.push(Definition::new(encoding)),
        Payload::End(_) => {
            let ended = open.pop().ok_or(Stop::Malformed)?;
            if let Some(outer) = open.last_mut() {
                let space = if ended.is_component { &mut outer.components } else { &mut outer.modules };
                space.push(Some(ended.parts));
            }
        }
        section => read_section(section, open)?,
    }
    Ok(())
}

fn read_section(section: Payload<'_>, open: &mut [Definition]) -> Result<(), Stop> {
    let depth = open.len();
    let inner = open.last_mut().ok_or(Stop::Malformed)?;
    match section {
        Payload::MemorySection(memories) => inner.parts.memories += u64::from(memories.count()),
        Payload::TableSection(tables) => inner.parts.tables += u64::from(tables.count()),
        Payload::InstanceSection(instances) => {
            for instance in instances {
                if let Instance::Instantiate { module_index, .. } = instance? {
                    // One from outside is an instance, of which nothing else is known here.
                    let unknown = Parts { instances: 1, ..Parts::default() };
                    inner.parts.add(at(&inner.modules, module_index)?.unwrap_or(unknown));
                    within(&inner.parts)?;
                }
            }
        }
        Payload::ComponentInstanceSection(instances) => {
            for instance in instances {
                if let ComponentInstance::Instantiate { component_index, .. } = instance? {
                    inner.parts.add(at(&inner.components, component_index)?.ok_or_else(unknown)?);
                    within(&inner.parts)?;
                }
            }
        }
        Payload::ComponentImportSection(imports) => {
            for import in imports {
                inner.define(import?.ty.kind(), None);
            }
        }
        Payload::ComponentExportSection(exports) => {
            for export in exports {
                let export = export?;
                let known = match export.kind {
                    ComponentExternalKind::Module => at(&inner.modules, export.index)?,
                    ComponentExternalKind::Component => at(&inner.components, export.index)?,
                    _ => None,
                };
                inner.define(export.kind, known);
            }
        }
        Payload::ComponentAliasSection(aliases) => {
            for alias in aliases {
                define_alias(&alias?, open, depth)?;
            }
        }
        Payload::CustomSection(section) => custom(section.name(), section.data().len())?,
        _ => {}
    }
    Ok(())
}

impl Definition {
    /// Begins a definition. Instantiating it makes at least one instance: of a component or of a core module.
    fn new(encoding: Encoding) -> Self {
        let is_component = encoding == Encoding::Component;
        let parts = match is_component {
            true => Parts { components: 1, ..Parts::default() },
            false => Parts { instances: 1, ..Parts::default() },
        };
        Self { is_component, parts, modules: Vec::new(), components: Vec::new() }
    }

    fn define(&mut self, kind: ComponentExternalKind, known: Option<Parts>) {
        match kind {
            ComponentExternalKind::Module => self.modules.push(known),
            ComponentExternalKind::Component => self.components.push(known),
            ComponentExternalKind::Func
            | ComponentExternalKind::Value
            | ComponentExternalKind::Type
            | ComponentExternalKind::Instance => {}
        }
    }
}

fn define_alias(alias: &ComponentAlias<'_>, open: &mut [Definition], depth: usize) -> Result<(), Stop> {
    let (kind, known) = match alias {
        ComponentAlias::InstanceExport { kind, .. } => (*kind, None),
        ComponentAlias::CoreInstanceExport { .. } => return Ok(()),
        ComponentAlias::Outer { kind, count, index } => {
            let outer = usize::try_from(*count).ok().and_then(|count| depth.checked_sub(count + 1));
            let outer = outer.and_then(|place| open.get(place)).ok_or(Stop::Malformed)?;
            match kind {
                ComponentOuterAliasKind::CoreModule => {
                    (ComponentExternalKind::Module, at(&outer.modules, *index)?)
                }
                ComponentOuterAliasKind::Component => {
                    (ComponentExternalKind::Component, at(&outer.components, *index)?)
                }
                ComponentOuterAliasKind::CoreType | ComponentOuterAliasKind::Type => return Ok(()),
            }
        }
    };
    open.last_mut().ok_or(Stop::Malformed)?.define(kind, known);
    Ok(())
}

fn at(space: &[Option<Parts>], index: u32) -> Result<Option<Parts>, Stop> {
    let found = usize::try_from(index).ok().and_then(|index| space.get(index));
    found.copied().ok_or(Stop::Malformed)
}

/// A component that is passed as an argument could be anything, including one that instantiates itself twice.
fn unknown() -> Stop {
    Stop::Limit(
        "limit of no instances of components that it is given: instantiate only components that are defined in it"
            .to_owned(),
    )
}

fn custom(name: &str, bytes: usize) -> Result<(), Stop> {
    let most = if name.starts_with(DEBUG) { DEBUG_BYTES_MAX } else { CUSTOM_BYTES_MAX };
    if bytes <= most {
        return Ok(());
    }
    Err(Stop::Limit(format!(
        "limit of {} for its custom section `{name}`, which has {bytes} bytes: remove it, as with `wasm-tools strip`",
        size(most)
    )))
}

fn within(parts: &Parts) -> Result<(), Stop> {
    for (what, found, most) in [
        ("component instances", parts.components, MOST.components),
        ("core instances", parts.instances, MOST.instances),
        ("memories", parts.memories, MOST.memories),
        ("tables", parts.tables, MOST.tables),
    ] {
        if found > most {
            return Err(Stop::Limit(format!("limit of {most} {what}: an instance of it has {found}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<(), String> {
        check(&wat::parse_str(text).unwrap())
    }

    /// Components that each instantiate the one before twice.
    fn doubling(levels: usize) -> String {
        let begin: String = (1..=levels).rev().map(|level| format!("(component $c{level} ")).collect();
        let level = |level: usize| {
            let again = format!("(instance (instantiate $c{level}))");
            if level == levels { format!("{again}{again}") } else { format!("{again}{again})") }
        };
        let end: String = (0..=levels).map(level).collect();
        format!("(component {begin}(component $c0){end})")
    }

    #[test]
    fn instances_of_instances_are_counted_before_anything_is_made_of_them() {
        assert_eq!(checked(&doubling(7)), Ok(()));
        let refused = checked(&doubling(24)).unwrap_err();
        assert!(
            refused.starts_with("limit of 1000 component instances: an instance of it has "),
            "{refused}"
        );
        let module = "(core module $m (memory 1) (table 1 funcref))";
        let many = |count: usize| {
            format!("(component {module} {})", "(core instance (instantiate $m))".repeat(count))
        };
        assert_eq!(checked(&many(16)), Ok(()));
        assert_eq!(checked(&many(17)).unwrap_err(), "limit of 16 memories: an instance of it has 17");
    }

    #[test]
    fn an_alias_is_no_way_around() {
        let many = "(instance (instantiate $again))".repeat(1001);
        let outer =
            format!("(component (component $c) (component (alias outer 1 0 (component $again)) {many}))");
        // Nothing instantiates the inner component. It counts all the same, because it is compiled.
        assert!(checked(&outer).unwrap_err().starts_with("limit of 1000 component instances"));
        let handed = r#"(component
            (component $a (import "c" (component $c)) (instance (instantiate $c)) (instance (instantiate $c)))
            (component $b)
            (instance (instantiate $a (with "c" (component $b)))))"#;
        assert!(checked(handed).unwrap_err().contains("that it is given"));
    }

    #[test]
    fn padding_in_a_custom_section_has_a_limit() {
        let padded = |bytes: usize| {
            let mut wasm = wat::parse_str("(component)").unwrap();
            let length = u32::try_from(bytes + 2).unwrap();
            wasm.push(0);
            wasm.extend((0..5).map(|place| {
                let more = if place < 4 { 0x80 } else { 0 };
                u8::try_from(length >> (7 * place) & 0x7f).unwrap() | more
            }));
            wasm.extend([1, b'x']);
            wasm.extend(vec![0; bytes]);
            wasm
        };
        assert_eq!(check(&padded(CUSTOM_BYTES_MAX)), Ok(()));
        let refused = check(&padded(CUSTOM_BYTES_MAX + 1)).unwrap_err();
        assert!(
            refused.starts_with("limit of 1 MiB for its custom section `x`, which has 1048577 bytes"),
            "{refused}"
        );
    }

    #[test]
    fn what_is_no_component_is_left_to_the_compiler() {
        for wasm in [&b""[..], b"\0asm\x0d\0\x01\0\xff\xff", b"\0asm\x0d\0\x01\0\x02\x01\x01"] {
            assert_eq!(check(wasm), Ok(()));
        }
    }
}
