//! Tells operators what happens, as events like any others: it makes operator events ([`waypost_domain::operator`]) of what
//! the store has to announce and of [`Notices`], and logs them.
//!
//! An announcement leaves the store in the transaction that logs its event, so each is told once, also over a crash. One
//! node tells those of all: the one that has the first hash slot. Notices are told where they arise, and are lost in a crash.
//!
//! A flood is told in a few words: of one page, the first few of a type about the subscriptions of one user are told one by
//! one, and the others together, with their number. The next page is read a little later, when more has come together. What
//! goes to a `dead_letter_url` is told one by one.

mod event;
mod notices;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::directory::Directory;
use crate::intake::{self, Intake, OperatorEvent};
use waypost_domain::operator::Cause;
use waypost_domain::{Announcement, RecipientId};
use waypost_runtime::chain;
use waypost_store::{self as store, AnnouncementPage, AnnouncementPlace, AnnouncementRow, HashSlot, Store};

pub use notices::Notices;

/// How many announcements are read at once, and how many events of them are logged one by one.
const ROWS: usize = 1024;
const EVENTS: usize = 64;
/// How many of a type about the subscriptions of one user, or about one handler, are told one by one.
const TOLD_EACH: usize = 8;
/// The time between two pages, unless the first had more than is logged at once.
const PACE: Duration = Duration::from_millis(100);
/// How soon it is tried again after a failure of the store, and looked again if nothing wakes it.
const PAUSE: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_secs(30);

/// Makes operator events and logs them.
pub struct Announcer {
    store: Arc<Store>,
    directory: Arc<Directory>,
    intake: Intake,
    notices: Arc<Notices>,
    /// The `source` of the events.
    source: String,
}

/// Whose share announcements count for, and the type of their events.
type Kind = (Share, &'static str);

/// Whose share an announcement counts for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Share {
    /// That of the user of the subscription that it is about.
    Of(String),
    /// That of a handler, or of a subscription that is gone.
    Own(RecipientId),
}

/// What is logged for some announcements.
struct Plan {
    events: Vec<OperatorEvent>,
    /// The place of the last one of them.
    last: AnnouncementPlace,
    /// Whether the page has more of them than are logged at once.
    is_cut: bool,
}

/// What a look at the store has led to.
enum Turn {
    /// Something was logged, and there may be more; whether there is.
    More {
        /// See [`Plan::is_cut`].
        is_cut: bool,
    },
    /// There is nothing to tell, or another node tells it.
    Idle,
}

impl Announcer {
    /// Makes the announcer of the Waypost that is called `name`.
    pub fn new(
        store: Arc<Store>,
        directory: Arc<Directory>,
        intake: Intake,
        notices: Arc<Notices>,
        name: &str,
    ) -> Self {
        // A machine may have any name, and a source is a URI reference.
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let name: String = name.chars().map(|c| if is_plain(c) { c } else { '-' }).collect();
        Self { store, directory, intake, notices, source: format!("/waypost/{name}") }
    }

