//! A simulation of intake, directory, store, supervisor and workers: one thread, a clock and a disk of its own, and dice that
//! follow from a seed, so that a run can be repeated.
//!
//! The dice choose what comes: events, changes of subscriptions, commits, waits, jumps of the wall clock, a disk and reads
//! that fail, targets that hang, fail and panic, crashes that lose what was not synced, and stops. After every step the
//! promises of the crate are held: an acknowledged event is in the log with exactly the deliveries that it causes, and a
//! request that was not is there as a whole or not at all; no two attempts of one delivery at once, none after its end or
//! for a recipient that it has not; each failure is counted once; an end stays. In the end everything is mended, and
//! every delivery of an active subscription must end.
//!
//! `WAYPOST_SIMULATIONS` is the number of seeds (default 300), or a range of them (`17..18`); with `WAYPOST_TRACE`, what happens
//! is printed.

mod targets;
mod world;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::RngExt as _;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use self::targets::Targets;
use self::world::{Change, Mood, World, is_final};
use crate::directory::Directory;
use crate::domain::{Activity, Event, RetrySchedule, State, Subscription, SubscriptionId};
use crate::intake::Intake;
use crate::store::faulty::Fault;
use crate::store::redb::Disk;
use crate::store::redb::Options;
use crate::store::redb::Stepper;
use crate::store::{Error, EventHistory, Range, Store, StoredState};
use crate::worker::{SLICE, Slots, Workers};
use crate::{clock, dice};

/// How many steps a run has before everything is mended.
const STEPS: std::ops::Range<u32> = 10..90;
/// After how many steps the whole log is read.
const READ_EVERY: u32 = 8;
/// How many kinds of events there are; a subscription is for one of them.
const KINDS: usize = 3;
const SUBSCRIPTIONS_MAX: usize = 5;
/// How often the mended service is looked at until everything must have ended. The wall clock may have jumped back by hours.
const LOOK: Duration = Duration::from_secs(5 * 60);
const LOOKS_MAX: u32 = 300;
const ALL: Range = Range { before: None, since: None, until: None, limit: usize::MAX };

/// How a life of the service ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum LifeEnd {
    Crash,
    Stop,
    Done,
}

/// One run: the disk, and the world around the service.
struct Simulation {
    disk: Disk,
    world: Arc<Mutex<World>>,
    now: Timestamp,
    steps_left: u32,
    requests: u64,
}

/// A service that runs.
struct Life {
    disk: Disk,
    world: Arc<Mutex<World>>,
    store: Arc<Store>,
    writer: Stepper,
    directory: Arc<Directory>,
    intake: Intake,
    workers: Workers<Targets>,
    /// What the outside does: it does not end with the service's tasks.
    outside: TaskTracker,
}

/// Makes a run. Returns a digest of it and how much has happened.
///
/// # Panics
/// When a promise is broken.
fn run(seed: u64) -> (u64, world::Stats) {
    dice::simulated::seed(Some(seed));
    let mut world = World::new(seed);
    let steps_left = world.dice.random_range(STEPS);
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let world = Arc::new(Mutex::new(world));
    let mut simulation =
        Simulation { disk: Disk::default(), world: Arc::clone(&world), now, steps_left, requests: 0 };
    loop {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        let end = runtime.block_on(simulation.live());
        let mut world = world.lock().unwrap();
        world.note(end);
        simulation.disk = match end {
            LifeEnd::Crash => {
                world.stats.crashes += 1;
                simulation.disk.crashed(&mut world.dice)
            }
            LifeEnd::Stop => simulation.disk.closed(),
            LifeEnd::Done => break,
        };
        drop(world);
        drop(runtime);
        simulation.world().end_life();
    }
    dice::simulated::seed(None);
    clock::simulated::set(None);
    let world = world.lock().unwrap();
    (world.digest(), world.stats)
}

impl Simulation {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Runs the service until it crashes, stops, or has nothing left to do.
    async fn live(&mut self) -> LifeEnd {
        clock::simulated::set(Some(self.now));
        let mut life = Life::begin(self.disk.clone(), Arc::clone(&self.world)).await;
        let end = loop {
            if self.steps_left == 0 {
                life.finish().await;
                break LifeEnd::Done;
            }
            self.steps_left -= 1;
            if let Some(end) = self.step(&mut life).await {
                break end;
            }
            if self.steps_left.is_multiple_of(READ_EVERY) {
                life.read_log().await;
            }
            life.check();
        };
        if end == LifeEnd::Stop {
            life.stop().await;
        }
        self.now = clock::now();
        end
    }

