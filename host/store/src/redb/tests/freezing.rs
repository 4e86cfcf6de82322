//! What a plugin renders of a delivery, and the state that it keeps.

use std::sync::Arc;

use serde_json::json;

use super::super::record::{self, decode_rendered, decode_state, encode_rendered, encode_state};
use super::*;
use waypost_domain::plugin::{Output, StateMap, Verdict};
use waypost_domain::{PluginUse, Subscription};

fn plugin(config: &serde_json::Value) -> PluginUse {
    let config = config.as_object().unwrap().clone();
    PluginUse { config, ..PluginUse::new(PluginDigest::of(b"module")) }
}

fn run() -> PluginRun {
    PluginRun {
        verdict: Verdict::Transformed { outputs: 1 },
        ..PluginRun::failed(PluginDigest::of(b"module"), 1, after(0), Failure::Host(String::new()))
    }
}

fn raw(body: &'static str) -> Output {
    let headers = vec![("x-a".to_owned(), "b".to_owned())];
    Output::Raw { content_type: "text/plain".to_owned(), headers, body: Bytes::from_static(body.as_bytes()) }
}

fn outputs() -> PluginResult {
    let binary = Wire::Binary {
        attributes: vec![("subject".to_owned(), "s".to_owned())],
        content_type: None,
        data: Bytes::from_static(&[0, 255]),
    };
    let event = |wire| Event::from_parts(SpecVersion::V1_0, "1".into(), "/s".into(), "t".into(), wire);
    PluginResult::Outputs(vec![
        raw("first"),
        Output::Event(event(binary)),
        Output::Event(event(structured("{}"))),
    ])
}

fn structured(json: &'static str) -> Wire {
    Wire::Structured { content_type: Some("a/b".to_owned()), body: Bytes::from_static(json.as_bytes()) }
}

fn set(key: &str, value: &[u8], expires: Option<Timestamp>) -> StateChange {
    StateChange { key: key.to_owned(), value: Some(StateValue { bytes: value.to_vec(), expires }) }
}

fn rendering(recipient: RecipientId, pending: &PendingDelivery, state: Vec<StateChange>) -> Rendering {
    let payload = RenderedPayload::by(&plugin(&json!({})), outputs());
    let (event, position) = (pending.event.id, pending.position);
    Rendering { recipient, event, position, run: Box::new(run()), payload, state }
}

async fn freeze(store: &Store, recipient: RecipientId, pending: &PendingDelivery) -> bool {
    store.freeze(rendering(recipient, pending, Vec::new())).await.unwrap()
}

/// A subscription whose plugin has this configuration.
async fn subscribe(store: &Store, config: Option<serde_json::Value>) -> Subscription {
    let target = "http://localhost/".parse().unwrap();
    let mut all = Subscription::new("ann".into(), "all".into(), "$".into(), target, after(0));
    all.id = sub(1);
    all.plugin = config.map(|config| Arc::new(plugin(&config)));
    store.put(all.clone(), Quota::Exempt).await.unwrap();
    all
}

fn keys(state: &StateMap) -> Vec<&str> {
    state.keys().map(String::as_str).collect()
}

#[test]
fn what_is_fixed_is_read_as_it_was_written() {
    let reason = || "why".to_owned();
    let denied = PluginResult::Denied { reason: reason() };
    let skipped = PluginResult::Skipped { reason: reason() };
    for fixed in [PluginResult::Event, outputs(), denied, skipped] {
        let rendered = RenderedPayload::by(&plugin(&json!({"a": 1})), fixed);
        let record = Bytes::from(encode_rendered(&rendered));
        assert_eq!(record[0], record::SUMMED);
        assert_eq!(decode_rendered(&record).unwrap(), rendered);
        for length in 0..record.len() {
            assert!(decode_rendered(&record.slice(..length)).is_err(), "{length}");
        }
    }
    for expires in [None, Some(after(1))] {
        let value = StateValue { bytes: vec![0, 255], expires };
        assert_eq!(decode_state(&encode_state(&value)).unwrap(), value);
    }
}

