//! The pending deliveries of a recipient whose deliveries have an order, as far as its worker has read them.
//!
//! The store is read in the order of acceptance, from the oldest delivery on, and [`Lanes`] say which of what was read may
//! be attempted. It is read only as far as the window needs; past the newest, what is accepted comes from memory.
//!
//! Where somebody sends older deliveries again, or a recovery adds some, everything is read from the beginning, but at most
//! a tenth of the time: what is known of deliveries that wait may be large. What is newer than a running recovery is not
//! read until that is over, and everything older has been.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::CompiledOrder;
use super::backlog::ReadPause;
use super::lanes::{HeadEnd, Lanes, Offer};
use waypost_domain::{EventId, RecipientId};
use waypost_runtime::clock;
use waypost_store::{
    Error, LetterPlace, OrderedPage, OrderedQuery, PageEnd, PendingDelivery, ReadyPage, ReadyQuery, Store,
    Wake,
};

/// How many rows a page has that looks for deliveries of other lanes, and where there is one lane.
const ROWS: usize = 256;
const ROWS_OF_ONE: usize = 16;
/// How many dead letters are read at once. All are, before anything else: each may stop a lane.
const DEAD_LETTERS: usize = if cfg!(test) { 2 } else { 1_024 };
/// How many known deliveries keep a worker that has nothing to do: the next one would have to read them again.
const KEPT_MIN: usize = 1_024;
/// How many times as long as reading took it is not read from the beginning again, and how long at most.
const RESTART_FACTOR: u32 = 9;
const RESTART_MAX: Duration = Duration::from_secs(30);
/// How long a worker is gone at most while a dead letter stops a lane: it may be purged.
const STOPPED_MAX: SignedDuration = SignedDuration::from_secs(30);
/// How long to wait after the end of an attempt could not be recorded.
const UNRECORDED_PAUSE: SignedDuration = SignedDuration::from_secs(1);

/// The pending deliveries of one recipient, in their order.
pub(super) struct OrderedBacklog {
    store: Arc<Store>,
    id: RecipientId,
    order: CompiledOrder,
    lanes: Lanes,
    /// Heads of lanes that were read and not attempted yet.
    pub(super) waiting: VecDeque<PendingDelivery>,
    /// How far deliveries have been read.
    read_to: EventId,
    /// Whether the store may hold some behind that, and whether these are only what is accepted from now on.
    unread: bool,
    is_newest: bool,
    /// Whether a recovery was running when it was read last.
    is_barred: bool,
    /// Which dead letters are to be read, and whether everything is.
    dead_letters: DeadLetters,
    wants_restart: bool,
    /// When it was read from the beginning last, and how long the reads have taken since.
    begun: Instant,
    took: Duration,
    /// Whether the head that is due next may be attempted before its time, and which one that is.
    early: bool,
    early_head: Option<EventId>,
    /// When the next head is due.
    pub(super) next_due: Option<Timestamp>,
    reading: Option<PageRead>,
    /// Those whose end was recorded after the current read began: the page may still contain them.
    recorded: HashSet<EventId>,
    pause: ReadPause,
}

/// Which dead letters are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeadLetters {
    /// None: all that stop a lane are known.
    Known,
    /// All, or those after this one.
    From(Option<LetterPlace>),
}

impl DeadLetters {
    fn of(order: &CompiledOrder) -> Self {
        if order.stops() { Self::From(None) } else { Self::Known }
    }
}

/// A page that is being read.
struct PageRead {
    query: Query,
    since: Instant,
    page: BoxFuture<'static, Result<Page, Error>>,
}

#[derive(Clone)]
enum Query {
    /// In the order of acceptance.
    InOrder(OrderedQuery),
    /// What was accepted last.
    Newest(ReadyQuery),
}

/// A page with the lanes of what follows and of dead letters.
struct Page {
    page: OrderedPage,
    lanes: Vec<u64>,
    stopped: Vec<u64>,
    /// Whether there may be more of what was accepted last.
    more: bool,
}

