//! Secrets at rest: a file of an older version is written anew, and nothing in plain is left of it.

use std::io::Read as _;

use flate2::read::GzDecoder;
use redb::{Database, ReadableDatabase as _};

use super::super::check::check;
use super::super::handle::{Fault, database};
use super::super::open_error::OpenError;
use super::super::registry::SUBSCRIPTIONS;
use super::super::rewrite::rewrite;
use super::super::schema::SCHEMA_VERSION;
use super::*;
use waypost_domain::{Auth, Sealed};
use waypost_secrets::{self as secrets, Label, Vault};

const V3: &[u8] = include_bytes!("fixtures/v3.redb.gz");
const OLDER: [&[u8]; 2] = [include_bytes!("fixtures/v1.redb.gz"), include_bytes!("fixtures/v2.redb.gz")];
/// What all secrets of these tests begin with.
const PLAIN: &[u8] = b"plain-";

fn unpacked(packed: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut bytes).unwrap();
    std::fs::write(folder.path().join(FILE_NAME), bytes).unwrap();
    folder
}

fn count(bytes: &[u8]) -> usize {
    memchr::memmem::find_iter(bytes, PLAIN).count()
}

/// How often secrets stand in plain in the files of a folder, and the names of those.
fn found(folder: &Path) -> (usize, Vec<String>) {
    let (mut all, mut names) = (0, Vec::new());
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        names.push(entry.file_name().into_string().unwrap());
        all += count(&std::fs::read(entry.path()).unwrap());
    }
    names.sort_unstable();
    (all, names)
}

/// Opens each secret of the store: the names of subscriptions, and their secrets.
async fn opened(store: &Store) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for subscription in subscriptions(store).await {
        for (name, sealed) in subscription.secrets() {
            assert_eq!(sealed.key(), Some(store.vault().key()), "{}", subscription.name);
            let label = Label::new(name, subscription.id.uuid());
            let secret = store.vault().open(label, sealed).unwrap();
            all.push((subscription.name.clone(), secret.expose_str().unwrap().to_owned()));
        }
    }
    all.sort_unstable();
    all
}

fn expected() -> Vec<(String, String)> {
    [("basic", "plain-password-of-basic"), ("header", "plain-credentials-of-header")]
        .map(|(name, secret)| (name.to_owned(), secret.to_owned()))
        .to_vec()
}

#[tokio::test]
async fn the_secrets_of_an_older_file_are_sealed_and_no_page_shows_them() {
    let folder = unpacked(V3);
    assert_eq!(check(folder.path()).unwrap().found, Some(3));
    assert!(found(folder.path()).0 > 2, "old pages have some, too");
    let store = open(folder.path());
    assert_eq!(found(folder.path()), (0, vec!["master.key".to_owned(), FILE_NAME.to_owned()]));
    assert_eq!(opened(&store).await, expected());
    assert_eq!(subscriptions(&store).await.len(), 4);
    let usage = store.usage_of("ann").bytes;
    close(store).await;
    assert_eq!(check(folder.path()).unwrap().found, Some(SCHEMA_VERSION));
    let store = open(folder.path());
    assert_eq!(opened(&store).await, expected(), "they are not sealed again");
    assert_eq!(store.usage_of("ann").bytes, usage);
    assert_eq!(found(folder.path()).0, 0);
}

/// What records of the first version looked like.
fn first_record(number: u128) -> Vec<u8> {
    let auth = r#"{"Basic":{"username":"u","password":"plain-of-version-1"}}"#;
    let record = format!(
        r#"{{"id":"{}","name":"first","user":"bob","jsonpath":"$","target_url":"http://localhost:1","version":"v0.1",
        "extensions":{{}},"auth":{auth},"created":"2026-01-01T00:00:00Z","updated":"2026-01-01T00:00:00Z","deleted":null,
        "activity":"Enabled","retry":null,"timeout":null,"max_in_flight":null,"event_format":"original",
        "content_mode":"structured"}}"#,
        Uuid::from_u128(number)
    );
    [b"\x01", record.as_bytes()].concat()
}

