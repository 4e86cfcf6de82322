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

mod life;
mod targets;
mod world;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::RngExt as _;

use self::life::{Life, settle};
use self::world::{Mood, World};
use waypost_runtime::clock;
use waypost_runtime::dice;
use waypost_store::Error;
use waypost_store::faulty::Fault;
use waypost_store::redb::Disk;

/// How many steps a run has before everything is mended.
const STEPS: std::ops::Range<u32> = 10..90;
/// After how many steps the whole log is read.
const READ_EVERY: u32 = 8;
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
                // A clock that is set, or, less often, one that was a day off.
                let most = if self.world().chance(0.1) { 86_400 } else { 3_600 };
                let seconds = self.world().dice.random_range(-most..most);
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
