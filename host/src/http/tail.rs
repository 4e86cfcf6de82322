//! `/events/tail` and `/eventmatch/{uuid}/tail`: what happens, as it happens, as server-sent events (HTML §9.2).
//!
//! A stream has no queue that its reader could fill: it reads the store from where it is, whenever its reader has taken
//! what there was. The store only tells that something was written. A reader that is too slow is told from where to where
//! it has missed something. `Last-Event-ID` continues a stream that was cut off.

mod deliveries;
mod events;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::response::sse::{self, KeepAlive, Sse};
use futures_util::Stream;
use futures_util::stream::unfold;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use utoipa::IntoParams;
use waypost_api::v1;

use super::Api;
use super::dry_run::DryRunPermits;
use super::error::ApiError;
use super::eventmatch::own;
use super::id::Id;
use super::parameters::Parameters;
use crate::identity::User;
use waypost_domain::{FilterDialect, SubscriptionId};
use waypost_matching::Filter;
use waypost_runtime::clock;
use waypost_runtime::fair_semaphore::{FairPermit, FairSemaphore};
use waypost_store::Position;

/// The most streams at once, and the most of one user. The second half is for users who have none.
const STREAMS_MAX: usize = 64;
const USER_STREAMS_MAX: usize = 8;
/// How long a stream lets writes gather before it reads them.
const GATHER: Duration = Duration::from_millis(100);
/// A stream rests this many times as long as it has worked, so that it does not take the processors from others.
const REST: u32 = 9;
/// How often a stream reads without being told that something was written, and how often it says that it is there.
const IDLE: Duration = Duration::from_secs(15);

/// The permits for streams.
#[derive(Clone)]
pub(super) struct Streams(FairSemaphore);

impl Default for Streams {
    fn default() -> Self {
        Self(FairSemaphore::new(STREAMS_MAX, USER_STREAMS_MAX))
    }
}

impl Streams {
    async fn take(&self, user: &str) -> Result<FairPermit, ApiError> {
        let taking = self.0.take_among(user, 1, USER_STREAMS_MAX);
        let taken = tokio::time::timeout(Duration::ZERO, taking).await;
        let taken = taken.map_err(|_| ApiError::unavailable("too many streams are open: try again"))?;
        taken.ok_or_else(|| {
            ApiError::too_fast(format!("you have {USER_STREAMS_MAX} streams: end one of them"))
        })
    }
}

/// Cancelled when the server stops, which must not wait for streams.
#[derive(Clone)]
pub(super) struct Stopping(pub(super) CancellationToken);

/// The id of the last message that a client has seen.
pub(super) struct LastEventId(Option<String>);

/// The header of [`LastEventId`], for OpenAPI.
#[derive(IntoParams)]
#[into_params(parameter_in = Header, names("Last-Event-ID"))]
#[expect(dead_code, reason = "only its description is used")]
pub(super) struct LastEventIdHeader(
    /// The `id` of the last message that you have: the stream goes on behind it.
    Option<String>,
);

impl LastEventId {
    /// Reads it.
    ///
    /// # Errors
    /// When it is not the id of a message.
    fn parse<T: std::str::FromStr>(&self) -> Result<Option<T>, ApiError> {
        let wrong =
            |text: &str| ApiError::bad_request(format!("`Last-Event-ID: {text}` is not the id of a message"));
        self.0.as_deref().map(|text| text.parse().map_err(|_| wrong(text))).transpose()
    }
}

impl FromRequestParts<Arc<Api>> for LastEventId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, Infallible> {
        let value = parts.headers.get("last-event-id").filter(|value| !value.is_empty());
        Ok(Self(value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())))
    }
}

/// What a stream reads.
trait Source: Send + 'static {
    /// Reads what is new, at most a page of it. Less than there is leaves the rest for the next call, and
    /// [`Page::more`] says so.
    fn read(&mut self) -> impl Future<Output = Result<Page, ApiError>> + Send;

    /// Returns how soon it has to be read again without anything new, if it has to.
    fn waits(&self) -> Option<Duration>;
}

/// What a source has read.
#[derive(Default)]
struct Page {
    messages: VecDeque<sse::Event>,
    /// Whether there is more.
    more: bool,
}

/// A stream between two messages.
struct Tail<S> {
    source: S,
    page: Page,
    api: Arc<Api>,
    user: User,
    /// How long the last read took.
    took: Duration,
    applied: watch::Receiver<Position>,
    stopping: CancellationToken,
    has_ended: bool,
    _permit: FairPermit,
}

