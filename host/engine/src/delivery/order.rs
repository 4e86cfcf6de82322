//! The order of a subscription's deliveries, as workers keep it and as others see it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::gate::{GateHold, HeldBy};
use crate::worker;
use waypost_domain::{EventId, OnDead, Order, OrderBy, Subscription};
use waypost_matching::{Document, Filter};
use waypost_runtime::clock;
use waypost_store::{Error, LoggedEvent, OrderedPage, OrderedQuery, Store};

/// How many of the oldest deliveries, and how many dead letters, are looked at to find what holds one.
const LOOKED_AT: usize = 256;

/// Returns the order of a subscription's deliveries. Events in which its key finds nothing are of one lane, and so are all
/// of which it cannot tell.
pub(crate) fn order(subscription: &Subscription) -> Option<worker::CompiledOrder> {
    let Order { by, on_dead } = subscription.order.as_ref()?;
    let lane = match by {
        OrderBy::Fifo => None,
        OrderBy::Key(key) => match Filter::parse(key, subscription.filter_dialect) {
            Ok(key) => Some(Arc::new(move |event: &LoggedEvent| lane(&key, event)) as worker::LaneOf),
            Err(error) => {
                tracing::error!(subscription = %subscription.id, %error, "a stored key does not parse: all deliveries are in one order");
                None
            }
        },
    };
    Some(worker::CompiledOrder { lane, on_dead: *on_dead })
}

/// Returns the lane of an event: a hash of what the key finds in it.
fn lane(key: &Filter, event: &LoggedEvent) -> u64 {
    let json = event.event.json();
    let found = Document::parse(&json).ok().and_then(|document| key.find(&document).ok());
    let mut hasher = DefaultHasher::new();
    found.unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

/// Returns what holds a pending delivery by its subscription's order: a retry that is not due, or a dead letter.
pub(super) async fn hold(
    store: &Store,
    subscription: &Subscription,
    event: &LoggedEvent,
) -> Result<Option<GateHold>, Error> {
    let Some(order) = order(subscription) else { return Ok(None) };
    let page = oldest(store, subscription, LOOKED_AT, LOOKED_AT).await?;
    let (now, lane) = (clock::now(), order.lane(event));
    let is_before = |other: &LoggedEvent| other.id < event.id && order.lane(other) == lane;
    let dead = page.dead_letters.iter().find(|dead| is_before(dead)).map(|_| None);
    let retry = || {
        let due = page.following.iter().filter(|pending| is_before(&pending.event));
        due.filter_map(|pending| pending.position.due).find(|due| *due > now).map(Some)
    };
    Ok(dead.or_else(retry).map(|until| GateHold { by: HeldBy::Order, since: event.received, until }))
}

/// Returns since when a dead letter stops deliveries of a subscription by its order, if one does.
pub(super) async fn stopped(store: &Store, subscription: &Subscription) -> Result<Option<GateHold>, Error> {
    if !stops(subscription) {
        return Ok(None);
    }
    let page = oldest(store, subscription, 0, 1).await?;
    let first = page.dead_letters.first();
    Ok(first.map(|dead| GateHold { by: HeldBy::Order, since: dead.received, until: None }))
}

fn stops(subscription: &Subscription) -> bool {
    subscription.order.as_ref().is_some_and(|order| order.on_dead == OnDead::Stop)
}

async fn oldest(
    store: &Store,
    subscription: &Subscription,
    rows: usize,
    dead_letters: usize,
) -> Result<OrderedPage, Error> {
    let dead_letters = if stops(subscription) { dead_letters } else { 0 };
    let (recipient, events, after) = (subscription.id.into(), Vec::new(), EventId::NIL);
    let dead_letters_after = None;
    store.in_order(OrderedQuery { recipient, events, after, rows, dead_letters, dead_letters_after }).await
}
