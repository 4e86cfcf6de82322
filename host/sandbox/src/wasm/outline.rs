//! What a component exports and imports, read from its bytes before any of it is compiled.
//!
//! Compiling takes seconds and gigabytes, but a few of a component's own sections tell whether it can be of use at all.
//! Nested components are skipped, and nothing is validated: the compiler does that. Lists and names are bounded here,
//! since reports and refusals repeat them.

use wasmparser::{Chunk, Parser, Payload};

use super::offers;
use super::text;
use waypost_domain::plugin::Import;

/// The most imports. The largest known guests have 40.
const IMPORTS_MAX: usize = 256;
/// The longest name of one, in bytes. Those that a host offers have less than 50.
const NAME_BYTES_MAX: usize = 256;
/// The most names that one sentence repeats, and the most bytes of each.
pub(super) const TOLD_MAX: usize = 8;
const TOLD_BYTES_MAX: usize = 64;

/// What a component exports and imports, by name.
#[derive(Debug, Default)]
pub(super) struct Outline {
    /// The first few names of exports, cleaned for messages.
    exports: Vec<String>,
    exports_count: usize,
    /// Those of [`Wanted`] that are exported.
    has: [bool; WANTED.len()],
    /// The imports, of which [`Outline::excess`] may have cut the list.
    pub(super) imports: Vec<Import>,
    imports_count: usize,
    /// The first name that is too long: its length, and how it begins.
    long: Option<(usize, String)>,
}

/// An interface that some part of the host calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Policy,
    Filter,
    Transform,
    /// A program's `main`.
    Run,
}

const WANTED: [(Wanted, &str); 4] = [
    (Wanted::Policy, "waypost:plugin/policy@0.1.0"),
    (Wanted::Filter, "waypost:plugin/filter@0.1.0"),
    (Wanted::Transform, "waypost:plugin/transform@0.1.0"),
    (Wanted::Run, "wasi:cli/run@0.2.0"),
];

impl Outline {
    /// Reads a component.
    ///
    /// # Errors
    /// When it cannot be parsed, in the compiler's words.
    pub(super) fn read(wasm: &[u8]) -> Result<Self, String> {
        let mut outline = Self::default();
        outline.walk(wasm).map_err(|reason| format!("failed to parse WebAssembly module: {reason}"))?;
        Ok(outline)
    }

    fn walk(&mut self, wasm: &[u8]) -> Result<(), String> {
        let failed = |error: wasmparser::BinaryReaderError| error.to_string();
        let (mut parser, mut at) = (Parser::new(0), 0);
        loop {
            let Some(rest) = wasm.get(at..) else { return Err("it is truncated".to_owned()) };
            let Chunk::Parsed { consumed, payload } = parser.parse(rest, true).map_err(failed)? else {
                return Ok(());
            };
            at += consumed;
            match payload {
                // The parser of this component continues after the nested one.
                Payload::ModuleSection { unchecked_range, .. }
                | Payload::ComponentSection { unchecked_range, .. } => at = unchecked_range.end,
                Payload::ComponentImportSection(imports) => {
                    for import in imports {
                        self.import(import.map_err(failed)?.name.name);
                    }
                }
                Payload::ComponentExportSection(exports) => {
                    for export in exports {
                        self.export(export.map_err(failed)?.name.name);
                    }
                }
                Payload::End(_) => return Ok(()),
                _ => {}
            }
        }
    }

    fn import(&mut self, name: &str) {
        self.imports_count += 1;
        if name.len() > NAME_BYTES_MAX {
            self.long.get_or_insert_with(|| (name.len(), text::clean(name, TOLD_BYTES_MAX)));
        } else if self.imports.len() < IMPORTS_MAX {
            self.imports.push(Import { name: name.to_owned(), offered: offers::offer(name) });
        }
    }

    fn export(&mut self, name: &str) {
        self.exports_count += 1;
        for (has, (_, wanted)) in self.has.iter_mut().zip(WANTED) {
            *has |= offers::is_compatible(name, wanted);
        }
        if self.exports.len() < TOLD_MAX {
            self.exports.push(text::clean(name, TOLD_BYTES_MAX));
        }
    }

    /// Tells whether something is exported under the name of a wanted interface.
    pub(super) fn has(&self, wanted: Wanted) -> bool {
        WANTED.iter().zip(self.has).any(|((one, _), has)| has && *one == wanted)
    }

    /// Returns what is exported, for a sentence.
    pub(super) fn exported(&self) -> String {
        match self.exports_count {
            0 => "nothing".to_owned(),
            count => and_more(&self.exports, count, ", "),
        }
    }

