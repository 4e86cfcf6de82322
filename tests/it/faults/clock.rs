//! The wall clock jumps by a day, both ways, while the service works under load and is killed meanwhile.
//!
//! The process runs with libfaketime (Debian's package `libfaketime`), which reads from a file how far its wall clock is off.
//! The monotonic clock stays as it is, as on a machine whose time is set. Without it the test passes, unless [`REQUIRED`]
//! says otherwise.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::crash::assert_repeats_are_recognisable;
use crate::harness::{Answer, Api, Launch, Request, Server, Target, event, merged, wait_until};

/// The variable that requires libfaketime with the value `required`.
const REQUIRED: &str = "TEST_FAKETIME";
const DAY: i64 = 24 * 60 * 60;
/// How many attempts a subscription of the test has under way, so that a kill repeats no more.
const WIDTH: usize = 4;

/// The wall clock of a process.
struct Clock {
    library: PathBuf,
    file: PathBuf,
    _folder: TempDir,
}

impl Clock {
    /// Returns a clock that is right; `None` if libfaketime is not there and not required.
    fn start() -> Option<Self> {
        let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
        let mut libraries = folders.map(|folder| folder.path().join("faketime/libfaketime.so.1"));
        let Some(library) = libraries.find(|library| library.is_file()) else {
            let required = std::env::var(REQUIRED).is_ok_and(|value| value == "required");
            assert!(!required, "{REQUIRED} requires libfaketime.so.1 (Debian's package `libfaketime`)");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let clock = Self { library, file: folder.path().join("offset"), _folder: folder };
        clock.set(0);
        Some(clock)
    }

    /// Puts the clock ahead by this many seconds, or back.
    fn set(&self, seconds: i64) {
        // Renamed, so that no reader finds half of it.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}\n")).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }

    fn environment(&self) -> [(&str, &str); 5] {
        [
            ("LD_PRELOAD", self.library.to_str().unwrap()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
        ]
    }
}

/// Posts events one after the other until it is told to stop, or the server is gone. Returns the producer's ids of the accepted
/// ones, with the ids that they got.
async fn produce(api: Api, producer: String, stop: Arc<AtomicBool>) -> Vec<(String, String)> {
    let mut accepted = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let id = format!("{producer}-{}", accepted.len());
        let body = merged(event(&id), json!({"source": format!("/{producer}")})).to_string();
        let json = [("content-type", "application/json")];
        let Ok(reply) = api.try_send(Method::POST, "/receive", &json, body).await else { break };
        accepted.push((id, reply.ok().text()));
    }
    accepted
}

async fn counts(server: &Server, uuid: &str) -> Value {
    server.get(&format!("/eventmatch/{uuid}/deliveries?limit=1")).await.ok().json()["counts"].clone()
}

fn requests_by_event(got: &[Request]) -> HashMap<String, usize> {
    let mut found = HashMap::new();
    for request in got {
        *found.entry(request.event_id()).or_default() += 1;
    }
    found
}

/// Each producer's events are met in their order; repeats are left out.
fn assert_in_order(got: &[Request]) {
    let (mut met, mut last) = (HashSet::new(), HashMap::new());
    for request in got.iter().filter(|request| met.insert(request.event_id())) {
        let id = request.event_id();
        let (producer, number) = id.rsplit_once('-').unwrap();
        let number: usize = number.parse().unwrap();
        let before = last.insert(producer.to_owned(), number);
        assert!(before.is_none_or(|before| before < number), "{id} comes after {before:?}");
    }
}

#[tokio::test]
async fn a_clock_that_jumps_a_day_ahead_and_back_loses_nothing() {
    let Some(clock) = Clock::start() else { return };
    let flags = ["--retention", "1h", "--retry-schedule", "20ms,20ms,20ms", "--admin-users", "nobody"];
    let mut server = Server::launch(Launch::Plain, &flags, &clock.environment()).await;
    let target = Target::start().await;
    // A 404 is retried and says nothing about the target as a whole, so that no breaker stops the attempts.
    let is_mended = Arc::new(AtomicBool::new(false));
    for path in ["/flaky", "/fifo", "/keyed", "/later"] {
        let (mut met, is_mended) = (HashSet::new(), Arc::clone(&is_mended));
        target.script(path, move |request| {
            let is_first = met.insert(request.event_id()) && !is_mended.load(Ordering::Relaxed);
            Answer::status(if is_first && (path == "/later" || met.len() % 5 == 0) { 404 } else { 204 })
        });
    }
    target.always("/never", Answer::status(404));
    let mut subscriptions = Vec::new();
    for (path, more) in [
        ("/well", json!({})),
        ("/flaky", json!({})),
        ("/fifo", json!({"ordering": "fifo"})),
        ("/keyed", json!({"ordering": {"key": "$.source"}})),
        ("/later", json!({"retry": "2h"})),
        ("/never", json!({"retry": "2h,2h,2h,2h,2h,2h,2h,2h"})),
    ] {
        let fields = merged(more, json!({"target_url": target.url(path), "max_in_flight": WIDTH}));
        subscriptions.push((path, server.subscribe(fields).await));
    }
    let mut accepted = Vec::<(String, String)>::new();
    // At each jump the service has work; then it is killed, and starts with the clock as it is.
    let jumps = [DAY, 0, -DAY, 0];
    for (round, jump) in jumps.into_iter().enumerate() {
        let stop = Arc::new(AtomicBool::new(false));
        let mut producers = JoinSet::new();
        for number in 0..4 {
            let name = format!("{round}-{number}");
            producers.spawn(produce(server.user("producer"), name, Arc::clone(&stop)));
        }
        let more = async |count: usize| {
            for path in ["/well", "/later"] {
                target.wait_for(path, target.requests(path).len() + count).await;
            }
        };
        more(40).await;
        clock.set(jump);
        more(40).await;
        if round + 1 < jumps.len() {
            server.kill9();
        }
        stop.store(true, Ordering::Relaxed);
        let mut found: Vec<_> = producers.join_all().await;
        for of_producer in &found {
            assert!(of_producer.is_sorted_by_key(|(_, id)| id), "ids go back: {of_producer:?}");
        }
        // Those of a round are above all those of the rounds before.
        let last = accepted.iter().map(|(_, id)| id).max();
        assert!(found.iter().flatten().all(|(_, id)| last.is_none_or(|last| id > last)), "round {round}");
        accepted.extend(found.drain(..).flatten());
        if round + 1 < jumps.len() {
            server.restart().await;
        }
    }
    let warned = server.log().matches("the clock is far ahead").count();
    assert_eq!(warned, 1, "the start under a clock of tomorrow says so: {}", server.log());
    // What failed "tomorrow" is due then.
    is_mended.store(true, Ordering::Relaxed);
    clock.set(2 * DAY);
    server.restart().await;
    let wanted: HashSet<_> = accepted.iter().map(|(producers, _)| producers.clone()).collect();
    let mut totals = Vec::new();
    for (path, uuid) in &subscriptions {
        let is_over = |counts: &Value| match *path {
            "/never" => counts["pending"] == 0,
            _ => ["pending", "retrying", "held"].iter().all(|state| counts[state] == 0),
        };
        let counts = wait_until(&format!("{path} has had its turns"), async || {
            Some(counts(&server, uuid).await).filter(is_over)
        })
        .await;
        let got = target.requests(path);
        assert_repeats_are_recognisable(&got);
        let met = requests_by_event(&got);
        assert!(wanted.iter().all(|id| met.contains_key(id)), "{path} has lost some");
        assert_eq!(counts["dead"], 0, "{path}: {counts}");
        totals.push(counts.as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum::<u64>());
        // A jump makes a retry due once, and its next one waits from there: with each clock an event is tried at most once,
        // and at most three jumps are ahead of the one before. A kill repeats what was under way.
        let repeated = |most: usize| {
            let repeats: usize = met.values().map(|count| count.saturating_sub(most)).sum();
            assert!(repeats <= jumps.len() * WIDTH, "{path}: {repeats} attempts are repeated");
        };
        match *path {
            "/well" => repeated(1),
            "/later" => repeated(2),
            "/never" => repeated(3),
            "/fifo" | "/keyed" => assert_in_order(&got),
            _ => {}
        }
    }
    assert!(totals[0] >= accepted.len() as u64);
    assert!(totals.iter().all(|total| *total == totals[0]), "{totals:?}");
    // Retention has eaten none of them: the log has each, with what was received "tomorrow" and "yesterday".
    let (mut logged, mut next) = (HashSet::new(), "/events?limit=1000".to_owned());
    loop {
        let page = server.get(&next).await.ok().json();
        logged.extend(
            page["events"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned()),
        );
        let Some(further) = page["next"].as_str() else { break };
        next = further.to_owned();
    }
    assert!(accepted.iter().all(|(_, id)| logged.contains(id)), "retention has removed some");
    // And a replay finds them all.
    let fields = json!({"target_url": target.url("/replayed"), "start_at": "earliest"});
    server.subscribe(fields).await;
    wait_until("all are replayed", async || {
        let met = requests_by_event(&target.requests("/replayed"));
        wanted.iter().all(|id| met.contains_key(id)).then_some(())
    })
    .await;
}
