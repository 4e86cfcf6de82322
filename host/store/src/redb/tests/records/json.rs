//! The JSON of every kind of choice in the records of subscriptions, recoveries and modules.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use serde_json::{Value, json};

use super::*;
use crate::Module;
use waypost_domain::event::{ContentMode, EventFormat, StructuredType};
use waypost_domain::plugin::{Import, Manifest, Offer, OnError, PluginLimits, Report};
use waypost_domain::sending::{
    ClientAuth, ClientIdentity, Handshake, HeaderText, HmacSecrets, OAuth2, OldSecret, Sending, Signing,
};
use waypost_domain::{FilterDialect, PluginUse, Sealed};

fn plain() -> Subscription {
    let target = "http://localhost:1".parse().unwrap();
    let mut plain = Subscription::new("ann".into(), "plain".into(), "$".into(), target, at(0));
    plain.id = sub(7);
    plain
}

/// Returns the JSON of a record, whose frame is checked.
fn json_of(summed: &[u8]) -> &str {
    assert_eq!(summed[0], SUMMED);
    std::str::from_utf8(&summed[1..summed.len() - 4]).unwrap()
}

/// Checks that a subscription is written with these values of members, and read again.
#[track_caller]
fn check(subscription: &Subscription, members: &Value) {
    let summed = encoded(subscription);
    let json: Value = serde_json::from_str(json_of(&summed)).unwrap();
    for (name, value) in members.as_object().unwrap() {
        assert_eq!(json[name], *value, "{name}");
    }
    assert_eq!(decoded(&summed).unwrap(), *subscription);
}

const PLAIN: &str = concat!(
    r#"{"id":"00000000-0000-0000-0000-000000000007","name":"plain","user":"ann","jsonpath":"$","target_url":"http://"#,
    r#"localhost:1","version":"v0.1","extensions":{},"auth":"None","created":"1970-01-01T00:00:00Z","updated":"1970-"#,
    r#"01-01T00:00:00Z","deleted":null,"activity":"Enabled","retry":null,"timeout":null,"max_in_flight":null,"filter"#,
    r#"_dialect":"auto","event_format":"original","content_mode":"structured","content_type":"application/cloudevent"#,
    r#"s+json","plugin":null}"#,
);

#[test]
fn a_plain_subscription_has_its_json() {
    assert_eq!(json_of(&encoded(&plain())), PLAIN);
    assert_eq!(decoded(&encoded(&plain())).unwrap(), plain());
}

#[test]
fn every_choice_of_a_subscription_has_its_word() {
    for (dialect, word) in [
        (FilterDialect::Auto, "auto"),
        (FilterDialect::Rfc9535, "rfc9535"),
        (FilterDialect::Jsonpath2, "jsonpath2"),
    ] {
        check(&Subscription { filter_dialect: dialect, ..plain() }, &json!({"filter_dialect": word}));
    }
    for (format, word) in [(EventFormat::Original, "original"), (EventFormat::V1_0, "1.0")] {
        check(&Subscription { event_format: format, ..plain() }, &json!({"event_format": word}));
    }
    for (mode, word) in [(ContentMode::Structured, "structured"), (ContentMode::Binary, "binary")] {
        check(&Subscription { content_mode: mode, ..plain() }, &json!({"content_mode": word}));
    }
    for (content_type, word) in [
        (StructuredType::CloudEvents, "application/cloudevents+json"),
        (StructuredType::Json, "application/json"),
    ] {
        check(&Subscription { content_type, ..plain() }, &json!({"content_type": word}));
    }
    let unsealed = |text: &str| Sealed::unsealed(text.to_owned().into());
    let sealed = Sealed::new(KeyId::from_bytes([1; 8]), [2; 24], &[3; 17]);
    let basic = Auth::Basic { username: "u".to_owned(), password: unsealed("p\"\\") };
    let header = Auth::Header { scheme: "Bearer".to_owned(), credentials: unsealed("c") };
    let words = "AQEBAQEBAQECAgICAgICAgICAgICAgICAgICAgICAgIDAwMDAwMDAwMDAwMDAwMDAw";
    let sealed_form = json!({"sealed": words});
    for (auth, form) in [
        (Auth::None, json!("None")),
        (basic, json!({"Basic": {"username": "u", "password": "p\"\\"}})),
        (header, json!({"Header": {"scheme": "Bearer", "credentials": "c"}})),
        (
            Auth::Basic { username: "u".to_owned(), password: sealed.clone() },
            json!({"Basic": {"username": "u", "password": sealed_form}}),
        ),
        (
            Auth::Header { scheme: "Bearer".to_owned(), credentials: sealed },
            json!({"Header": {"scheme": "Bearer", "credentials": sealed_form}}),
        ),
    ] {
        check(&Subscription { auth, ..plain() }, &json!({"auth": form}));
    }
    let paused = Activity::Disabled { since: at(1), error: None };
    let form = json!({"Disabled": {"since": "1970-01-01T00:00:00.000001Z", "error": null}});
    check(&Subscription { activity: paused, ..plain() }, &json!({"activity": form}));
    check(&Subscription { retry: Some(RetrySchedule::NONE), ..plain() }, &json!({"retry": "none"}));
}

