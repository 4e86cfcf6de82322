//! How many subscriptions and running recoveries a user has: a limit holds however many ask at once, and over a restart.

use futures_util::future::join_all;

use super::*;
use crate::{CountLimits, Counted, Error, Step};
use waypost_domain::{Recovery, recovery};

const LIMITS: CountLimits = CountLimits { subscriptions: 3, recoveries: 2, tokens: 2 };

fn limited(folder: &Path) -> Store {
    open_with(folder, Options { counts: LIMITS, ..Options::default() })
}

fn of(user: &str) -> Subscription {
    let target = "http://localhost/".parse().unwrap();
    Subscription::new(user.to_owned(), "all".to_owned(), "$".to_owned(), target, clock::now())
}

async fn create(store: &Store, subscription: Subscription) -> Result<Position, Error> {
    store.put(subscription, Quota::Holds).await
}

fn asked(subscription: &Subscription) -> Recovery {
    Recovery::new(subscription.id, None, None, "boss".to_owned(), clock::now())
}

async fn end(store: &Store, recovery: &Recovery) {
    let (id, at) = (recovery.subscription, clock::now());
    let end = Step::End(recovery::State::Cancelled { at });
    store.recover(id, recovery.asked, end, at, None).await.unwrap().unwrap();
}

fn most(result: Result<impl std::fmt::Debug, Error>) -> (String, Counted, u32) {
    match result.unwrap_err() {
        Error::TooMany { user, counted, most } => (user, counted, most),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_user_has_so_many_subscriptions_however_many_are_made_at_once() {
    let (folder, first) = (tempfile::tempdir().unwrap(), of("ann"));
    let store = limited(folder.path());
    create(&store, first.clone()).await.unwrap();
    let made = join_all((0..20).map(|_| create(&store, of("ann")))).await;
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 2);
    for refused in made.into_iter().filter(Result::is_err) {
        let text = refused.as_ref().unwrap_err().to_string();
        assert!(
            text.contains("3 subscriptions") && text.contains("(the setting user_subscriptions_max)"),
            "{text}"
        );
        assert_eq!(most(refused), ("ann".to_owned(), Counted::Subscriptions, 3));
    }
    create(&store, of("bob")).await.unwrap();
    // One that is there is changed, and a deleted one makes room, also when it is deleted twice.
    create(&store, Subscription { name: "other".to_owned(), ..first.clone() }).await.unwrap();
    for _ in 0..2 {
        store.put(first.deleted(clock::now()), Quota::Exempt).await.unwrap();
    }
    create(&store, of("ann")).await.unwrap();
    most(create(&store, of("ann")).await);
    close(store).await;

    let store = limited(folder.path());
    most(create(&store, of("ann")).await);
    create(&store, of("bob")).await.unwrap();
}

#[tokio::test]
async fn a_user_has_so_many_recoveries_at_once_whoever_asks_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let store = limited(folder.path());
    let anns: Vec<_> = (0..3).map(|_| of("ann")).collect();
    for subscription in &anns {
        create(&store, subscription.clone()).await.unwrap();
    }
    let all: Vec<_> = anns.iter().map(asked).collect();
    let begun = join_all(all.iter().map(|recovery| store.begin_recovery(recovery.clone(), None))).await;
    assert_eq!(begun.iter().filter(|begun| matches!(begun, Ok(true))).count(), 2);
    let refused = begun.iter().position(Result::is_err).unwrap();
    let of_ann = ("ann".to_owned(), Counted::Recoveries, 2);
    assert_eq!(most(store.begin_recovery(all[refused].clone(), None).await), of_ann);
    let running = (refused + 1) % 3;
    assert_eq!(
        store.begin_recovery(all[running].clone(), None).await.ok(),
        Some(false),
        "it runs, and is no other one"
    );
    close(store).await;

    // So many run over a restart; one that ends makes room, once.
    let store = limited(folder.path());
    assert_eq!(most(store.begin_recovery(all[refused].clone(), None).await), of_ann);
    end(&store, &all[running]).await;
    assert!(store.begin_recovery(all[refused].clone(), None).await.unwrap());
    assert_eq!(most(store.begin_recovery(all[running].clone(), None).await), of_ann);
}

/// It would have run, and no subscription would have been there.
#[tokio::test]
async fn a_new_subscription_brings_no_recovery_too_many() {
    let folder = tempfile::tempdir().unwrap();
    let store = limited(folder.path());
    for n in 0..3 {
        let new = of("ann");
        let put = store.put_subscription(new.clone(), None, Some(asked(&new)), Quota::Holds, None).await;
        if n < 2 {
            assert!(matches!(put, Ok(Put::Done(_))), "{put:?}");
        } else {
            assert_eq!(most(put), ("ann".to_owned(), Counted::Recoveries, 2));
        }
    }
    assert_eq!(store.subscriptions().await.unwrap().1.len(), 2);
    create(&store, of("ann")).await.unwrap();
}
