//! Replays the log into subscriptions, one page at a time ([`crate::walks`]).
//!
//! A step reads a page of the log, tries the subscription's present filter, and hands the matches to the store. The
//! store adds the missing deliveries and the progress in one transaction, so no delivery is added twice. Workers then
//! deliver them as usual, policy included.
//!
//! No event is missed between live matching and the scan. The end of the scan is set once the subscription is in the
//! store: each event behind it in the log was matched with it ([`Store::accept`](waypost_store::Store::accept)). It is set
//! again whenever the subscription changes, because the subscription may have been disabled. Events before the end that
//! were matched live already have their delivery, which the store sees.
//!
//! A recovery waits while its subscription is disabled, and while its deliveries wait for the target. `http` starts and
//! cancels recoveries.

mod page;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;

use crate::directory::{self, CompiledSubscription, Directory};
use crate::walks::{Scheduled, Turn, WAITING_MAX, Wait, Walker, Walks, lock};
use waypost_domain::recovery::State;
use waypost_domain::{
    Action, Actor, AuditEntry, EventId, OnDead, Order, Recovery, Subscription, SubscriptionId,
};
use waypost_runtime::clock;
use waypost_store::{self as store, Backlog, Forward, Step, Store};

/// The least and the most events of a page, which otherwise has the events of a second, and the most bytes.
const PAGE_EVENTS_MIN: usize = 16;
const PAGE_EVENTS_MAX: usize = 256;
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// The recoveries: a handle on their task.
pub struct Recoveries(Walks<Log>);

/// What recoveries do.
struct Log {
    store: Arc<Store>,
    directory: Arc<Directory>,
    /// How many events a page has at most.
    page_events: usize,
    /// The time of each subscription's last change when the end of its scan was set.
    fixed_for: Mutex<HashMap<SubscriptionId, Timestamp>>,
}

impl Scheduled for Recovery {
    type Key = SubscriptionId;

    fn key(&self) -> SubscriptionId {
        self.subscription
    }

    fn is_running(&self) -> bool {
        self.is_running()
    }
}

impl Recoveries {
    /// Continues the recoveries that were running, reading `rate` events a second.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(
        store: Arc<Store>,
        directory: Arc<Directory>,
        rate: u32,
    ) -> Result<Self, store::Error> {
        let page_events = usize::try_from(rate).unwrap_or(usize::MAX).clamp(PAGE_EVENTS_MIN, PAGE_EVENTS_MAX);
        let log = Log { store, directory, page_events, fixed_for: Mutex::default() };
        Walks::start(log, rate).await.map(Self)
    }

    /// Creates a subscription with a recovery from the start; both are kept, or neither. Dropping the future is as for
    /// [`Directory::create`].
    ///
    /// # Errors
    /// When the filter does not parse or the store cannot write.
    pub async fn create(
        &self,
        subscription: Subscription,
        recovery: Recovery,
        by: &Actor,
    ) -> Result<CompiledSubscription, directory::Error> {
        let (directory, by) = (Arc::clone(&self.0.walker().directory), by.clone());
        let creating = async move {
            let created = directory.by(&by).create(subscription, Some(recovery.clone())).await?;
            Ok((created, Some(recovery)))
        };
        let created = self.0.begin(creating).await;
        created.unwrap_or(Err(directory::Error::Store(store::Error::Closed)))
    }

    /// Begins a recovery; returns `false` when another one of the subscription runs. Dropping the future does not undo
    /// it.
    ///
    /// # Errors
    /// When the store cannot write.
    pub async fn begin(&self, recovery: Recovery, by: &Actor) -> Result<bool, store::Error> {
        let store = Arc::clone(self.0.walker().store());
        let note = AuditEntry::new(Action::RecoveryBegin, recovery.subscription, by, recovery.asked);
        let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
        let note = note.with("since", time(recovery.since)).with("until", time(recovery.until));
        let beginning = async move {
            let is_new = store.begin_recovery(recovery.clone(), Some(note)).await?;
            Ok((is_new, is_new.then_some(recovery)))
        };
        self.0.begin(beginning).await.unwrap_or(Err(store::Error::Closed))
    }

    /// Returns a subscription's running or last recovery, and why it does not advance, if so.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn find(&self, id: SubscriptionId) -> Result<Option<(Recovery, Option<Wait>)>, store::Error> {
        let found = self.0.walker().store.recovery(id).await?;
        Ok(found.map(|recovery| {
            let wait = self.0.wait(&recovery);
            (recovery, wait)
        }))
    }

    /// Ends a subscription's recovery if it runs, and returns the last one in its new state. The deliveries that it has
    /// created stay.
    ///
    /// # Errors
    /// When the store cannot be read or write.
    pub async fn cancel(
        &self,
        id: SubscriptionId,
        at: Timestamp,
        by: &Actor,
    ) -> Result<Option<Recovery>, store::Error> {
        let Some(recovery) = self.0.walker().store.recovery(id).await? else { return Ok(None) };
        if recovery.is_running() {
            let end = Step::End(State::Cancelled { at });
            let note = Some(AuditEntry::new(Action::RecoveryCancel, id, by, at));
            if let Some(ended) = self.0.walker().store.recover(id, recovery.asked, end, at, note).await? {
                self.0.tell(ended.clone());
                return Ok(Some(ended));
            }
        }
        self.0.walker().store.recovery(id).await
    }

    /// Stops. The next start continues.
    pub async fn stop(&self) {
        self.0.stop().await;
    }
}

