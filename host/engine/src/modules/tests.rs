//! What stays and what goes, with a compiler that trusts its author.

use std::time::Duration;

use futures_util::FutureExt as _;
use jiff::SignedDuration;
use tempfile::TempDir;

use super::*;
use waypost_domain::{Actor, Subscription};
use waypost_runtime::clock;
use waypost_sandbox::{CompileLimits, CompilerProcess, Limits, Settings};
use waypost_store::Quota;
use waypost_store::Store;

struct Kept {
    modules: Modules,
    store: Arc<Store>,
    folder: TempDir,
}

impl Kept {
    fn new(bytes_max: u64) -> Self {
        Self::with(Room { bytes_max, user_bytes_max: bytes_max, user_modules_max: u32::MAX })
    }

    fn with(room: Room) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<Store> = Arc::new(Store::open(folder.path(), Duration::ZERO).unwrap());
        let host = Host::new(Settings {
            limits: Limits { time: Duration::from_secs(10), ..Limits::default() },
            compile: CompileLimits::default(),
            folder: folder.path().join("compiled"),
            compiler: Some(CompilerProcess::InProcess),
            guard: Arc::default(),
            memory_total_bytes: 1 << 30,
            threads: 1,
        });
        Self { modules: Modules::new(Arc::clone(&store), Arc::new(host), room), store, folder }
    }

    fn files(&self, folder: &str) -> usize {
        let files = std::fs::read_dir(self.folder.path().join(folder));
        files.map_or(0, |files| files.filter(|file| file.as_ref().unwrap().file_name() != "key").count())
    }

    async fn upload(&self, wasm: Bytes, user: &str, now: Timestamp) -> Result<UploadResult, Error> {
        self.modules.upload(wasm, &Actor::program(user), now).await
    }

    /// Uploads a module that is taken.
    async fn uploaded(&self, wasm: Bytes, user: &str, now: Timestamp) -> PluginDigest {
        self.upload(wasm, user, now).await.unwrap().module().report.digest
    }

    async fn refer(&self, digest: PluginDigest) -> Subscription {
        self.refer_as("u", digest).await
    }

    async fn refer_as(&self, user: &str, digest: PluginDigest) -> Subscription {
        let target = "http://localhost:1/".parse().unwrap();
        let mut subscription =
            Subscription::new(user.to_owned(), "n".to_owned(), "$".to_owned(), target, clock::now());
        subscription.plugin = Some(Arc::new(PluginUse::new(digest)));
        self.store.put(subscription.clone(), Quota::Exempt).await.unwrap();
        subscription
    }
}

fn probe() -> Bytes {
    std::fs::read(waypost_guests::PROBE).unwrap().into()
}

/// The same module with another digest: a custom section of its own follows it.
fn another(n: u8) -> Bytes {
    let mut wasm = probe().to_vec();
    wasm.extend([0, 3, 1, b'n', n]);
    wasm.into()
}

fn later(hours: i64) -> Timestamp {
    clock::now() + SignedDuration::from_hours(hours)
}

#[tokio::test]
async fn what_no_subscription_refers_to_goes_a_day_after_its_upload() {
    let kept = Kept::new(u64::MAX);
    let now = clock::now();
    let uploaded = kept.upload(probe(), "u", now).await.unwrap();
    let (used, unused) = (uploaded.module().report.digest, another(1));
    let unused = kept.uploaded(unused, "u", now).await;
    let mut subscription = kept.refer(used).await;
    assert_eq!(kept.modules.collect_garbage(later(23)).await.unwrap(), 0);
    assert_eq!((kept.files("modules"), kept.files("compiled")), (2, 2));
    assert_eq!(kept.modules.collect_garbage(later(25)).await.unwrap(), 1);
    assert_eq!((kept.files("modules"), kept.files("compiled")), (1, 1));
    assert!(kept.modules.module(unused).await.unwrap().is_none());
    assert!(kept.modules.plugin(unused).await.is_err());
    assert!(kept.modules.plugin(used).await.is_ok());
    subscription.deleted = Some(now);
    kept.store.put(subscription, Quota::Exempt).await.unwrap();
    assert_eq!(kept.modules.collect_garbage(later(25)).await.unwrap(), 1);
    assert_eq!((kept.files("modules"), kept.files("compiled")), (0, 0));
}

