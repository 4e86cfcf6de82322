//! What a write was made from must still be so where it stands: subscriptions, matches, modules.

use super::*;
use crate::Module;
use waypost_domain::{Activity, PluginUse};

fn new() -> Subscription {
    let target = "http://localhost/".parse().unwrap();
    Subscription::new("ann".into(), "all".into(), "$".into(), target, after(0))
}

async fn put(store: &Store, subscription: &Subscription, replaces: Option<Position>) -> Put {
    store.put_subscription(subscription.clone(), replaces, None, Quota::Holds, None).await.unwrap()
}

async fn done(store: &Store, subscription: &Subscription, replaces: Option<Position>) -> Position {
    match put(store, subscription, replaces).await {
        Put::Done(position) => position,
        other => panic!("{other:?}"),
    }
}

/// Two changes that were made from the same version: the second would have undone the first.
#[tokio::test]
async fn a_change_of_an_older_version_is_refused() {
    let (_folder, store) = fresh();
    let first = new();
    let created = done(&store, &first, None).await;
    assert_eq!(put(&store, &first, None).await, Put::Changed(created), "it is there");
    let renamed = Subscription { name: "renamed".to_owned(), ..first.clone() };
    let changed = done(&store, &renamed, Some(created)).await;
    assert!(changed > created);
    let moved = Subscription { jsonpath: "$.a".to_owned(), ..first.clone() };
    assert_eq!(put(&store, &moved, Some(created)).await, Put::Changed(changed));
    assert_eq!(subscriptions(&store).await, [renamed.into()]);
    let gone = new();
    assert_eq!(put(&store, &gone, Some(created)).await, Put::Gone, "it was never there");
}

/// Its owner's change waited for a version that was not there, for ever.
#[tokio::test]
async fn a_record_that_cannot_be_read_is_replaced() {
    if ON_JOURNAL {
        return;
    }
    let (_folder, store) = fresh();
    let first = new();
    let created = done(&store, &first, None).await;
    let damaged = store.reader.handle.write(|txn| {
        let mut tables = super::super::schema::Tables::open(txn)?;
        tables.registry.subscriptions.insert(first.id.uuid().as_u128(), b"\x04torn".as_slice())?;
        Ok(())
    });
    damaged.unwrap();
    assert!(subscriptions(&store).await.is_empty());
    let renamed = Subscription { name: "renamed".to_owned(), ..first };
    done(&store, &renamed, Some(created)).await;
    assert_eq!(subscriptions(&store).await, [renamed.into()]);
}

/// An event was matched, then a subscription was created, then the event was logged: behind the subscription, without a
/// delivery to it.
#[tokio::test]
async fn events_that_were_matched_without_a_change_are_given_back() {
    let (_folder, store) = fresh();
    let before = store.subscriptions().await.unwrap().0;
    let sent = arrival("a", &[]);
    let accept = async |at| store.accept(vec![sent.clone()], at).await.unwrap();
    assert!(matches!(accept(before).await, Accepted::Logged(_)));
    let first = new();
    let created = done(&store, &first, None).await;
    assert_eq!(accept(before).await, Accepted::Stale(created, vec![sent.clone()]));
    assert!(matches!(accept(created).await, Accepted::Logged(_)));
    // What does not decide about matches is no reason.
    let renamed = Subscription { name: "renamed".to_owned(), ..first };
    let mut last = done(&store, &renamed, Some(created)).await;
    assert!(matches!(accept(created).await, Accepted::Logged(_)));
    let mut matched_at = created;
    let since = after(0);
    for changed in [
        Subscription { jsonpath: "$.a".to_owned(), ..renamed.clone() },
        Subscription { activity: Activity::Disabled { since, error: None }, ..renamed.clone() },
        Subscription { deleted: Some(since), ..renamed.clone() },
    ] {
        // Each has another filter than the one before: none, for the last two, is the same.
        let is_same = changed.deleted.is_some();
        last = done(&store, &changed, Some(last)).await;
        assert_eq!(matches!(accept(matched_at).await, Accepted::Stale(at, _) if at == last), !is_same);
        matched_at = if is_same { matched_at } else { last };
    }
    assert_eq!(store.histories(ALL).await.unwrap().len(), 4, "nothing of what was given back is logged");
}

#[tokio::test]
async fn a_subscription_needs_its_module_and_keeps_it() {
    let (_folder, store) = fresh();
    let digest = PluginDigest::of(b"module");
    let with = Subscription { plugin: Some(Arc::new(PluginUse::new(digest))), ..new() };
    assert_eq!(put(&store, &with, None).await, Put::NoModule(digest));
    assert!(subscriptions(&store).await.is_empty());
    let module = Module::new(crate::shorthand::report(digest), "ann", after(0));
    store.put_module(module.clone(), Bytes::from_static(b"module"), None).await.unwrap();
    let created = done(&store, &with, None).await;
    assert!(!store.remove_module(digest, module.uploaded).await.unwrap(), "a subscription refers to it");
    let without = Subscription { plugin: None, ..with.clone() };
    let changed = done(&store, &without, Some(created)).await;
    assert!(!store.remove_module(digest, after(-1)).await.unwrap(), "it was uploaded again since");
    assert!(store.module_bytes(digest).await.unwrap().is_some());
    assert!(store.remove_module(digest, module.uploaded).await.unwrap());
    assert!(store.module(digest).await.unwrap().is_none());
    assert!(store.module_bytes(digest).await.unwrap().is_none());
    assert_eq!(put(&store, &with, Some(changed)).await, Put::NoModule(digest));

    // One whose module is gone can still be changed otherwise, and deleted.
    store.put_module(module.clone(), Bytes::from_static(b"module"), None).await.unwrap();
    let again = done(&store, &with, Some(changed)).await;
    let deleted = Subscription { deleted: Some(after(1)), ..with.clone() };
    let last = done(&store, &deleted, Some(again)).await;
    assert!(store.remove_module(digest, module.uploaded).await.unwrap(), "it is deleted");
    let renamed = Subscription { name: "renamed".to_owned(), ..deleted };
    done(&store, &renamed, Some(last)).await;
}

#[tokio::test]
async fn the_settings_are_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    for (hours, bytes) in [(1, 5_000), (1, 5_000), (2, 5_000), (2, 7_000)] {
        let dedup_window = Duration::from_secs(hours * 3_600);
        let options = Options { dedup_window, user_bytes_max: bytes, ..Options::default() };
        let store = Store::with(folder.path(), options.clone()).unwrap();
        let settings = store.reader.settings().unwrap();
        assert_eq!(settings, Some(options.settings()));
        assert_eq!(store.usage_of("ann").max, bytes);
        store.close().await;
    }
}
