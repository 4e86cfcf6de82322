//! Pending deliveries, and how an attempt at one is settled.

use std::sync::Arc;

use jiff::Timestamp;

use super::LoggedEvent;
use waypost_domain::plugin::PluginRun;
use waypost_domain::{Answer, Attempt, EventId, HandlerRun, Holder, RecipientId};

/// The most bytes of a plugin's texts in an attempt whose end is queued behind too much.
const LOG_BYTES_LITTLE: usize = 512;

/// A delivery that is pending: it waits for its first or its next attempt.
#[derive(Clone, Debug)]
pub struct PendingDelivery {
    /// What is to be delivered.
    pub event: Arc<LoggedEvent>,
    /// Where its row stands: pass it back to settle the delivery.
    pub position: QueuePosition,
    /// How far it has come.
    pub progress: Progress,
    /// Whether its payload is rendered: [`Store::rendered`](super::Store::rendered) returns it.
    pub rendered: bool,
}

/// How far a delivery has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// How many attempts have failed.
    pub failed: u32,
    /// When the first attempt began.
    pub first_attempt: Option<Timestamp>,
    /// Whether policy has already let this user see this event.
    pub allowed: bool,
    /// Whether its plugin has already passed it unchanged.
    pub passed: bool,
    /// Which outputs of its plugin the target already has, one bit each.
    pub sent: u64,
    /// Since when it is held without an attempt that counts ([`waypost_domain::Entry::Held`]).
    pub held: Option<Timestamp>,
}

/// Where the row of a pending delivery stands in its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueuePosition {
    /// The first event of the batch in which the event is logged.
    pub batch: EventId,
    /// The event's place in the batch.
    pub index: u32,
    /// When it is due again; `None` before the first attempt.
    pub due: Option<Timestamp>,
}

/// Which of a recipient's pending deliveries to return.
#[derive(Clone, Copy, Debug)]
pub struct ReadyQuery {
    /// The recipient.
    pub recipient: RecipientId,
    /// Only first attempts of events in batches after this one.
    pub after: EventId,
    /// How many first attempts: whole batches until there are at least this many; none for zero.
    pub first_attempts: usize,
    /// Only further attempts that are due at this time.
    pub now: Timestamp,
    /// How many further attempts at most. With zero they are not looked at, and an answer about what was just accepted
    /// needs no read from the disk.
    pub due: usize,
}

/// Deliveries of one recipient that are ready for an attempt.
#[derive(Clone, Debug)]
pub struct ReadyPage {
    /// Deliveries that were never tried.
    pub first_attempts: Vec<PendingDelivery>,
    /// The `after` of the query for the first attempts that follow.
    pub read_to: EventId,
    /// Deliveries whose next attempt is due.
    pub due: Vec<PendingDelivery>,
    /// When the first delivery that is not in `due` is due; `None` if they were not looked at.
    pub next_due: Option<Timestamp>,
}

/// Which of a recipient's pending deliveries to return in the order of acceptance.
#[derive(Clone, Debug)]
pub struct OrderedQuery {
    /// The recipient.
    pub recipient: RecipientId,
    /// These, as far as they are pending.
    pub events: Vec<EventId>,
    /// Besides, those of events after this one.
    pub after: EventId,
    /// How many of these at most; none for zero.
    pub rows: usize,
    /// How many dead letters to return at most, oldest first, and after which one.
    pub dead_letters: usize,
    /// See [`OrderedPage::more_dead_letters`].
    pub dead_letters_after: Option<LetterPlace>,
}

/// Where a dead letter stands in the log: the batch of its event, and the event's place in it.
pub type LetterPlace = (EventId, u32);

/// Pending deliveries of one recipient in the order of acceptance, whether they are due or not.
#[derive(Clone, Debug)]
pub struct OrderedPage {
    /// Those of the events that were asked for.
    pub asked: Vec<PendingDelivery>,
    /// Those that follow.
    pub following: Vec<PendingDelivery>,
    /// The `after` of the next query.
    pub read_to: EventId,
    /// What comes after `read_to`.
    pub end: PageEnd,
    /// Whether a recovery of the recipient was running, if the query asked for what follows.
    pub is_recovering: bool,
    /// The events of the dead letters.
    pub dead_letters: Vec<Arc<LoggedEvent>>,
    /// The last of them, if there may be more.
    pub more_dead_letters: Option<LetterPlace>,
}

impl OrderedPage {
    /// Makes a page with nothing, which has read up to this event.
    pub fn empty(read_to: EventId) -> Self {
        Self {
            asked: Vec::new(),
            following: Vec::new(),
            read_to,
            end: PageEnd::More,
            is_recovering: false,
            dead_letters: Vec::new(),
            more_dead_letters: None,
        }
    }
}

/// What comes after an ordered page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageEnd {
    /// There may be more.
    More,
    /// Only what is accepted from now on, which [`Store::ready`](super::Store::ready) returns.
    Newest,
    /// What a recovery of the recipient may still add older events to.
    Recovery,
}

/// The settlement of a delivery: an attempt that counts, and what follows for the next one.
#[derive(Clone, Debug, PartialEq)]
pub struct Settlement {
    /// Whose delivery.
    pub recipient: RecipientId,
    /// Of which event.
    pub event: EventId,
    /// Where its row stood.
    pub position: QueuePosition,
    /// What its plugin did in this attempt, unless [`Store::freeze`](super::Store::freeze) has recorded it.
    pub plugin: Option<Box<PluginRun>>,
    /// What its handler did in this attempt.
    pub run: Option<Box<HandlerRun>>,
    /// What happened; its outcome says whether the delivery waits again.
    pub attempt: Attempt,
    /// How far the delivery has come, for the next attempt.
    pub progress: Progress,
    /// Whether [`Store::rendered`](super::Store::rendered) has a payload for it, which is removed when nothing more is
    /// to be sent.
    pub rendered: bool,
}

/// A delivery that is put off without an attempt that counts, because of something that is neither the target's nor the
/// plugin's.
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    /// Whose delivery.
    pub recipient: RecipientId,
    /// Of which event.
    pub event: EventId,
    /// Where its row stood.
    pub position: QueuePosition,
    /// How far it has come, for the next try.
    pub progress: Progress,
    /// What it waits for.
    pub by: Holder,
    /// What was missing.
    pub reason: String,
    /// Since when it has been held.
    pub since: Timestamp,
    /// When it is to be tried again.
    pub due: Timestamp,
}

impl Settlement {
    /// Returns about how many bytes it holds.
    pub fn size(&self) -> usize {
        let Attempt { policy, target, .. } = &self.attempt;
        let answers = [policy, target].into_iter().flatten().map(|answer| answer.body.len());
        let plugin = self.plugin.as_ref().map_or(0, |run| run.size());
        let run = self.run.as_ref().map_or(0, |run| run.size());
        size_of::<Self>() + answers.sum::<usize>() + plugin + run
    }

    /// Shortens what the target answered, the plugin logged and the program wrote.
    pub(super) fn keep_little(&mut self) {
        let Attempt { policy, target, .. } = &mut self.attempt;
        [policy, target].into_iter().flatten().for_each(Answer::keep_little);
        if let Some(run) = &mut self.plugin {
            run.keep_end(LOG_BYTES_LITTLE);
        }
        if let Some(run) = &mut self.run {
            run.keep_end(LOG_BYTES_LITTLE);
        }
    }
}