#[tokio::test]
async fn a_module_that_comes_again_is_known_and_stays_as_long_as_a_new_one() {
    let kept = Kept::new(u64::MAX);
    let first = kept.upload(probe(), "u", clock::now()).await.unwrap();
    assert!(matches!(first, UploadResult::New(_)));
    let again = kept.upload(probe(), "v", later(20)).await.unwrap();
    assert!(matches!(again, UploadResult::Known(_)));
    assert_eq!((again.module().by.as_str(), &again.module().report), ("u", &first.module().report));
    assert_eq!(kept.modules.collect_garbage(later(25)).await.unwrap(), 0);
    assert_eq!(kept.modules.collect_garbage(later(45)).await.unwrap(), 1);
}

#[tokio::test]
async fn where_there_is_no_room_unused_modules_go_first() {
    let size = {
        let kept = Kept::new(u64::MAX);
        let report = kept.upload(probe(), "u", clock::now()).await.unwrap().module().report.clone();
        report.bytes + report.compiled_bytes + 1000
    };
    let kept = Kept::new(2 * size);
    let now = clock::now();
    let first = kept.uploaded(probe(), "u", now).await;
    kept.upload(another(1), "u", now).await.unwrap();
    let refused = kept.upload(another(2), "u", now).await.unwrap_err().to_string();
    assert!(refused.contains("(the setting plugin_storage_bytes_max)"), "{refused}");
    assert_eq!((kept.files("modules"), kept.files("compiled")), (2, 2), "what is refused leaves nothing");
    let _subscription = kept.refer(first).await;
    kept.upload(another(2), "u", later(1)).await.unwrap();
    assert!(kept.modules.module(first).await.unwrap().is_some());
    assert_eq!(kept.modules.list().await.unwrap().len(), 2);
}

#[tokio::test]
async fn what_a_subscription_is_about_to_refer_to_stays() {
    let kept = Kept::new(u64::MAX);
    let digest = kept.uploaded(probe(), "u", clock::now()).await;
    let wanted = kept.refer(digest).await;
    let wanted = wanted.plugin.as_deref().unwrap();
    let referring = kept.modules.refer("u", wanted).await.unwrap();
    // Whether it is stored before or after: a module that is gone by then is refused where it is stored.
    assert_eq!(kept.modules.collect_garbage(later(25)).await.unwrap(), 0);
    drop(referring);
}

#[tokio::test]
async fn a_configuration_is_checked_by_the_schema_and_then_by_the_plugin() {
    let kept = Kept::new(u64::MAX);
    let digest = kept.uploaded(probe(), "u", clock::now()).await;
    let with = |config: serde_json::Value| PluginUse {
        config: config.as_object().unwrap().clone(),
        ..PluginUse::new(digest)
    };
    let problems = async |config| match kept.modules.check("u", &with(config)).await {
        Ok(()) => Vec::new(),
        Err(Wrong::Config(problems)) => {
            problems.into_iter().map(|problem| (problem.at, problem.message)).collect()
        }
        Err(other) => panic!("{other}"),
    };
    let told = |at: &str, message: &str| vec![(at.to_owned(), message.to_owned())];
    assert_eq!(problems(serde_json::json!({"filter": "ok"})).await, []);
    assert_eq!(
        problems(serde_json::json!({"filter": 1})).await,
        told("/filter", "want string, but got number")
    );
    assert_eq!(problems(serde_json::json!({"wrong": 1})).await, told("/wrong", "is wrong"));
    let large = problems(serde_json::json!({"a": "x".repeat(70_000)})).await;
    assert_eq!(large, told("", "it has 70008 bytes, the most are 65536"));
}

/// A schema can be made to take seconds.
#[tokio::test]
async fn a_users_checks_follow_one_another_and_anothers_do_not_wait_for_them() {
    let kept = Kept::new(1 << 30);
    let digest = kept.uploaded(probe(), "u", clock::now()).await;
    let wanted = PluginUse::new(digest);
    let first = kept.modules.refer("ann", &wanted).await.unwrap();
    let mut second = Box::pin(kept.modules.check("ann", &wanted));
    tokio::select! {
        biased;
        _ = &mut second => panic!("the first one is not written yet"),
        checked = kept.modules.check("bob", &wanted) => checked.unwrap(),
    }
    // It waits for the first one, and not only for longer than Bob's took.
    assert!((&mut second).now_or_never().is_none());
    assert_eq!(kept.modules.checking.of("ann"), 2, "one has its turn, and one waits");
    drop(first);
    second.await.unwrap();
}

