//! Dependencies between the modules point one way (DESIGN 4): domain ← store, matching, policy ← delivery ← http ← service
//! ← cli.

use std::path::Path;

/// The modules ("rooms") and their heights: a room may use itself and lower rooms.
const ROOMS: &[(&str, u8)] = &[
    // Small tools below everything else; `domain` needs none of them.
    ("chain", 1),
    ("clock", 1),
    ("dice", 1),
    ("durable", 1),
    ("fair_semaphore", 1),
    ("foreign", 1),
    ("process", 1),
    ("shortage", 1),
    ("stage", 1),
    ("domain", 1),
    ("net", 2),
    ("secrets", 2),
    ("signing", 3),
    ("matching", 3),
    ("plugin", 3),
    ("store", 3),
    ("directory", 4),
    ("identity", 4),
    ("modules", 4),
    ("policy", 4),
    ("worker", 4),
    ("delivery", 5),
    ("intake", 6),
    ("handler", 7),
    ("recovery", 7),
    ("http", 8),
    ("service", 9),
    ("config", 9),
    ("simulation", 9),
    ("telemetry", 9),
    ("cli", 10),
    ("main", 10),
];
/// At this height rooms may use each other: the composition root reads the configuration.
const COMPOSITION: u8 = 9;

fn height(room: &str) -> Option<u8> {
    ROOMS.iter().find(|(name, _)| *name == room).map(|(_, height)| *height)
}

/// Returns the identifiers that follow `prefix` where it begins a path, expanding `{a, b::c}`.
fn paths_after<'a>(code: &'a str, prefix: &str) -> Vec<&'a str> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (place, _) in code.match_indices(prefix) {
        if code[..place].ends_with(|c| is_name(c) || c == ':') {
            continue;
        }
        let rest = &code[place + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.push(rest.split(|c| !is_name(c)).next().unwrap_or_default());
            continue;
        };
        let (mut depth, mut begin) = (1, true);
        for (place, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' => begin = depth == 1,
                c if begin && is_name(c) => {
                    found.push(group[place..].split(|c| !is_name(c)).next().unwrap_or_default());
                    begin = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

/// Returns the faults of one file; `path` is relative to `host/src`.
fn faults(path: &str, text: &str) -> Vec<String> {
    // Documentation may point anywhere.
    let code: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let room = path.split(['/', '.']).next().unwrap_or_default();
    if room == "lib" {
        return Vec::new();
    }
    let Some(own) = height(room) else {
        return vec![format!("{path}: the room `{room}` is not in the design")];
    };
    let mut faults = Vec::new();
    for used in [paths_after(&code, "crate::"), paths_after(&code, "waypost::")].concat() {
        let Some(other) = height(used) else { continue };
        let allowed = used == room || other < own || (other == own && own >= COMPOSITION);
        if !allowed {
            faults.push(format!("{path}: {room} must not use {used}"));
        }
    }
    // A module may have a crate's name: `use waypost::store::redb::{self}` names the module.
    let is_module =
        |name: &str| code.contains(&format!("::{name}::")) || code.contains(&format!("mod {name};"));
    let uses =
        |krate: &str| code.contains(&format!("use {krate}::")) || code.contains(&format!("use {krate};"));
    let names = |krate: &str| {
        uses(krate) || !is_module(krate) && !paths_after(&code, &format!("{krate}::")).is_empty()
    };
    if names("redb") && !path.starts_with("store/redb") {
        faults.push(format!("{path}: only store/redb names redb"));
    }
    for krate in ["wasmtime", "wasmtime_wasi", "wasmtime_wasi_http"] {
        if names(krate) && room != "plugin" {
            faults.push(format!("{path}: only plugin names {krate}"));
        }
    }
    let makes_client = [
        "Client::builder(",
        "ClientBuilder::new(",
        "reqwest::Client::new(",
        "reqwest::get(",
        "HttpConnector::new",
    ];
    if room != "net" && (uses("hyper_rustls") || makes_client.iter().any(|make| code.contains(make))) {
        faults.push(format!("{path}: only net makes clients, by its one rule"));
    }
    if ["domain", "matching"].contains(&room) {
        for krate in ["tokio", "tokio_util", "hyper", "hyper_util", "reqwest", "axum"] {
            if names(krate) {
                faults.push(format!("{path}: {room} is free of {krate}"));
            }
        }
    }
    faults
}

fn walk(folder: &Path, visit: &mut impl FnMut(&Path)) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, visit);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            visit(&path);
        }
    }
}

#[test]
fn no_import_goes_against_the_arrows() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut rooms, mut found) = (Vec::new(), Vec::new());
    walk(&source, &mut |path| {
        let relative = path.strip_prefix(&source).unwrap().to_str().unwrap();
        rooms.push(relative.split(['/', '.']).next().unwrap_or_default().to_owned());
        found.extend(faults(relative, &std::fs::read_to_string(path).unwrap()));
    });
    assert!(found.is_empty(), "{}", found.join("\n"));
    for room in ["domain", "matching", "store", "delivery", "http", "service", "cli", "main"] {
        assert!(rooms.iter().any(|seen| seen == room), "the room `{room}` was not seen");
    }
}

#[test]
fn an_import_against_the_arrows_is_found() {
    for (path, code) in [
        ("domain/event/mod.rs", "use crate::store::Store;"),
        ("domain/retry.rs", "use crate::clock::Clock;"),
        ("domain/ids.rs", "use std::fmt;\nuse crate::{domain::Event, http::Reply};"),
        ("store/mod.rs", "use crate::matching::Index;"),
        ("delivery/worker.rs", "fn f() -> crate::http::Error {}"),
        ("http/routes.rs", "use redb::Database;"),
        ("store/mod.rs", "use redb::Database;"),
        ("cli/db.rs", "use waypost::store::redb::{self, Checked};\nuse redb::Database;"),
        ("matching/index.rs", "use tokio::sync::watch;"),
        ("domain/event.rs", "fn f(b: hyper::body::Bytes) {}"),
        ("policy.rs", "use crate::delivery::Worker;"),
        ("http/mod.rs", "use crate::service::Service;"),
        ("util.rs", ""),
        ("policy.rs", "fn f() { reqwest::Client::builder().build() }"),
        ("policy.rs", "use reqwest::ClientBuilder;\nfn f() { ClientBuilder::new() }"),
        ("delivery/client.rs", "use hyper_rustls::HttpsConnector;"),
        ("net/service.rs", "use crate::policy::Policy;"),
    ] {
        assert_eq!(faults(path, code).len(), 1, "{path}: {code}: {:?}", faults(path, code));
    }
    for (path, code) in [
        ("domain/mod.rs", "//! See [`crate::http`].\nuse crate::domain::Event;"),
        (
            "store/redb/mod.rs",
            "use redb::{Database, ReadableTable};\nuse crate::{clock::Clock, domain::Event};",
        ),
        ("store/mod.rs", "mod redb;\npub use self::redb::Store;"),
        ("cli/db.rs", "use waypost::store::redb::{self, Checked};\nfn f() { redb::check() }"),
        ("service.rs", "use crate::{config::Config, http, store::Store};"),
        ("main.rs", "use waypost::{cli, config::Config};"),
        ("http/mod.rs", "use http::Request;\nuse crate::delivery::Worker;"),
        ("net/service.rs", "use hyper_rustls::HttpsConnector;\nfn f() { reqwest::Client::builder() }"),
        ("policy.rs", "use crate::net;"),
    ] {
        assert!(faults(path, code).is_empty(), "{path}: {:?}", faults(path, code));
    }
}
