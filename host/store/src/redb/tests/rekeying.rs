//! Exchanging the master key: all or nothing, and to be run again wherever it was cut off.

use super::super::handle::{Handle, database};
use super::super::rewrite::rewrite;
use super::super::{Rekeying, Resealed, rekey};
use super::determinism::dump;
use super::sealing::with_password;
use super::*;
use waypost_domain::{Activity, KeyId, Sealed};
use waypost_secrets::{Label, Vault};

/// A closed store with these passwords, and the id of its key.
async fn closed(passwords: &[&str]) -> (tempfile::TempDir, KeyId) {
    let (folder, store) = fresh();
    for (number, password) in (1..).zip(passwords) {
        let new = with_password(store.vault(), number, password);
        store.put_subscription(new, None, None, Quota::Holds, None).await.unwrap();
    }
    accept(&store, "a", &[sub(1)]).await;
    let known = store.vault().key();
    close(store).await;
    (folder, known)
}

/// The passwords that a store has, and the key that they are sealed with.
async fn passwords(folder: &Path) -> (Vec<String>, KeyId) {
    let store = open(folder);
    let mut all = Vec::new();
    for known in subscriptions(&store).await {
        for (name, sealed) in known.secrets() {
            assert_eq!(sealed.key(), Some(store.vault().key()));
            let secret = store.vault().open(Label::new(name, known.id.uuid()), sealed).unwrap();
            all.push(secret.expose_str().unwrap().to_owned());
        }
    }
    let used = store.vault().key();
    assert_eq!(only(&store, sub(1)).await.event.event.id(), "a", "the rest is there, too");
    close(store).await;
    (all, used)
}

fn keys(folder: &Path) -> usize {
    std::fs::read_to_string(key(folder).path()).unwrap().lines().count()
}

/// The sealed secrets of a store, as its file has them.
async fn sealed(folder: &Path) -> Vec<Sealed> {
    let store = open(folder);
    let all = subscriptions(&store).await;
    let sealed = all.iter().flat_map(|known| known.secrets()).map(|(_, sealed)| sealed.clone());
    let sealed = sealed.collect();
    close(store).await;
    sealed
}

#[tokio::test]
async fn a_new_key_takes_the_place_of_the_old_one() {
    let (folder, before) = closed(&["one", "two"]).await;
    let old = sealed(folder.path()).await;
    let rekeyed = rekey(folder.path(), &key(folder.path()), &Rekeying::default()).unwrap();
    assert_eq!(rekeyed.secrets, Resealed { sealed: 2, ..Default::default() });
    assert_ne!(rekeyed.key, before);
    assert_eq!(keys(folder.path()), 1);
    // With the old key and this file, nothing can be opened.
    let bytes = std::fs::read(folder.path().join(FILE_NAME)).unwrap();
    for sealed in old {
        use base64::Engine as _;
        let form = base64::prelude::BASE64_STANDARD_NO_PAD.encode(sealed.bytes().unwrap());
        assert!(memchr::memmem::find(&bytes, form.as_bytes()).is_none());
    }
    assert_eq!(passwords(folder.path()).await, (vec!["one".to_owned(), "two".to_owned()], rekeyed.key));
}

#[tokio::test]
async fn a_given_key_is_taken_and_old_ones_may_stay() {
    let (folder, before) = closed(&["one"]).await;
    let given = folder.path().join("given");
    let wanted = Vault::create(&given).unwrap().key();
    let rekeying = Rekeying { new: Some(given), keeps_old: true, gives_up_lost: false };
    assert_eq!(rekey(folder.path(), &key(folder.path()), &rekeying).unwrap().key, wanted);
    let vault = Vault::load(&key(folder.path()).path()).unwrap();
    assert!(vault.key() == wanted && vault.has(before));
    assert_eq!(passwords(folder.path()).await, (vec!["one".to_owned()], wanted));
    // A second time, all is done already.
    let again = rekey(folder.path(), &key(folder.path()), &Rekeying::default()).unwrap();
    assert_eq!((again.key, again.secrets.sealed, keys(folder.path())), (wanted, 0, 1));
}

