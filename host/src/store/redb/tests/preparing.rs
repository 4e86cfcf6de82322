//! What a plugin fixes of a delivery, and what it keeps.

use std::sync::Arc;

use serde_json::json;

use super::super::prepared::{decode, decode_state, encode, encode_state};
use super::super::record;
use super::*;
use crate::domain::plugin::{Output, StateMap, Verdict};
use crate::domain::{PluginUse, Subscription};

fn plugin(config: &serde_json::Value) -> PluginUse {
    let digest = PluginDigest::of(b"module").to_string();
    serde_json::from_value(json!({"digest": digest, "config": config})).unwrap()
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

fn outputs() -> Fixed {
    let binary = Wire::Binary {
        attributes: vec![("subject".to_owned(), "s".to_owned())],
        content_type: None,
        data: Bytes::from_static(&[0, 255]),
    };
    let event = |wire| Event::from_parts(SpecVersion::V1_0, "1".into(), "/s".into(), "t".into(), wire);
    Fixed::Outputs(vec![raw("first"), Output::Event(event(binary)), Output::Event(event(structured("{}")))])
}

fn structured(json: &'static str) -> Wire {
    Wire::Structured { content_type: Some("a/b".to_owned()), body: Bytes::from_static(json.as_bytes()) }
}

fn set(key: &str, value: &[u8], expires: Option<Timestamp>) -> StateChange {
    StateChange { key: key.to_owned(), value: Some(StateValue { bytes: value.to_vec(), expires }) }
}

fn preparation(recipient: RecipientId, owed: &Owed, state: Vec<StateChange>) -> Preparation {
    let prepared = Prepared::by(&plugin(&json!({})), outputs());
    let (event, place) = (owed.event.id, owed.place);
    Preparation { recipient, event, place, run: Box::new(run()), prepared, state }
}

async fn prepare(store: &RedbStore, recipient: RecipientId, owed: &Owed) -> bool {
    store.prepare(preparation(recipient, owed, Vec::new())).await.unwrap()
}

/// A subscription whose plugin has this configuration.
async fn subscribe(store: &RedbStore, config: Option<serde_json::Value>) -> Subscription {
    let target = "http://localhost/".parse().unwrap();
    let mut all = Subscription::new("ann".into(), "all".into(), "$".into(), target, after(0));
    all.id = sub(1);
    all.plugin = config.map(|config| Arc::new(plugin(&config)));
    store.put_subscription(all.clone(), Quota::Exempt).await.unwrap();
    all
}

fn keys(state: &StateMap) -> Vec<&str> {
    state.keys().map(String::as_str).collect()
}

#[test]
fn what_is_fixed_is_read_as_it_was_written() {
    let reason = || "why".to_owned();
    let denied = Fixed::Denied { reason: reason() };
    let skipped = Fixed::Skipped { reason: reason() };
    for fixed in [Fixed::Event, outputs(), denied, skipped] {
        let prepared = Prepared::by(&plugin(&json!({"a": 1})), fixed);
        let record = Bytes::from(encode(&prepared));
        assert_eq!(record[0], record::SEALED);
        assert_eq!(decode(&record).unwrap(), prepared);
        for length in 0..record.len() {
            assert!(decode(&record.slice(..length)).is_err(), "{length}");
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
    assert!(!first.prepared);
    let state = vec![set("n", &[1], None)];
    let preparation = preparation(sub(1), &first, state);
    assert!(store.prepare(preparation.clone()).await.unwrap());

    let (_copy, store) = crashed(folder.path());
    let again = only(&store, sub(1)).await;
    assert!(again.prepared && !only(&store, sub(2)).await.prepared);
    assert_eq!(again.place.due, None, "its first attempt has not ended");
    assert_eq!(store.prepared(id, sub(1)).await.unwrap(), Some(preparation.prepared.clone()));
    assert_eq!(keys(&store.plugin_state(sub(1)).await.unwrap()), ["n"]);
    assert!(store.plugin_state(sub(2)).await.unwrap().is_empty());
    assert_eq!(history(&store, id, sub(1)).await, [Entry::Plugin(preparation.run.clone())]);
    assert_eq!(state_of(&store, id).await, State::Pending);

    finish(&store, sub(1), &again, retry(after(1))).await;
    let retried = only(&store, sub(1)).await;
    assert!(retried.prepared && retried.place.due == Some(after(1)));
    assert_eq!(store.prepared(id, sub(1)).await.unwrap(), Some(preparation.prepared));
    finish(&store, sub(1), &retried, Outcome::Delivered).await;
    assert_eq!(store.prepared(id, sub(1)).await.unwrap(), None);
    assert_eq!(keys(&store.plugin_state(sub(1)).await.unwrap()), ["n"], "the state stays");
    assert!(state_of(&store, id).await.is_final());
}

async fn state_of(store: &RedbStore, id: EventId) -> State {
    super::state(store, id, sub(1)).await
}

#[tokio::test]
async fn a_run_that_is_not_kept_apart_stands_before_its_attempt() {
    let (_folder, store) = fresh();
    let id = accept(&store, "a", &[sub(1)]).await;
    let first = only(&store, sub(1)).await;
    let ending = Finished { plugin: Some(Box::new(run())), ..ending(sub(1), &first, retry(after(1))) };
    store.finish(ending.clone()).await.unwrap();
    let told = history(&store, id, sub(1)).await;
    assert_eq!(told, [Entry::Plugin(Box::new(run())), Entry::Attempt(ending.attempt)]);
    assert!(matches!(state_of(&store, id).await, State::Retrying { .. }));
}

#[tokio::test]
async fn a_delivery_that_does_not_wait_there_any_more_is_not_fixed() {
    let (_folder, store) = fresh();
    let id = accept(&store, "a", &[sub(1)]).await;
    let first = only(&store, sub(1)).await;
    finish(&store, sub(1), &first, retry(after(1))).await;
    assert!(!prepare(&store, sub(1), &first).await, "it has been tried meanwhile");
    let second = only(&store, sub(1)).await;
    store.redeliver(id, vec![sub(1)], "bob".to_owned(), after(2)).await.unwrap();
    let state = vec![set("n", &[1], None)];
    assert!(
        !store.prepare(preparation(sub(1), &second, state)).await.unwrap(),
        "it has been asked for again"
    );
    assert!(store.plugin_state(sub(1)).await.unwrap().is_empty(), "nothing of it is kept");
    assert_eq!(store.prepared(id, sub(1)).await.unwrap(), None);
    let third = only(&store, sub(1)).await;
    assert!(!third.prepared);
    while store.forgive(sub(1), 1).await.unwrap() {}
    assert!(!prepare(&store, sub(1), &third).await, "it has been dropped");
    assert_eq!(purge(&store, Purge::Events(vec![id])).await, (1, 0));
    assert!(!prepare(&store, sub(1), &third).await, "its event is gone");
}

#[tokio::test]
async fn a_dead_letter_is_sent_again_as_it_was_unless_its_plugin_has_changed() {
    let (_folder, store) = fresh();
    subscribe(&store, Some(json!({}))).await;
    let id = accept(&store, "a", &[sub(1)]).await;
    let first = only(&store, sub(1)).await;
    assert!(prepare(&store, sub(1), &first).await);
    finish(&store, sub(1), &Owed { prepared: true, ..first }, dead()).await;
    assert!(store.prepared(id, sub(1)).await.unwrap().is_some());

    let again = async |at| store.redeliver(id, vec![sub(1)], "bob".to_owned(), at).await.unwrap();
    again(after(1)).await;
    assert!(only(&store, sub(1)).await.prepared, "the same plugin: the same bytes");
    subscribe(&store, Some(json!({"other": true}))).await;
    assert!(only(&store, sub(1)).await.prepared, "a change alone changes nothing");
    again(after(2)).await;
    let anew = only(&store, sub(1)).await;
    assert!(!anew.prepared && store.prepared(id, sub(1)).await.unwrap().is_none());
    assert!(prepare(&store, sub(1), &anew).await);
    subscribe(&store, None).await;
    again(after(3)).await;
    assert!(!only(&store, sub(1)).await.prepared, "the plugin was taken away");
}

#[tokio::test]
async fn a_purge_and_a_deletion_leave_nothing_behind() {
    let (_folder, store) = fresh();
    let (purged, forgiven) = (accept(&store, "a", &[sub(1)]).await, accept(&store, "b", &[sub(1)]).await);
    for owed in owed(&store, sub(1)).await.fresh {
        assert!(store.prepare(preparation(sub(1), &owed, vec![set("k", b"v", None)])).await.unwrap());
        finish(&store, sub(1), &Owed { prepared: true, ..owed }, dead()).await;
    }
    assert_eq!(purge(&store, Purge::Events(vec![purged])).await, (1, 0));
    assert_eq!(store.prepared(purged, sub(1)).await.unwrap(), None);
    assert!(store.prepared(forgiven, sub(1)).await.unwrap().is_some());
    while store.forgive(sub(1), 1).await.unwrap() {}
    assert_eq!(store.prepared(forgiven, sub(1)).await.unwrap(), None);
    assert!(store.plugin_state(sub(1)).await.unwrap().is_empty());
}

#[tokio::test]
async fn state_goes_with_its_plugin_and_does_not_come_back() {
    let (folder, store) = fresh();
    subscribe(&store, Some(json!({}))).await;
    accept(&store, "a", &[sub(1)]).await;
    accept(&store, "b", &[sub(1)]).await;
    let waiting = owed(&store, sub(1)).await.fresh;
    let changes = vec![set("kept", b"1", None), set("gone", b"2", Some(after(1)))];
    assert!(store.prepare(preparation(sub(1), &waiting[0], changes)).await.unwrap());
    subscribe(&store, Some(json!({"changed": 1}))).await;
    let state = store.plugin_state(sub(1)).await.unwrap();
    assert_eq!(keys(&state), ["gone", "kept"], "a change of the plugin leaves the state");
    assert_eq!(state["gone"], StateValue { bytes: b"2".to_vec(), expires: Some(after(1)) });
    close(store).await;

    let store = open(folder.path());
    subscribe(&store, None).await;
    assert!(store.plugin_state(sub(1)).await.unwrap().is_empty());
    let late = preparation(sub(1), &waiting[1], vec![set("late", b"3", None)]);
    assert!(store.prepare(late).await.unwrap());
    assert!(
        store.plugin_state(sub(1)).await.unwrap().is_empty(),
        "a call that was under way brings none back"
    );
}