#[tokio::test]
async fn secrets_of_the_first_version_are_sealed() {
    for packed in OLDER {
        let folder = unpacked(packed);
        let database = Database::open(folder.path().join(FILE_NAME)).unwrap();
        let txn = database.begin_write().unwrap();
        txn.open_table(SUBSCRIPTIONS).unwrap().insert(7, first_record(7).as_slice()).unwrap();
        txn.commit().unwrap();
        drop(database);
        assert!(found(folder.path()).0 > 0);
        let store = open(folder.path());
        assert_eq!(opened(&store).await, [("first".to_owned(), "plain-of-version-1".to_owned())]);
        assert_eq!(found(folder.path()).0, 0);
        assert!(store.usage_of("bob").bytes > 0);
    }
}

/// Copies what is on the disk at this moment, as a kill would leave it.
fn snapshot(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

#[tokio::test]
async fn sealing_that_is_cut_off_starts_over() {
    let folder = unpacked(V3);
    let path = folder.path().join(FILE_NAME);
    let old = database(&path).unwrap();
    let vault = Vault::create(&key(folder.path()).path()).unwrap();
    let mut left = None;
    let failed = rewrite(&path, old, &vault, |_| {
        left = Some(snapshot(folder.path()));
        Err(Fault::Closed("the disk is full".to_owned()))
    });
    assert!(matches!(failed.err(), Some(OpenError::Read { .. })));
    assert_eq!(found(folder.path()).1, ["master.key", FILE_NAME], "the copy is gone");
    let left = left.unwrap();
    let copy = format!("{FILE_NAME}.copy");
    assert_eq!(found(left.path()).1, ["master.key", FILE_NAME, &copy]);
    // What is in the copy counts for nothing, whole or not.
    std::fs::write(left.path().join(copy), b"plain-leftover").unwrap();
    for folder in [left.path(), folder.path()] {
        assert_eq!(check(folder).unwrap().found, Some(3));
        let store = open(folder);
        assert_eq!(opened(&store).await, expected());
        assert_eq!(found(folder), (0, vec!["master.key".to_owned(), FILE_NAME.to_owned()]));
    }
}

/// A table that this Waypost does not know would be lost.
#[test]
fn an_unknown_table_is_not_dropped() {
    let folder = unpacked(V3);
    let path = folder.path().join(FILE_NAME);
    let database = Database::open(&path).unwrap();
    let txn = database.begin_write().unwrap();
    drop(txn.open_table(redb::TableDefinition::<u64, u64>::new("precious")).unwrap());
    txn.commit().unwrap();
    drop(database);
    let error = waypost_runtime::chain::text(&Store::open(folder.path(), Duration::ZERO).err().unwrap());
    assert!(error.contains("`precious`"), "{error}");
    let database = Database::open(&path).unwrap();
    let txn = database.begin_read().unwrap();
    assert!(txn.list_tables().unwrap().any(|table| redb::TableHandle::name(&table) == "precious"));
}

/// A subscription whose password is sealed with the store's key.
pub(super) fn with_password(vault: &Vault, number: u128, password: &str) -> Subscription {
    let target = "http://localhost:1".parse().unwrap();
    let mut new = Subscription::new("ann".into(), "own".into(), "$".into(), target, after(0));
    new.id = sub(number);
    let label = Label::new(waypost_domain::subscription::PASSWORD, new.id.uuid());
    let password = vault.seal(label, &password.to_owned().into());
    Subscription { auth: Auth::Basic { username: "ann".to_owned(), password }, ..new }
}

#[tokio::test]
async fn a_missing_key_is_made_only_while_nothing_is_sealed() {
    let (folder, store) = fresh();
    let path = key(folder.path()).path();
    close(store).await;
    std::fs::remove_file(&path).unwrap();
    let store = open(folder.path());
    assert!(path.exists(), "it was not needed");
    let sealed_with = store.vault().key();
    let new = with_password(store.vault(), 1, "plain-1");
    assert!(matches!(
        store.put_subscription(new, None, None, Quota::Holds, None).await.unwrap(),
        Put::Done(_)
    ));
    close(store).await;
    assert_eq!(found(folder.path()).0, 0);
    let kept = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let error = Store::open(folder.path(), Duration::ZERO).err().unwrap();
    let text = error.to_string();
    assert!(matches!(error, OpenError::NoKey { .. }), "{text}");
    for part in [&sealed_with.to_string(), "master_key_file", "master.key", "--give-up-lost-secrets"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!path.exists(), "another key would be of no use");
    // A wrong one is named with the one that is needed.
    let wrong = Vault::create(&path).unwrap().key();
    let text = waypost_runtime::chain::text(&Store::open(folder.path(), Duration::ZERO).err().unwrap());
    for part in [&sealed_with.to_string(), &wrong.to_string(), "master_key_file"] {
        assert!(text.contains(part), "{text}");
    }
    std::fs::write(&path, kept).unwrap();
    assert_eq!(opened(&open(folder.path())).await, [("own".to_owned(), "plain-1".to_owned())]);
}

/// The operator's typing error would become a key that nobody keeps a copy of.
#[test]
fn a_key_is_not_made_where_the_operator_has_named_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("typo.key");
    let options = || Options { master_key: Some(path.clone()), ..Options::default() };
    let text = Store::with(&folder.path().join("data"), options()).err().unwrap().to_string();
    assert!(text.contains("typo.key") && text.contains("openssl rand"), "{text}");
    assert!(!path.exists());
    let given = Vault::create(&path).unwrap().key();
    let store = Store::with(&folder.path().join("data"), options()).unwrap();
    assert_eq!(store.vault().key(), given);
    assert!(!folder.path().join("data/master.key").exists());
}