    /// Says which limit the imports exceed, if they do, and cuts the list of imports to those in the message.
    pub(super) fn excess(&mut self) -> Option<String> {
        if let Some((bytes, name)) = &self.long {
            self.imports.truncate(TOLD_MAX);
            return Some(format!(
                "it imports a name of {bytes} bytes, the longest is {NAME_BYTES_MAX}: {name}"
            ));
        }
        if self.imports_count <= IMPORTS_MAX {
            return None;
        }
        self.imports.truncate(TOLD_MAX);
        let names: Vec<_> =
            self.imports.iter().map(|import| text::clean(&import.name, TOLD_BYTES_MAX)).collect();
        let count = self.imports_count;
        let names = and_more(&names, count, ", ");
        Some(format!("it has {count} imports, the most are {IMPORTS_MAX}: {names}"))
    }
}

/// Joins the first few of `count` things, and says how many more there are.
pub(super) fn and_more(first: &[String], count: usize, between: &str) -> String {
    let told = &first[..first.len().min(TOLD_MAX)];
    match count - told.len() {
        0 => told.join(between),
        more => format!("{}{between}and {more} more", told.join(between)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(wat: &str) -> Outline {
        Outline::read(&wat::parse_str(wat).unwrap()).unwrap()
    }

    /// A component was compiled for seventeen seconds before its exports were checked.
    #[test]
    fn names_are_read_without_a_look_at_what_is_nested() {
        let outline = read(
            r#"(component
                (component (import "inner" (func)) (export "inner-too" (func 0)))
                (core module (func (export "core")))
                (import "wasi:io/poll@0.2.0" (instance $poll))
                (import "a" (instance $a))
                (export "waypost:plugin/filter@0.1.7" (instance $a))
                (export "wasi:cli/run@0.3.0" (instance $poll)))"#,
        );
        let imports: Vec<_> = outline.imports.iter().map(|import| import.name.as_str()).collect();
        assert_eq!(imports, ["wasi:io/poll@0.2.0", "a"]);
        assert_eq!(outline.exported(), "waypost:plugin/filter@0.1.7, wasi:cli/run@0.3.0");
        assert!(outline.has(Wanted::Filter) && !outline.has(Wanted::Run) && !outline.has(Wanted::Policy));
    }

    /// A component with 95,000 imports was answered with 60 MB.
    #[test]
    fn lists_and_names_are_bounded() {
        let imports = |name: &dyn Fn(usize) -> String, count: usize| {
            let imports = (0..count).map(|i| format!(r#"(import "{}" (instance))"#, name(i)));
            read(&format!("(component {})", imports.collect::<String>()))
        };
        let mut many = imports(&|i| format!("n{i}"), 300);
        assert_eq!(
            many.excess().unwrap(),
            "it has 300 imports, the most are 256: n0, n1, n2, n3, n4, n5, n6, n7, and 292 more"
        );
        assert_eq!(many.imports.len(), TOLD_MAX);
        let mut long = imports(&|_| "n".repeat(66_000), 1);
        let told = long.excess().unwrap();
        assert!(told.starts_with("it imports a name of 66000 bytes, the longest is 256: nnn"), "{told}");
        assert!(told.len() < 200, "{told}");
        assert_eq!(imports(&|i| format!("n{i}"), IMPORTS_MAX).excess(), None);
        let exports = (0..100).map(|i| format!(r#"(export "e{i}" (instance $a))"#));
        let outline =
            read(&format!(r#"(component (import "a" (instance $a)) {})"#, exports.collect::<String>()));
        assert_eq!(outline.exported(), "e0, e1, e2, e3, e4, e5, e6, e7, and 92 more");
    }

    #[test]
    fn what_breaks_off_is_told_as_by_the_compiler() {
        let wasm = wat::parse_str(r#"(component (core module (func)) (import "a" (instance)))"#).unwrap();
        assert!(Outline::read(&wasm).is_ok());
        for cut in 8..wasm.len() {
            // A component may end after any of its sections.
            if let Err(told) = Outline::read(&wasm[..cut]) {
                assert!(told.starts_with("failed to parse WebAssembly module: "), "{told}");
            }
        }
        assert!(Outline::read(&wasm[..wasm.len() - 1]).is_err());
        let nested = wat::parse_str("(component (core module (func)))").unwrap();
        assert!(Outline::read(&nested[..nested.len() - 1]).unwrap_err().ends_with("it is truncated"));
    }
}
