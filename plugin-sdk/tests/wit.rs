//! The SDK has the interface itself, so that it builds wherever it is.

use std::path::Path;

#[test]
fn the_interface_of_the_sdk_is_that_of_the_host() {
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in [sdk.join("wit"), sdk.join("../wit")] {
        let count = std::fs::read_dir(folder).unwrap().count();
        assert_eq!(count, 4, "a file is in one of the two folders alone");
    }
    for name in ["types.wit", "host.wit", "guest.wit", "worlds.wit"] {
        let own = std::fs::read_to_string(sdk.join("wit").join(name)).unwrap();
        let hosts = std::fs::read_to_string(sdk.join("../wit").join(name)).unwrap();
        assert_eq!(own, hosts, "copy wit/{name} to plugin-sdk/wit/{name}");
    }
}
