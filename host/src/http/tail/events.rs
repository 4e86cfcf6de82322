//! The events of the log, in its order, as a user may see them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Page, Source, message};
use crate::http::Api;
use crate::http::error::ApiError;
use crate::http::story::View;
use crate::identity::User;
use waypost_domain::EventId;
use waypost_matching::{Document, Filter};
use waypost_store::{Forward, LoggedEvent, Range};

/// The most events and bytes of a page.
const PAGE_EVENTS: usize = 256;
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// The most events in a row before the reader counts as too slow.
const BEHIND_MAX: usize = 10_000;
/// How many events wait for policy's answer, and for how long.
const UNDECIDED_MAX: usize = 1_000;
const UNDECIDED_TIME_MAX: Duration = Duration::from_secs(60);

/// The events behind one.
pub(super) struct Events {
    api: Arc<Api>,
    user: User,
    filter: Option<Arc<Filter>>,
    after: Option<EventId>,
    /// How many events were read since the end of the log was last reached.
    in_a_row: usize,
    /// Events for subscriptions of the user that policy has not let them see yet.
    undecided: VecDeque<(EventId, Instant)>,
}

/// Tells which events were left out: those behind `after`, up to `until`.
#[derive(Serialize)]
struct Gap {
    after: Option<Uuid>,
    until: Uuid,
}

impl Events {
    /// Begins behind an event, or at the end of the log.
    pub(super) async fn begin(
        api: Arc<Api>,
        user: User,
        filter: Option<Filter>,
        after: Option<EventId>,
    ) -> Result<Self, ApiError> {
        let after = match after {
            Some(after) => Some(after),
            None => newest(&api).await?,
        };
        let filter = filter.map(Arc::new);
        Ok(Self { api, user, filter, after, in_a_row: 0, undecided: VecDeque::new() })
    }

    /// Returns the message about an event, if the user may see it now and wants it.
    async fn show(
        &mut self,
        id: EventId,
        logged: Option<&LoggedEvent>,
    ) -> Result<Option<super::sse::Event>, ApiError> {
        let story = self.api.store.history(id).await?;
        let view =
            story.and_then(|story| View::of(story, &self.user, &self.api)).filter(|view| view.shows_event);
        let Some(view) = view else {
            if logged.is_some_and(|logged| self.may_see_later(logged)) && self.undecided.len() < UNDECIDED_MAX
            {
                self.undecided.push_back((id, Instant::now() + UNDECIDED_TIME_MAX));
            }
            return Ok(None);
        };
        if !self.wants(&view).await {
            return Ok(None);
        }
        Ok(Some(message("event", Some(id.to_string()), &view.summary())))
    }

    /// Tells whether policy may still let the user see an event: it is for a subscription of theirs.
    fn may_see_later(&self, logged: &LoggedEvent) -> bool {
        let is_own =
            |id| self.api.directory.get(id).is_some_and(|subscription| subscription.user == self.user.name);
        self.api.dispatcher.asks_policy()
            && logged.matched.iter().any(|matched| is_own(matched.subscription_id()))
    }

    async fn wants(&self, view: &View) -> bool {
        let Some(filter) = self.filter.clone() else { return true };
        let json = view.event.event.json();
        let matching = tokio::task::spawn_blocking(move || {
            let event = Document::parse(&json).ok()?;
            filter.matches(&event).ok()
        });
        matching
            .await
            .expect("matching does not panic, and the runtime outlives the request")
            .unwrap_or(false)
    }

    /// Looks again at the events that policy had not decided about.
    async fn read_undecided(&mut self, page: &mut Page) -> Result<(), ApiError> {
        for _ in 0..self.undecided.len() {
            let Some((id, end)) = self.undecided.pop_front() else { break };
            match self.show(id, None).await? {
                Some(message) => page.messages.push_back(message),
                None if Instant::now() < end => self.undecided.push_back((id, end)),
                None => {}
            }
        }
        Ok(())
    }
}

impl Source for Events {
    async fn read(&mut self) -> Result<Page, ApiError> {
        let mut page = Page::default();
        self.read_undecided(&mut page).await?;
        let Some(last) = newest(&self.api).await? else { return Ok(page) };
        if self.in_a_row >= BEHIND_MAX {
            let gap = Gap { after: self.after.map(EventId::uuid), until: last.uuid() };
            page.messages.push_back(message("gap", Some(last.to_string()), &gap));
            self.after = Some(last);
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
        for logged in &events {
            page.messages.extend(self.show(logged.id, Some(logged)).await?);
            self.after = Some(logged.id);
        }
        page.more = self.after < Some(last) && !events.is_empty();
        self.in_a_row = if page.more { self.in_a_row + events.len() } else { 0 };
        Ok(page)
    }
}

/// Returns the newest event of the log.
async fn newest(api: &Api) -> Result<Option<EventId>, ApiError> {
    let newest = api.store.histories(Range { before: None, since: None, until: None, limit: 1 }).await?;
    Ok(newest.first().map(|story| story.event.id))
}
