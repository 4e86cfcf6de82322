//! The CloudEvents that operators get.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Together;
use crate::directory::Directory;
use waypost_domain::job::Kind;
use waypost_domain::operator::{Cause, DeadLetter, Replayed};
use waypost_domain::{Announcement, DeliveryId, Event, Notice, RecipientId, SubscriptionId};
use waypost_runtime::clock;
use waypost_store::EventName;

/// Makes the event of an announcement; `event` names the one that it is about.
pub(super) fn of_announcement(
    source: &str,
    announcement: &Announcement,
    event: Option<EventName>,
    directory: &Directory,
) -> Event {
    let Announcement { at, about, cause } = announcement;
    let mut data = who(*about, cause, directory);
    data.extend(match cause {
        Cause::Disabled { reason } => members(json!({"reason": reason})),
        Cause::Enabled => Map::new(),
        Cause::Dead(letter) | Cause::RunFailed { letter, .. } => dead_letter(letter, *about, event),
        Cause::Expired { count, reason } => members(json!({"count": count, "reason": reason})),
        Cause::Replayed(replayed) => replay(replayed),
    });
    make(source, ty(cause), Some(*about), *at, data)
}

/// Makes the event of several announcements of a type: about one recipient, or about several subscriptions of one user.
pub(super) fn of_many(
    source: &str,
    Together { count, since, recipients, last }: &Together,
    directory: &Directory,
) -> Event {
    let Announcement { at, about, cause } = last;
    let reason = match cause {
        Cause::Disabled { reason } => reason.as_ref(),
        Cause::Enabled => None,
        Cause::Dead(letter) | Cause::RunFailed { letter, .. } => Some(&letter.reason),
        Cause::Expired { reason, .. } => Some(reason),
        Cause::Replayed(replayed) => replayed.reason.as_ref(),
    };
    let mut data = who(*about, cause, directory);
    let is_one = recipients.len() == 1;
    if !is_one {
        data.extend(members(json!({"subscription": null, "name": null, "subscriptions": recipients.len()})));
    }
    data.extend(members(json!({"count": count, "since": clock::text(*since), "reason": reason})));
    make(source, ty(cause), is_one.then_some(*about), *at, data)
}

/// Makes the event of a notice.
pub(super) fn of_notice(source: &str, at: Timestamp, notice: &Notice, directory: &Directory) -> Event {
    match notice {
        Notice::BreakerOpened { subscription: id, of, failures, reason, until } => {
            let mut data = subscription(*id, directory);
            data.extend(members(json!({
                "of": of.name(),
                "failures": failures,
                "reason": reason,
                "next_probe": clock::text(*until),
            })));
            make(source, "breaker.opened", Some((*id).into()), at, data)
        }
        Notice::BreakerClosed { subscription: id, of } => {
            let mut data = subscription(*id, directory);
            data.extend(members(json!({"of": of.name()})));
            make(source, "breaker.closed", Some((*id).into()), at, data)
        }
        Notice::DiskLow { used, max } => {
            let data = members(json!({"used_bytes": used, "max_bytes": max}));
            make(source, "disk.low", None, at, data)
        }
    }
}

/// Returns the type of an announcement's event, without what all have in common.
pub(super) fn ty(cause: &Cause) -> &'static str {
    match cause {
        Cause::Disabled { .. } => "subscription.disabled",
        Cause::Enabled => "subscription.enabled",
        Cause::Dead(_) | Cause::Expired { .. } => "delivery.dead",
        Cause::RunFailed { .. } => "handler.failed",
        Cause::Replayed(_) => "replay.done",
    }
}

fn who(about: RecipientId, cause: &Cause, directory: &Directory) -> Map<String, Value> {
    match cause {
        Cause::RunFailed { handler, .. } => members(json!({"recipient": about.uuid(), "handler": handler})),
        Cause::Disabled { .. }
        | Cause::Enabled
        | Cause::Dead(_)
        | Cause::Expired { .. }
        | Cause::Replayed(_) => subscription(about.subscription_id(), directory),
    }
}

fn subscription(id: SubscriptionId, directory: &Directory) -> Map<String, Value> {
    let known = directory.get(id);
    members(json!({
        "subscription": id.uuid(),
        "name": known.as_ref().map(|known| &known.name),
        "user": known.as_ref().map(|known| &known.user),
    }))
}

fn dead_letter(letter: &DeadLetter, recipient: RecipientId, event: Option<EventName>) -> Map<String, Value> {
    let DeadLetter { event: id, attempts, reason, answer, was_allowed: _ } = letter;
    members(json!({
        "event": id.uuid(),
        "event_id": event.as_ref().map(|event| &event.id),
        "event_source": event.as_ref().map(|event| &event.source),
        "event_type": event.as_ref().map(|event| &event.ty),
        "delivery": DeliveryId::of(*id, recipient).uuid(),
        "reason": reason,
        "attempts": attempts,
        "answer": answer.as_ref().map(|answer| json!({"status": answer.status, "body": answer.body})),
    }))
}

fn replay(replayed: &Replayed) -> Map<String, Value> {
    let Replayed { job, state, reason, looked_at, changed, by } = replayed;
    members(json!({
        "job": job.map_or("recover", Kind::name),
        "state": state,
        "reason": reason,
        "looked_at": looked_at,
        "changed": changed,
        "by": by,
    }))
}

fn members(object: Value) -> Map<String, Value> {
    match object {
        Value::Object(members) => members,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    }
}

fn make(
    source: &str,
    ty: &str,
    subject: Option<RecipientId>,
    at: Timestamp,
    data: Map<String, Value>,
) -> Event {
    let mut event = members(json!({
        "specversion": "1.0",
        "id": Uuid::now_v7(),
        "source": source,
        "type": format!("{}{ty}", waypost_domain::operator::TYPES),
        "time": clock::text(at),
        "datacontenttype": "application/json",
        "data": data,
    }));
    event.extend(subject.map(|subject| ("subject".to_owned(), subject.to_string().into())));
    Event::from_json(Value::Object(event).to_string()).expect("it has what a CloudEvent needs")
}
