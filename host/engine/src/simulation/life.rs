//! One life of the simulated service: from its start to a crash, a stop, or the end of the run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rand::RngExt as _;
use tokio_util::task::TaskTracker;

use super::targets::{Targets, is_stopped};
use super::world::{Change, Mood, World, is_final};
use crate::delivery;
use crate::directory::Directory;
use crate::intake::Intake;
use crate::worker::{SLICE, Slots, Workers};
use waypost_domain::{
    Activity, Event, OnDead, Order, OrderBy, RecipientId, RetrySchedule, State, Subscription, SubscriptionId,
};
use waypost_runtime::clock;
use waypost_store::redb::{Disk, Options, Stepper};
use waypost_store::{EventHistory, LoggedEvent, Range, Store, StoredState};

/// How many kinds of events there are; a subscription is for one of them.
const KINDS: usize = 3;
const SUBSCRIPTIONS_MAX: usize = 5;
/// How often the mended service is looked at until everything must have ended. The wall clock may have jumped back by days.
const LOOK: Duration = Duration::from_secs(5 * 60);
const LOOKS_MAX: u32 = 3_000;
pub(super) const ALL: Range = Range { before: None, since: None, until: None, limit: usize::MAX };

/// A service that runs.
pub(super) struct Life {
    pub(super) disk: Disk,
    world: Arc<Mutex<World>>,
    pub(super) store: Arc<Store>,
    writer: Stepper,
    directory: Arc<Directory>,
    intake: Intake,
    workers: Workers<Targets>,
    /// What the outside does: it does not end with the service's tasks.
    outside: TaskTracker,
}

/// Lets all tasks run until each waits for something: time goes on only then.
pub(super) async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

impl Life {
    pub(super) async fn begin(disk: Disk, world: Arc<Mutex<World>>) -> Self {
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
        let (stages, mailboxes) = ((Arc::clone(&store), Arc::clone(&directory)), workers.mailboxes());
        let intake = Intake::new(stages.0, stages.1, mailboxes, usize::MAX / 2, u64::MAX);
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

    pub(super) fn commit(&mut self) {
        self.writer.step();
    }

    /// Sends events of one kind in a request.
    pub(super) fn send(&self, request: u64, count: usize) {
        let (intake, world) = (self.intake.clone(), Arc::clone(&self.world));
        let (kind, known) = {
            let mut world = self.world();
            let names = (0..count).map(|place| format!("{request}-{place}")).collect();
            (world.dice.random_range(0..KINDS), world.begin_request(request, names))
        };
        let event = |place| {
            let json = serde_json::json!({
                "specversion": "1.0", "id": format!("{request}-{place}"), "source": "/s", "type": "t",
                "data": {format!("kind{kind}"): 1, "lane": (request + place as u64) % 2},
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
    pub(super) fn change_a_subscription(&self) {
        let (directory, world) = (Arc::clone(&self.directory), Arc::clone(&self.world));
        let mut guard = self.world();
        let count = guard.subscriptions.len();
        let place = guard.dice.random_range(0..SUBSCRIPTIONS_MAX);
        if place >= count {
            let id = uuid::Builder::from_random_bytes(guard.dice.random()).into_uuid();
            let (id, kind) = (SubscriptionId::from_uuid(id), place % KINDS);
            guard.begin_change(id, kind);
            let target = "http://localhost/".parse().unwrap();
            let filter = format!("$.data.kind{kind}");
            let new = Subscription {
                id,
                order: order(guard.dice.random_range(0..ORDERS)),
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
        let other = order(guard.dice.random_range(0..ORDERS));
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
                    4 => Subscription { order: other.clone(), updated: now, ..current },
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

    async fn histories(&self) -> Vec<EventHistory> {
        self.store.histories(ALL).await.unwrap()
    }

    pub(super) async fn read_log(&self) {
        if let Ok(histories) = self.store.histories(ALL).await {
            self.world().observe(&histories);
        }
    }

    /// Holds the service to its promises.
    pub(super) fn check(&self) {
        if let Some(dead) = self.store.alarm().dead() {
            self.world().fail(dead.to_string());
        }
        let broken = self.world().broken().map(str::to_owned);
        if let Some(broken) = broken {
            panic!("a promise is broken: {broken}");
        }
    }

    /// Mends everything; then every delivery of an active subscription must end.
    pub(super) async fn finish(&mut self) {
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

    /// Returns the deliveries of active subscriptions that have not ended, apart from those that a dead letter stops.
    async fn open(&self) -> Vec<String> {
        let (mut open, histories) = (Vec::new(), self.histories().await);
        let is_stopped = |event: &LoggedEvent, recipient: RecipientId| {
            let subscription = self.directory.get(recipient.subscription_id());
            let order = subscription.and_then(|subscription| delivery::order(&subscription));
            order.is_some_and(|order| is_stopped(&histories, recipient, event, &order))
        };
        for history in &histories {
            for delivery in &history.deliveries {
                if !is_final(&delivery.state)
                    && self.is_active(delivery.recipient.subscription_id())
                    && !is_stopped(&history.event, delivery.recipient)
                {
                    open.push(format!(
                        "{} for {}: {:?}",
                        history.event.id, delivery.recipient, delivery.state
                    ));
                }
            }
        }
        open
    }

    async fn check_counts(&self) {
        let mut found: BTreeMap<_, [u64; StoredState::ALL.len()]> = BTreeMap::new();
        for delivery in self.histories().await.iter().flat_map(|history| &history.deliveries) {
            found.entry(delivery.recipient).or_default()[stored(&delivery.state) as usize] += 1;
        }
        for (recipient, found) in found {
            let counts = self.store.counts(recipient).await.unwrap();
            assert_eq!(StoredState::ALL.map(|state| counts.of(state)), found, "of {recipient}");
        }
    }

    /// Stops the service in order.
    pub(super) async fn stop(self) {
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

/// How many orders a subscription may have.
const ORDERS: usize = 4;

fn order(choice: usize) -> Option<Order> {
    let by = match choice {
        0 => return None,
        1 => OrderBy::Fifo,
        _ => OrderBy::Key("$.data.lane".to_owned()),
    };
    Some(Order { by, on_dead: if choice == 2 { OnDead::Stop } else { OnDead::Continue } })
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
