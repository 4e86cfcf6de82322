//! The bytes of what a plugin rendered, and of its state.

use super::super::super::record::{decode_rendered, decode_state, encode_rendered, encode_state};
use super::*;
use waypost_domain::plugin::Output;

/// Checks that a payload is written as the two digests and these bytes, and read from them.
#[track_caller]
fn check(result: PluginResult, bytes: &str) {
    let (digest, config) = (PluginDigest::of(b"abc"), PluginDigest::of(b"{}"));
    let rendered = RenderedPayload { digest, config, result };
    let text = |digest: PluginDigest| format!("47{}", hex(digest.to_string().as_bytes()));
    let summed = encode_rendered(&rendered);
    let body = format!("{}{}{bytes}", text(digest), text(config));
    assert_eq!(hex(&summed[1..summed.len() - 4]), body, "{rendered:?}");
    assert_eq!(decode_rendered(&summed.into()).unwrap(), rendered);
    assert_eq!(decode_rendered(&unhex(&format!("01{body}")).into()).unwrap(), rendered);
}

#[test]
fn a_rendered_payload_has_its_bytes_with_every_result() {
    let wire = Wire::Structured { content_type: None, body: Bytes::from_static(b"{\"id\":1}") };
    let event = Event::from_parts(SpecVersion::V1_0, "e-1".into(), "/src".into(), "type".into(), wire);
    let raw = Output::Raw {
        content_type: "a/b".to_owned(),
        headers: vec![("k".to_owned(), "v".to_owned())],
        body: Bytes::from_static(&[0, 255]),
    };
    check(PluginResult::Event, "00");
    check(
        PluginResult::Outputs(vec![Output::Event(event), raw]),
        "0102000a03652d31042f73726304747970650000087b226964223a317d0103612f6201016b01760200ff",
    );
    check(PluginResult::Denied { reason: "why".to_owned() }, "0203776879");
    check(PluginResult::Skipped { reason: "why".to_owned() }, "0303776879");
}

#[test]
fn a_value_of_a_state_has_its_bytes() {
    for (expires, bytes) in [(None, "000200ff"), (Some(at(-1)), "01010200ff")] {
        let value = StateValue { bytes: vec![0, 255], expires };
        let summed = encode_state(&value);
        assert_eq!(hex(&summed[1..summed.len() - 4]), bytes);
        assert_eq!(decode_state(&summed).unwrap(), value);
    }
}