    async fn step(&mut self, life: &mut Life) -> Option<LifeEnd> {
        let (luck, few) = {
            let mut world = self.world();
            (world.dice.random_range(0..100), world.dice.random_range(1..5))
        };
        self.world().note(luck);
        self.world().tell(|| format!("{} step {luck} {few}", clock::now()));
        match luck {
            0..30 => {
                settle().await;
                life.commit();
            }
            30..42 => life.commit(),
            42..60 => {
                self.requests += 1;
                life.send(self.requests, few);
            }
            60..68 => life.change_a_subscription(),
            68..78 => {
                let millis = self.world().dice.random_range(1..40_000);
                tokio::time::sleep(Duration::from_millis(millis)).await;
            }
            78..84 => {
                for _ in 0..few {
                    tokio::task::yield_now().await;
                }
            }
            84..87 => {
                let seconds = self.world().dice.random_range(-3_600..3_600);
                clock::simulated::set(Some(clock::now() + SignedDuration::from_secs(seconds)));
            }
            87..91 => {
                let good = self.world().chance(0.5).then(|| u32::try_from(few).unwrap() * 3);
                life.disk.fail_after(good);
            }
            91..94 => {
                let mut world = self.world();
                world.mood = [Mood::Mixed, Mood::Bad, Mood::Good][world.dice.random_range(0..3)];
            }
            94..96 => {
                let fails = self.world().chance(0.5);
                let fault = || Fault::Fails(Error::Unavailable { reason: "a fault".to_owned() });
                life.store
                    .faults
                    .follow(move |method, _| (fails && ["ready", "settle"].contains(&method)).then(fault));
            }
            96..99 => return Some(LifeEnd::Crash),
            _ => return Some(LifeEnd::Stop),
        }
        None
    }
}

/// Lets all tasks run until each waits for something: time goes on only then.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

