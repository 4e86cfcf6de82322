//! The events of the log, in its order, as a user may see them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse;
use tokio::time::Instant;
use uuid::Uuid;
use waypost_api::v1;

use super::{Page, Source, message};
use crate::http::Api;
use crate::http::dry_run::DryRunPermits;
use crate::http::error::ApiError;
use crate::http::story::View;
use crate::identity::User;
use waypost_domain::{EventId, RecipientId};
use waypost_matching::{self as matching, Document, Failure, Filter};
use waypost_store::{EventHistory, Forward, LoggedEvent, Range};

/// The most events of a page, each of which may be as large as `event_bytes_max`.
const PAGE_EVENTS: usize = 64;
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// The most events in a row before the reader counts as too slow.
const BEHIND_MAX: usize = 10_000;
/// How many events wait for policy's answer, for how long, and how often they are looked at.
const UNDECIDED_MAX: usize = 1_000;
const UNDECIDED_TIME_MAX: Duration = Duration::from_secs(60);
const UNDECIDED_PAUSE: Duration = Duration::from_secs(1);

/// The events behind one.
pub(super) struct Events {
    api: Arc<Api>,
    user: User,
    filter: Option<Arc<Filter>>,
    permits: DryRunPermits,
    /// The last event that was read.
    after: Option<EventId>,
    /// The last event that was sent.
    sent: Option<EventId>,
    /// How many events were read since the end of the log was last reached.
    in_a_row: usize,
    /// Events for subscriptions of the user that policy has not let them see yet, and until when they are looked at.
    undecided: VecDeque<(EventId, Instant)>,
    look_again: Instant,
    /// Whether events were given up that policy had not decided about.
    has_missed: bool,
}

impl Events {
    /// Begins behind an event, or at the end of the log.
    pub(super) async fn begin(
        api: Arc<Api>,
        user: User,
        filter: Option<Filter>,
        permits: DryRunPermits,
        after: Option<EventId>,
    ) -> Result<Self, ApiError> {
        let begin = match after {
            Some(after) => Some(after),
            None => newest(&api).await?,
        };
        Ok(Self {
            api,
            user,
            filter: filter.map(Arc::new),
            permits,
            after: begin,
            sent: after,
            in_a_row: 0,
            undecided: VecDeque::new(),
            look_again: Instant::now(),
            has_missed: false,
        })
    }

    fn is_own(&self, recipient: RecipientId) -> bool {
        let subscription = self.api.directory.recipient(recipient);
        subscription.is_some_and(|subscription| subscription.user == self.user.name)
    }

    /// Tells whether an event may concern the user, before its history is read.
    fn may_concern(&self, logged: &LoggedEvent) -> bool {
        self.user.is_admin()
            || logged.sender == self.user.name
            || logged.matched.iter().any(|recipient| self.is_own(*recipient))
    }

    /// Adds what there is to say about an event. One that policy may still let the user see waits.
    async fn show(&mut self, story: EventHistory, until: Instant, page: &mut Page) -> Result<(), ApiError> {
        let id = story.event.id;
        let is_open = story.deliveries.iter().any(|it| !it.state.is_final() && self.is_own(it.recipient));
        let view = View::of(story, &self.user, &self.api).filter(|view| view.shows_event);
        let Some(view) = view else {
            let waits = is_open && self.api.dispatcher.asks_policy();
            if waits && Instant::now() < until && self.undecided.len() < UNDECIDED_MAX {
                self.undecided.push_back((id, until));
            } else {
                self.has_missed |= waits;
            }
            return Ok(());
        };
        match self.wants(&view).await? {
            Ok(true) => {
                self.sent = self.sent.max(Some(id));
                page.messages.push_back(message("event", self.id(), &view.summary()));
            }
            Ok(false) => {}
            Err(failure) => {
                let failed = v1::FilterFailure { event: id.uuid(), reason: failure };
                page.messages.push_back(message("filter_failed", None, &failed));
            }
        }
        Ok(())
    }

