//! Lists the public API of a crate, an item on each line, from its rustdoc JSON. `.ci/run` compares the list of `waypost` with
//! `host/public-api.txt`: a change that users have to follow is then seen in that file, and not by them.

use std::io::Write as _;

use anyhow::Context as _;

fn main() -> anyhow::Result<()> {
    let path = std::env::args_os().nth(1).context("usage: waypost-public-api FILE.json")?;
    let api = public_api::Builder::from_rustdoc_json(path)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .context("failed to read the rustdoc JSON: is it of the toolchain that rust-toolchain.toml names?")?;
    let mut out = std::io::stdout().lock();
    api.items().try_for_each(|item| writeln!(out, "{item}")).context("failed to write the list")
}