fn sealed(byte: u8) -> Sealed {
    Sealed::from_bytes(vec![byte; 48].into()).unwrap()
}

/// What is written of it.
fn text(byte: u8) -> Value {
    json!({"sealed": BASE64_STANDARD_NO_PAD.encode([byte; 48])})
}

#[test]
fn what_a_subscription_adds_to_its_requests_has_its_json() {
    let sending = Sending {
        headers: BTreeMap::from([
            ("x-key".to_owned(), HeaderText::Secret(sealed(1))),
            ("x-team".to_owned(), HeaderText::Plain("optics".to_owned())),
        ]),
        signing: Signing {
            hmac: Some(HmacSecrets {
                secret: sealed(2),
                since: at(1),
                old: vec![OldSecret { secret: sealed(3), until: at(2) }],
            }),
            ed25519: Some(at(3)),
        },
        client_certificate: Some(ClientIdentity {
            pem: sealed(4),
            fingerprint: "aa".to_owned(),
            digest: "bb".to_owned(),
        }),
        target_ca: Some("PEM".to_owned()),
        handshake: Handshake::Require,
    };
    let form = json!({
        "headers": {"x-key": {"Secret": text(1)}, "x-team": {"Plain": "optics"}},
        "signing": {
            "hmac": {
                "secret": text(2), "since": "1970-01-01T00:00:00.000001Z",
                "old": [{"secret": text(3), "until": "1970-01-01T00:00:00.000002Z"}],
            },
            "ed25519": "1970-01-01T00:00:00.000003Z",
        },
        "client_certificate": {"pem": text(4), "fingerprint": "aa", "digest": "bb"},
        "target_ca": "PEM",
        "handshake": "require",
    });
    check(&Subscription { sending: Some(Arc::new(sending)), ..plain() }, &json!({"sending": form}));
    for (handshake, word) in [(Handshake::Skip, "skip"), (Handshake::Try, "try")] {
        let sending = Sending { handshake, ..Sending::default() };
        let form = json!({
            "headers": {}, "signing": {"hmac": null, "ed25519": null}, "client_certificate": null, "target_ca": null,
            "handshake": word,
        });
        check(&Subscription { sending: Some(Arc::new(sending)), ..plain() }, &json!({"sending": form}));
    }
}

#[test]
fn credentials_for_tokens_have_their_json() {
    for (client_auth, word) in [(ClientAuth::Basic, "basic"), (ClientAuth::Post, "post")] {
        let oauth2 = OAuth2 {
            token_url: "http://id.example/token".parse().unwrap(),
            client_id: "c".to_owned(),
            client_secret: sealed(5),
            client_auth,
            scope: Some("s".to_owned()),
            audience: None,
        };
        let form = json!({"OAuth2": {
            "token_url": "http://id.example/token", "client_id": "c", "client_secret": text(5), "client_auth": word,
            "scope": "s", "audience": null,
        }});
        check(&Subscription { auth: Auth::OAuth2(Box::new(oauth2)), ..plain() }, &json!({"auth": form}));
    }
}

/// Texts that JSON escapes are not borrowed from the record.
#[test]
fn a_subscription_keeps_its_escaped_texts() {
    let subscription = Subscription { name: "a\nb".into(), jsonpath: "$[\"x\\y\"]".into(), ..plain() };
    check(&subscription, &json!({"name": "a\nb", "jsonpath": "$[\"x\\y\"]"}));
}