impl Query {
    async fn read(self, store: Arc<Store>, order: CompiledOrder) -> Result<Page, Error> {
        let (page, more) = match self {
            Self::InOrder(query) => (store.in_order(query).await?, false),
            Self::Newest(query) => {
                let ReadyPage { first_attempts: following, read_to, .. } = store.ready(query).await?;
                let more = following.len() >= query.first_attempts;
                let (end, is_recovering) = (PageEnd::Newest, false);
                (OrderedPage { following, read_to, end, is_recovering, ..OrderedPage::empty(read_to) }, more)
            }
        };
        let lanes = page.following.iter().map(|pending| order.lane(&pending.event)).collect();
        let stopped = page.dead_letters.iter().map(|event| order.lane(event)).collect();
        Ok(Page { page, lanes, stopped, more })
    }
}

impl OrderedBacklog {
    pub(super) fn new(store: Arc<Store>, id: RecipientId, order: CompiledOrder) -> Self {
        Self {
            store,
            id,
            lanes: Lanes::new(order.on_dead),
            dead_letters: DeadLetters::of(&order),
            order,
            waiting: VecDeque::new(),
            read_to: EventId::NIL,
            unread: true,
            is_newest: false,
            is_barred: false,
            wants_restart: false,
            begun: Instant::now(),
            took: Duration::ZERO,
            early: false,
            early_head: None,
            next_due: None,
            reading: None,
            recorded: HashSet::new(),
            pause: ReadPause::default(),
        }
    }

    /// Reads pages until there are as many heads as a page has, or one is not available at once, if there is something to
    /// read and no pause after a failure.
    pub(super) fn begin(&mut self, page: usize) {
        while self.reading.is_none() && self.pause().is_none() && self.waiting.len() < page {
            if self.wants_restart && self.begun.elapsed() >= (RESTART_FACTOR * self.took).min(RESTART_MAX) {
                self.restart();
            }
            let Some(query) = self.query(page) else { break };
            let reading = query.clone().read(Arc::clone(&self.store), self.order.clone());
            self.reading = Some(PageRead { query, since: Instant::now(), page: Box::pin(reading) });
            if self.page(page).now_or_never().is_none() {
                break;
            }
        }
    }

    /// Returns what is to be read next: dead letters, then heads whose turn has come, and what follows if those are not enough.
    fn query(&mut self, page: usize) -> Option<Query> {
        if let DeadLetters::From(after) = self.dead_letters {
            self.dead_letters = DeadLetters::Known;
            let most = if self.order.has_one_lane() { 1 } else { DEAD_LETTERS };
            return Some(Query::InOrder(OrderedQuery {
                dead_letters: most,
                dead_letters_after: after,
                ..self.in_order(Vec::new(), 0)
            }));
        }
        if self.early {
            // A worker that has just begun knows no head yet.
            self.early_head = self.lanes.rouse_next();
            self.early = self.early_head.is_none() && self.unread && self.waiting.is_empty();
        }
        let room = page.saturating_sub(self.waiting.len());
        let events = self.lanes.take_ready(room, clock::now());
        if events.len() < room
            && let Some(cut) = self.lanes.take_cut()
        {
            // A walk from further back comes to it.
            self.read_to = self.read_to.min(cut.before());
            (self.unread, self.is_newest) = (true, false);
        }
        let looks = self.unread && events.len() < room && self.may_look();
        if looks && self.is_newest && events.is_empty() {
            self.unread = false;
            let (after, now) = (self.read_to, clock::now());
            let recipient = self.id;
            return Some(Query::Newest(ReadyQuery { recipient, after, first_attempts: room, now, due: 0 }));
        }
        let looks = looks && !self.is_newest;
        if events.is_empty() && !looks {
            return None;
        }
        self.unread &= !looks;
        let rows = match self.order.has_one_lane() {
            _ if !looks => 0,
            true => ROWS_OF_ONE,
            false => ROWS,
        };
        Some(Query::InOrder(self.in_order(events, rows)))
    }

    fn in_order(&self, events: Vec<EventId>, rows: usize) -> OrderedQuery {
        let (recipient, after) = (self.id, self.read_to);
        OrderedQuery { recipient, events, after, rows, dead_letters: 0, dead_letters_after: None }
    }

    /// Tells whether more may be looked for: of one lane, only its head matters.
    fn may_look(&self) -> bool {
        if self.order.has_one_lane() { self.lanes.is_idle() } else { self.lanes.has_room() }
    }

    pub(super) fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// Returns the end of the pause after a failed read.
    pub(super) fn pause(&self) -> Option<Instant> {
        self.pause.end()
    }

