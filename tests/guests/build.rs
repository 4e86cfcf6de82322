//! Builds the guests for wasm32-wasip2 and writes a constant with the path of each.

use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "wasm32-wasip2";

fn main() {
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    // target/debug/build/waypost-guests-…/out
    let target = out.ancestors().nth(4).expect("cargo nests it this deep").join("guests");
    let root = here.join("../..");
    for changed in ["Cargo.toml", "wit", "plugin-sdk", "plugins", "tests/guests/programs"] {
        println!("cargo::rerun-if-changed={}", root.join(changed).display());
    }
    have_target();
    build(&here.join("programs"), &["--release", "--examples", "--bins"], &target);
    let release = target.join(TARGET).join("release");
    let (mut constants, mut all) = (String::new(), String::new());
    // Plugins are examples, since each is a library; commands are binaries.
    let guests = |sources: &str, built: PathBuf| {
        let names = names(&here.join("programs").join(sources), "rs");
        names.into_iter().map(move |name| (built.clone(), name))
    };
    let guests = guests("examples", release.join("examples")).chain(guests("src/bin", release));
    for (built, name) in guests {
        let path = made(&built, &name);
        constants += &format!(
            "/// The path of the guest `{name}`.\npub const {}: &str = {path:?};\n",
            name.to_uppercase().replace('-', "_"),
        );
        all += &format!("$use_it!({name}); ");
    }
    constants += &plugins(&root, &target);
    constants += &format!(
        "/// Names each guest to a macro: a guest without a test does not build.\n#[macro_export]\n\
         macro_rules! for_each_guest {{\n    ($use_it:ident) => {{ {all}}};\n}}\n"
    );
    std::fs::write(out.join("guests.rs"), constants).expect("OUT_DIR can be written");
}

/// Returns the path of a guest: cargo replaces `-` with `_` in the names of libraries, but not of binaries.
fn made(folder: &Path, name: &str) -> PathBuf {
    let library = folder.join(format!("{}.wasm", name.replace('-', "_")));
    if library.exists() { library } else { folder.join(format!("{name}.wasm")) }
}

/// Builds the plugins and handlers of `plugins/`, and returns the constants with their paths.
fn plugins(root: &Path, target: &Path) -> String {
    let names = folders(&root.join("plugins"));
    let mut arguments = vec!["--profile", "plugin"];
    for name in &names {
        arguments.extend(["-p", name]);
    }
    build(root, &arguments, target);
    let constant = |name: &String| {
        let path = made(&target.join(TARGET).join("plugin"), name);
        assert!(path.exists(), "the plugin {name} makes no {}", path.display());
        format!(
            "/// The path of the plugin `{name}`.\npub const {}: &str = {path:?};\n",
            name.to_uppercase().replace('-', "_"),
        )
    };
    names.iter().map(constant).collect()
}

/// Returns the names of the folders that are Rust packages.
fn folders(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("it can be read").path())
        .filter(|path| path.join("Cargo.toml").exists())
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    names
}

/// Returns the names of the files of a folder with this extension.
fn names(folder: &Path, extension: &str) -> Vec<String> {
    let files = std::fs::read_dir(folder).expect("the folder is there");
    let mut names: Vec<_> = files
        .map(|file| file.expect("it can be read").path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    names
}

/// Installs the target if it is missing.
fn have_target() {
    let rustc = std::env::var_os("RUSTC").expect("cargo sets it");
    let found = Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).output();
    let folder = found.map(|found| String::from_utf8_lossy(&found.stdout).trim().to_owned());
    if folder.is_ok_and(|folder| Path::new(&folder).is_dir()) {
        return;
    }
    let added = Command::new("rustup").args(["target", "add", TARGET]).status();
    assert!(
        added.is_ok_and(|added| added.success()),
        "the target {TARGET} is missing and could not be added: run `rustup target add {TARGET}`"
    );
}

/// Builds in a separate target folder: the outer cargo holds the lock of its own.
fn build(package: &Path, arguments: &[&str], target: &Path) {
    let cargo = std::env::var_os("CARGO").expect("cargo sets it");
    let status = Command::new(cargo)
        .current_dir(package)
        .args(["build", "--quiet", "--locked", "--target", TARGET, "--target-dir"])
        .arg(target)
        .args(arguments)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        // Stable Rust cannot grow a table: this one guest does it in assembly.
        .env("RUSTC_BOOTSTRAP", "grow_table")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the guests in {} do not build: see above", package.display());
}