/// Entries of a journal from before secrets were sealed are applied as they are, so that all who do it have the same.
#[tokio::test]
async fn an_unsealed_secret_is_stored_as_it_came_and_opens() {
    let (folder, store) = fresh();
    let plain = Sealed::unsealed("plain-old".to_owned().into());
    let auth = Auth::Basic { username: "ann".to_owned(), password: plain };
    let new = Subscription { auth, ..with_password(store.vault(), 1, "") };
    assert!(!format!("{new:?}").contains("plain-"));
    store.put_subscription(new, None, None, Quota::Holds, None).await.unwrap();
    let known = subscriptions(&store).await.remove(0);
    let (name, sealed) = known.secrets()[0];
    let label = Label::new(name, known.id.uuid());
    assert_eq!(store.vault().open(label, sealed).unwrap().expose(), b"plain-old");
    close(store).await;
    super::super::rekey(folder.path(), &key(folder.path()), &Default::default()).unwrap();
    assert_eq!(found(folder.path()).0, 0, "an exchange of the key seals it");
    assert_eq!(opened(&open(folder.path())).await, [("own".to_owned(), "plain-old".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_with_another_key_does_not_join() {
    use crate::journal::MemoryJournal;
    let journal = Arc::new(MemoryJournal::default());
    let [one, same, other] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let join = async |folder: &Path| {
        Store::join(folder, Options::default(), Arc::<MemoryJournal>::clone(&journal)).await
    };
    let store = join(one.path()).await.unwrap();
    let new = with_password(store.vault(), 1, "plain-1");
    store.put_subscription(new, None, None, Quota::Holds, None).await.unwrap();
    assert!(journal.entries().iter().all(|entry| count(&entry.group) == 0));
    let refused = join(other.path()).await.err().expect("it must not join");
    let OpenError::OtherKey { source: secrets::OpenError::OtherKey { sealed_with, .. }, .. } = &refused
    else {
        panic!("{refused:?}")
    };
    assert_eq!(*sealed_with, store.vault().key());
    std::fs::copy(key(one.path()).path(), key(same.path()).path()).unwrap();
    let second = join(same.path()).await.unwrap();
    assert_eq!(opened(&second).await, [("own".to_owned(), "plain-1".to_owned())]);
    for store in [store, second] {
        store.close().await;
    }
}