impl<S: Source> Tail<S> {
    /// Returns the next message; `None` after the last one.
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            if let Some(message) = self.page.messages.pop_front() {
                return Some(message);
            }
            if self.has_ended {
                return None;
            }
            let stopping = self.stopping.clone();
            match stopping.run_until_cancelled(self.refill()).await {
                Some(Ok(())) => {}
                Some(Err(error)) => return Some(self.last("error", &error.body())),
                None => {
                    let bye = v1::StreamEnd { reason: "the service stops".to_owned() };
                    return Some(self.last("bye", &bye));
                }
            }
        }
    }

    /// Reads what is new, after waiting for it.
    async fn refill(&mut self) -> Result<(), ApiError> {
        if !self.page.more {
            // A timer backs the watch up; a store that has ended tells by an error of the read.
            let wait = self.source.waits().unwrap_or(IDLE).min(IDLE);
            let _changed_or_not = tokio::time::timeout(wait, self.applied.changed()).await;
            tokio::time::sleep(GATHER).await;
            self.applied.mark_unchanged();
        }
        tokio::time::sleep(REST * self.took).await;
        self.check_user()?;
        let begun = Instant::now();
        self.page = self.source.read().await?;
        self.took = begun.elapsed();
        Ok(())
    }

    /// Ends the stream with what let its reader in: a token that was revoked or has expired, a session that has ended.
    fn check_user(&self) -> Result<(), ApiError> {
        let is_valid = self.user.expires.is_none_or(|end| clock::now() < end)
            && self.user.via.token().is_none_or(|id| self.api.identity.tokens().get(id).is_some());
        match is_valid {
            true => Ok(()),
            false => Err(ApiError::unauthorized("your token or session has ended")),
        }
    }

    fn last(&mut self, name: &str, data: &impl Serialize) -> sse::Event {
        self.has_ended = true;
        message(name, None, data)
    }
}

fn message(name: &str, id: Option<String>, data: &impl Serialize) -> sse::Event {
    let message = sse::Event::default().event(name);
    let message = id.into_iter().fold(message, sse::Event::id);
    message.json_data(data).expect("a body is JSON on one line")
}

fn answer<S: Source>(
    source: S,
    (api, user): (Arc<Api>, User),
    stopping: CancellationToken,
    permit: FairPermit,
) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>> + use<S>> {
    // The first page is read at once.
    let page = Page { more: true, ..Page::default() };
    let applied = api.store.applied();
    let (took, has_ended) = (Duration::ZERO, false);
    let tail = Tail { source, page, api, user, took, applied, stopping, has_ended, _permit: permit };
    let messages = unfold(tail, async |mut tail| tail.next().await.map(|message| (Ok(message), tail)));
    Sse::new(messages).keep_alive(KeepAlive::new().interval(IDLE))
}

/// Which events to follow.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TailQuery {
    /// A filter: only events in which it finds something.
    #[param(nullable = false)]
    jsonpath: Option<String>,
    /// Its dialect: auto, rfc9535 or jsonpath2.
    #[param(value_type = Option<v1::FilterDialect>, nullable = false)]
    filter_dialect: Option<FilterDialect>,
}

/// Follows the log: sends each event that you may see, as a row of `GET /events`
///
/// A message `event` has an event (`EventSummary`); with its `id` as `Last-Event-ID`, the stream goes on behind it. Where
/// policy decides, an event follows once policy has let a subscription of yours see it; meanwhile later ones have no `id`.
/// A message `gap` (`EventGap`) says that events were left out, since the reader was too slow, or policy has not decided for a
/// minute: `GET /events` has them. `filter_failed` (`FilterFailure`) says that the filter gave no answer. The last message
/// is `bye` (`StreamEnd`) when the service stops, or `error` (`Problem`).
#[utoipa::path(get, path = "/events/tail", operation_id = "tail_events",
    tag = "Events", params(TailQuery, LastEventIdHeader),
    responses((status = 200, description = "Messages", body = String, content_type = "text/event-stream")))]
pub(super) async fn events(
    State(api): State<Arc<Api>>,
    Extension(streams): Extension<Streams>,
    Extension(Stopping(stopping)): Extension<Stopping>,
    Extension(permits): Extension<DryRunPermits>,
    user: User,
    last: LastEventId,
    Parameters(wanted): Parameters<TailQuery>,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, ApiError> {
    let dialect = wanted.filter_dialect.unwrap_or(api.filter_dialect);
    let filter = wanted.jsonpath.map(|text| Filter::parse(&text, dialect)).transpose()?;
    let after = last.parse()?;
    let permit = streams.take(&user.name).await?;
    let source = events::Events::begin(Arc::clone(&api), user.clone(), filter, permits, after).await?;
    Ok(answer(source, (api, user), stopping, permit))
}

/// Follows a subscription: sends each change of the state of a delivery, as a row of its list
///
/// A message `delivery` has a delivery (`SubscriptionDelivery`). With its `id` as `Last-Event-ID`, the stream goes on a minute
/// before it, so that messages may repeat, and none is lost. It follows the newest 100 deliveries and those of later events,
/// at most 1,000; what a recovery makes of older events is not among them. A message `gap` says that there were more
/// new ones at once: their list has them. The last message is `bye` (`StreamEnd`) when the service stops, or `error`
/// (`Problem`).
#[utoipa::path(get, path = "/eventmatch/{uuid}/tail", operation_id = "tail_deliveries",
    tag = "Subscriptions", params(LastEventIdHeader),
    responses((status = 200, description = "Messages", body = String, content_type = "text/event-stream")))]
pub(super) async fn deliveries(
    State(api): State<Arc<Api>>,
    Extension(streams): Extension<Streams>,
    Extension(Stopping(stopping)): Extension<Stopping>,
    user: User,
    Id(id): Id<SubscriptionId>,
    last: LastEventId,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, ApiError> {
    own(&api, &user, id)?;
    let since = last.parse()?;
    let permit = streams.take(&user.name).await?;
    let source = deliveries::Deliveries::begin(Arc::clone(&api), user.clone(), id, since).await?;
    Ok(answer(source, (api, user), stopping, permit))
}