/// What a module of `another` takes, with its machine code.
async fn size() -> u64 {
    let kept = Kept::new(u64::MAX);
    let uploaded = kept.upload(another(1), "u", clock::now()).await.unwrap();
    holders::bytes(uploaded.module())
}

/// Three padded modules used up the whole disk quota: uploads of all other users were refused.
#[tokio::test]
async fn a_user_who_uploads_much_leaves_room_for_others() {
    let size = size().await;
    let room = Room { bytes_max: 100 * size, user_bytes_max: 2 * size, user_modules_max: u32::MAX };
    let (kept, now) = (Kept::with(room), clock::now());
    for n in 1..=2 {
        kept.upload(another(n), "eve", now).await.unwrap();
    }
    let refused = kept.upload(another(3), "eve", now).await.unwrap_err();
    assert!(matches!(refused, Error::UserFull { .. }), "{refused}");
    assert!(refused.to_string().contains("(the setting plugin_user_storage_bytes_max)"), "{refused}");
    assert_eq!((kept.files("modules"), kept.files("compiled")), (2, 2), "what is refused leaves nothing");
    let anns = kept.uploaded(another(4), "ann", now).await;
    // Later, the user's own modules that nothing refers to make room, and no other user's.
    kept.upload(another(3), "eve", later(1)).await.unwrap();
    assert_eq!(kept.modules.list().await.unwrap().len(), 3);
    assert!(kept.modules.module(anns).await.unwrap().is_some());
}

/// Uploading a module that was already there took it over from its first uploader.
#[tokio::test]
async fn a_module_counts_for_those_who_use_it() {
    let size = size().await;
    let room = Room { bytes_max: 100 * size, user_bytes_max: size, user_modules_max: u32::MAX };
    let (kept, now) = (Kept::with(room), clock::now());
    let anns = kept.uploaded(another(1), "ann", now).await;
    let _anns = kept.refer_as("ann", anns).await;
    // Eve's quota is not charged for Ann's module in use, nor Ann's for Eve's upload.
    assert_eq!(kept.upload(another(1), "eve", now).await.unwrap().module().by, "ann");
    let eves = kept.uploaded(another(2), "eve", now).await;
    let _eves = kept.refer_as("eve", eves).await;
    // Eve's own module uses up her quota, so her subscription cannot refer to Ann's module as well.
    let refused = kept.modules.refer("eve", &PluginUse::new(anns)).await.err().unwrap();
    assert!(matches!(refused, Wrong::UserFull { .. }), "{refused}");
    assert!(kept.modules.refer("ann", &PluginUse::new(anns)).await.is_ok());
    // A module that others use is not removed when its uploader is at the limit.
    let refused = kept.upload(another(3), "eve", later(1)).await.unwrap_err();
    assert!(matches!(refused, Error::UserFull { .. }), "{refused}");
    assert_eq!(kept.modules.list().await.unwrap().len(), 2);
}

/// Many small modules cost the lists of all users what few large ones do not.
#[tokio::test]
async fn a_user_has_so_many_modules() {
    let (kept, now) = (
        Kept::with(Room { bytes_max: u64::MAX, user_bytes_max: u64::MAX, user_modules_max: 2 }),
        clock::now(),
    );
    let mut digests = Vec::new();
    for n in 1..=2 {
        digests.push(kept.uploaded(another(n), "eve", now).await);
    }
    let refused = kept.upload(another(3), "eve", now).await.unwrap_err();
    assert!(matches!(refused, Error::UserTooMany { most: 2 }), "{refused}");
    assert!(refused.to_string().contains("(the setting user_modules_max)"), "{refused}");
    // One of them again is no other one, and another user has a number of her own.
    kept.upload(another(2), "eve", now).await.unwrap();
    let anns = kept.uploaded(another(4), "ann", now).await;
    // Later, an own one that nothing refers to makes room.
    let _eves = kept.refer_as("eve", digests[0]).await;
    let third = kept.uploaded(another(3), "eve", later(1)).await;
    assert!(kept.modules.module(digests[1]).await.unwrap().is_none());
    let _eves = kept.refer_as("eve", third).await;
    let refused = kept.modules.refer("eve", &PluginUse::new(anns)).await.err().unwrap();
    assert!(matches!(refused, Wrong::UserTooMany { most: 2 }), "{refused}");
}
