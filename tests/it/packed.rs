//! `Content-Encoding` of requests: bodies are decompressed before anything else reads them, within the limits.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::Method;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::{Value, json};

use crate::harness::{Server, Target, event_1_0, merged};

const JSON: (&str, &str) = ("content-type", "application/json");
const GZIP: (&str, &str) = ("content-encoding", "gzip");

fn gzip(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes.as_ref()).unwrap();
    encoder.finish().unwrap()
}

/// A binary event with a compressed body was logged unchanged: filters did not see its data, and the target got gzip
/// labelled as JSON.
#[tokio::test]
async fn a_compressed_event_is_matched_and_delivered_decompressed() {
    let (server, target) = (Server::start().await, Target::start().await);
    let fields =
        json!({"jsonpath": "$[?@.a == 1]", "target_url": target.url("/t"), "content_mode": "binary"});
    server.subscribe(fields).await;
    let headers =
        [JSON, ("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t"), GZIP];
    server.send(Method::POST, "/receive", &headers, gzip(r#"{"a":1}"#)).await.ok();
    let got = target.wait_for("/t", 1).await.remove(0);
    assert_eq!((got.text(), got.header("content-encoding")), (r#"{"a":1}"#, ""));
    // A batch, compressed twice.
    let batch = json!([event_1_0("2"), event_1_0("3")]).to_string();
    let packed = gzip(compress_to_vec(batch.as_bytes(), CompressionLevel::Fastest));
    let headers = [
        ("content-type", "application/cloudevents-batch+json"),
        ("content-encoding", "zstd, identity, x-gzip"),
    ];
    assert_eq!(server.send(Method::POST, "/receive", &headers, packed).await.ok().text().lines().count(), 2);
}

#[tokio::test]
async fn every_body_is_decompressed() {
    let server = Server::start().await;
    let subscription = json!({"name": "n", "jsonpath": "$", "target_url": "http://127.0.0.1:9/"});
    let created =
        server.send(Method::POST, "/eventmatch", &[JSON, GZIP], gzip(subscription.to_string())).await;
    let uuid = created.ok().json()["uuid"].as_str().unwrap().to_owned();
    let path = format!("/eventmatch/{uuid}");
    let renamed = gzip(json!({"name": "other"}).to_string());
    let updated = server.send(Method::PUT, &path, &[JSON, GZIP], renamed).await;
    assert_eq!(updated.ok().json()["name"], "other");
    let event = gzip(event_1_0("1").to_string());
    let tried = server.send(Method::POST, &format!("{path}/test"), &[JSON, GZIP], event).await;
    assert_eq!(tried.ok().json()["matches"], true);
    let since = gzip(json!({"since": "earliest"}).to_string());
    let begun = server.send(Method::POST, &format!("{path}/recover"), &[JSON, GZIP], since).await;
    assert_eq!(begun.status, 202, "{}", begun.text());

    // An empty component.
    let module = b"\0asm\x0d\0\x01\0";
    let plain = server.send(Method::POST, "/plugins", &[], &module[..]).await.refused(422).detail;
    for (method, path) in [(Method::POST, "/plugins".to_owned()), (Method::PUT, format!("{path}/plugin"))] {
        let packed = server.send(method, &path, &[GZIP], gzip(module)).await;
        assert_eq!(packed.refused(422).detail, plain, "{path}");
    }
    let parts = format!(
        "--x\r\ncontent-disposition: form-data; name=subscription\r\n\r\n{subscription}\r\n--x--\r\n"
    );
    let form = [("content-type", "multipart/form-data; boundary=x"), GZIP];
    let created = server.send(Method::POST, "/eventmatch", &form, gzip(parts)).await;
    assert_eq!(created.ok().json()["name"], "n");
}

#[tokio::test]
async fn a_body_that_cannot_be_decompressed_is_refused_with_the_coding() {
    let server = Server::start().await;
    let event = event_1_0("1").to_string();
    let post = async |coding, body: Vec<u8>| {
        server.send(Method::POST, "/receive", &[JSON, ("content-encoding", coding)], body).await
    };
    for coding in ["compress", "gzip, aws-chunked"] {
        let refused = post(coding, gzip(&event)).await;
        assert_eq!(refused.header("accept-encoding"), "gzip, deflate, br, zstd");
        refused.refused(415).says(coding.rsplit(' ').next().unwrap());
    }
    for coding in ["gzip", "deflate", "br", "zstd"] {
        post(coding, event.clone().into_bytes()).await.refused(400).says(coding);
    }
    let whole = gzip(&event);
    post("gzip", whole[..whole.len() - 1].to_vec()).await.refused(400).says("gzip");
    assert_eq!(server.get("/events").await.ok().json()["events"], json!([]));
}

/// A small compressed body may decompress to gigabytes.
#[tokio::test]
async fn the_limit_applies_to_the_decompressed_body() {
    let server = Server::with(&["--event-bytes-max", "2000"]).await;
    let sized = |bytes: usize| merged(event_1_0("a"), json!({"data": "x".repeat(bytes)})).to_string();
    let post = async |body: String| server.send(Method::POST, "/receive", &[JSON, GZIP], gzip(body)).await;
    post(sized(1500)).await.ok();
    post(sized(2000)).await.refused(413).says("event_bytes_max");
    let bomb = gzip(vec![b' '; 64 << 20]);
    let path =
        format!("/eventmatch/{}", server.subscribe(json!({"target_url": "http://127.0.0.1:9/"})).await);
    let sent = server.send(Method::PUT, &path, &[JSON, GZIP], bomb).await;
    sent.refused(413).says("subscription_bytes_max");
    let events: Value = server.get("/events").await.ok().json();
    assert_eq!(events["events"].as_array().unwrap().len(), 1);
}

/// A compressed body takes room twice, compressed and decompressed, and large bodies have three quarters of all room.
#[tokio::test]
async fn the_largest_module_fits_compressed_into_the_smallest_room() {
    let sizes =
        ["--event-bytes-max", "1000", "--subscription-bytes-max", "1000", "--plugin-bytes-max", "1000000"];
    let server = Server::with(&[&sizes[..], &["--bodies-bytes-max", "3003000"]].concat()).await;
    let subscription = json!({"name": "n", "jsonpath": "$", "target_url": "http://127.0.0.1:9/"});
    let part = |name: &str| format!("--x\r\ncontent-disposition: form-data; name={name}\r\n\r\n");
    let head = format!("{}{subscription}\r\n{}", part("subscription"), part("plugin"));
    let form = [head.as_bytes(), &vec![0; 1_000_000], b"\r\n--x--\r\n"].concat();
    // Bytes that compression makes no smaller.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
    encoder.write_all(&form).unwrap();
    let packed = encoder.finish().unwrap();
    assert!(packed.len() > form.len());
    let headers = [("content-type", "multipart/form-data; boundary=x"), GZIP];
    let looked_at = server.send(Method::POST, "/eventmatch", &headers, packed).await;
    looked_at.refused(415).says("not a WebAssembly component");
}