    /// Tells what there is to tell, until the service stops. What is cut off is told after the next start.
    pub async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(self.tell()).await;
    }

    async fn tell(&self) {
        let (mut gained, mut rows) = (self.store.share().changed(), ROWS);
        loop {
            self.tell_notices().await;
            let pause = match self.tell_announcements(rows).await {
                Ok(Turn::More { is_cut }) => {
                    rows = ROWS;
                    if is_cut { Duration::ZERO } else { PACE }
                }
                Ok(Turn::Idle) => {
                    tokio::select! {
                        () = self.store.announced() => {}
                        () = self.notices.due() => {}
                        Ok(()) = gained.changed() => {}
                        () = tokio::time::sleep(LOOK) => {}
                    }
                    continue;
                }
                Err(error) => {
                    if let intake::Error::Log { source: store::Error::TooLarge { .. } } = error {
                        rows = (rows / 2).max(1);
                    }
                    tracing::warn!(error = chain::text(&error), "operator events wait");
                    PAUSE
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn tell_notices(&self) {
        for (at, notice) in self.notices.take(Instant::now()) {
            let event = event::of_notice(&self.source, at, &notice, &self.directory);
            if let Err(error) = self.intake.announce(vec![OperatorEvent::plain(event)], None).await {
                let error = chain::text(&error);
                tracing::warn!(?notice, error, "an operator event is lost");
            }
        }
    }

    async fn tell_announcements(&self, rows: usize) -> Result<Turn, intake::Error> {
        if !self.store.share().has(HashSlot::FIRST) {
            return Ok(Turn::Idle);
        }
        let page = self.store.announcements(rows).await.map_err(|source| intake::Error::Log { source })?;
        let Some(page) = page else { return Ok(Turn::Idle) };
        let (first, plan) = (page.first, self.plan(page));
        self.intake.announce(plan.events, Some((first, plan.last))).await?;
        Ok(Turn::More { is_cut: plan.is_cut })
    }

    /// Makes the events of the first announcements of a page.
    fn plan(&self, page: AnnouncementPage) -> Plan {
        let (mut events, mut last) = (Vec::new(), page.first);
        let mut told: HashMap<Kind, usize> = HashMap::new();
        let mut together: BTreeMap<Kind, Together> = BTreeMap::new();
        let has_ended = page.found.into_iter().try_for_each(|row| {
            let AnnouncementRow { place, announcement, event } = row;
            let about = announcement.about;
            let share = match self.directory.get(about.subscription_id()) {
                Some(subscription) => Share::Of(subscription.user.clone()),
                None => Share::Own(about),
            };
            let kind = (share, event::ty(&announcement.cause));
            let told = told.entry(kind.clone()).or_default();
            let letter = letter(&announcement);
            let goes_to =
                letter.and_then(|allowed| self.directory.letters_go_to(about.subscription_id(), allowed));
            if *told >= TOLD_EACH && goes_to.is_none() {
                match together.get_mut(&kind) {
                    Some(known) => known.add(announcement),
                    None => drop(together.insert(kind, Together::new(announcement))),
                }
            } else if events.len() < EVENTS {
                *told += 1;
                let event = event::of_announcement(&self.source, &announcement, event, &self.directory);
                let letter = letter.map(|was_allowed| (about.subscription_id(), was_allowed));
                events.push(OperatorEvent { event, letter });
            } else {
                return ControlFlow::Break(());
            }
            last = place;
            ControlFlow::Continue(())
        });
        let is_cut = has_ended.is_break();
        // Rows that cannot be read may follow the last one.
        let last = if is_cut { last } else { page.last };
        let together = together.values().map(|known| event::of_many(&self.source, known, &self.directory));
        events.extend(together.map(OperatorEvent::plain));
        Plan { events, last, is_cut }
    }
}

/// Returns how many of its kind an announcement stands for.
fn weight(announcement: &Announcement) -> u64 {
    match &announcement.cause {
        Cause::Expired { count, .. } => *count,
        Cause::Disabled { .. }
        | Cause::Enabled
        | Cause::Dead(_)
        | Cause::RunFailed { .. }
        | Cause::Replayed(_) => 1,
    }
}

/// Tells whether policy had allowed what a dead letter was about, if an announcement is about one.
fn letter(announcement: &Announcement) -> Option<bool> {
    match &announcement.cause {
        Cause::Dead(letter) => Some(letter.was_allowed),
        Cause::Disabled { .. }
        | Cause::Enabled
        | Cause::RunFailed { .. }
        | Cause::Expired { .. }
        | Cause::Replayed(_) => None,
    }
}

/// Announcements of a type about the recipients of one share that are told together.
struct Together {
    count: u64,
    since: Timestamp,
    recipients: BTreeSet<RecipientId>,
    /// The last one.
    last: Announcement,
}

impl Together {
    fn new(first: Announcement) -> Self {
        let recipients = BTreeSet::from([first.about]);
        Self { count: weight(&first), since: first.at, recipients, last: first }
    }

    fn add(&mut self, next: Announcement) {
        self.count += weight(&next);
        self.since = self.since.min(next.at);
        self.recipients.insert(next.about);
        self.last = next;
    }
}
