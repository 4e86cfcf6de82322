//! Handmade WebAssembly that no compiler would generate.

/// The first 8 bytes of a component.
pub(super) const COMPONENT: &[u8; 8] = b"\0asm\x0d\0\x01\0";
/// And of a core module.
pub(super) const CORE_MODULE: &[u8; 8] = b"\0asm\x01\0\0\0";

/// Returns a component that imports these interfaces, all empty.
pub(super) fn importing(names: &[&str]) -> Vec<u8> {
    let mut imports = leb(names.len());
    for name in names {
        imports.push(0);
        imports.extend(leb(name.len()));
        imports.extend(name.bytes());
        // An instance of type 0.
        imports.extend([5, 0]);
    }
    let empty_instance = [1, 0x42, 0];
    [COMPONENT.to_vec(), section(7, &empty_instance), section(10, &imports)].concat()
}

/// Returns a component that exports an empty instance of this name.
pub(super) fn exporting(name: &str) -> Vec<u8> {
    // An instance of no exports; then an export of it: a plain name, an instance, the first one, no type.
    let empty_instance = [1, 1, 0];
    let export = [&[1, 0][..], &leb(name.len()), name.as_bytes(), &[5, 0, 0]].concat();
    [COMPONENT.to_vec(), section(5, &empty_instance), section(11, &export)].concat()
}

/// Returns a small component that claims to be a filter and takes very long to compile.
pub(super) fn bomb() -> Vec<u8> {
    [useless_bomb(), exporting("waypost:plugin/filter@0.1.0").split_off(COMPONENT.len())].concat()
}

/// Returns the bomb itself, which exports nothing: one function with many locals, all of them live in all of its many
/// branches.
pub(super) fn useless_bomb() -> Vec<u8> {
    const LOCALS: usize = 2_000;
    const BRANCHES: usize = 30_000;
    let local = |op: u8, index: usize| [vec![op], leb(index % LOCALS)].concat();
    let (get, set) = (0x20, 0x21);
    // One group of locals of type i32; then a loop.
    let mut body = [leb(1), leb(LOCALS), vec![0x7f, 0x03, 0x40]].concat();
    for branch in 0..BRANCHES {
        body.extend(local(get, branch));
        body.extend([0x04, 0x40]);
        body.extend(local(get, branch * 7 + 1));
        body.extend(local(get, branch * 13 + 5));
        body.push(0x6a);
        body.extend(local(set, branch * 31 + 11));
        body.push(0x0b);
    }
    // Branch back depending on local 0; then the ends of the loop and of the function.
    body.extend([get, 0, 0x0d, 0, 0x0b, 0x0b]);
    let code = [leb(1), leb(body.len()), body].concat();
    let module =
        [CORE_MODULE.to_vec(), section(1, &[1, 0x60, 0, 0]), section(3, &[1, 0]), section(10, &code)]
            .concat();
    [COMPONENT.to_vec(), section(1, &module)].concat()
}

/// Returns `wasm` with one text of its data replaced by another one of the same length.
pub(super) fn patched(wasm: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let places: Vec<_> =
        (0..wasm.len() - from.len()).filter(|place| wasm[*place..].starts_with(from.as_bytes())).collect();
    assert!(!places.is_empty(), "`{from}` is not in the module");
    let mut wasm = wasm.to_vec();
    for place in places {
        wasm[place..place + to.len()].copy_from_slice(to.as_bytes());
    }
    wasm
}

/// Returns a component assembled from text, which claims to be a filter.
fn assembled(text: &str) -> Vec<u8> {
    let filter = exporting("waypost:plugin/filter@0.1.0").split_off(COMPONENT.len());
    [wat::parse_str(text).unwrap(), filter].concat()
}

/// Returns components that each instantiate the one before twice.
pub(super) fn doubling(levels: usize) -> Vec<u8> {
    let mut inner = "(component $c0)".to_owned();
    for level in 1..=levels {
        let again = format!("(instance (instantiate $c{}))", level - 1);
        inner = format!("(component $c{level} {inner} {again} {again})");
    }
    assembled(&inner)
}

/// Returns a component that exports a type this many times: 300 instances of 300 functions, short in binary but with a long
/// description.
pub(super) fn describing(exports: usize) -> Vec<u8> {
    let many = |letter: char, of: &str| {
        (0..300).map(|n| format!("(export \"{letter}{n}\" {of})")).collect::<String>()
    };
    let (inner, outer) = (many('f', "(func)"), many('i', "(instance (type $inner))"));
    let exports: String = (0..exports).map(|n| format!("(export \"t{n}\" (type $outer))")).collect();
    // A type refers to outer types through an alias.
    let outer = format!("(alias outer 1 0 (type $inner)) {outer}");
    let types = format!("(type $inner (instance {inner})) (type $outer (instance {outer}))");
    assembled(&format!("(component {types} {exports})"))
}

/// Returns the same module with another digest.
pub(super) fn numbered(mut wasm: Vec<u8>, number: u8) -> Vec<u8> {
    wasm.extend(section(0, &[1, b'n', number]));
    wasm
}

/// Returns a custom section with this many bytes of padding.
pub(super) fn custom(name: &str, bytes: usize) -> Vec<u8> {
    section(0, &[leb(name.len()), name.as_bytes().to_vec(), vec![0; bytes]].concat())
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [vec![id], leb(content.len()), content.to_vec()].concat()
}

fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).unwrap();
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}
