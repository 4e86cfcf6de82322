//! What many tests need.

pub(in crate::redb) use std::path::Path;
pub(in crate::redb) use std::sync::Arc;
pub(in crate::redb) use std::time::Duration;

pub(in crate::redb) use bytes::Bytes;
pub(in crate::redb) use jiff::Timestamp;
pub(in crate::redb) use uuid::Uuid;

pub(in crate::redb) use super::super::machine::Machine;
pub(in crate::redb) use super::super::usage::Usage;
pub(in crate::redb) use super::super::{FILE_NAME, Options, record};
pub(in crate::redb) use crate::{
    Accepted, Arrival, Delivery, PendingDelivery, Position, Progress, Purge, PurgeReport, Put, Quota, Range,
    ReadyPage, ReadyQuery, Rendering, Settlement, Store,
};
pub(in crate::redb) use waypost_domain::event::{SpecVersion, Wire};
pub(in crate::redb) use waypost_domain::plugin::{
    Failure, PluginResult, PluginRun, RenderedPayload, StateChange, StateValue,
};
pub(in crate::redb) use waypost_domain::{
    Attempt, Entry, Event, EventId, Outcome, PluginDigest, RecipientId, State, Subscription, SubscriptionId,
};
pub(in crate::redb) use waypost_runtime::clock;
pub(in crate::redb) use waypost_secrets::KeyFile;

/// The bytes of a text, which need not be one.
#[derive(Debug)]
pub(in crate::redb) enum RawText {}

impl redb::Value for RawText {
    type SelfType<'a>
        = &'a [u8]
    where
        Self: 'a;
    type AsBytes<'a>
        = &'a [u8]
    where
        Self: 'a;

    fn fixed_width() -> Option<usize> {
        None
    }

    fn from_bytes<'a>(data: &'a [u8]) -> &'a [u8]
    where
        Self: 'a,
    {
        data
    }

    fn as_bytes<'a, 'b: 'a>(value: &'a Self::SelfType<'b>) -> &'a [u8]
    where
        Self: 'b,
    {
        value
    }

    fn type_name() -> redb::TypeName {
        <&str as redb::Value>::type_name()
    }
}

impl redb::Key for RawText {
    fn compare(data1: &[u8], data2: &[u8]) -> std::cmp::Ordering {
        data1.cmp(data2)
    }
}

pub(in crate::redb) const ALL: Range = Range { before: None, since: None, until: None, limit: usize::MAX };

/// The master key of a file, beside it.
pub(in crate::redb) fn key(folder: &Path) -> KeyFile {
    KeyFile::In(folder.to_owned())
}

/// Ends a store, so that its file can be opened again.
pub(in crate::redb) async fn close(store: Store) {
    store.close().await;
}

/// A machine that has applied nothing.
pub(in crate::redb) fn machine(dedup_window: Duration) -> Machine {
    let settings = Options { dedup_window, ..Options::default() }.settings();
    Machine {
        settings,
        reached: Default::default(),
        usage: Usage::new([], settings.user_bytes_max).into(),
        tokens: Default::default(),
        marks: Default::default(),
        ended_minutes: Default::default(),
    }
}

pub(in crate::redb) fn encoded(subscription: &Subscription) -> Vec<u8> {
    record::encode_subscription(subscription, Position::default())
}

pub(in crate::redb) fn decoded(bytes: &[u8]) -> Result<Subscription, record::Error> {
    Ok(Subscription::clone(&record::decode_subscription(bytes)?.subscription))
}

/// Makes a file say that it is of an older version.
pub(in crate::redb) fn set_version(txn: &redb::WriteTransaction, version: u64) {
    use super::super::schema::{META, SCHEMA_KEY};
    txn.open_table(META).unwrap().insert(SCHEMA_KEY, version).unwrap();
}

/// The id of a subscription, or of it as a recipient.
pub(in crate::redb) fn sub<I: From<SubscriptionId>>(number: u128) -> I {
    SubscriptionId::from_uuid(Uuid::from_u128(number)).into()
}

pub(in crate::redb) fn event(id: &str, bytes: usize) -> Event {
    let wire = Wire::Structured { content_type: None, body: Bytes::from(vec![b' '; bytes]) };
    Event::from_parts(SpecVersion::V1_0, id.to_owned(), "/tests".to_owned(), "t".to_owned(), wire)
}

pub(in crate::redb) fn arrival(id: &str, matched: &[RecipientId]) -> Arrival {
    Arrival {
        event: event(id, 10),
        received: clock::now(),
        sender: "ann".to_owned(),
        matched: matched.to_vec(),
        failed: Vec::new(),
    }
}

pub(in crate::redb) async fn accept(store: &Store, id: &str, matched: &[RecipientId]) -> EventId {
    store.log(vec![arrival(id, matched)]).await.unwrap()[0]
}

