//! Accepts events: matches each one, logs it with all its deliveries, and only then acknowledges it.

mod announce;
mod backlog;
mod budget;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;

use crate::directory::Directory;
use crate::worker::Mailboxes;
pub(crate) use announce::OperatorEvent;
use backlog::BacklogLimit;
use budget::Budget;
use waypost_domain::{Event, EventId, OPERATOR, RecipientId, operator};
use waypost_matching::{self as matching, Matches};
use waypost_runtime::clock;
use waypost_store::{self as store, Accepted, Arrival, Position, Receipt, Store};

/// The largest event, in bytes, that is matched on the task that received it. A larger one could keep other tasks
/// waiting, and is matched on a blocking thread.
const MATCHED_IN_PLACE_MAX: usize = 64 * 1024;

/// How long the events of a batch are matched before the task yields to others.
const TURN_MAX: Duration = Duration::from_millis(1);

/// The longest that an acknowledgement is delayed, whatever the number of events and of matching subscriptions.
const THROTTLE_MAX: Duration = Duration::from_millis(100);

/// How long changes of subscriptions are put off when they keep coming before events that have been matched: from the second
/// time on, and twice as long each time.
const MATCH_PAUSE_MIN: Duration = Duration::from_millis(20);
const MATCH_PAUSE_MAX: Duration = Duration::from_secs(1);

/// The most failures of filters that the log keeps of one event.
const FAILED_KEPT_MAX: usize = 1_000;

/// Why an event was not accepted. Nothing of it, or of its batch, is kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The event's JSON cannot be matched.
    #[error("event {index} of the request cannot be matched")]
    Match {
        /// Its place in the batch, from 0.
        index: usize,
        /// Why not.
        source: matching::Error,
    },
    /// The request causes too much at once.
    #[error(
        "the request's events and the deliveries that they cause take more than {max} bytes (the setting \
         accept_bytes_max): send fewer events at once"
    )]
    TooMuch {
        /// The most bytes.
        max: usize,
    },
    /// All requests together cause too much at once.
    #[error(
        "the events that are being accepted and the deliveries that they cause take {max} bytes, as many as they may \
         (the setting accept_bytes_max): try again"
    )]
    Busy {
        /// The most bytes.
        max: usize,
    },
    /// Too many deliveries wait for this service.
    #[error(
        "deliveries wait because this machine is busy, {max} or more (the setting backlog_max): try again"
    )]
    Behind {
        /// The most deliveries.
        max: u64,
    },
    /// The data folder is as large as it may be.
    #[error(
        "the data folder has {used} of {max} bytes (the setting max_disk_bytes), and the events in it are still to be \
         delivered: enable or delete the subscriptions with a backlog, discard what waits (`waypost discard`), or raise the \
         setting"
    )]
    Full {
        /// How many bytes it has.
        used: u64,
        /// The most that it may have.
        max: u64,
    },
    /// An event has a type that only Waypost's own events have.
    #[error(
        "event {index} of the request has the type `{ty}`: types that begin with io.waypost. are Waypost's own, so choose \
         another"
    )]
    Reserved {
        /// Its place in the batch, from 0.
        index: usize,
        /// Its type.
        ty: String,
    },
    /// The sender is nobody who may send events.
    #[error("no sender has this name: it holds control characters")]
    Sender,
    /// The store cannot write.
    #[error("failed to log the request's events")]
    Log {
        /// Why not.
        source: store::Error,
    },
}

impl Error {
    /// Tells whether the same events may be accepted later, when there is room for them: the events themselves are
    /// valid.
    pub fn is_shortage(&self) -> bool {
        match self {
            Self::Match { .. } | Self::TooMuch { .. } | Self::Reserved { .. } | Self::Sender => false,
            Self::Busy { .. } | Self::Behind { .. } | Self::Full { .. } => true,
            Self::Log { source } => source.is_shortage(),
        }
    }
}

/// Accepts events into the log. A cheap handle.
#[derive(Clone)]
pub struct Intake {
    store: Arc<Store>,
    directory: Arc<Directory>,
    /// Of the workers of targets.
    mailboxes: Arc<Mailboxes>,
    budget: Arc<Budget>,
    backlog: Arc<BacklogLimit>,
    full: Arc<ArcSwapOption<DiskFull>>,
}