    /// Returns the id of the next message: what a stream that is continued there would not send again. There is none
    /// while an event before it may still follow.
    fn id(&self) -> Option<String> {
        self.sent.filter(|_| self.undecided.is_empty()).map(|id| id.to_string())
    }

    /// Tells that events were left out. Ids of events that the user may not see tell when others send.
    fn gap(&self, until: Option<EventId>) -> sse::Event {
        let until = until.filter(|_| self.user.is_admin());
        let gap = v1::EventGap { after: self.sent.map(EventId::uuid), until: until.map(EventId::uuid) };
        message("gap", until.map(|until| until.to_string()), &gap)
    }

    /// Tells whether the filter finds something, or why that cannot be told.
    async fn wants(&self, view: &View) -> Result<Result<bool, String>, ApiError> {
        let Some(filter) = self.filter.clone() else { return Ok(Ok(true)) };
        // It may take as long as a dry run.
        let _permit = self.permits.take(&self.user.name).await?;
        let json = view.event.event.json();
        let matching = tokio::task::spawn_blocking(move || {
            let event = Document::parse(&json).map_err(|error: matching::Error| error.to_string())?;
            filter.matches(&event).map_err(|failure: Failure| failure.to_string())
        });
        Ok(matching.await.expect("matching does not panic, and the runtime outlives the request"))
    }

    /// Looks again at the events that policy had not decided about.
    async fn read_undecided(&mut self, page: &mut Page) -> Result<(), ApiError> {
        for (id, until) in std::mem::take(&mut self.undecided) {
            if let Some(story) = self.api.store.history(id).await? {
                self.show(story, until, page).await?;
            }
        }
        self.look_again = Instant::now() + UNDECIDED_PAUSE;
        Ok(())
    }

    /// Returns the histories of events that follow each other, in their order.
    async fn histories(&self, events: &[Arc<LoggedEvent>]) -> Result<Vec<EventHistory>, ApiError> {
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(Vec::new()) };
        let behind = EventId::from_uuid(Uuid::from_u128(last.id.uuid().as_u128().saturating_add(1)));
        let range = Range { before: Some(behind), since: None, until: None, limit: events.len() };
        let mut stories = self.api.store.histories(range).await?;
        stories.retain(|story| story.event.id >= first.id);
        stories.reverse();
        Ok(stories)
    }
}

impl Source for Events {
    async fn read(&mut self) -> Result<Page, ApiError> {
        let mut page = Page::default();
        if Instant::now() >= self.look_again {
            self.read_undecided(&mut page).await?;
        }
        let Some(last) = newest(&self.api).await? else { return Ok(page) };
        if self.in_a_row >= BEHIND_MAX {
            page.messages.push_back(self.gap(Some(last)));
            (self.after, self.in_a_row) = (Some(last), 0);
        }
        let forward = Forward {
            after: self.after,
            last,
            since: None,
            until: None,
            events: PAGE_EVENTS,
            bytes: PAGE_BYTES,
        };
        let events = self.api.store.forward(forward).await?;
        if events.iter().any(|logged| self.may_concern(logged)) {
            for story in self.histories(&events).await? {
                if self.may_concern(&story.event) {
                    self.show(story, Instant::now() + UNDECIDED_TIME_MAX, &mut page).await?;
                }
            }
        }
        if std::mem::take(&mut self.has_missed) {
            page.messages.push_back(self.gap(None));
        }
        self.after = events.last().map(|logged| logged.id).or(self.after);
        page.more = self.after < Some(last) && !events.is_empty();
        self.in_a_row = if page.more { self.in_a_row + events.len() } else { 0 };
        Ok(page)
    }

    fn waits(&self) -> Option<Duration> {
        (!self.undecided.is_empty()).then_some(UNDECIDED_PAUSE)
    }
}

/// Returns the newest event of the log.
async fn newest(api: &Api) -> Result<Option<EventId>, ApiError> {
    let newest = api.store.histories(Range { before: None, since: None, until: None, limit: 1 }).await?;
    Ok(newest.first().map(|story| story.event.id))
}
