//! The pending deliveries of one subscription, as far as its worker has read them.
//!
//! The store is read in pages until everything has been read. From then on wakes carry what is new, and the store is read
//! again only when the worker could not keep up. Attempts go on while a page is being read.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::time::Instant;

use crate::clock;
use crate::domain::{EventId, RecipientId};
use crate::store::{Error, PendingDelivery, ReadyPage, ReadyQuery, Store, Wake};

/// How long to wait after the store could not be read: at first, and at most.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The pending deliveries of one subscription.
pub(super) struct Backlog {
    store: Arc<dyn Store>,
    id: RecipientId,
    /// Read, and not attempted yet.
    pub(super) waiting: VecDeque<PendingDelivery>,
    /// The newest batch that has been read.
    read_to: EventId,
    /// The store may hold what has not been read.
    unread: bool,
    /// When the first of those is due that are not due yet.
    pub(super) next_due: Option<Timestamp>,
    /// Retries that have been read and whose end is not recorded: their rows are still in the store.
    taken: HashSet<EventId>,
    reading: Option<(ReadyQuery, BoxFuture<'static, Result<ReadyPage, Error>>)>,
    /// Retries whose end was recorded since the reading began, which may have them all the same.
    recorded: HashSet<EventId>,
    /// How often the store could not be read in a row, and before when it is not read again.
    failures: u32,
    again: Option<Instant>,
}

impl Backlog {
    pub(super) fn new(store: Arc<dyn Store>, id: RecipientId) -> Self {
        Self {
            store,
            id,
            waiting: VecDeque::new(),
            read_to: EventId::NIL,
            unread: true,
            next_due: None,
            taken: HashSet::new(),
            reading: None,
            recorded: HashSet::new(),
            failures: 0,
            again: None,
        }
    }

    /// Begins to read a page, where there is something to read and it may be read now.
    pub(super) fn begin(&mut self, page: usize) {
        if !self.unread || self.reading.is_some() || self.pause().is_some() {
            return;
        }
        self.unread = false;
        self.again = None;
        // The page has it again; what is settled meanwhile is added.
        self.next_due = None;
        let query = ReadyQuery {
            recipient: self.id,
            after: self.read_to,
            first_attempts: page,
            now: clock::now(),
            due: page + self.taken.len(),
        };
        let store = Arc::clone(&self.store);
        self.reading = Some((query, Box::pin(async move { store.ready(query).await })));
    }

    pub(super) fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// Returns until when the store is left alone after it could not be read.
    pub(super) fn pause(&self) -> Option<Instant> {
        self.again.filter(|again| Instant::now() < *again)
    }

    /// Waits for the page that is being read, and takes it. Cancel safe.
    pub(super) async fn page(&mut self) {
        let Some((query, reading)) = &mut self.reading else { return std::future::pending().await };
        let query = *query;
        let answer = reading.await;
        self.reading = None;
        let recorded = std::mem::take(&mut self.recorded);
        match answer {
            Ok(ReadyPage { first_attempts, due, next_due }) => {
                self.failures = 0;
                self.unread |= first_attempts.len() >= query.first_attempts || due.len() >= query.due;
                self.read_to = first_attempts.last().map_or(self.read_to, |pending| pending.position.batch);
                for pending in due {
                    if recorded.contains(&pending.event.id) {
                        // This row may be that of an attempt that has ended: the next page decides.
                        self.unread = true;
                    } else if self.taken.insert(pending.event.id) {
                        self.waiting.push_back(pending);
                    }
                }
                self.waiting.extend(first_attempts);
                self.next_due = next_due.into_iter().chain(self.next_due).min();
            }
            Err(error) => {
                let wait = (PAUSE * 2u32.saturating_pow(self.failures)).min(PAUSE_MAX);
                tracing::warn!(subscription = %self.id, %error, ?wait, "what is owed cannot be read now");
                self.failures = self.failures.saturating_add(1).min(16);
                self.unread = true;
                self.again = Some(Instant::now() + wait);
            }
        }
    }

    /// Stops reading.
    pub(super) fn stop(&mut self) {
        if self.reading.take().is_some() {
            self.unread = true;
        }
    }

    /// Lets the store be read, where something of it is due.
    pub(super) fn look_at_what_is_due(&mut self) -> bool {
        let is_due = self.next_due.is_some_and(|due| due <= clock::now());
        self.unread |= is_due;
        is_due
    }

    /// Tells whether it is known that nothing waits but what is due later.
    pub(super) fn is_over(&self) -> bool {
        !self.unread && self.waiting.is_empty() && self.reading.is_none()
    }

    /// Tells whether something may be in the store that has not been read.
    pub(super) fn is_unread(&self) -> bool {
        self.unread
    }

    /// Takes the deliveries of a wake. A worker that has not read everything before, or has `enough` to do, reads them later.
    pub(super) fn receive(&mut self, wake: Wake, enough: usize) {
        if wake.read || self.unread || self.waiting.len() > enough {
            self.unread = true;
            return;
        }
        // A wake may hold deliveries that have been read since it was made.
        for pending in wake.first_attempts.into_iter().filter(|pending| pending.position.batch > self.read_to)
        {
            self.waiting.push_back(pending);
        }
        self.read_to =
            self.waiting.back().map_or(self.read_to, |pending| self.read_to.max(pending.position.batch));
    }

    /// Takes note that the store has recorded how an attempt ended, and when the delivery is due again, if it is.
    pub(super) fn record(&mut self, event: EventId, was_retry: bool, due: Option<Timestamp>) {
        if was_retry {
            if self.reading.is_some() {
                self.recorded.insert(event);
            }
            // Another row of the same event may have been read meanwhile, and been taken for this one.
            self.unread |= self.taken.remove(&event);
        }
        // Only now is the row of the next attempt where a reading would find it.
        self.next_due = due.into_iter().chain(self.next_due).min();
    }
}
