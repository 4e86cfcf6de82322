use std::time::Duration;

use super::*;
use waypost_domain::{Auth, Sealed};
use waypost_runtime::clock;
use waypost_store::Quota;
use waypost_store::Store;

async fn directory(folder: &tempfile::TempDir) -> Directory {
    let store = Store::open(folder.path(), Duration::ZERO).unwrap();
    Directory::open(Arc::new(store), Vec::new()).await.unwrap()
}

fn subscription() -> Subscription {
    let target = "http://localhost:1/".parse().unwrap();
    Subscription::new("u".to_owned(), "n".to_owned(), "$".to_owned(), target, clock::now())
}

async fn soon(what: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(10), what).await.unwrap();
}

/// A client hung up in the middle of POST /eventmatch: the subscription was on disk, but missing in memory until the
/// next start.
#[tokio::test]
async fn a_change_is_whole_though_its_caller_goes_away() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(&folder).await;
    let created = subscription();
    let id = created.id;
    tokio::select! {
        biased;
        _ = directory.create(created) => unreachable!("a commit takes longer than one look"),
        () = std::future::ready(()) => {}
    }
    soon(async {
        while directory.get(id).is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(directory.matches(b"{}").unwrap().matched, [id.into()]);
}

/// The store's own wake came before the snapshot: the worker of a subscription that was enabled again left its backlog
/// alone for half a minute.
#[tokio::test]
async fn who_is_woken_by_a_change_sees_it() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(&folder).await;
    let created = subscription();
    let id = created.id;
    directory.create(created).await.unwrap();
    let wakes = directory.store.wakes();
    for round in 0..100 {
        let name = round.to_string();
        let changed = directory.change(id, |now| Some(Subscription { name: name.clone(), ..now.clone() }));
        let woken = async {
            while directory.get(id).is_none_or(|now| now.name != name) {
                wakes.drain().await;
            }
        };
        soon(Box::pin(async { drop(tokio::join!(changed, woken)) })).await;
    }
}

fn of(user: &str, name: &str, second: i64) -> Subscription {
    let created = Timestamp::from_second(1_800_000_000 + second).unwrap();
    Subscription { user: user.to_owned(), name: name.to_owned(), created, ..subscription() }
}

fn names(known: &[CompiledSubscription]) -> Vec<&str> {
    known.iter().map(|known| known.subscription.name.as_str()).collect()
}

#[tokio::test]
async fn a_users_subscriptions_are_listed_in_the_order_of_creation_and_in_pages() {
    let folder = tempfile::tempdir().unwrap();
    let written = directory(&folder).await;
    let mut ids = std::collections::HashMap::new();
    for (user, name, second) in
        [("u", "c", 3), ("t", "x", 1), ("u", "a", 1), ("uu", "y", 1), ("u", "b", 2), ("u", "gone", 2)]
    {
        let created = written.create(of(user, name, second)).await.unwrap();
        ids.insert(name, created.subscription.id);
    }
    let delete = |now: &Subscription| Some(Subscription { deleted: Some(now.created), ..now.clone() });
    written.change(ids["gone"], delete).await.unwrap();
    let page = |after: Option<&str>, limit| {
        let after = after.map(|name| ids[name]);
        written.page_of_user("u", after, limit).map(|page| names(&page).join(" "))
    };
    assert_eq!(page(None, 9).as_deref(), Some("a b c"));
    assert_eq!(page(None, 2).as_deref(), Some("a b"));
    assert_eq!(page(Some("a"), 1).as_deref(), Some("b"));
    assert_eq!(page(Some("c"), 9).as_deref(), Some(""));
    assert_eq!(page(Some("x"), 9), None, "another user's");
    assert_eq!(page(Some("gone"), 9), None);
    assert_eq!(written.of_user("u").len(), 3);
    assert!(written.of_user("").is_empty());
}

