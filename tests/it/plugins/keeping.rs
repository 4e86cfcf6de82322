//! Stored modules: the machine code survives a restart, and is compiled again if it was changed.

use std::path::PathBuf;

use http::Method;
use serde_json::json;

use super::{post, upload, wasm};
use crate::harness::{Launch, Server, Target, event};

/// Returns the files with machine code.
fn machine_code(server: &Server) -> Vec<PathBuf> {
    // There is no folder before the first module.
    let files = std::fs::read_dir(server.data().join("compiled")).into_iter().flatten();
    files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == "code"))
        .collect()
}

/// Returns how often a module was compiled.
fn compilations(server: &Server) -> usize {
    server.log().matches("a module is compiled").count()
}

#[tokio::test]
async fn a_restart_compiles_nothing_again_and_removes_the_files_of_another_version() {
    let mut server = Server::start().await;
    let digest = upload(&server, waypost_guests::PROBE).await["digest"].clone();
    assert_eq!(compilations(&server), 1);
    let plugin = json!({"digest": digest, "config": {"filter": "ok"}});
    let uuid = server.subscribe(json!({"target_url": "http://127.0.0.1:9/", "plugin": plugin})).await;
    let old = machine_code(&server)[0].with_file_name(format!("{}-0000000000000000.code", "a".repeat(64)));
    std::fs::write(&old, "of another version").unwrap();
    server.restart().await;
    // Changing the configuration calls the plugin, so it runs.
    server.update(&uuid, &json!({"plugin": {"config": {"filter": "no: other"}}})).await;
    assert_eq!(post(&server, wasm(waypost_guests::PROBE)).await.status, 200);
    assert_eq!(compilations(&server), 1);
    crate::harness::wait_until("the old file is gone", async || (!old.exists()).then_some(())).await;
}

#[tokio::test]
async fn changed_machine_code_is_compiled_again() {
    let mut server = Server::start().await;
    let digest = upload(&server, waypost_guests::PROBE).await["digest"].clone();
    let plugin = json!({"digest": digest, "config": {"filter": "ok"}});
    let uuid = server.subscribe(json!({"target_url": "http://127.0.0.1:9/", "plugin": plugin})).await;
    let path = machine_code(&server).remove(0);
    let good = std::fs::read(&path).unwrap();
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let mut foreign = good.clone();
    foreign[..32].fill(0);
    for (round, wrong) in [flipped, good[..good.len() / 2].to_vec(), foreign, Vec::new()].iter().enumerate() {
        std::fs::write(&path, wrong).unwrap();
        server.restart().await;
        server.update(&uuid, &json!({"plugin": {"config": {"filter": format!("no: {round}")}}})).await;
        assert_eq!(compilations(&server), 2 + round);
        assert!(server.log().contains("this machine code is not what was kept"), "{}", server.log());
        assert_eq!(std::fs::read(&path).unwrap().len(), good.len());
    }
}

#[tokio::test]
async fn a_module_without_its_bytes_is_reported_and_can_be_uploaded_again() {
    let server = Server::start().await;
    let uuid = server.subscribe(json!({"target_url": "http://127.0.0.1:9/"})).await;
    let path = format!("/eventmatch/{uuid}/plugin");
    let put = async || server.send(Method::PUT, &path, &[], wasm(waypost_guests::PROBE)).await;
    put().await.ok();
    let modules = std::fs::read_dir(server.data().join("modules")).unwrap();
    let files: Vec<_> = modules.map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    std::fs::write(&files[0], "not wasm").unwrap();
    server.get(&path).await.refused(500).says("damaged");
    put().await.ok();
    assert_eq!(server.get(&path).await.ok().body, wasm(waypost_guests::PROBE));
}

#[tokio::test]
async fn without_room_on_disk_an_upload_is_refused_and_the_folder_is_named() {
    let server = Server::launch(Launch::FileSizeErrors, &[], &[]).await;
    let target = Target::start().await;
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let used = crate::disk_full::database(&server).metadata().unwrap().len();
    crate::disk_full::limit_files(&server, Some(used.min(100_000)));
    let refused = post(&server, wasm(waypost_guests::PROBE)).await.refused(503);
    assert!(refused.detail.contains("compiled (is the disk full?)"), "{}", refused.detail);
    crate::disk_full::limit_files(&server, None);
    upload(&server, waypost_guests::PROBE).await;
    let id = server.receive(&event("after")).await;
    server.delivery_in(&id, &subscription, "delivered").await;
}

#[tokio::test]
async fn the_storage_of_modules_is_limited() {
    let all = ["--plugin-storage-bytes-max", "100000", "--plugin-user-storage-bytes-max", "100000"];
    let server = Server::with(&all).await;
    let refused = post(&server, wasm(waypost_guests::PROBE)).await.refused(507);
    refused
        .says("modules and their machine code may take 100000 bytes (the setting plugin_storage_bytes_max)");
    assert!(machine_code(&server).is_empty());
}