impl Walker for Log {
    type Walk = Recovery;
    const STAGE: &str = "the replaying of the log";
    const NAME: &str = "recovery";

    fn store(&self) -> &Arc<Store> {
        &self.store
    }

    fn subscription(recovery: &Recovery) -> SubscriptionId {
        recovery.subscription
    }

    async fn running(&self) -> Result<Vec<Recovery>, store::Error> {
        self.store.running_recoveries().await
    }

    async fn turn(&self, recovery: &Recovery) -> Result<Turn<Recovery>, store::Error> {
        let Some(subscription) = self.directory.get(recovery.subscription) else {
            return self.end(recovery, State::Cancelled { at: clock::now() }).await;
        };
        if !subscription.is_active() && subscription.deleted.is_none() {
            return Ok(Turn::disabled(recovery));
        }
        // The subscription was changed since. It may have been disabled for a while, and events of that time were not
        // matched live.
        let fixed_for = lock(&self.fixed_for).get(&recovery.subscription).copied();
        let Some(end) = recovery.end.filter(|_| fixed_for == Some(subscription.updated)) else {
            let begun = self.step(recovery, Step::Begin, 0).await?;
            lock(&self.fixed_for).insert(recovery.subscription, subscription.updated);
            return Ok(begun);
        };
        if let Some(wait) = Turn::behind(recovery, self.backlog(recovery, &subscription).await?) {
            return Ok(wait);
        }
        let page = self.store.forward(self.page(recovery, end.event)).await?;
        match page::look(recovery, &subscription, &self.directory, page).await {
            // The scan passes events around its time range that it was not asked for; they need no write.
            Ok(Some(scan)) if scan.events == 0 && scan.last.event < end.event => {
                Ok(Turn::More(Recovery { position: Some(scan.last), ..recovery.clone() }, 0))
            }
            Ok(Some(scan)) => {
                let events = scan.events;
                self.step(recovery, Step::Advance(scan), events).await
            }
            Ok(None) => self.end(recovery, State::Done { at: clock::now() }).await,
            Err(error) => {
                let reason = error.to_string();
                self.end(recovery, State::Failed { at: clock::now(), reason }).await
            }
        }
    }

    async fn end(&self, recovery: &Recovery, state: State) -> Result<Turn<Recovery>, store::Error> {
        self.step(recovery, Step::End(state), 0).await
    }

    fn forget(&self, id: SubscriptionId) {
        lock(&self.fixed_for).remove(&id);
    }
}

impl Log {
    /// Counts what a recovery waits for. Where deliveries have an order, those behind its position wait for the recovery, and
    /// those behind a dead letter for somebody.
    async fn backlog(
        &self,
        recovery: &Recovery,
        subscription: &Subscription,
    ) -> Result<Backlog, store::Error> {
        let (recipient, now) = (recovery.subscription.into(), clock::now());
        match &subscription.order {
            None => self.store.backlog(recipient, now, WAITING_MAX).await,
            Some(Order { on_dead: OnDead::Stop, .. }) => Ok(Backlog::default()),
            Some(_) => {
                let until = recovery.position.map_or(EventId::NIL, |mark| mark.event);
                self.store.backlog_until(recipient, until, now, WAITING_MAX).await
            }
        }
    }

    fn page(&self, recovery: &Recovery, last: EventId) -> Forward {
        Forward {
            after: recovery.position.map(|mark| mark.event),
            last,
            since: recovery.since,
            until: recovery.until,
            events: self.page_events,
            bytes: PAGE_BYTES,
        }
    }

    async fn step(
        &self,
        recovery: &Recovery,
        step: Step,
        events: u64,
    ) -> Result<Turn<Recovery>, store::Error> {
        let id = recovery.subscription;
        let Some(next) = self.store.recover(id, recovery.asked, step, clock::now(), None).await? else {
            return Ok(Turn::Over);
        };
        if next.is_running() {
            return Ok(Turn::More(next, events));
        }
        let (state, looked_at, created) = (next.state.name(), next.looked_at, next.created);
        tracing::info!(subscription = %id, state, looked_at, created, "a recovery has ended");
        Ok(Turn::Over)
    }
}
