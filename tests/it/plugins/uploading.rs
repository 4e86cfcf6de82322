//! Uploads, and the subscriptions that use them: reports, refusals, and what is kept.

use http::Method;
use serde_json::json;

use super::{post, upload, wasm};
use crate::harness::{Reply, Server};

#[tokio::test]
async fn a_subscription_refers_to_an_uploaded_module_and_keeps_omitted_members() {
    let mut server = Server::start().await;
    let report = upload(&server, waypost_guests::PROBE).await;
    let digest = report["digest"].as_str().unwrap().to_owned();
    let plugin = json!({"digest": digest, "config": {"filter": "no: too small"}});
    let uuid = server.subscribe(json!({"target_url": "http://127.0.0.1:9/", "plugin": plugin})).await;
    let shown = json!({
        "digest": digest,
        "config": {"filter": "no: too small"},
        "allow_hosts": [],
        "on_error": "retry",
        "limits": {
            "time_ms": null, "memory_bytes": null, "output_bytes": null, "log_bytes": null,
            "state_bytes": null, "state_keys": null,
        },
    });
    assert_eq!(server.subscription(&uuid).await["plugin"], shown);
    let changed = json!({"plugin": {"on_error": "skip", "limits": {"time_ms": 100}}});
    let updated = server.update(&uuid, &changed).await;
    assert_eq!(updated["plugin"]["digest"], shown["digest"]);
    assert_eq!(updated["plugin"]["config"], shown["config"]);
    assert_eq!(
        (&updated["plugin"]["on_error"], &updated["plugin"]["limits"]["time_ms"]),
        (&json!("skip"), &json!(100))
    );
    server.restart().await;
    assert_eq!(server.subscription(&uuid).await["plugin"], updated["plugin"]);
    assert_eq!(server.update(&uuid, &json!({"name": "other"})).await["plugin"], updated["plugin"]);
    assert!(server.update(&uuid, &json!({"plugin": null})).await["plugin"].is_null());
}

#[tokio::test]
async fn a_wrong_plugin_member_is_refused_with_its_pointer() {
    let server = Server::start().await;
    let unknown = format!("sha256:{}", "0".repeat(64));
    for (plugin, pointer, says) in [
        (json!("x"), "/plugin", "`plugin` must be an object or null, this is another string"),
        (json!({}), "/plugin/digest", "`plugin.digest` is missing"),
        (json!({"digest": "abc"}), "/plugin/digest", "a digest is `sha256:` and 64 hexadecimal digits"),
        (json!({"digest": unknown}), "/plugin/digest", "there is no module sha256:0000"),
        (
            json!({"digest": unknown, "allow_host": []}),
            "/plugin/allow_host",
            "`plugin` has no member `allow_host`",
        ),
        (
            json!({"digest": unknown, "on_error": "stop"}),
            "/plugin/on_error",
            "`plugin.on_error` must be \"retry\"",
        ),
        (json!({"digest": unknown, "limits": {"time": 1}}), "/plugin/limits/time", "no member `time`"),
        (json!({"digest": unknown, "limits": {"time_ms": 0}}), "/plugin/limits/time_ms", "at least 1"),
    ] {
        let body =
            json!({"name": "n", "jsonpath": "$", "target_url": "http://127.0.0.1:9/", "plugin": plugin});
        server.post("/eventmatch", &body).await.refused(422).at(pointer).says(says);
    }
}

#[tokio::test]
async fn a_report_describes_a_module() {
    let server = Server::start().await;
    let report = upload(&server, waypost_guests::PROBE).await;
    assert_eq!(report["exports"], json!(["metadata", "policy", "filter", "transform"]));
    assert_eq!(report["manifest"]["name"], "probe");
    assert_eq!(report["manifest"]["config_schema"]["properties"]["filter"], json!({"type": "string"}));
    assert_eq!(report["manifest"]["wanted_hosts"], json!(["example.org"]));
    let imports = report["imports"].as_array().unwrap();
    assert!(imports.iter().all(|import| import["fits"] == true), "{report}");
    let log = imports.iter().find(|import| import["name"] == "waypost:plugin/log@0.1.0").unwrap();
    assert_eq!(log["offered"], "waypost:plugin/log@0.1.0");
    assert_eq!(report["bytes"], wasm(waypost_guests::PROBE).len());
    assert!(report["compile_ms"].as_u64().unwrap() > 0, "{report}");
    assert!(report["compiled_bytes"].as_u64() > report["bytes"].as_u64(), "{report}");
    assert_eq!(report["memory_bytes"].as_u64().unwrap() % 65536, 0, "{report}");
    assert!(report["memory_bytes"].as_u64().unwrap() > 0, "{report}");
    let again = post(&server, wasm(waypost_guests::PROBE)).await;
    assert_eq!(again.status, 200, "the second time it is known");
    let path = format!("/plugins/{}", report["digest"].as_str().unwrap());
    assert_eq!(server.get(&path).await.ok().json()["manifest"], report["manifest"]);
    server.get("/plugins/sha256:1").await.refused(400).says("64 hexadecimal digits");
    server.get(&format!("/plugins/sha256:{}", "0".repeat(64))).await.refused(404).says("there is no module");
}

