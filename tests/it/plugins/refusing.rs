//! What is not taken, and why: each kind of wrong upload has a text of its own, and none harms anyone else.

use serde_json::json;

use super::made::{COMPONENT, CORE_MODULE, bomb, importing, patched};
use super::{post, wasm};
use crate::harness::{Server, Target, event};

#[tokio::test]
async fn only_components_that_fit_are_taken() {
    let server = Server::with(&["--plugin-bytes-max", "2000000"]).await;
    let probe = wasm(waypost_guests::PROBE);
    let not_json = patched(&probe, "{\"type\": \"object\"", "!\"type\": \"object\"");
    let no_schema = patched(&probe, "\"type\": \"object\"", "\"type\": \"strang\"");
    for (wasm, status, says) in [
        (Vec::new(), 415, "there is nothing in it: send the bytes of a WebAssembly component (.wasm)"),
        (b"hello".to_vec(), 415, "this is text and not a WebAssembly component"),
        (b"\x7fELF\xff\xff".to_vec(), 415, "this is not WebAssembly: it does not begin with `\\0asm`"),
        (
            CORE_MODULE.to_vec(),
            415,
            "this is a core module and not a component: build it for the target wasm32-wasip2",
        ),
        (b"\0asm\x0d".to_vec(), 415, "it breaks off within its first 8 bytes"),
        (vec![0; 2_000_001], 413, "the module is larger than 2000000 bytes (the setting plugin_bytes_max)"),
        (probe[..probe.len() / 2].to_vec(), 422, "it does not compile: failed to parse WebAssembly module: "),
        (
            COMPONENT.to_vec(),
            422,
            "it exports none of waypost:plugin/policy@0.1.0, waypost:plugin/filter@0.1.0 and \
             waypost:plugin/transform@0.1.0, but nothing",
        ),
        (
            importing(&["wasi:keyvalue/store@0.2.0", "wasi:io/streams@0.3.0", "wasi:io/poll@0.2.0"]),
            422,
            "it imports wasi:keyvalue/store@0.2.0, which this waypost does not have; it imports \
             wasi:io/streams@0.3.0, this waypost has wasi:io/streams@0.2.12",
        ),
        (not_json, 422, "its `metadata` failed: the manifest's `config-schema` is not JSON: expected value"),
        (
            no_schema,
            422,
            "its `metadata` failed: the manifest's `config-schema` is not a JSON Schema: /type: ",
        ),
    ] {
        let refused = post(&server, wasm).await.refused(status);
        assert!(refused.detail.starts_with(says), "{says}: {}", refused.detail);
    }
    assert_eq!(server.get("/plugins").await.ok().json(), json!([]));
    let compiled = std::fs::read_dir(server.data().join("compiled")).unwrap();
    let left: Vec<_> = compiled.map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left, ["key"], "what is refused leaves nothing behind");
}

/// Machine code would run outside of any sandbox.
#[tokio::test]
async fn machine_code_is_not_taken_not_even_our_own() {
    let server = Server::start().await;
    super::upload(&server, waypost_guests::PROBE).await;
    let compiled = std::fs::read_dir(server.data().join("compiled")).unwrap();
    let mut files = compiled.map(|file| file.unwrap().path());
    let code = files.find(|path| path.extension().is_some_and(|found| found == "code")).unwrap();
    let code = std::fs::read(code).unwrap().split_off(32);
    let refused = post(&server, code).await.refused(422);
    refused.says("this is compiled machine code, which is never run: upload the .wasm component itself");
}

/// 600 KB that take minutes and gigabytes to compile, uploaded by somebody else: events go on.
#[tokio::test]
async fn a_compile_bomb_ends_at_its_limit_and_harms_nobody() {
    let limits = ["--plugin-compile-time-ms", "3000"];
    let (server, target) = (Server::with(&limits).await, Target::start().await);
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let mallory = server.user("mallory");
    let mut uploading = tokio::task::JoinSet::new();
    uploading.spawn(async move { post(&mallory, bomb()).await });
    let (mut accepted, mut refused) = (Vec::new(), None);
    while refused.is_none() {
        refused = uploading.try_join_next();
        let id = server.receive(&event(&format!("meanwhile-{}", accepted.len()))).await;
        server.delivery_in(&id, &subscription, "delivered").await;
        accepted.push(id);
    }
    let refused = refused.unwrap().unwrap().refused(422);
    refused.says("compiling it exceeds the compile time limit of 3 s");
    assert!(accepted.len() > 10, "only {} events came through meanwhile", accepted.len());
}

#[tokio::test]
async fn compiling_takes_no_more_memory_than_it_may() {
    let server = Server::with(&["--plugin-compile-memory-bytes", "1342177280"]).await;
    let refused = post(&server, bomb()).await.refused(422);
    refused.says("compiling it exceeds the compile memory limit of 1280 MiB");
    super::upload(&server, waypost_guests::PROBE).await;
}

/// Forty schemas that each refer twice to the next one: a trillion ways through them.
#[tokio::test]
async fn a_schema_that_takes_for_ever_ends_at_its_limit() {
    let server = Server::start().await;
    let uploaded = post(&server, wasm(waypost_guests::ENDLESS_SCHEMA)).await;
    if uploaded.status == 422 {
        // It may be found out at once.
        uploaded.refused(422).says("configuration check time limit of 5 s");
        return;
    }
    let digest = uploaded.json()["digest"].clone();
    let body = json!({
        "name": "n", "jsonpath": "$", "target_url": "http://127.0.0.1:9/", "plugin": {"digest": digest},
    });
    let refused = server.post("/eventmatch", &body).await.refused(422).at("/plugin");
    refused.says("configuration check time limit of 5 s");
}