/// Versions before the check accepted any text.
#[test]
fn a_subscription_with_an_invalid_target_is_read() {
    let stored = PLAIN.replace("http://localhost:1", "http://127.0.0.1:99999/x");
    let read = decoded(&[b"\x01", stored.as_bytes()].concat()).unwrap();
    assert!(read.target_url.uri().is_err());
    assert_eq!(json_of(&encoded(&read)), stored);
}

#[test]
fn a_subscription_whose_values_cannot_be_is_damaged() {
    for (good, bad) in [
        (r#""retry":null"#, r#""retry":"5x""#),
        (r#""activity":"Enabled""#, r#""activity":"enabled""#),
        (r#""plugin":null"#, r#""plugin":{"digest":"sha256:0"}"#),
        (r#""auth":"None""#, r#""auth":{"Header":{"scheme":"Bearer","credentials":{"sealed":"AQEB"}}}"#),
        (r#""auth":"None""#, r#""auth":{"Header":{"scheme":"Bearer","credentials":{"sealed":"?"}}}"#),
        (r#""auth":"None""#, r#""auth":{"Header":{"scheme":"Bearer","credentials":{}}}"#),
        (r#""id":"0"#, r#""id":"x"#),
    ] {
        assert!(PLAIN.contains(good));
        let stored = PLAIN.replace(good, bad);
        assert!(decoded(&[b"\x01", stored.as_bytes()].concat()).is_err(), "{bad}");
    }
}

const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

const PLUGIN: &str = concat!(
    r#"{"digest":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","config":{"a":1},"allow_h"#,
    r#"osts":["https://*.a.b:1"],"on_error":"dead_letter","limits":{"time":{"secs":0,"nanos":5000000},"memory_bytes""#,
    r#":1,"output_bytes":2,"log_bytes":3,"state_bytes":4,"state_keys":5}}"#,
);

#[test]
fn the_plugin_of_a_subscription_has_its_json() {
    let mut plugin = PluginUse::new(PluginDigest::of(b"abc"));
    plugin.config.insert("a".to_owned(), 1.into());
    plugin.allow_hosts = vec!["https://*.a.b:1".parse().unwrap()];
    plugin.on_error = OnError::DeadLetter;
    plugin.limits = PluginLimits {
        time: Some(Duration::from_millis(5)),
        memory_bytes: Some(1),
        output_bytes: Some(2),
        log_bytes: Some(3),
        state_bytes: Some(4),
        state_keys: Some(5),
    };
    let subscription = Subscription { plugin: Some(Arc::new(plugin)), ..plain() };
    let summed = encoded(&subscription);
    assert_eq!(json_of(&summed), PLAIN.replace(r#""plugin":null"#, &format!(r#""plugin":{PLUGIN}"#)));
    assert_eq!(decoded(&summed).unwrap(), subscription);
    for (on_error, word) in [
        (OnError::Retry, "retry"),
        (OnError::Skip, "skip"),
        (OnError::Deliver, "deliver"),
        (OnError::DeadLetter, "dead_letter"),
    ] {
        let plugin = PluginUse { on_error, ..PluginUse::new(PluginDigest::of(b"abc")) };
        let form = json!({"digest": DIGEST, "config": {}, "allow_hosts": [], "on_error": word, "limits": {}});
        check(&Subscription { plugin: Some(Arc::new(plugin)), ..plain() }, &json!({"plugin": form}));
    }
}

/// Every member of a plugin but its digest has a default.
#[test]
fn a_plugin_with_nothing_but_its_digest_is_read() {
    let stored = PLAIN.replace(r#""plugin":null"#, &format!(r#""plugin":{{"digest":"{DIGEST}"}}"#));
    let read = decoded(&[b"\x01", stored.as_bytes()].concat()).unwrap();
    assert_eq!(read.plugin.as_deref(), Some(&PluginUse::new(PluginDigest::of(b"abc"))));
}

#[test]
fn a_recovery_has_its_json_in_every_state() {
    let mark = |number| Some(recovery::Mark { event: id(number), received: at(1) });
    let mut recovery = Recovery::new(sub(7), None, Some(at(2)), "bob".to_owned(), at(1));
    (recovery.end, recovery.oldest, recovery.position) = (mark(3), mark(1), mark(2));
    for (state, form) in [
        (recovery::State::Running, json!("Running")),
        (recovery::State::Done { at: at(0) }, json!({"Done": {"at": "1970-01-01T00:00:00Z"}})),
        (recovery::State::Cancelled { at: at(0) }, json!({"Cancelled": {"at": "1970-01-01T00:00:00Z"}})),
        (
            recovery::State::Failed { at: at(0), reason: "why".to_owned() },
            json!({"Failed": {"at": "1970-01-01T00:00:00Z", "reason": "why"}}),
        ),
    ] {
        recovery.state = state;
        let summed = encode_recovery(&recovery);
        let json: Value = serde_json::from_str(json_of(&summed)).unwrap();
        assert_eq!(json["state"], form);
        let mark = |number: u8| {
            let event = format!("00000000-0000-0000-0000-00000000000{number}");
            json!({"event": event, "received": "1970-01-01T00:00:00.000001Z"})
        };
        assert_eq!((&json["end"], &json["oldest"], &json["position"]), (&mark(3), &mark(1), &mark(2)));
        assert_eq!(decode_recovery(&summed).unwrap(), recovery);
    }
}

fn module() -> Module {
    let import = |name: &str, offered| Import { name: name.to_owned(), offered };
    let manifest = Manifest {
        name: "n".to_owned(),
        version: "1".to_owned(),
        description: "d".to_owned(),
        config_schema: Some(json!({"type": "object"})),
        wanted_hosts: vec!["h".to_owned()],
    };
    let report = Report {
        digest: PluginDigest::of(b"abc"),
        bytes: 3,
        exports: vec!["filter".to_owned()],
        imports: vec![
            import("a:b/c@1.0.0", Offer::Yes("a:b/c@1.1.0".to_owned())),
            import("a:b/d@2.0.0", Offer::OtherVersion("a:b/d@1.0.0".to_owned())),
            import("e", Offer::No),
        ],
        manifest: Some(manifest),
        compile_time: Duration::new(1, 2),
        compiled_bytes: 4,
        memory_bytes: 5,
    };
    let uploads = BTreeMap::from([("ann".to_owned(), at(0)), ("bob".to_owned(), at(1))]);
    Module { report, uploaded: at(1), by: "ann".to_owned(), uploads }
}

const MODULE: &str = concat!(
    r#"{"report":{"digest":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","bytes":3,"expo"#,
    r#"rts":["filter"],"imports":[{"name":"a:b/c@1.0.0","offered":{"yes":"a:b/c@1.1.0"}},{"name":"a:b/d@2.0.0","offe"#,
    r#"red":{"other_version":"a:b/d@1.0.0"}},{"name":"e","offered":"no"}],"manifest":{"name":"n","version":"1","desc"#,
    r#"ription":"d","config_schema":{"type":"object"},"wanted_hosts":["h"]},"compile_time":{"secs":1,"nanos":2},"com"#,
    r#"piled_bytes":4,"memory_bytes":5},"uploaded":"1970-01-01T00:00:00.000001Z","by":"ann","uploads":{"ann":"1970-0"#,
    r#"1-01T00:00:00Z","bob":"1970-01-01T00:00:00.000001Z"}}"#,
);

#[test]
fn a_module_has_its_json() {
    let summed = encode_module(&module());
    assert_eq!(json_of(&summed), MODULE);
    assert_eq!(decode_module(&summed).unwrap(), module());
    assert_eq!(decode_module(&[b"\x01", MODULE.as_bytes()].concat()).unwrap(), module());
}

/// The first rows knew no more than who had uploaded the module first.
#[test]
fn a_module_without_a_list_of_uploads_is_read() {
    let end = MODULE.find(r#","uploads""#).unwrap();
    let stored = format!("{}}}", &MODULE[..end]);
    let read = decode_module(&[b"\x01", stored.as_bytes()].concat()).unwrap();
    assert_eq!(read.uploads, BTreeMap::from([("ann".to_owned(), at(1))]));
    let bare = Report { manifest: None, imports: Vec::new(), ..module().report };
    let bare = Module { report: bare, ..module() };
    assert_eq!(decode_module(&encode_module(&bare)).unwrap(), bare);
}