/// All subscriptions.
pub(in crate::redb) async fn subscriptions(store: &Store) -> Vec<Arc<Subscription>> {
    store.subscriptions().await.unwrap().1.into_iter().map(|stored| stored.subscription).collect()
}

pub(in crate::redb) fn after(seconds: i64) -> Timestamp {
    Timestamp::from_second(4_000_000_000 + seconds).unwrap()
}

/// All pending deliveries of a subscription, due or not.
pub(in crate::redb) async fn ready(store: &Store, recipient: RecipientId) -> ReadyPage {
    ready_at(store, recipient, Timestamp::MAX).await
}

pub(in crate::redb) async fn ready_at(store: &Store, recipient: RecipientId, now: Timestamp) -> ReadyPage {
    let query =
        ReadyQuery { recipient, after: EventId::NIL, first_attempts: usize::MAX, now, due: usize::MAX };
    store.ready(query).await.unwrap()
}

/// The only pending delivery of a subscription.
pub(in crate::redb) async fn only(store: &Store, recipient: RecipientId) -> PendingDelivery {
    let mut waiting = ready(store, recipient).await;
    waiting.first_attempts.append(&mut waiting.due);
    assert_eq!(waiting.first_attempts.len(), 1, "{:?}", waiting.first_attempts);
    waiting.first_attempts.remove(0)
}

pub(in crate::redb) fn retry(due: Timestamp) -> Outcome {
    Outcome::Retry { reason: "503".to_owned(), due }
}

pub(in crate::redb) fn dead() -> Outcome {
    Outcome::Dead { reason: "410".to_owned() }
}

pub(in crate::redb) fn attempt(number: u32, outcome: Outcome) -> Attempt {
    Attempt { number, at: clock::now(), took: Duration::from_millis(3), policy: None, target: None, outcome }
}

/// How an attempt at a pending delivery ends.
pub(in crate::redb) fn ending(
    recipient: RecipientId,
    pending: &PendingDelivery,
    outcome: Outcome,
) -> Settlement {
    let failed = pending.progress.failed + 1;
    let attempt = attempt(failed, outcome);
    let first_attempt = pending.progress.first_attempt.or(Some(attempt.at));
    let progress = Progress { failed, first_attempt, allowed: true, ..pending.progress };
    let (event, position, rendered) = (pending.event.id, pending.position, pending.rendered);
    Settlement { recipient, event, position, plugin: None, run: None, attempt, progress, rendered }
}

pub(in crate::redb) async fn settle(
    store: &Store,
    recipient: RecipientId,
    pending: &PendingDelivery,
    outcome: Outcome,
) {
    store.settle(ending(recipient, pending, outcome)).await.unwrap();
}

/// What a plugin makes of a delivery, with the new value of a counter.
pub(in crate::redb) fn counting(recipient: RecipientId, pending: &PendingDelivery, count: u32) -> Rendering {
    let digest = PluginDigest::of(b"module");
    let run = PluginRun::failed(digest, 1, after(0), Failure::Host(String::new()));
    let value = StateValue { bytes: count.to_le_bytes().to_vec(), expires: None };
    let (event, position) = (pending.event.id, pending.position);
    let rendered = RenderedPayload { digest, config: digest, result: PluginResult::Event };
    let state = vec![StateChange { key: "count".to_owned(), value: Some(value) }];
    Rendering { recipient, event, position, run: Box::new(run), payload: rendered, state }
}

pub(in crate::redb) async fn delivery(store: &Store, id: EventId, recipient: RecipientId) -> Delivery {
    let history = store.history(id).await.unwrap().unwrap();
    history.deliveries.into_iter().find(|delivery| delivery.recipient == recipient).unwrap()
}

pub(in crate::redb) async fn history(store: &Store, id: EventId, recipient: RecipientId) -> Vec<Entry> {
    delivery(store, id, recipient).await.history
}

pub(in crate::redb) async fn state(store: &Store, id: EventId, recipient: RecipientId) -> State {
    delivery(store, id, recipient).await.state
}

/// A delivery that was never attempted.
pub(in crate::redb) fn untried(recipient: RecipientId) -> Delivery {
    Delivery { recipient, state: State::Pending, was_allowed: false, history: Vec::new() }
}

/// The recipients of an event's deliveries.
pub(in crate::redb) async fn recipients(store: &Store, id: EventId) -> Vec<RecipientId> {
    let history = store.history(id).await.unwrap().unwrap();
    history.deliveries.into_iter().map(|delivery| delivery.recipient).collect()
}

/// The store's ids, newest first.
pub(in crate::redb) async fn listed(store: &Store, range: Range) -> Vec<EventId> {
    store.histories(range).await.unwrap().into_iter().map(|history| history.event.id).collect()
}

pub(in crate::redb) async fn purge(store: &Store, purge: Purge) -> (u64, u64) {
    let PurgeReport { purged, kept } = store.purge(purge, None).await.unwrap();
    (purged, kept)
}