#[tokio::test]
async fn a_user_sees_the_modules_that_he_uploaded_or_uses() {
    let server = Server::start().await;
    let (ann, bob) = (server.user("ann"), server.user("bob"));
    let digest = upload(&ann, waypost_guests::PROBE).await["digest"].clone();
    let listed = async |api: &crate::harness::Api| api.get("/plugins").await.ok().json();
    assert_eq!(listed(&ann).await[0]["digest"], digest);
    assert_eq!(listed(&ann).await[0]["used_by"], json!([]));
    assert_eq!(listed(&bob).await, json!([]));
    assert_eq!(listed(&server).await[0]["digest"], digest, "an admin sees all");
    let uuid =
        bob.subscribe(json!({"target_url": "http://127.0.0.1:9/", "plugin": {"digest": digest}})).await;
    assert_eq!(listed(&bob).await[0]["used_by"], json!([uuid]));
    let path = format!("/eventmatch/{uuid}/plugin");
    ann.get(&path).await.refused(403);
    ann.delete(&path).await.refused(403);
    // The whole module is read even so: the connection used to break, and the client did not see the answer.
    for _ in 0..10 {
        ann.send(Method::PUT, &path, &[], wasm(waypost_guests::PROBE)).await.refused(403);
    }
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_with_its_pointer() {
    let server = Server::start().await;
    let digest = upload(&server, waypost_guests::PROBE).await["digest"].clone();
    let create = async |config| {
        let plugin = json!({"digest": digest, "config": config});
        let body =
            json!({"name": "n", "jsonpath": "$", "target_url": "http://127.0.0.1:9/", "plugin": plugin});
        server.post("/eventmatch", &body).await
    };
    let refused = create(json!({"filter": 1})).await.refused(422).at("/plugin/config/filter");
    assert_eq!(refused.detail, "`plugin.config` is wrong: want string, but got number");
    let part = json!({"pointer": "/plugin/config/filter", "detail": "want string, but got number"});
    assert_eq!(refused.errors, [part]);
    // The schema accepts it, the plugin does not.
    create(json!({"wrong": true})).await.refused(422).at("/plugin/config/wrong").says("is wrong");
    let large = create(json!({"text": "x".repeat(70_000)})).await.refused(422).at("/plugin/config");
    large.says("it has 70011 bytes, the most are 65536");
    let uuid = create(json!({"filter": "ok"})).await.ok().json()["uuid"].as_str().unwrap().to_owned();
    let path = format!("/eventmatch/{uuid}");
    server.put(&path, &json!({"plugin": {"config": {"filter": []}}})).await.refused(422);
    assert_eq!(server.subscription(&uuid).await["plugin"]["config"], json!({"filter": "ok"}));
    let limits = server.put(&path, &json!({"plugin": {"limits": {"time_ms": 251}}})).await.refused(422);
    limits
        .at("/plugin/limits/time_ms")
        .says("`plugin.limits.time_ms` is at most 250 (the setting plugin_time_ms)");
    let hosts = json!({"plugin": {"allow_hosts": ["api.example.org", "not a host"]}});
    server.put(&path, &hosts).await.refused(422).at("/plugin/allow_hosts/1").says("`not a host`");
}

#[tokio::test]
async fn the_module_of_a_subscription_can_be_put_read_and_deleted() {
    let server = Server::start().await;
    let uuid = server.subscribe(json!({"target_url": "http://127.0.0.1:9/"})).await;
    let path = format!("/eventmatch/{uuid}/plugin");
    server.get(&path).await.refused(404).says("this subscription has no plugin");
    let put = async |wasm: Vec<u8>| server.send(Method::PUT, &path, &[], wasm).await;
    let report = put(wasm(waypost_guests::PROBE)).await.ok().json();
    server.update(&uuid, &json!({"plugin": {"config": {"filter": "ok"}, "on_error": "skip"}})).await;
    let got = server.get(&path).await.ok();
    assert_eq!(
        (got.header("content-type"), &got.body[..]),
        ("application/wasm", &wasm(waypost_guests::PROBE)[..])
    );
    let json = server.send(Method::GET, &path, &[("accept", "application/json")], "").await.ok().json();
    assert_eq!((&json["digest"], &json["config"]), (&report["digest"], &json!({"filter": "ok"})));
    // Another version: the same with a custom section at the end.
    let next = [wasm(waypost_guests::PROBE), vec![0, 3, 1, b'n', 1]].concat();
    let next = put(next).await.ok().json()["digest"].clone();
    assert_ne!(next, report["digest"]);
    let plugin = server.subscription(&uuid).await["plugin"].clone();
    assert_eq!((&plugin["digest"], &plugin["on_error"]), (&next, &json!("skip")));
    assert_eq!(plugin["config"], json!({"filter": "ok"}));
    put(b"\0asm\x01\0\0\0".to_vec()).await.refused(415);
    assert_eq!(server.subscription(&uuid).await["plugin"], plugin, "what is refused changes nothing");
    server.delete(&path).await.ok();
    assert!(server.subscription(&uuid).await["plugin"].is_null());
}

#[tokio::test]
async fn one_request_can_carry_a_subscription_and_its_module() {
    let server = Server::with(&["--plugin-bytes-max", "1000000", "--subscription-bytes-max", "1000"]).await;
    let probe = wasm(waypost_guests::PROBE);
    let subscription = json!({
        "name": "n", "jsonpath": "$", "target_url": "http://127.0.0.1:9/",
        "plugin": {"config": {"filter": "ok"}},
    });
    let subscription = subscription.to_string().into_bytes();
    for parts in [
        [("subscription", &subscription), ("plugin", &probe)],
        [("plugin", &probe), ("subscription", &subscription)],
    ] {
        let created = form(&server, &parts).await.ok().json();
        assert_eq!(created["plugin"]["config"], json!({"filter": "ok"}));
        assert!(created["plugin"]["digest"].as_str().unwrap().starts_with("sha256:"));
    }
    let alone = form(&server, &[("subscription", &subscription)]).await.refused(422);
    alone.at("/plugin/digest").says("`plugin.digest` is missing");
    form(&server, &[("plugin", &probe)]).await.refused(400).says("the part `subscription` is missing");
    let unknown = form(&server, &[("subscription", &subscription), ("wasm", &probe)]).await.refused(400);
    unknown.says("there is no part `wasm`: the parts are `subscription` (JSON) and `plugin` (.wasm)");
    let twice = form(&server, &[("subscription", &subscription), ("subscription", &subscription)]).await;
    twice.refused(400).says("the part `subscription` appears more than once");
    let large = form(&server, &[("plugin", &vec![0; 1_000_001])]).await.refused(413);
    large.says("the module is larger than 1000000 bytes (the setting plugin_bytes_max)");
    let large = form(&server, &[("subscription", &vec![b' '; 1001])]).await.refused(413);
    large.says("the subscription is larger than 1000 bytes (the setting subscription_bytes_max)");
    let wrong = form(&server, &[("subscription", &b"{}".to_vec()), ("plugin", &probe)]).await;
    wrong.refused(422).at("/name");
    assert_eq!(server.get("/eventmatch").await.ok().json().as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_form_accepts_a_module_of_any_size_that_the_setting_allows() {
    let server = Server::start().await;
    let subscription = json!({"name": "n", "jsonpath": "$", "target_url": "http://127.0.0.1:9/"});
    let subscription = subscription.to_string().into_bytes();
    // More than axum accepts by default: it is read, and refused for its content.
    let large = vec![0; 3_000_000];
    let parts = [("subscription", &subscription), ("plugin", &large)];
    form(&server, &parts).await.refused(415).says("not a WebAssembly component");
}

/// Posts a form with these parts to `/eventmatch`.
async fn form(server: &Server, parts: &[(&str, &Vec<u8>)]) -> Reply {
    let mut body = Vec::new();
    for (name, bytes) in parts {
        let head = format!("--b0undary\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
        body.extend([head.as_bytes(), bytes, b"\r\n"].concat());
    }
    body.extend(b"--b0undary--\r\n");
    let headers = [("content-type", "multipart/form-data; boundary=b0undary")];
    server.send(Method::POST, "/eventmatch", &headers, body).await
}