    /// Waits for the page that is being read, and takes heads from it until `most` wait. Cancel safe.
    pub(super) async fn page(&mut self, most: usize) {
        let Some(reading) = &mut self.reading else { return std::future::pending().await };
        let answer = (&mut reading.page).await;
        let Some(PageRead { query, since, .. }) = self.reading.take() else { return };
        let recorded = std::mem::take(&mut self.recorded);
        match answer {
            Ok(page) => {
                self.pause.over();
                self.took += since.elapsed();
                self.take(query, page, &recorded, most);
            }
            Err(error) => {
                self.ask_again(&query);
                self.pause.begin(self.id, &error);
            }
        }
        self.next_due = self.lanes.next_due();
    }

    fn take(&mut self, query: Query, page: Page, recorded: &HashSet<EventId>, most: usize) {
        let Page { page, lanes, stopped, more } = page;
        let now = clock::now();
        for (event, lane) in page.dead_letters.iter().zip(stopped) {
            self.lanes.stop(event.id, lane);
        }
        if let Some(last) = page.more_dead_letters
            && !self.order.has_one_lane()
            && self.lanes.has_room()
        {
            self.dead_letters = DeadLetters::From(Some(last));
        }
        let looked = match query {
            Query::InOrder(query) => {
                self.take_heads(&query.events, page.asked, now);
                query.rows > 0
            }
            // A recovery has begun meanwhile: this may be newer than what it adds.
            Query::Newest(_) if !self.is_newest => return self.unread = true,
            Query::Newest(_) => true,
        };
        if looked && self.is_barred && !page.is_recovering {
            // The recovery is over: what it has added comes before what follows here.
            return self.restart();
        }
        for (pending, lane) in page.following.into_iter().zip(lanes) {
            let (event, room) = (pending.event.id, self.waiting.len() < most);
            if !recorded.contains(&event)
                && self.lanes.offer(event, lane, pending.position.due, now, room) == Offer::Take
            {
                self.waiting.push_back(pending);
            }
        }
        if looked {
            self.read_to = page.read_to;
            self.is_newest = page.end == PageEnd::Newest;
            self.is_barred = page.is_recovering;
            self.unread |= more || page.end == PageEnd::More;
        }
    }

    /// Takes the heads that were asked for: those that are not pending any more make room for the next.
    fn take_heads(&mut self, asked: &[EventId], found: Vec<PendingDelivery>, now: Timestamp) {
        let mut found = found.into_iter().peekable();
        for event in asked {
            let Some(pending) = found.next_if(|pending| pending.event.id == *event) else {
                self.lanes.end(*event, HeadEnd::Over);
                continue;
            };
            let is_early = self.early_head.take_if(|early| *early == *event).is_some();
            match pending.position.due.filter(|due| *due > now && !is_early) {
                Some(due) => self.lanes.end(*event, HeadEnd::Again(due)),
                None => self.waiting.push_back(pending),
            }
        }
    }

    /// Reads everything from the beginning, apart from what is in flight.
    pub(super) fn restart(&mut self) {
        self.stop();
        let waiting: Vec<_> = self.waiting.drain(..).map(|pending| pending.event.id).collect();
        self.lanes.put_back(&waiting);
        self.lanes.restart();
        (self.read_to, self.unread) = (EventId::NIL, true);
        (self.is_newest, self.is_barred) = (false, false);
        (self.wants_restart, self.dead_letters) = (false, DeadLetters::of(&self.order));
        (self.begun, self.took, self.next_due) = (Instant::now(), Duration::ZERO, None);
    }

    /// Stops reading.
    pub(super) fn stop(&mut self) {
        if let Some(PageRead { query, .. }) = self.reading.take() {
            self.ask_again(&query);
        }
    }

    /// Notes that a query has no answer.
    fn ask_again(&mut self, query: &Query) {
        match query {
            Query::Newest(_) => self.unread = true,
            Query::InOrder(query) => {
                self.lanes.put_back(&query.events);
                self.unread |= query.rows > 0;
                if query.dead_letters > 0 {
                    self.dead_letters = DeadLetters::From(query.dead_letters_after);
                }
            }
        }
    }

    /// Tells whether a head is due, which is read when there is room.
    pub(super) fn is_due(&self) -> bool {
        self.next_due.is_some_and(|due| due <= clock::now())
    }

    /// Tells whether nothing can be done, except what is due later, and little is known that would have to be read again.
    pub(super) fn is_over(&self) -> bool {
        let reads = self.reading.is_some()
            || self.wants_restart
            || self.dead_letters != DeadLetters::Known
            || self.unread && self.may_look();
        let waits = !self.waiting.is_empty() || self.lanes.has_ready();
        !reads && !waits && self.lanes.known() <= KEPT_MIN
    }