/// A data folder that is as large as it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskFull {
    /// How many bytes it has.
    pub used: u64,
    /// The most that it may have.
    pub max: u64,
}

impl Intake {
    /// Makes the intake of a store, for the subscriptions of a directory, whose workers have these mailboxes. At most
    /// `bytes_max` are being accepted at once: events, and [`DELIVERY_BYTES`](store::DELIVERY_BYTES) for each delivery
    /// that they cause. None is accepted while more than `backlog_max` deliveries wait for this service.
    pub fn new(
        store: Arc<Store>,
        directory: Arc<Directory>,
        mailboxes: Arc<Mailboxes>,
        bytes_max: usize,
        backlog_max: u64,
    ) -> Self {
        let (budget, backlog) = (Arc::new(Budget::new(bytes_max)), Arc::new(BacklogLimit::new(backlog_max)));
        Self { store, directory, mailboxes, budget, backlog, full: Arc::default() }
    }

    /// Refuses all events from now on, since there is no room for them; with `None`, accepts them again.
    pub fn set_full(&self, full: Option<DiskFull>) {
        self.full.store(full.map(Arc::new));
    }

    fn check_room(&self) -> Result<(), Error> {
        match &*self.full.load() {
            Some(full) => Err(Error::Full { used: full.used, max: full.max }),
            None => Ok(()),
        }
    }

    /// Accepts events, all or none, and returns their ids in order once they are on disk with every delivery that
    /// they cause.
    ///
    /// While deliveries lag because this machine is busy, it takes up to a tenth of a second longer.
    ///
    /// # Errors
    /// When an event cannot be matched, too much is on its way or waits, or the store cannot write.
    pub async fn accept(&self, events: Vec<Event>, sender: &str) -> Result<Vec<EventId>, Error> {
        let receipts = self.accept_once(events, sender, None).await?;
        Ok(receipts.iter().map(|receipt| receipt.id).collect())
    }