/// Each moment at which it may be killed: with both keys and the old file, with both keys and the new file.
#[tokio::test]
async fn what_was_cut_off_opens_and_is_completed() {
    for is_written in [false, true] {
        let (folder, before) = closed(&["one", "two"]).await;
        let (path, key) = (folder.path().join(FILE_NAME), key(folder.path()));
        let vault = Vault::load(&key.path()).unwrap().with_new_key(None).unwrap();
        assert_ne!(vault.key(), before);
        if is_written {
            drop(rewrite(&path, database(&path).unwrap(), &vault, |_| Ok(())).unwrap());
        } else {
            std::fs::write(folder.path().join(format!("{FILE_NAME}.copy")), b"half of it").unwrap();
        }
        assert_eq!(keys(folder.path()), 2);
        let store = open(folder.path());
        for known in subscriptions(&store).await {
            let (name, sealed) = known.secrets()[0];
            store.vault().open(Label::new(name, known.id.uuid()), sealed).unwrap();
        }
        close(store).await;
        let rekeyed = rekey(folder.path(), &key, &Rekeying::default()).unwrap();
        assert_eq!((rekeyed.key, keys(folder.path())), (vault.key(), 1));
        assert_eq!(rekeyed.secrets.sealed, if is_written { 0 } else { 2 });
        let expected = vec!["one".to_owned(), "two".to_owned()];
        assert_eq!(passwords(folder.path()).await, (expected, vault.key()));
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 2, "the file and the key");
    }
}

#[tokio::test]
async fn a_lost_key_stops_it_unless_its_secrets_are_given_up() {
    let (folder, before) = closed(&["one"]).await;
    let key = key(folder.path());
    std::fs::remove_file(key.path()).unwrap();
    let error = rekey(folder.path(), &key, &Rekeying::default()).unwrap_err().to_string();
    assert!(error.contains(&before.to_string()) && !key.path().exists(), "{error}");
    let rekeying = Rekeying { gives_up_lost: true, ..Rekeying::default() };
    let rekeyed = rekey(folder.path(), &key, &rekeying).unwrap();
    assert_eq!(rekeyed.secrets, Resealed { disabled: 1, ..Default::default() });
    let store = open(folder.path());
    let known = subscriptions(&store).await.remove(0);
    let Activity::Disabled { error: Some(error), .. } = &known.activity else { panic!("{known:?}") };
    assert!(error.contains("subscription.auth.basic.password"), "{error}");
    let (name, sealed) = known.secrets()[0];
    let nothing = store.vault().open(Label::new(name, known.id.uuid()), sealed).unwrap();
    assert_eq!(nothing.expose(), b"");
}

#[tokio::test]
async fn a_file_in_use_and_a_missing_one_are_refused() {
    let (folder, store) = fresh();
    let key = key(folder.path());
    let before = std::fs::read(key.path()).unwrap();
    let error = rekey(folder.path(), &key, &Rekeying::default()).unwrap_err();
    assert!(matches!(error, super::super::OpenError::InUse { .. }), "{error}");
    assert_eq!(std::fs::read(key.path()).unwrap(), before);
    close(store).await;
    let nothing = tempfile::tempdir().unwrap();
    let error = rekey(nothing.path(), &key, &Rekeying::default()).unwrap_err();
    assert!(matches!(error, super::super::OpenError::Missing { .. }), "{error}");
}

/// Every row of every table is copied, and what is kept for users is counted as it was.
#[tokio::test]
async fn nothing_else_changes() {
    let (folder, store) = fresh();
    store.put(with_password(store.vault(), 3, "x"), Quota::Holds).await.unwrap();
    let id = accept(&store, "a", &[sub(1), sub(2), sub(3)]).await;
    accept(&store, "b", &[sub(2)]).await;
    settle(&store, sub(1), &only(&store, sub(1)).await, retry(after(60))).await;
    settle(&store, sub(3), &only(&store, sub(3)).await, dead()).await;
    let pending = only(&store, sub(1)).await;
    assert!(store.freeze(counting(sub(1), &pending, 7)).await.unwrap());
    assert!(store.redeliver(id, vec![sub(3)], "bob".to_owned(), after(1), None).await.unwrap());
    close(store).await;
    let read = || dump(&Handle::open(folder.path(), &key(folder.path())).unwrap());
    let is_other = |row: &String| !row.starts_with("subscriptions ");
    let before = read();
    rekey(folder.path(), &key(folder.path()), &Rekeying::default()).unwrap();
    let after = read();
    let rest = |rows: Vec<String>| rows.into_iter().filter(is_other).collect::<Vec<_>>();
    assert_eq!(before.len(), after.len());
    assert_ne!(before, after);
    assert_eq!(rest(before), rest(after));
}
