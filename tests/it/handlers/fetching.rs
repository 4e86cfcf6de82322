//! Files from a folder and from a cart service: what arrives, what is refused, and why.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use waypost_domain::Event;
use waypost_domain::handler::FetchSummary;
use waypost_domain::parts::Parts;
use waypost_handlers::fetch::{FetchLimits, Fetcher};
use waypost_handlers::{Meter, Phase, Source};
use waypost_runtime::{chain, clock};

use super::cart::{Cart, row};
use crate::harness::{Reserved, event, merged, wait_until};

/// One fetch into a folder of its own.
pub(super) struct Fetch {
    pub(super) folder: TempDir,
    pub(super) limits: FetchLimits,
    pub(super) meter: Arc<Meter>,
}

impl Fetch {
    pub(super) fn new() -> Self {
        Self {
            folder: TempDir::new().unwrap(),
            limits: FetchLimits { files_max: 2000, bytes_max: 1 << 30 },
            meter: Arc::new(Meter::new(clock::now())),
        }
    }

    /// Fetches the files of an event with these rows; returns the whole text of an error.
    pub(super) async fn run(&self, source: &Source, rows: &[Value]) -> Result<FetchSummary, String> {
        let event = merged(event("1"), json!({"data": rows}));
        let parts = Parts::of(&Event::from_json(event.to_string()).unwrap()).unwrap();
        let fetcher = Fetcher::new(source, Duration::from_secs(5)).map_err(|error| chain::text(&error))?;
        let fetched = fetcher.fetch(&parts.files, self.folder.path(), self.limits, &self.meter).await;
        fetched.map_err(|error| chain::text(&error))
    }

    pub(super) fn read(&self, path: &str) -> Vec<u8> {
        std::fs::read(self.folder.path().join(path)).unwrap()
    }

    /// Waits until no thread works on this fetch any more: each holds the meter.
    async fn wait_for_end(&self) {
        wait_until("no thread has the meter", async || (Arc::strong_count(&self.meter) == 1).then_some(()))
            .await;
    }
}

pub(super) fn cart_at(cart: &Cart) -> Source {
    Source::Cart { url: cart.url().parse().unwrap(), timeout: Duration::from_secs(20) }
}

fn local(folder: &TempDir) -> Source {
    Source::Local(folder.path().to_owned())
}

fn write(folder: &TempDir, path: &str, content: &[u8]) -> Value {
    let place = folder.path().join(path);
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    std::fs::write(place, content).unwrap();
    row(1, path, content)
}

#[tokio::test]
async fn files_come_from_a_local_folder_with_their_paths() {
    let (folder, fetch) = (TempDir::new().unwrap(), Fetch::new());
    let large: Vec<u8> = (0..1_000_003_u32).map(|i| i.to_le_bytes()[0]).collect();
    let rows =
        [write(&folder, "a/b/large", &large), write(&folder, "a/empty", b""), write(&folder, "ü x", b"top")];
    std::fs::write(folder.path().join("unasked"), "x").unwrap();
    let fetched = fetch.run(&local(&folder), &rows).await.unwrap();
    assert_eq!((fetched.files, fetched.bytes), (3, 1_000_006));
    assert_eq!((fetch.read("a/b/large"), fetch.read("a/empty")), (large, Vec::new()));
    assert_eq!(fetch.read("ü x"), b"top");
    assert!(!fetch.folder.path().join("unasked").exists());
    let progress = fetch.meter.progress();
    assert_eq!((progress.phase, progress.files_done, progress.files), (Phase::Fetching, 3, 3));
    assert_eq!((progress.bytes_done, progress.bytes), (1_000_006, 1_000_006));
}

#[tokio::test]
async fn a_local_file_that_is_not_what_the_event_says_is_refused() {
    let folder = TempDir::new().unwrap();
    let good = write(&folder, "a", b"abc");
    let run = async |over: Value| {
        Fetch::new().run(&local(&folder), &[merged(good.clone(), over)]).await.unwrap_err()
    };
    assert_eq!(run(json!({"size": 4})).await, "`a` has 3 bytes, and the event says 4");
    let sum = "a9993e364706816aba3e25717850c26c9cd0d89d";
    let other = "b9993e364706816aba3e25717850c26c9cd0d89d";
    assert_eq!(
        run(json!({"hashsum": other})).await,
        format!("`a` has the sha1 sum {sum}, and the event says {other}")
    );
    assert_eq!(
        run(json!({"hashtype": "crc32"})).await,
        "`a`: the hash type `crc32` is not known: the known types are md5, sha1, sha256, sha384, sha512"
    );
    assert_eq!(
        run(json!({"hashsum": "ab"})).await,
        "`a`: a sha1 sum has 40 hexadecimal digits, and the event says `ab`"
    );
    let missing = run(json!({"name": "b"})).await;
    assert!(missing.starts_with("cannot read `b` in `/") && missing.contains("No such file"), "{missing}");
    let all = [("md5", "900150983cd24fb0d6963f7d28e17f72"), ("SHA1", &sum.to_uppercase())];
    for (kind, sum) in all {
        let row = merged(good.clone(), json!({"hashtype": kind, "hashsum": sum}));
        Fetch::new().run(&local(&folder), &[row]).await.unwrap();
    }
    let unverified = merged(good.clone(), json!({"hashtype": null, "hashsum": null, "size": null}));
    assert_eq!(Fetch::new().run(&local(&folder), &[unverified]).await.unwrap().bytes, 3);
}