#[tokio::test]
async fn what_is_fixed_survives_a_crash_and_goes_with_the_delivery() {
    let (folder, store) = fresh();
    let id = accept(&store, "a", &[sub(1), sub(2)]).await;
    let first = only(&store, sub(1)).await;
    assert!(!first.rendered);
    let state = vec![set("n", &[1], None)];
    let rendering = rendering(sub(1), &first, state);
    assert!(store.freeze(rendering.clone()).await.unwrap());

    let (_copy, store) = crashed(folder.path());
    let again = only(&store, sub(1)).await;
    assert!(again.rendered && !only(&store, sub(2)).await.rendered);
    assert_eq!(again.position.due, None, "its first attempt has not ended");
    assert_eq!(store.rendered(id, sub(1)).await.unwrap(), Some(rendering.payload.clone()));
    assert_eq!(keys(&store.plugin_state(sub(1)).await.unwrap()), ["n"]);
    assert!(store.plugin_state(sub(2)).await.unwrap().is_empty());
    assert_eq!(history(&store, id, sub(1)).await, [Entry::Plugin(rendering.run.clone())]);
    assert_eq!(state_of(&store, id).await, State::Pending);

    settle(&store, sub(1), &again, retry(after(1))).await;
    let retried = only(&store, sub(1)).await;
    assert!(retried.rendered && retried.position.due == Some(after(1)));
    assert_eq!(store.rendered(id, sub(1)).await.unwrap(), Some(rendering.payload));
    settle(&store, sub(1), &retried, Outcome::Delivered).await;
    assert_eq!(store.rendered(id, sub(1)).await.unwrap(), None);
    assert_eq!(keys(&store.plugin_state(sub(1)).await.unwrap()), ["n"], "the state stays");
    assert!(state_of(&store, id).await.is_final());
}

async fn state_of(store: &Store, id: EventId) -> State {
    super::state(store, id, sub(1)).await
}

#[tokio::test]
async fn a_run_that_is_not_kept_apart_stands_before_its_attempt() {
    let (_folder, store) = fresh();
    let id = accept(&store, "a", &[sub(1)]).await;
    let first = only(&store, sub(1)).await;
    let ending = Settlement { plugin: Some(Box::new(run())), ..ending(sub(1), &first, retry(after(1))) };
    store.settle(ending.clone()).await.unwrap();
    let told = history(&store, id, sub(1)).await;
    assert_eq!(told, [Entry::Plugin(Box::new(run())), Entry::Attempt(ending.attempt)]);
    assert!(matches!(state_of(&store, id).await, State::Retrying { .. }));
}

#[tokio::test]
async fn a_delivery_that_does_not_wait_there_any_more_is_not_fixed() {
    let (_folder, store) = fresh();
    let id = accept(&store, "a", &[sub(1)]).await;
    let first = only(&store, sub(1)).await;
    settle(&store, sub(1), &first, retry(after(1))).await;
    assert!(!freeze(&store, sub(1), &first).await, "it has been tried meanwhile");
    let second = only(&store, sub(1)).await;
    store.redeliver(id, vec![sub(1)], "bob".to_owned(), after(2), None).await.unwrap();
    let state = vec![set("n", &[1], None)];
    assert!(!store.freeze(rendering(sub(1), &second, state)).await.unwrap(), "it has been asked for again");
    assert!(store.plugin_state(sub(1)).await.unwrap().is_empty(), "nothing of it is kept");
    assert_eq!(store.rendered(id, sub(1)).await.unwrap(), None);
    let third = only(&store, sub(1)).await;
    assert!(!third.rendered);
    while store.cancel_pending(sub(1), 1).await.unwrap() {}
    assert!(!freeze(&store, sub(1), &third).await, "it has been dropped");
    assert_eq!(purge(&store, Purge::Events(vec![id])).await, (1, 0));
    assert!(!freeze(&store, sub(1), &third).await, "its event is gone");
}