    /// Returns when a worker that has nothing to do is needed again, if nothing comes before.
    pub(super) fn needed_at(&self) -> Option<Timestamp> {
        let look = self.lanes.has_stopped().then(|| clock::now().checked_add(STOPPED_MAX).ok()).flatten();
        self.next_due.into_iter().chain(look).min()
    }

    /// Notes what a wake says.
    pub(super) fn receive(&mut self, wake: Wake) {
        self.early |= wake.early;
        // A recovery may have begun, which only a read in the order of acceptance sees.
        self.is_newest &= !wake.older;
        // The page that is being read may be from before what was accepted.
        self.unread |= self.is_newest || self.reading.is_some() || wake.due;
        // A dead letter that stops a lane may be gone.
        self.wants_restart |= wake.older || wake.due && self.lanes.has_stopped();
    }

    /// Notes that the store has recorded the end of an attempt.
    pub(super) fn record(&mut self, event: EventId, end: HeadEnd) {
        if self.reading.is_some() {
            self.recorded.insert(event);
        }
        self.lanes.end(event, end);
        self.next_due = self.lanes.next_due();
    }

    /// Notes that the end of an attempt could not be recorded: its row is still there.
    pub(super) fn fail_to_record(&mut self, event: EventId) {
        let again = clock::now().checked_add(UNRECORDED_PAUSE).unwrap_or(Timestamp::MAX);
        self.record(event, HeadEnd::Again(again));
    }

