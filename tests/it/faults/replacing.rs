//! A plugin that is replaced under load, with one that works and with ones that do not.

use http::Method;
use serde_json::json;

use super::Scene;
use crate::harness::{Reply, Request};
use crate::plugins::wasm;

/// Gives a user's subscription a module.
async fn put(scene: &Scene, uuid: &str, module: Vec<u8>) -> Reply {
    let path = format!("/eventmatch/{uuid}/plugin");
    scene
        .server
        .user("replaced")
        .send(Method::PUT, &path, &[("content-type", "application/wasm")], module)
        .await
}

/// Returns a module with the same behaviour and another digest: a custom section has a number as its name.
fn variant(number: u8) -> Vec<u8> {
    [wasm(waypost_guests::PROBE), vec![0, 2, 1, b'a' + number]].concat()
}

#[tokio::test]
async fn each_event_passes_one_plugin_however_often_it_is_replaced() {
    let mut scene = Scene::with(&["--retry-schedule", "50ms,50ms,50ms,50ms,50ms,50ms"]).await;
    let target = scene.healthy.url("/replaced");
    let uuid = scene.subscribe("replaced", json!({"target_url": target, "max_in_flight": 4})).await;
    // Compiling takes memory: eight modules are uploaded.
    scene.memory_max += 8 * 16 * 1024 * 1024;
    for number in 0..6 {
        put(&scene, &uuid, variant(number)).await.ok();
        // A module that cannot be one leaves the last.
        assert!(put(&scene, &uuid, b"no module".to_vec()).await.status >= 400);
        for _ in 0..10 {
            scene.send().await;
        }
        // One that traps fails its attempts, until it is replaced.
        if number == 3 {
            put(&scene, &uuid, wasm(waypost_guests::TRAP)).await.ok();
            scene.send().await;
        }
    }
    let accepted = scene.accepted.len();
    assert_eq!(scene.ends("replaced").await, (accepted as u64, 0));
    let got = scene.healthy.requests("/replaced");
    crate::crash::assert_repeats_are_recognisable(&got);
    let mut ids: Vec<_> = got.iter().map(Request::event_id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), got.len()), (accepted, accepted), "each once");
    scene.close().await;
}