#[tokio::test]
async fn a_dead_letter_is_sent_again_as_it_was_unless_its_plugin_has_changed() {
    let (_folder, store) = fresh();
    subscribe(&store, Some(json!({}))).await;
    let id = accept(&store, "a", &[sub(1)]).await;
    let first = only(&store, sub(1)).await;
    assert!(freeze(&store, sub(1), &first).await);
    settle(&store, sub(1), &PendingDelivery { rendered: true, ..first }, dead()).await;
    assert!(store.rendered(id, sub(1)).await.unwrap().is_some());

    let again = async |at| store.redeliver(id, vec![sub(1)], "bob".to_owned(), at, None).await.unwrap();
    again(after(1)).await;
    assert!(only(&store, sub(1)).await.rendered, "the same plugin: the same bytes");
    subscribe(&store, Some(json!({"other": true}))).await;
    assert!(only(&store, sub(1)).await.rendered, "a change alone changes nothing");
    again(after(2)).await;
    let later = only(&store, sub(1)).await;
    assert!(!later.rendered && store.rendered(id, sub(1)).await.unwrap().is_none());
    assert!(freeze(&store, sub(1), &later).await);
    subscribe(&store, None).await;
    again(after(3)).await;
    assert!(!only(&store, sub(1)).await.rendered, "the plugin was taken away");
}

#[tokio::test]
async fn a_purge_and_a_deletion_leave_nothing_behind() {
    let (_folder, store) = fresh();
    let (purged, forgiven) = (accept(&store, "a", &[sub(1)]).await, accept(&store, "b", &[sub(1)]).await);
    for pending in ready(&store, sub(1)).await.first_attempts {
        assert!(store.freeze(rendering(sub(1), &pending, vec![set("k", b"v", None)])).await.unwrap());
        settle(&store, sub(1), &PendingDelivery { rendered: true, ..pending }, dead()).await;
    }
    assert_eq!(purge(&store, Purge::Events(vec![purged])).await, (1, 0));
    assert_eq!(store.rendered(purged, sub(1)).await.unwrap(), None);
    assert!(store.rendered(forgiven, sub(1)).await.unwrap().is_some());
    while store.cancel_pending(sub(1), 1).await.unwrap() {}
    assert_eq!(store.rendered(forgiven, sub(1)).await.unwrap(), None);
    assert!(store.plugin_state(sub(1)).await.unwrap().is_empty());
}

#[tokio::test]
async fn state_goes_with_its_plugin_and_does_not_come_back() {
    let (folder, store) = fresh();
    subscribe(&store, Some(json!({}))).await;
    accept(&store, "a", &[sub(1)]).await;
    accept(&store, "b", &[sub(1)]).await;
    let waiting = ready(&store, sub(1)).await.first_attempts;
    let changes = vec![set("kept", b"1", None), set("gone", b"2", Some(after(1)))];
    assert!(store.freeze(rendering(sub(1), &waiting[0], changes)).await.unwrap());
    subscribe(&store, Some(json!({"changed": 1}))).await;
    let state = store.plugin_state(sub(1)).await.unwrap();
    assert_eq!(keys(&state), ["gone", "kept"], "a change of the plugin leaves the state");
    assert_eq!(state["gone"], StateValue { bytes: b"2".to_vec(), expires: Some(after(1)) });
    close(store).await;

    let store = open(folder.path());
    subscribe(&store, None).await;
    assert!(store.plugin_state(sub(1)).await.unwrap().is_empty());
    let late = rendering(sub(1), &waiting[1], vec![set("late", b"3", None)]);
    assert!(store.freeze(late).await.unwrap());
    assert!(
        store.plugin_state(sub(1)).await.unwrap().is_empty(),
        "a call that was under way brings none back"
    );
}
