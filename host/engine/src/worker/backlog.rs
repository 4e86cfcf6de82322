//! The pending deliveries of one recipient, as far as its worker has read them.
//!
//! The store is read in pages until everything has been read, and again after a wake, or when something is due. What
//! was just accepted is available at once; attempts go on while another page is being read.
//!
//! Where nodes share a recipient, deliveries of other nodes are skipped and not kept in memory. First attempts are
//! skipped only once, since the position up to which they have been read is kept. Further attempts come in the order of
//! their times, so pages grow while they hold only deliveries of other nodes.
//!
//! There, too, the senders of events take turns: of each, a few first attempts wait in memory, and reading goes on behind
//! the others ([`senders`]). What was passed is read again when everything else has been.

mod senders;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::time::Instant;

use super::Division;
use senders::{SenderCounts, SenderCursors};
use waypost_domain::{EventId, RecipientId};
use waypost_runtime::clock;
use waypost_store::{Error, HashSlot, PendingDelivery, ReadyPage, ReadyQuery, Store, Wake};

/// How long to wait after the store could not be read: at first, and at most.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The most deliveries of a page that has grown.
const PAGE_MAX: usize = 1_024;

/// The pending deliveries of one recipient.
pub(super) struct Backlog {
    store: Arc<Store>,
    id: RecipientId,
    division: Division,
    /// Deliveries that were read and not attempted yet.
    pub(super) waiting: VecDeque<PendingDelivery>,
    /// How far first attempts have been read. Nothing up to here is returned again, settled or not.
    read_to: EventId,
    /// Whether the store may hold first attempts, and due deliveries, that have not been read.
    unread: bool,
    due_unread: bool,
    /// Whether the delivery that is due next is to be read before its time.
    early: bool,
    /// When the next delivery is due, of those that were not due when they were read.
    pub(super) next_due: Option<Timestamp>,
    /// Deliveries that were read and whose end is not recorded yet: their rows are still in the store. Of a recipient
    /// that is not shared, only retries: first attempts do not come twice.
    taken: HashSet<EventId>,
    /// What was passed for other senders' sake.
    passed: SenderCursors,
    reading: Option<(ReadyQuery, BoxFuture<'static, Result<ReadyPage, Error>>)>,
    /// Those whose end was recorded after the current read began: the page may still contain them.
    recorded: HashSet<EventId>,
    /// By how much pages have grown: of first attempts, and of what is due.
    growth: (usize, usize),
    pause: ReadPause,
}

/// A pause after reads that failed, each longer than the one before.
#[derive(Debug, Default)]
pub(super) struct ReadPause {
    /// How many failed in a row, and the time before which the store is not read again.
    failures: u32,
    again: Option<Instant>,
}

impl ReadPause {
    /// Returns its end.
    pub(super) fn end(&self) -> Option<Instant> {
        self.again.filter(|again| Instant::now() < *again)
    }

    /// Begins the next one, after a recipient's deliveries could not be read.
    pub(super) fn begin(&mut self, recipient: RecipientId, error: &Error) {
        let wait = (PAUSE * 2u32.saturating_pow(self.failures)).min(PAUSE_MAX);
        tracing::warn!(%recipient, %error, ?wait, "pending deliveries cannot be read now");
        self.failures = self.failures.saturating_add(1).min(16);
        self.again = Some(Instant::now() + wait);
    }

    /// Ends it, and lets the next one be short.
    pub(super) fn over(&mut self) {
        *self = Self::default();
    }

    #[cfg(test)]
    pub(super) fn cut_short(&mut self) {
        self.again = None;
    }
}

impl Backlog {
    pub(super) fn new(store: Arc<Store>, id: RecipientId, division: Division) -> Self {
        Self {
            store,
            id,
            division,
            waiting: VecDeque::new(),
            read_to: EventId::NIL,
            unread: true,
            due_unread: true,
            early: false,
            next_due: None,
            taken: HashSet::new(),
            passed: SenderCursors::default(),
            reading: None,
            recorded: HashSet::new(),
            growth: (1, 1),
            pause: ReadPause::default(),
        }
    }

