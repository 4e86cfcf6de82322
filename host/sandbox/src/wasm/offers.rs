//! The interfaces that the host links, as a list: wasmtime's linker can look a name up, but does not list its names.

use waypost_domain::plugin::Offer;

/// Packages with their versions, and the interfaces of each that are linked.
const PACKAGES: [(&str, &str, &[&str]); 8] = [
    ("waypost:plugin", "0.1.0", &["types", "log", "config", "state"]),
    ("wasi:io", WASI, &["error", "poll", "streams"]),
    ("wasi:clocks", WASI, &["monotonic-clock", "wall-clock"]),
    ("wasi:random", WASI, &["random", "insecure", "insecure-seed"]),
    (
        "wasi:cli",
        WASI,
        &[
            "environment",
            "exit",
            "stdin",
            "stdout",
            "stderr",
            "terminal-input",
            "terminal-output",
            "terminal-stdin",
            "terminal-stdout",
            "terminal-stderr",
        ],
    ),
    ("wasi:filesystem", WASI, &["types", "preopens"]),
    (
        "wasi:sockets",
        WASI,
        &[
            "network",
            "instance-network",
            "ip-name-lookup",
            "tcp",
            "tcp-create-socket",
            "udp",
            "udp-create-socket",
        ],
    ),
    ("wasi:http", WASI, &["types", "outgoing-handler"]),
];
/// The version of WASI that wasmtime has.
const WASI: &str = "0.2.12";

/// Looks up an imported name, such as `wasi:io/streams@0.2.6`.
pub(super) fn offer(name: &str) -> Offer {
    let (path, version) = name.split_once('@').unwrap_or((name, ""));
    let found = path.split_once('/').and_then(|(package, interface)| {
        PACKAGES.iter().find(|(name, _, has)| *name == package && has.contains(&interface))
    });
    match found {
        None => Offer::No,
        Some((_, has, _)) => {
            let full = format!("{path}@{has}");
            if track(version) == track(has) { Offer::Yes(full) } else { Offer::OtherVersion(full) }
        }
    }
}

/// Tells whether a name is that of a wanted interface, in a compatible version.
pub(super) fn is_compatible(name: &str, wanted: &str) -> bool {
    match (name.split_once('@'), wanted.split_once('@')) {
        (Some((path, version)), Some((other, wanted))) => path == other && track(version) == track(wanted),
        _ => false,
    }
}

/// Returns the part of a version that all compatible versions share (semver): 1 of 1.2.3, 0.2 of 0.2.6, and all of
/// 0.0.1 and of a pre-release.
fn track(version: &str) -> &str {
    if version.contains(['-', '+']) {
        return version;
    }
    let dots: Vec<_> = version.match_indices('.').map(|(place, _)| place).collect();
    match (version.starts_with("0."), version.starts_with("0.0."), dots.as_slice()) {
        (false, _, [first, ..]) => &version[..*first],
        (true, false, [_, second, ..]) => &version[..*second],
        _ => version,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wasm::engine;
    use crate::wasm::runner::link;

    /// A member of each linked interface. Defining it again is an error, which shows that it is linked.
    const MEMBERS: [(&str, &str); 29] = [
        ("waypost:plugin/log", "write"),
        ("waypost:plugin/config", "all"),
        ("waypost:plugin/state", "get"),
        ("wasi:io/error", "error"),
        ("wasi:io/poll", "poll"),
        ("wasi:io/streams", "input-stream"),
        ("wasi:clocks/monotonic-clock", "now"),
        ("wasi:clocks/wall-clock", "now"),
        ("wasi:random/random", "get-random-bytes"),
        ("wasi:random/insecure", "get-insecure-random-bytes"),
        ("wasi:random/insecure-seed", "insecure-seed"),
        ("wasi:cli/environment", "get-environment"),
        ("wasi:cli/exit", "exit"),
        ("wasi:cli/stdin", "get-stdin"),
        ("wasi:cli/stdout", "get-stdout"),
        ("wasi:cli/stderr", "get-stderr"),
        ("wasi:cli/terminal-input", "terminal-input"),
        ("wasi:cli/terminal-output", "terminal-output"),
        ("wasi:cli/terminal-stdin", "get-terminal-stdin"),
        ("wasi:cli/terminal-stdout", "get-terminal-stdout"),
        ("wasi:cli/terminal-stderr", "get-terminal-stderr"),
        ("wasi:filesystem/types", "descriptor"),
        ("wasi:filesystem/preopens", "get-directories"),
        ("wasi:sockets/network", "network"),
        ("wasi:sockets/instance-network", "instance-network"),
        ("wasi:sockets/ip-name-lookup", "resolve-addresses"),
        ("wasi:sockets/tcp", "tcp-socket"),
        ("wasi:http/types", "fields"),
        ("wasi:http/outgoing-handler", "handle"),
    ];

    #[test]
    fn the_list_is_what_is_linked() {
        let mut linker = link(&engine::compiler().unwrap()).unwrap();
        let mut is_linked = |name: &str, member: &str| {
            let mut instance = linker.instance(name).unwrap();
            instance.func_wrap(member, |_, ()| -> wasmtime::Result<()> { Ok(()) }).is_err()
        };
        for (path, member) in MEMBERS {
            let Offer::OtherVersion(full) = offer(path) else { panic!("{path} is not in the list") };
            assert!(is_linked(&full, member), "{full} is not linked");
        }
        let listed: usize = PACKAGES.iter().map(|(_, _, has)| has.len()).sum();
        // `types` has no functions to link; three more kinds of sockets are linked with the one above.
        assert_eq!(listed, MEMBERS.len() + 1 + 3);
        for absent in ["wasi:keyvalue/store", "wasi:logging/logging", "wasi:http/incoming-handler"] {
            assert_eq!(offer(&format!("{absent}@0.2.0")), Offer::No);
        }
    }

    #[test]
    fn versions_fit_as_semver_says() {
        let yes = Offer::Yes("wasi:io/streams@0.2.12".to_owned());
        let other = Offer::OtherVersion("wasi:io/streams@0.2.12".to_owned());
        for (name, offer_of) in [
            ("wasi:io/streams@0.2.0", &yes),
            ("wasi:io/streams@0.2.99", &yes),
            ("wasi:io/streams@0.3.0", &other),
            ("wasi:io/streams@0.2.0-rc-2023-11-10", &other),
            ("wasi:io/streams@1.0.0", &other),
            ("wasi:io/streams", &other),
            ("wasi:io/other@0.2.0", &Offer::No),
            ("run", &Offer::No),
        ] {
            assert_eq!(&offer(name), offer_of, "{name}");
        }
        assert_eq!(
            [track("1.2.3"), track("0.2.3"), track("0.0.3"), track("0.2.0-rc")],
            ["1", "0.2", "0.0.3", "0.2.0-rc"]
        );
    }
}
