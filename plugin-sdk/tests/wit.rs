//! The SDK has a copy of the interface, so that it builds outside the repository.
#![expect(clippy::unwrap_used, reason = "what goes wrong here fails the test, which is the point")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Returns the files of a folder by their names.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read_to_string(entry.path()).unwrap())
        })
        .collect()
}

#[test]
fn the_interface_of_the_sdk_is_that_of_the_host() {
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (own, hosts) = (files(&sdk.join("wit")), files(&sdk.join("../wit")));
    assert!(own == hosts, "copy wit/* to plugin-sdk/wit: {:?}, {:?}", own.keys(), hosts.keys());
}