    /// Reads pages until a delivery waits or a page is not available at once, if there is something to read and no
    /// pause after a failure.
    pub(super) fn begin(&mut self, page: usize) {
        // A page that holds only deliveries of other nodes may be available at once.
        while self.begin_page(page) && self.waiting.is_empty() {}
    }

    /// Begins to read a page, and returns whether it was available at once.
    fn begin_page(&mut self, page: usize) -> bool {
        if self.reading.is_some() || self.pause().is_some() {
            return false;
        }
        let back = if self.unread { None } else { self.passed.next(&self.waiting) };
        if !(self.unread || self.due_unread || back.is_some()) {
            return false;
        }
        let grown = |growth: usize| (growth * page).min(PAGE_MAX.max(page));
        let query = ReadyQuery {
            recipient: self.id,
            after: back.unwrap_or(self.read_to),
            first_attempts: if self.unread || back.is_some() { grown(self.growth.0) } else { 0 },
            now: if self.early { Timestamp::MAX } else { clock::now() },
            due: if self.early {
                1 + self.taken.len()
            } else if self.due_unread {
                grown(self.growth.1) + self.taken.len()
            } else {
                0
            },
        };
        if self.due_unread {
            // The page returns it again; settlements during the read add to it.
            self.next_due = None;
        }
        // What is due later than the early one is read by the next page.
        (self.unread, self.due_unread, self.early) = (false, self.early, false);
        let store = Arc::clone(&self.store);
        self.reading = Some((query, Box::pin(async move { store.ready(query).await })));
        // The store has what was just accepted in memory: this saves the worker a round.
        self.page().now_or_never().is_some()
    }

    pub(super) fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// Returns the end of the pause after a failed read.
    pub(super) fn pause(&self) -> Option<Instant> {
        self.pause.end()
    }

    /// Waits for the page that is being read, and takes it. Cancel safe.
    pub(super) async fn page(&mut self) {
        let Some((query, reading)) = &mut self.reading else { return std::future::pending().await };
        let query = *query;
        let answer = reading.await;
        self.reading = None;
        let recorded = std::mem::take(&mut self.recorded);
        match answer {
            Ok(page) => {
                self.pause.over();
                self.take(&query, page, &recorded);
            }
            Err(error) => {
                self.ask_again(&query);
                self.pause.begin(self.id, &error);
            }
        }
    }

    fn take(&mut self, query: &ReadyQuery, page: ReadyPage, recorded: &HashSet<EventId>) {
        let ReadyPage { first_attempts, read_to, due, mut next_due } = page;
        // What was read again is behind what has been read.
        let known = self.read_to;
        self.read_to = known.max(read_to);
        let more =
            query.first_attempts > 0 && first_attempts.len() >= query.first_attempts && read_to >= known;
        let read_again = self.passed.take(query.after, if read_to < known { read_to } else { EventId::MAX });
        let mut more_due = query.due > 0 && due.len() >= query.due;
        let before = self.waiting.len();
        for pending in due {
            if !self.is_ours(&pending) {
                continue;
            }
            if recorded.contains(&pending.event.id) {
                // The row may belong to the attempt that has ended; the next page tells.
                self.due_unread = true;
            } else if self.taken.insert(pending.event.id) {
                self.waiting.push_back(pending);
            }
        }
        let with_due = self.waiting.len();
        match self.division {
            Division::ByRecipient => self.waiting.extend(first_attempts),
            Division::ByEvent => {
                let mut counts = SenderCounts::of(&self.waiting);
                for pending in first_attempts {
                    let id = pending.event.id;
                    if !self.is_ours(&pending) || recorded.contains(&id) || self.taken.contains(&id) {
                        continue;
                    }
                    if counts.take(&pending.event.sender) {
                        self.taken.insert(id);
                        self.waiting.push_back(pending);
                    } else {
                        self.passed.pass(&pending.event.sender, pending.position.batch);
                    }
                }
                if read_to < known {
                    read_again.into_iter().for_each(|sender| self.passed.go_on(sender, read_to));
                }
                self.growth.0 = grow(self.growth.0, more && self.waiting.len() == with_due);
                self.growth.1 = grow(self.growth.1, more_due && with_due == before);
                if more_due && with_due == before && query.due >= PAGE_MAX {
                    // The largest page has nothing for this node: the next wake, or a sweep, looks again.
                    more_due = false;
                    next_due = next_due.filter(|due| *due > query.now);
                }
            }
        }
        self.unread |= more;
        self.due_unread |= more_due;
        self.next_due = next_due.into_iter().chain(self.next_due).min();
    }