    /// As [`Self::accept`], for a request that its producer knows by `key`: within the dedup window, another one with it
    /// logs nothing again.
    ///
    /// # Errors
    /// As for [`Self::accept`].
    pub async fn accept_once(
        &self,
        events: Vec<Event>,
        sender: &str,
        key: Option<Uuid>,
    ) -> Result<Vec<Receipt>, Error> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        self.check_room()?;
        check(&events, sender)?;
        self.backlog.check(&self.mailboxes, &self.directory)?;
        let (received, matched_at) = (clock::now(), self.directory.position());
        let mut share = self.budget.share();
        let mut arrivals = Vec::with_capacity(events.len());
        let mut turn = Turn::default();
        for (index, event) in events.into_iter().enumerate() {
            turn.share().await;
            let arrival = self.arrival(event, received, sender, index).await?;
            share.take(arrival.size())?;
            arrivals.push(arrival);
        }
        let end = Instant::now() + THROTTLE_MAX;
        for arrival in &arrivals {
            self.mailboxes.throttle(&arrival.matched, end).await;
        }
        let way = Way { recipient: None, key };
        self.log(arrivals, matched_at, &mut share, way).await
    }

    /// Accepts an event for one handler, whatever its filter says; subscriptions get it if it matches.
    ///
    /// # Errors
    /// As for [`Self::accept`].
    pub async fn dispatch(
        &self,
        event: Event,
        recipient: RecipientId,
        sender: &str,
    ) -> Result<EventId, Error> {
        self.check_room()?;
        check(std::slice::from_ref(&event), sender)?;
        let matched_at = self.directory.position();
        let mut arrival = self.arrival(event, clock::now(), sender, 0).await?;
        self.direct_to(recipient, &mut arrival);
        let mut share = self.budget.share();
        share.take(arrival.size())?;
        let way = Way { recipient: Some(recipient), key: None };
        let receipts = self.log(vec![arrival], matched_at, &mut share, way).await?;
        Ok(receipts[0].id)
    }

    /// Replaces the handler that a filter has chosen.
    fn direct_to(&self, recipient: RecipientId, arrival: &mut Arrival) {
        arrival.matched.retain(|matched| !self.directory.is_route(*matched));
        arrival.matched.push(recipient);
    }

    /// Logs events that were matched with the subscriptions as of `matched_at`; matches them again where a subscription has
    /// changed before they were logged.
    async fn log(
        &self,
        mut arrivals: Vec<Arrival>,
        mut matched_at: Position,
        share: &mut budget::Share<'_>,
        Way { recipient, key }: Way,
    ) -> Result<Vec<Receipt>, Error> {
        let mut pause = Duration::ZERO;
        loop {
            let accepted = match key {
                None => self.store.accept(arrivals, matched_at).await,
                Some(key) => self.store.accept_once(arrivals, matched_at, key).await,
            };
            match accepted.map_err(|source| Error::Log { source })? {
                Accepted::Logged(receipts) => return Ok(receipts),
                Accepted::Stale(changed, stale) => {
                    self.directory.follow(changed).await;
                    self.directory.pause_changes(pause);
                    pause = (2 * pause).clamp(MATCH_PAUSE_MIN, MATCH_PAUSE_MAX);
                    matched_at = self.directory.position();
                    arrivals = stale;
                }
            }
            let mut turn = Turn::default();
            for (index, arrival) in arrivals.iter_mut().enumerate() {
                turn.share().await;
                let before = arrival.size();
                self.match_again(arrival, index).await?;
                if let Some(recipient) = recipient {
                    self.direct_to(recipient, arrival);
                }
                share.take(arrival.size().saturating_sub(before))?;
            }
        }
    }

    async fn arrival(
        &self,
        event: Event,
        received: Timestamp,
        sender: &str,
        index: usize,
    ) -> Result<Arrival, Error> {
        let matches = self.matches(&event, sender).await.map_err(|source| Error::Match { index, source })?;
        let failed = failed(&matches);
        Ok(Arrival { event, received, sender: sender.to_owned(), matched: matches.matched, failed })
    }

    /// Gives an arrival the recipients that it would have now.
    async fn match_again(&self, arrival: &mut Arrival, index: usize) -> Result<(), Error> {
        let matches = self.matches(&arrival.event, &arrival.sender).await;
        let matches = matches.map_err(|source| Error::Match { index, source })?;
        arrival.failed = failed(&matches);
        arrival.matched = matches.matched;
        Ok(())
    }

    /// Returns the recipients that this event of a sender would have now.
    ///
    /// # Errors
    /// When the event's JSON cannot be read.
    pub async fn matches(&self, event: &Event, sender: &str) -> Result<Matches, matching::Error> {
        if sender == OPERATOR {
            return self.directory.operator_matches(event);
        }
        let json = event.json();
        if json.len() <= MATCHED_IN_PLACE_MAX {
            return self.directory.matches(&json);
        }
        let directory = Arc::clone(&self.directory);
        let matching = tokio::task::spawn_blocking(move || directory.matches(&json));
        matching.await.expect("matching does not panic, and the runtime runs while somebody waits")
    }
}

/// Fails for events that speak with Waypost's own voice.
fn check(events: &[Event], sender: &str) -> Result<(), Error> {
    if let Some(index) = events.iter().position(|event| operator::is_reserved(event.ty())) {
        return Err(Error::Reserved { index, ty: events[index].ty().to_owned() });
    }
    if sender.contains(char::is_control) { Err(Error::Sender) } else { Ok(()) }
}

/// What is asked for besides the matches of an event.
struct Way {
    /// The one handler that it is for.
    recipient: Option<RecipientId>,
    /// What its producer knows the request by.
    key: Option<Uuid>,
}

/// A task's turn while it matches the events of a batch.
struct Turn(Instant);

impl Default for Turn {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Turn {
    /// Yields to other tasks if the turn is over.
    async fn share(&mut self) {
        if self.0.elapsed() > TURN_MAX {
            tokio::task::yield_now().await;
            *self = Self::default();
        }
    }
}

/// Returns the filters without an answer that the log records. They do not refuse the event: other subscriptions get
/// it.
fn failed(matches: &Matches) -> Vec<(RecipientId, String)> {
    let failed = matches.failed.iter().take(FAILED_KEPT_MAX);
    failed.map(|(subscription, failure)| (*subscription, failure.to_string())).collect()
}