impl Life {
    async fn begin(disk: Disk, world: Arc<Mutex<World>>) -> Self {
        let (store, writer) = Store::simulated(disk.clone(), Options::default()).unwrap();
        let store = Arc::new(store);
        let directory = Arc::new(Directory::open(Arc::clone(&store), Vec::new()).await.unwrap());
        let (stop, tasks) = (store.alarm().stop_token(), TaskTracker::new());
        let targets = Arc::new(Targets {
            store: Arc::clone(&store),
            directory: Arc::clone(&directory),
            slots: Slots::new(4, SLICE, tasks.clone()),
            schedule: "2s, 30s, 5m".parse::<RetrySchedule>().unwrap(),
            world: Arc::clone(&world),
        });
        let gains = *store.share().changed().borrow();
        let workers = Workers::start("the workers", Arc::clone(&store), targets, gains, stop, tasks);
        let intake =
            Intake::new(Arc::clone(&store), Arc::clone(&directory), workers.mailboxes(), usize::MAX / 2);
        let outside = TaskTracker::new();
        let life = Self { disk, world, store, writer, directory, intake, workers, outside };
        let known: Vec<_> = life.world().subscriptions.keys().copied().collect();
        for id in known {
            let is_active = life.is_active(id);
            life.world().found(id, is_active);
        }
        life.read_log().await;
        life.check();
        life
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    fn is_active(&self, id: SubscriptionId) -> bool {
        self.directory.get(id).is_some_and(|found| found.is_active())
    }

    fn commit(&mut self) {
        self.writer.step();
    }

    /// Sends events of one kind in a request.
    fn send(&self, request: u64, count: usize) {
        let (intake, world) = (self.intake.clone(), Arc::clone(&self.world));
        let (kind, known) = {
            let mut world = self.world();
            let names = (0..count).map(|place| format!("{request}-{place}")).collect();
            (world.dice.random_range(0..KINDS), world.begin_request(request, names))
        };
        let event = |place| {
            let json = serde_json::json!({
                "specversion": "1.0", "id": format!("{request}-{place}"), "source": "/s", "type": "t",
                "data": {format!("kind{kind}"): 1},
            });
            Event::from_json(json.to_string()).unwrap()
        };
        let events: Vec<_> = (0..count).map(event).collect();
        self.outside.spawn(async move {
            let accepted = intake.accept(events, "ann").await;
            let mut world = world.lock().unwrap();
            match accepted {
                Ok(ids) => world.acknowledge(request, kind, &ids, known),
                Err(_) => world.stats.refused += 1,
            }
        });
    }

    /// Creates, disables, enables or deletes a subscription.
    fn change_a_subscription(&self) {
        let (directory, world) = (Arc::clone(&self.directory), Arc::clone(&self.world));
        let mut guard = self.world();
        let count = guard.subscriptions.len();
        let place = guard.dice.random_range(0..SUBSCRIPTIONS_MAX);
        if place >= count {
            let (id, kind) = (SubscriptionId::from_uuid(Uuid::from_u128(guard.dice.random())), place % KINDS);
            guard.begin_change(id, kind);
            let target = "http://localhost/".parse().unwrap();
            let filter = format!("$.data.kind{kind}");
            let new = Subscription {
                id,
                ..Subscription::new("ann".into(), "all".into(), filter, target, clock::now())
            };
            self.outside.spawn(async move {
                let created = directory.create(new).await;
                let change = if created.is_ok() { Change::Written(true) } else { Change::Failed };
                world.lock().unwrap().end_change(id, change);
            });
            return;
        }
        let (&id, model) = guard.subscriptions.iter().nth(place).unwrap();
        let (kind, choice) = (model.kind, guard.dice.random_range(0..10));
        guard.begin_change(id, kind);
        self.outside.spawn(async move {
            let now = clock::now();
            let changed = directory.change(id, |current| {
                let current = current.clone();
                Some(match choice {
                    0 => Subscription { deleted: Some(now), ..current },
                    1..4 => {
                        let activity = Activity::Disabled { since: now, error: None };
                        Subscription { activity, updated: now, ..current }
                    }
                    _ => Subscription { activity: Activity::Enabled, updated: now, ..current },
                })
            });
            let change = match changed.await {
                Ok(Some(changed)) => Change::Written(changed.subscription.is_active()),
                Ok(None) => Change::Declined(directory.get(id).is_some_and(|found| found.is_active())),
                Err(_) => Change::Failed,
            };
            world.lock().unwrap().end_change(id, change);
        });
    }

    async fn stories(&self) -> Vec<EventHistory> {
        self.store.histories(ALL).await.unwrap()
    }

    async fn read_log(&self) {
        if let Ok(stories) = self.store.histories(ALL).await {
            self.world().observe(&stories);
        }
    }

    /// Holds the service to its promises.
    fn check(&self) {
        if let Some(dead) = self.store.alarm().dead() {
            self.world().fail(dead.to_string());
        }
        let broken = self.world().broken().map(str::to_owned);
        if let Some(broken) = broken {
            panic!("a promise is broken: {broken}");
        }
    }

    /// Mends everything; then every delivery of an active subscription must end.
    async fn finish(&mut self) {
        self.disk.fail_after(None);
        self.store.faults.follow(|_, _| None);
        self.world().mood = Mood::Good;
        self.outside.close();
        for look in 0.. {
            settle().await;
            while self.writer.step() > 0 {
                settle().await;
            }
            self.read_log().await;
            self.check();
            let open = self.open().await;
            if self.outside.is_empty() && open.is_empty() {
                break;
            }
            assert!(look < LOOKS_MAX, "{} requests are not answered, not over: {open:?}", self.outside.len());
            tokio::time::sleep(LOOK).await;
        }
        self.check_counts().await;
    }

    /// Returns the deliveries of active subscriptions that have not ended.
    async fn open(&self) -> Vec<String> {
        let mut open = Vec::new();
        for story in self.stories().await {
            for delivery in &story.deliveries {
                if !is_final(&delivery.state) && self.is_active(delivery.recipient.subscription_id()) {
                    open.push(format!("{} for {}: {:?}", story.event.id, delivery.recipient, delivery.state));
                }
            }
        }
        open
    }

    async fn check_counts(&self) {
        let mut found: BTreeMap<_, [u64; StoredState::ALL.len()]> = BTreeMap::new();
        for delivery in self.stories().await.iter().flat_map(|story| &story.deliveries) {
            found.entry(delivery.recipient).or_default()[stored(&delivery.state) as usize] += 1;
        }
        for (recipient, found) in found {
            let counts = self.store.counts(recipient).await.unwrap();
            assert_eq!(StoredState::ALL.map(|state| counts.of(state)), found, "of {recipient}");
        }
    }

    /// Stops the service in order.
    async fn stop(self) {
        let Self { workers, mut writer, .. } = self;
        let stopping = workers.stop(Duration::from_secs(10));
        tokio::pin!(stopping);
        loop {
            tokio::select! {
                biased;
                () = &mut stopping => break,
                () = settle() => drop(writer.step()),
            }
        }
        writer.step();
    }
}

fn stored(state: &State) -> StoredState {
    match state {
        State::Pending | State::Delivering => StoredState::Pending,
        State::Retrying { .. } => StoredState::Retrying,
        State::Held { .. } => StoredState::Held,
        State::Delivered { .. } => StoredState::Delivered,
        State::Denied { .. } => StoredState::Denied,
        State::Skipped { .. } => StoredState::Skipped,
        State::Dead { .. } => StoredState::Dead,
    }
}

fn seeds() -> std::ops::Range<u64> {
    let wanted = std::env::var("WAYPOST_SIMULATIONS").unwrap_or_else(|_| "300".to_owned());
    let number =
        |text: &str| text.parse().expect("WAYPOST_SIMULATIONS is a number, or a range such as 17..18");
    match wanted.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => 0..number(&wanted),
    }
}

#[test]
fn the_promises_hold_whatever_happens() {
    let mut all = world::Stats::default();
    for seed in seeds() {
        let run = std::panic::catch_unwind(|| run(seed));
        let (_, stats) =
            run.unwrap_or_else(|_| panic!("seed {seed}: WAYPOST_SIMULATIONS={seed}..{}", seed + 1));
        all.add(stats);
    }
    println!("{all:?}");
    // A simulation in which nothing happens holds any promise.
    let seeds = seeds().count() as u64;
    if seeds >= 100 {
        assert!(all.accepted > 10 * seeds && all.attempts > 5 * seeds && all.ended > 5 * seeds, "{all:?}");
        assert!(all.refused > seeds / 10 && all.crashes > seeds / 2, "{all:?}");
    }
}

#[test]
fn a_seed_gives_the_same_run_again() {
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}