    fn is_ours(&self, pending: &PendingDelivery) -> bool {
        self.division == Division::ByRecipient || self.store.share().has(HashSlot::of_run(pending.event.id))
    }

    /// Drops waiting deliveries that are not this node's any more.
    pub(super) fn drop_foreign(&mut self) {
        if self.division == Division::ByEvent {
            let Self { waiting, taken, store, .. } = self;
            waiting.retain(|pending| {
                let is_ours = store.share().has(HashSlot::of_run(pending.event.id));
                is_ours || !taken.remove(&pending.event.id)
            });
        }
    }

    /// Drops waiting deliveries, and reads from the beginning.
    pub(super) fn restart(&mut self) {
        self.stop();
        self.passed.clear();
        for pending in self.waiting.drain(..) {
            self.taken.remove(&pending.event.id);
        }
        (self.read_to, self.unread, self.due_unread) = (EventId::NIL, true, true);
    }

    /// Stops reading.
    pub(super) fn stop(&mut self) {
        if let Some((query, _)) = self.reading.take() {
            self.ask_again(&query);
        }
    }

    /// Marks what an unanswered query asked for as unread.
    fn ask_again(&mut self, query: &ReadyQuery) {
        self.early |= query.now == Timestamp::MAX;
        self.unread |= query.first_attempts > 0;
        self.due_unread |= query.due > 0;
    }

    /// Marks due deliveries as unread if there are any.
    pub(super) fn look_at_what_is_due(&mut self) -> bool {
        let is_due = self.next_due.is_some_and(|due| due <= clock::now());
        self.due_unread |= is_due;
        is_due
    }

    /// Tells whether nothing is pending, except deliveries that are due later.
    pub(super) fn is_over(&self) -> bool {
        !self.unread
            && !self.due_unread
            && self.passed.is_empty()
            && self.waiting.is_empty()
            && self.reading.is_none()
    }

    /// Tells whether the store may hold due deliveries that have not been read.
    pub(super) fn is_due_unread(&self) -> bool {
        self.due_unread
    }

    /// Notes what a wake says.
    pub(super) fn receive(&mut self, wake: Wake) {
        self.unread = true;
        self.due_unread |= wake.due;
        self.early |= wake.early;
    }

    /// Notes that the store has recorded the end of an attempt, and when the delivery is due again, if it is.
    pub(super) fn record(&mut self, event: EventId, was_retry: bool, due: Option<Timestamp>) {
        if was_retry || self.division == Division::ByEvent {
            if self.reading.is_some() {
                self.recorded.insert(event);
            }
            // A read may have returned another row of the same event, which was taken for this one.
            self.due_unread |= self.taken.remove(&event);
        }
        // The row of the next attempt is in the store only now.
        self.next_due = due.into_iter().chain(self.next_due).min();
    }
}

/// Doubles the growth of pages, or ends it.
fn grow(growth: usize, grows: bool) -> usize {
    if grows { (2 * growth).min(PAGE_MAX) } else { 1 }
}

#[cfg(test)]
mod tests;