    /// Tells whether others wait for the end of an attempt.
    pub(super) fn is_awaited(&self, event: EventId) -> bool {
        self.order.has_one_lane() || self.lanes.is_awaited(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use waypost_domain::recovery::{Mark, ScanProgress, State};
    use waypost_domain::{Attempt, Event, OnDead, Outcome, Recovery};
    use waypost_store::{Arrival, LoggedEvent, Settlement, Step};

    const ID: RecipientId = RecipientId::MAX;

    async fn accept(store: &Store) -> EventId {
        accept_for(store, vec![ID]).await
    }

    async fn accept_for(store: &Store, matched: Vec<RecipientId>) -> EventId {
        let event = Event::from_json(r#"{"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}"#);
        let (received, sender) = (clock::now(), "ann".to_owned());
        let arrival = Arrival { event: event.unwrap(), received, sender, matched, failed: Vec::new() };
        store.log(vec![arrival]).await.unwrap()[0]
    }

    fn empty(folder: &tempfile::TempDir) -> (Arc<Store>, OrderedBacklog) {
        let store = Arc::new(Store::open(folder.path(), Duration::ZERO).unwrap());
        let order = CompiledOrder { lane: None, on_dead: OnDead::Stop };
        let backlog = OrderedBacklog::new(Arc::clone(&store), ID, order);
        (store, backlog)
    }

    /// Lets the first page be under way, and end so.
    fn ends_with(backlog: &mut OrderedBacklog, page: Result<Page, Error>) {
        let query = backlog.query(2).unwrap();
        backlog.reading =
            Some(PageRead { query, since: Instant::now(), page: Box::pin(async move { page }) });
    }

    async fn read(backlog: &mut OrderedBacklog) {
        backlog.begin(2);
        while backlog.is_reading() {
            backlog.page(2).await;
            backlog.begin(2);
        }
    }

    /// The wake was forgotten, and the event waited for the next one.
    #[tokio::test]
    async fn what_is_accepted_during_a_read_is_read_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let (store, mut backlog) = empty(&folder);
        // It is from before the event.
        let page = Page {
            page: OrderedPage { end: PageEnd::Newest, ..OrderedPage::empty(EventId::NIL) },
            lanes: Vec::new(),
            stopped: Vec::new(),
            more: false,
        };
        ends_with(&mut backlog, Ok(page));
        let event = accept(&store).await;
        backlog.receive(Wake::accepted(1));
        read(&mut backlog).await;
        assert_eq!(backlog.waiting.iter().map(|pending| pending.event.id).collect::<Vec<_>>(), [event]);
    }

    #[tokio::test]
    async fn a_failed_read_is_made_again_with_all_that_it_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let (store, mut backlog) = empty(&folder);
        accept(&store).await;
        ends_with(&mut backlog, Err(Error::Closed));
        backlog.page(2).await;
        assert!(backlog.pause().is_some() && !backlog.is_over());
        backlog.pause.cut_short();
        read(&mut backlog).await;
        assert_eq!(backlog.waiting.len(), 1);
        assert!(backlog.dead_letters == DeadLetters::Known && !backlog.is_over());
    }

    /// What came while a replay was about to begin was delivered before what that added: reading from the beginning had to
    /// wait, since that had just been done.
    #[tokio::test]
    async fn what_a_recovery_adds_comes_before_what_was_accepted_after_it_began() {
        let folder = tempfile::tempdir().unwrap();
        let (store, mut backlog) = empty(&folder);
        let old = accept_for(&store, Vec::new()).await;
        read(&mut backlog).await;
        backlog.took = RESTART_MAX;
        let (id, asked) = (ID.subscription_id(), clock::now());
        let recovery = Recovery::new(id, None, None, "bob".to_owned(), asked);
        assert!(store.begin_recovery(recovery, None).await.unwrap());
        backlog.receive(Wake::older(0));
        let new = accept(&store).await;
        backlog.receive(Wake::accepted(1));
        read(&mut backlog).await;
        assert!(backlog.waiting.is_empty(), "{new} is newer than what is still to come");
        let last = Mark { event: old, received: asked };
        let scan = ScanProgress { first: Some(last), last, events: 1, failed: 0, matched: vec![old] };
        for step in [Step::Begin, Step::Advance(scan), Step::End(State::Done { at: asked })] {
            store.recover(id, asked, step, asked, None).await.unwrap().unwrap();
        }
        backlog.receive(Wake::older(1));
        read(&mut backlog).await;
        let waiting: Vec<_> = backlog.waiting.iter().map(|pending| pending.event.id).collect();
        assert_eq!(waiting, [old]);
    }

    /// Only the oldest thousand stopped their lanes: those behind others were delivered.
    #[tokio::test]
    async fn each_dead_letter_stops_its_lane_however_many_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let (store, mut backlog) = empty(&folder);
        // Each event has a lane of its own.
        backlog.order = CompiledOrder {
            lane: Some(Arc::new(|event: &LoggedEvent| event.received.as_microsecond().cast_unsigned() / 2)),
            on_dead: OnDead::Stop,
        };
        let at = |number: i64| Timestamp::from_microsecond(1_800_000_000_000_000 + number).unwrap();
        let accept = async |number| {
            let event = Event::from_json(r#"{"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}"#);
            let (received, sender) = (at(number), "ann".to_owned());
            let arrival =
                Arrival { event: event.unwrap(), received, sender, matched: vec![ID], failed: Vec::new() };
            store.log(vec![arrival]).await.unwrap()[0]
        };
        for lane in 0..5 {
            accept(2 * lane).await;
        }
        let (recipient, after, now) = (ID, EventId::NIL, clock::now());
        let query = ReadyQuery { recipient, after, first_attempts: 9, now, due: 0 };
        for pending in store.ready(query).await.unwrap().first_attempts {
            let outcome = Outcome::Dead { reason: "no".to_owned() };
            let attempt =
                Attempt { number: 1, at: now, took: Duration::ZERO, policy: None, target: None, outcome };
            let settlement = Settlement {
                recipient: ID,
                event: pending.event.id,
                position: pending.position,
                plugin: None,
                run: None,
                attempt,
                progress: pending.progress,
                rendered: false,
            };
            store.settle(settlement).await.unwrap();
        }
        let free = accept(100).await;
        for lane in 0..5 {
            accept(2 * lane + 1).await;
        }
        backlog.restart();
        read(&mut backlog).await;
        let waiting: Vec<_> = backlog.waiting.iter().map(|pending| pending.event.id).collect();
        assert_eq!(waiting, [free]);
    }

    /// Whoever purges a dead letter wakes nobody.
    #[tokio::test]
    async fn a_worker_whose_lane_a_dead_letter_stops_is_needed_again_soon() {
        let folder = tempfile::tempdir().unwrap();
        let (_store, mut backlog) = empty(&folder);
        read(&mut backlog).await;
        assert!(backlog.is_over() && backlog.needed_at().is_none());
        backlog.lanes.stop(EventId::NIL, 0);
        assert!(backlog.is_over() && backlog.needed_at().is_some());
    }
}
