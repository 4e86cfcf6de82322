//! Refused uploads: each kind has its own message, and none affects other users.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use super::made::{
    COMPONENT, CORE_MODULE, bomb, custom, describing, doubling, exporting, importing, patched, useless_bomb,
};
use super::{post, wasm};
use crate::harness::{Server, Target, event, run_in, wait_until};

#[tokio::test]
async fn only_components_that_fit_are_accepted() {
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
        (b"\0asm\x0d".to_vec(), 415, "it ends within its first 8 bytes"),
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

/// Machine code would run outside the sandbox.
#[tokio::test]
async fn machine_code_is_refused_even_our_own() {
    let server = Server::start().await;
    super::upload(&server, waypost_guests::PROBE).await;
    let compiled = std::fs::read_dir(server.data().join("compiled")).unwrap();
    let mut files = compiled.map(|file| file.unwrap().path());
    let code = files.find(|path| path.extension().is_some_and(|found| found == "code")).unwrap();
    // The machine code after its hash and its weight.
    let code = std::fs::read(code).unwrap().split_off(32 + 8);
    let refused = post(&server, code).await.refused(422);
    refused.says("this is compiled machine code, which is never run: upload the .wasm component itself");
}

/// A module of 600 KB takes minutes and gigabytes to compile: other users' events must still be delivered.
#[tokio::test]
async fn a_compile_bomb_ends_at_its_limit_and_delays_no_events() {
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
async fn compiling_is_limited_in_memory() {
    // A loaded machine takes longer to reach the memory limit.
    let limits = ["--plugin-compile-memory-bytes", "1342177280", "--plugin-compile-time-ms", "100000"];
    let server = Server::with(&limits).await;
    let refused = post(&server, bomb()).await.refused(422);
    refused.says("compiling it exceeds the compile memory limit of 1280 MiB");
    super::upload(&server, waypost_guests::PROBE).await;
}

/// Forty schemas that each refer twice to the next one have a trillion paths: every save took until the time limit.
#[tokio::test]
async fn a_schema_that_takes_too_long_is_refused_at_the_upload() {
    let server = Server::start().await;
    let refused = post(&server, wasm(waypost_guests::ENDLESS_SCHEMA)).await.refused(422);
    refused.says("the manifest's `config-schema` exceeds the configuration check time limit of 5 s");
    // The answer reports the earlier check, which is not repeated.
    let again = post(&server, wasm(waypost_guests::ENDLESS_SCHEMA)).await.refused(422);
    again.says("configuration check time limit of 5 s (found within the last 10 minutes");
}

/// 1,257 bytes of components that instantiate each other twice took 2.6 GiB in the server.
#[tokio::test]
async fn excessive_numbers_of_instances_are_refused_before_they_take_memory() {
    let server = Server::start().await;
    super::upload(&server, waypost_guests::PROBE).await;
    let before = server.peak_bytes();
    let refused = post(&server, doubling(24)).await.refused(422);
    refused.says("compiling it exceeds the limit of 1000 component instances: an instance of it has 1023");
    assert!(server.peak_bytes() - before < 100 << 20, "{} bytes more", server.peak_bytes() - before);
}

/// The same with types: they compile to nothing, but their descriptions take memory.
#[tokio::test]
async fn the_description_of_a_module_counts_towards_its_memory() {
    let server = Server::start().await;
    super::upload(&server, waypost_guests::PROBE).await;
    let before = server.peak_bytes();
    for (imports, says) in [(10, "compile output limit of 1 MiB"), (1, "loading memory limit of 4 MiB")] {
        let refused = post(&server, describing(imports)).await.refused(422);
        refused.says(says);
    }
    assert!(server.peak_bytes() - before < 100 << 20, "{} bytes more", server.peak_bytes() - before);
}

#[tokio::test]
async fn padding_is_refused_with_the_name_of_its_section() {
    let server = Server::start().await;
    let mut padded = wasm(waypost_guests::PROBE);
    padded.extend(custom("padding", (1 << 20) + 1));
    let refused = post(&server, padded).await.refused(422);
    refused.says("limit of 1 MiB for its custom section `padding`, which has 1048577 bytes");
}

/// When memory ran out, the system could kill the service instead of its child.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_compiling_child_is_killed_before_the_service_and_gains_no_privileges() {
    let server = Server::start().await;
    let (user, pid) = (server.user("ann"), server.pid().as_raw_nonzero());
    let mut uploading = tokio::task::JoinSet::new();
    uploading.spawn(async move { post(&user, bomb()).await });
    let is_child = |status: &str| status.contains(&format!("\nPPid:\t{pid}\n"));
    wait_until("a child has taken its limits", async || {
        let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
        processes.into_iter().find_map(|process| {
            let status =
                std::fs::read_to_string(process.join("status")).ok().filter(|status| is_child(status))?;
            let score = std::fs::read_to_string(process.join("oom_score_adj")).ok()?;
            (score.trim() == "1000" && status.contains("\nNoNewPrivs:\t1\n")).then_some(())
        })
    })
    .await;
}

/// A module was compiled for seventeen seconds before its exports were checked. This one would take minutes.
#[tokio::test]
async fn a_useless_module_is_refused_before_it_is_compiled() {
    let server = Server::start().await;
    let refused = post(&server, useless_bomb()).await.refused(422);
    refused.says("it exports none of waypost:plugin/policy@0.1.0");
    let foreign = [useless_bomb(), importing(&["wasi:nn/tensor@0.2.0"]).split_off(COMPONENT.len())].concat();
    post(&server, foreign)
        .await
        .refused(422)
        .says("it imports wasi:nn/tensor@0.2.0, which this waypost does not");
    let key = server.data().join("compiled/key");
    assert!(!key.exists(), "nothing was compiled");
    // A module with the right name in its exports is still passed to the compiler.
    let hollow = post(&server, exporting("waypost:plugin/filter@0.1.3")).await.refused(422);
    hollow.says("it exports none of waypost:plugin/policy@0.1.0").says("but waypost:plugin/filter@0.1.3");
    super::upload(&server, waypost_guests::PROBE).await;
    assert!(key.exists(), "with what was compiled comes a key");
}

/// The answer to 95,000 imports had 60 MB, and a name of 66,000 characters made `plugin check` panic.
#[tokio::test]
async fn a_refusal_repeats_only_the_beginning_of_long_lists_and_names() {
    let server = Server::start().await;
    let names: Vec<_> = (0..95_000).map(|number| format!("n{number}")).collect();
    let many = importing(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let long = importing(&[&"n".repeat(66_000)]);
    for (wasm, says) in [
        (many, "it has 95000 imports, the most are 256: n0, n1, n2, n3, n4, n5, n6, n7, and 94992 more"),
        (long, "it imports a name of 66000 bytes, the longest is 256: nnn"),
    ] {
        let reply = post(&server, wasm.clone()).await;
        assert!(reply.body.len() < 2000, "{} bytes", reply.body.len());
        reply.refused(422).says(says);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("m.wasm"), wasm).unwrap();
        let output = run_in(folder.path(), &["plugin", "check", "m.wasm"], &[], "").await;
        assert_eq!(output.code, 1, "{output:?}");
        assert!(output.stderr.contains(says) && !output.stderr.contains("panicked"), "{}", output.stderr);
        assert!(output.stdout.len() + output.stderr.len() < 3000, "{output:?}");
    }
}

/// The report was only "exit status: 101".
#[tokio::test]
async fn a_panic_of_the_compiler_is_reported_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let compiler = folder.path().join("compiler");
    let panic =
        "thread 'main' panicked at cranelift/src/lib.rs:1:2:\nno such register\nnote: run with a backtrace";
    // More than the pipe holds, and more than the report keeps.
    let script =
        format!("#!/bin/sh\nyes chatter | head -c 200000 >&2\nprintf '%s\\n' \"{panic}\" >&2\nexit 101\n");
    std::fs::write(&compiler, script).unwrap();
    std::fs::set_permissions(&compiler, std::fs::Permissions::from_mode(0o755)).unwrap();
    let server = Server::with(&["--plugin-compiler", compiler.to_str().unwrap()]).await;
    let refused = post(&server, wasm(waypost_guests::PROBE)).await.refused(422);
    refused.says(
        "it does not compile: the compiler ended with a panic, which is a bug in Waypost: no such register, at \
         cranelift/src/lib.rs:1:2",
    );
}
