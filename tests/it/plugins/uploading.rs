//! From an upload to a subscription that uses it: reports, refusals, and what stays.

use serde_json::json;

use super::upload;
use crate::harness::Server;

#[tokio::test]
async fn a_subscription_refers_to_an_uploaded_module_and_keeps_what_is_not_given() {
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
async fn a_plugin_member_that_is_wrong_is_refused_where_it_is() {
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