#[tokio::test]
async fn a_link_must_not_leave_the_local_folder() {
    let (outside, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let row = write(&outside, "a/secret", b"x");
    symlink(outside.path().join("a"), folder.path().join("a")).unwrap();
    let error = Fetch::new().run(&local(&folder), &[row]).await.unwrap_err();
    assert!(error.starts_with("`a/secret` leads out of `/"), "{error}");
    let mut row = write(&folder, "b/c", b"inside");
    symlink(folder.path().join("b"), folder.path().join("d")).unwrap();
    row["subdir"] = json!("d");
    let fetch = Fetch::new();
    fetch.run(&local(&folder), &[row]).await.unwrap();
    assert_eq!(fetch.read("d/c"), b"inside", "a link within the folder is followed");
}

#[tokio::test]
async fn only_regular_local_files_are_read() {
    let folder = TempDir::new().unwrap();
    assert!(Command::new("mkfifo").arg(folder.path().join("pipe")).status().unwrap().success());
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    for name in ["pipe", "folder"] {
        let error = Fetch::new().run(&local(&folder), &[row(1, name, b"")]).await.unwrap_err();
        assert!(
            error.starts_with(&format!("`{name}` in `/")) && error.ends_with("is not a regular file"),
            "{error}"
        );
    }
    // A file in /proc reports 0 bytes and has more, like a file that grows.
    let grown = Source::Local("/proc/self".into());
    let error = Fetch::new().run(&grown, &[row(1, "status", b"")]).await.unwrap_err();
    assert!(error.ends_with("was changed while it was copied"), "{error}");
    let nowhere = Source::Local(folder.path().join("none"));
    let error = Fetch::new().run(&nowhere, &[row(1, "a", b"")]).await.unwrap_err();
    assert!(error.starts_with("cannot use the folder `/") && error.contains("No such file"), "{error}");
}

#[tokio::test]
async fn limits_are_checked_before_and_during_the_fetch() {
    let folder = TempDir::new().unwrap();
    let rows = [write(&folder, "a", &[0; 600]), write(&folder, "b", &[1; 600])];
    let mut fetch = Fetch::new();
    fetch.limits.files_max = 1;
    let error = fetch.run(&local(&folder), &rows).await.unwrap_err();
    assert_eq!(error, "the event has 2 files, more than `download_files_max` = 1");
    fetch.limits = FetchLimits { files_max: 2, bytes_max: 1000 };
    let too_large = "the event's files have 1200 bytes together, more than `download_bytes_max` = 1000";
    assert_eq!(fetch.run(&local(&folder), &rows).await.unwrap_err(), too_large);
    assert_eq!(std::fs::read_dir(fetch.folder.path()).unwrap().count(), 0, "nothing was fetched");
    let unsized_rows = rows.map(|row| merged(row, json!({"size": null})));
    assert_eq!(fetch.run(&local(&folder), &unsized_rows).await.unwrap_err(), too_large);
    assert!(!fetch.folder.path().join("b").exists());
    let cart = Cart::start().await.serving([("a", vec![0; 600]), ("b", vec![1; 600])]);
    let rows: Vec<_> = cart.rows().into_iter().map(|row| merged(row, json!({"size": null}))).collect();
    let mut fetch = Fetch::new();
    fetch.limits.bytes_max = 1000;
    assert_eq!(fetch.run(&cart_at(&cart), &rows).await.unwrap_err(), too_large);
}

#[tokio::test]
async fn files_come_from_a_slow_cart() {
    let deep = format!("{}/{}", "d".repeat(200), "n".repeat(200));
    let large = vec![7; 3_000_001];
    let cart = Cart::start().await.staging(4).serving([
        ("a/b.txt", b"first".to_vec()),
        (&deep, b"a GNU long name".to_vec()),
        ("large", large.clone()),
        ("empty", Vec::new()),
    ]);
    let fetch = Fetch::new();
    let fetched = fetch.run(&cart_at(&cart), &cart.rows()).await.unwrap();
    assert_eq!((fetched.files, fetched.bytes), (4, 5 + 15 + 3_000_001));
    assert_eq!((fetch.read("a/b.txt"), fetch.read(&deep)), (b"first".to_vec(), b"a GNU long name".to_vec()));
    assert_eq!((fetch.read("large"), fetch.read("empty")), (large, Vec::new()));
    assert_eq!(fetch.meter.progress().files_done, 4);
    assert_eq!((cart.methods().as_str(), cart.open_carts()), ("POST HEAD GET DELETE", 0));
    let requests = cart.requests();
    let order = &requests[0].json()["fileids"][0];
    let sum = "6ed8c9c4ba5f7ebb50dbbcc0aeb6cd71ac1d8ac6";
    assert_eq!(order["id"], 1);
    assert_eq!((&order["path"], &order["hashtype"]), (&json!("a/b.txt"), &json!("sha1")), "{sum}");
    let path = requests[0].path.clone();
    assert!(path.strip_prefix("/carts/").unwrap().parse::<uuid::Uuid>().is_ok(), "{path}");
    assert_eq!(requests[6].path, format!("{path}?filename=data"));
    assert!(requests[5].at - requests[1].at >= Duration::from_millis(50 + 100 + 200 + 400), "pauses double");
}

/// Cartd with `bundle_task = on` packs a cart below its own id, whatever name the client asks for: such a tar was refused.
#[tokio::test]
async fn files_come_from_a_cart_that_is_packed_below_its_own_id() {
    let cart = Cart::start().await.serving([("a/b.txt", "first"), ("data/c", "second")]).bundling();
    let fetch = Fetch::new();
    assert_eq!(fetch.run(&cart_at(&cart), &cart.rows()).await.unwrap().files, 2);
    assert_eq!((fetch.read("a/b.txt"), fetch.read("data/c")), (b"first".to_vec(), b"second".to_vec()));
}

#[tokio::test]
async fn a_run_without_files_or_fetch_sends_no_request() {
    let cart = Cart::start().await.serving([("a", "x")]);
    let none = Fetch::new().run(&cart_at(&cart), &[]).await.unwrap();
    assert_eq!((none.files, cart.requests().len()), (0, 0));
    let rows: Vec<_> = (0..3).map(|i| row(i, &format!("f{i}"), b"")).collect();
    assert_eq!(Fetch::new().run(&Source::Nothing, &rows).await.unwrap().files, 0);
}

#[tokio::test]
async fn a_cart_that_fails_says_why() {
    let start = async || Cart::start().await.serving([("a", "x")]);
    let error = async |cart: &Cart| Fetch::new().run(&cart_at(cart), &cart.rows()).await.unwrap_err();
    let cart = start().await.failing("Failed to pull file(no such id)");
    let text = error(&cart).await;
    assert!(text.starts_with("the cart service answered HEAD http://127.0.0.1:"), "{text}");
    assert!(text.ends_with("with 500 Internal Server Error: Failed to pull file(no such id)"), "{text}");
    assert_eq!((cart.methods().as_str(), cart.open_carts()), ("POST HEAD DELETE", 0));
    // The reason is the last line of a traceback, which was cut off.
    let traceback =
        format!("Traceback (most recent call last): {} OSError: tape 7 is broken", "File x ".repeat(900));
    let text = error(&start().await.failing(&traceback)).await;
    assert!(text.contains(": Traceback (most") && text.ends_with("OSError: tape 7 is broken"), "{text}");
    assert!(text.len() < 1500, "{text}");
    let cart = start().await.refusing(400, r#"{"status": "400", "message": "no such field"}"#);
    let text = error(&cart).await;
    assert!(text.ends_with("with 400 Bad Request: no such field"), "{text}");
    assert_eq!(cart.methods(), "POST");
    let cart = start().await.refusing(200, "");
    assert!(error(&cart).await.ends_with("with 200 OK: it does not say why"));
    let nobody = Reserved::new();
    let source = Source::Cart { url: nobody.url("/").parse().unwrap(), timeout: Duration::from_secs(1) };
    let text = Fetch::new().run(&source, &[row(1, "a", b"")]).await.unwrap_err();
    assert!(text.starts_with("the cart service gave no answer to POST http://127"), "{text}");
    assert!(text.contains("refused"), "{text}");
}

#[tokio::test]
async fn a_cart_that_is_never_ready_is_abandoned_at_its_timeout() {
    let cart = Cart::start().await.serving([("a", "x")]).staging(usize::MAX);
    let source = Source::Cart { url: cart.url().parse().unwrap(), timeout: Duration::from_millis(400) };
    let begun = Instant::now();
    let text = Fetch::new().run(&source, &cart.rows()).await.unwrap_err();
    assert_eq!(
        text,
        "the cart was not ready after 400ms, which is the longest that staging may take: it was `staging`"
    );
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(cart.open_carts(), 0, "it was given back");
}

#[tokio::test]
async fn a_poll_that_gets_lost_is_repeated() {
    let cart = Cart::start().await.serving([("a", "x")]).losing_polls(3);
    Fetch::new().run(&cart_at(&cart), &cart.rows()).await.unwrap();
    let cart = Cart::start().await.serving([("a", "x")]).losing_polls(usize::MAX);
    let text = Fetch::new().run(&cart_at(&cart), &cart.rows()).await.unwrap_err();
    assert!(text.starts_with("the cart service gave no answer to HEAD"), "{text}");
}

#[tokio::test]
async fn the_event_must_have_what_a_cart_needs_to_know() {
    let cart = Cart::start().await.serving([("a", "x")]);
    let error = async |over: Value| {
        let rows = [merged(cart.rows().remove(0), over)];
        Fetch::new().run(&cart_at(&cart), &rows).await.unwrap_err()
    };
    let text = error(json!({"_id": null})).await;
    assert_eq!(text, "`a`: a cart service must know its id (`_id`), and the event gives none");
    let text = error(json!({"hashtype": null, "hashsum": null})).await;
    let wanted =
        "`a`: a cart service must know its hash sum (`hashtype` and `hashsum`), and the event gives none";
    assert_eq!(text, wanted);
    assert!(cart.requests().is_empty());
    let nonsense = Source::Cart { url: "mailto:me".parse().unwrap(), timeout: Duration::from_secs(1) };
    let text = Fetch::new().run(&nonsense, &[]).await.unwrap_err();
    assert_eq!(text, "`mailto:me` is not the URL of a cart service: write it as `http://host:port`");
}

#[tokio::test]
async fn a_broken_connection_is_distinguished_from_a_short_tar() {
    let start = async || Cart::start().await.serving([("a", vec![1; 100_000]), ("b", vec![2; 100_000])]);
    let error = async |cart: &Cart| Fetch::new().run(&cart_at(cart), &cart.rows()).await.unwrap_err();
    let cart = start().await.breaking_after(150_000);
    let text = error(&cart).await;
    assert!(text.starts_with("the connection to the cart service broke in `data/b`: "), "{text}");
    assert_eq!(cart.open_carts(), 0);
    for (bytes, place) in
        [(0, "at its beginning"), (150_000, "in `data/b`"), (512 + 512 + 100_352, "after `data/a`")]
    {
        let text = error(&start().await.ending_after(bytes)).await;
        assert_eq!(text, format!("the cart's tar ends {place}, before its end mark"));
    }
}

#[tokio::test]
async fn dropping_a_fetch_ends_its_thread() {
    let under_way = async |fetch: &Fetch, source: &Source, rows: &[Value]| {
        tokio::select! {
            fetched = fetch.run(source, rows) => panic!("this cannot end: {fetched:?}"),
            () = wait_until("bytes have come", async || {
                (fetch.meter.progress().bytes_done > 0).then_some(())
            }) => {}
        }
        fetch.wait_for_end().await;
    };
    let cart = Cart::start().await.serving([("a", vec![1; 1_000_000])]).stalling_after(700_000);
    under_way(&Fetch::new(), &cart_at(&cart), &cart.rows()).await;
    let (folder, mut fetch) = (TempDir::new().unwrap(), Fetch::new());
    let huge = 1 << 40;
    std::fs::File::create(folder.path().join("huge")).unwrap().set_len(huge).unwrap();
    fetch.limits.bytes_max = huge;
    let row = json!({"destinationTable": "Files", "name": "huge", "size": huge});
    under_way(&fetch, &local(&folder), &[row]).await;
}

#[tokio::test]
async fn an_existing_file_is_not_overwritten() {
    let (folder, fetch) = (TempDir::new().unwrap(), Fetch::new());
    let row = write(&folder, "a", b"new");
    symlink(Path::new("/tmp/waypost-must-not-be-made"), fetch.folder.path().join("a")).unwrap();
    let error = fetch.run(&local(&folder), &[row]).await.unwrap_err();
    assert!(error.starts_with("cannot create `a` in the run's folder: File exists"), "{error}");
}