/// A filter that an older Waypost accepted and this one does not: its subscription could not even be deleted.
#[tokio::test]
async fn a_stored_filter_that_does_not_parse_matches_nothing_and_stays_in_nobodys_way() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Duration::ZERO).unwrap();
    let wrong = Subscription { jsonpath: "$[".to_owned(), ..subscription() };
    let right = subscription();
    for stored in [&wrong, &right] {
        store.put(stored.clone(), Quota::Exempt).await.unwrap();
    }
    let directory = Directory::open(Arc::new(store), Vec::new()).await.unwrap();
    assert_eq!(directory.matches(b"{}").unwrap().matched, [right.id.into()]);
    assert!(directory.compiled(wrong.id).unwrap().filter.is_none());
    assert_eq!(directory.access_path(wrong.id), None);
    assert!(directory.access_path(right.id).is_some());
    let renamed =
        directory.change(wrong.id, |now| Some(Subscription { name: "x".to_owned(), ..now.clone() }));
    assert_eq!(renamed.await.unwrap().unwrap().subscription.name, "x");
    let other =
        directory.change(wrong.id, |now| Some(Subscription { jsonpath: "$]".to_owned(), ..now.clone() }));
    assert!(matches!(other.await, Err(Error::Filter(_))));
    let mended =
        directory.change(wrong.id, |now| Some(Subscription { jsonpath: "$".to_owned(), ..now.clone() }));
    assert!(mended.await.unwrap().unwrap().filter.is_some());
    assert_eq!(directory.matches(b"{}").unwrap().matched.len(), 2);
}

#[tokio::test]
async fn a_change_that_leaves_the_filter_keeps_its_parsed_form() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(&folder).await;
    let created = directory.create(subscription()).await.unwrap();
    let id = created.subscription.id;
    let renamed = directory.change(id, |now| Some(Subscription { name: "x".to_owned(), ..now.clone() }));
    let renamed = renamed.await.unwrap().unwrap();
    assert!(Arc::ptr_eq(&created.filter.unwrap(), &renamed.filter.unwrap()));
    let since = created.subscription.created;
    let pause = Activity::Disabled { since, error: None };
    directory.change(id, |now| Some(Subscription { activity: pause.clone(), ..now.clone() })).await.unwrap();
    assert_eq!(directory.access_path(id), None);
    assert_eq!(directory.matches(b"{}").unwrap().matched, []);
}

#[tokio::test]
async fn an_old_failure_does_not_disable_what_its_owner_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(&folder).await;
    let tried = subscription();
    directory.create(tried.clone()).await.unwrap();
    let later = tried.updated + jiff::SignedDuration::from_secs(1);
    let changed = directory
        .change(tried.id, |now| Some(Subscription { updated: later, ..now.clone() }))
        .await
        .unwrap()
        .unwrap()
        .subscription;
    directory.disable(&tried, later, "old".to_owned()).await.unwrap();
    assert!(directory.get(tried.id).unwrap().is_active());
    directory.disable(&changed, later, "new".to_owned()).await.unwrap();
    let disabled = directory.get(tried.id).unwrap();
    assert_eq!(disabled.activity, Activity::Disabled { since: later, error: Some("new".to_owned()) });
    assert_eq!(disabled.updated, later, "its owner did not change it");
}

#[tokio::test]
async fn what_is_deleted_loses_its_secrets_and_is_gone_when_it_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(&folder).await;
    let auth =
        Auth::Basic { username: "ann".to_owned(), password: Sealed::unsealed("secret".to_owned().into()) };
    let target_url = "http://localhost:1/hook?token=secret".parse().unwrap();
    let created = Subscription { auth, target_url, ..subscription() };
    let (id, now) = (created.id, clock::now() - Duration::from_secs(3_600));
    directory.create(created).await.unwrap();
    let deleted = directory.change(id, |current| Some(current.deleted(now))).await.unwrap().unwrap();
    assert_eq!(deleted.subscription.target_url.as_str(), "http://localhost:1/hook");
    assert_eq!((&deleted.subscription.auth, deleted.filter.is_some()), (&Auth::None, false));
    assert!(directory.deleted_before(now).is_empty());
    let later = now + Duration::from_secs(1);
    assert_eq!(directory.deleted_before(later), [id]);
    assert!(directory.get(id).is_some(), "old deliveries are explained");
    assert_eq!(directory.store.forget(vec![id]).await.unwrap(), [id]);
    soon(async {
        while directory.get(id).is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(directory.deleted_before(later).is_empty());
}
