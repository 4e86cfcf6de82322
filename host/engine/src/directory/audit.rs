//! What the audit says of a change of a subscription: which members were changed, and short ones from what to what. No
//! secrets: of a URL not the query, of credentials and extensions not the value.

use serde_json::{Value, json};

use waypost_domain::sending::Sending;
use waypost_domain::{Action, Activity, Actor, AuditEntry, Subscription};
use waypost_runtime::clock;

/// The most characters of a value.
const VALUE_CHARS_MAX: usize = 200;

/// Notes that a subscription was created.
pub(super) fn created(new: &Subscription, by: &Actor) -> AuditEntry {
    let note = AuditEntry::new(Action::SubscriptionCreate, new.id, by, clock::now()).of(&new.user);
    note.with("name", short(new.name.as_str().into()))
        .with("target_url", short(target(new)))
        .with("jsonpath", short(new.jsonpath.as_str().into()))
}

/// Notes that a subscription was changed, or deleted.
pub(super) fn changed(before: &Subscription, after: &Subscription, by: &Actor) -> AuditEntry {
    let action = match after.deleted {
        None => Action::SubscriptionChange,
        Some(_) => Action::SubscriptionDelete,
    };
    let note = AuditEntry::new(action, after.id, by, clock::now())
        .of(&after.user)
        .with("name", short(before.name.as_str().into()));
    if after.deleted.is_some() {
        return note.with("target_url", short(target(before)));
    }
    let open = |name, value: fn(&Subscription) -> Value| {
        (name, value(before) != value(after), value(before), value(after))
    };
    let hidden = |name, is_changed: bool| (name, is_changed, Value::Null, Value::Null);
    let members = [
        open("name", |of| of.name.as_str().into()),
        open("jsonpath", |of| of.jsonpath.as_str().into()),
        open("filter_dialect", |of| json!(of.filter_dialect)),
        ("target_url", before.target_url != after.target_url, target(before), target(after)),
        open("enabled", |of| activity(&of.activity)),
        open("version", |of| of.version.as_str().into()),
        hidden("extensions", before.extensions != after.extensions),
        hidden("auth", before.auth != after.auth),
        hidden("headers", differs(before, after, |sending| &sending.headers)),
        hidden("signing", differs(before, after, |sending| &sending.signing)),
        hidden("client_certificate", differs(before, after, |sending| &sending.client_certificate)),
        hidden("target_ca", differs(before, after, |sending| &sending.target_ca)),
        hidden("handshake", differs(before, after, |sending| &sending.handshake)),
        open("retry", |of| json!(of.retry.as_ref().map(ToString::to_string))),
        open("timeout_ms", |of| json!(of.timeout.map(|time| time.as_millis()))),
        open("max_in_flight", |of| json!(of.max_in_flight)),
        open("rate_limit", |of| json!(of.rate_limit.map(|limit| limit.to_string()))),
        ("dead_letter_url", before.dead_letter_url != after.dead_letter_url, letters(before), letters(after)),
        open("ordering", |of| of.order.as_ref().map_or(Value::Null, |order| format!("{order:?}").into())),
        open("event_format", |of| format!("{:?}", of.event_format).into()),
        open("content_mode", |of| format!("{:?}", of.content_mode).into()),
        open("content_type", |of| format!("{:?}", of.content_type).into()),
        ("plugin", before.plugin != after.plugin, module(before), module(after)),
    ];
    members.into_iter().filter(|(_, is_changed, ..)| *is_changed).fold(note, |note, (name, _, from, to)| {
        note.with(name, json!({"from": short(from), "to": short(to)}))
    })
}

/// Tells whether a part of what a subscription adds to its requests has changed.
fn differs<T: PartialEq>(before: &Subscription, after: &Subscription, part: fn(&Sending) -> &T) -> bool {
    let nothing = Sending::default();
    let [before, after] = [before, after].map(|of| of.sending.as_deref().unwrap_or(&nothing));
    part(before) != part(after)
}

fn activity(activity: &Activity) -> Value {
    match activity {
        Activity::Enabled => true.into(),
        Activity::Disabled { error: None, .. } => false.into(),
        Activity::Disabled { error: Some(error), .. } => format!("false: {error}").into(),
    }
}

fn module(of: &Subscription) -> Value {
    json!(of.plugin.as_ref().map(|plugin| plugin.digest.to_string()))
}

fn target(of: &Subscription) -> Value {
    of.target_url.without_query().as_str().into()
}

fn letters(of: &Subscription) -> Value {
    json!(of.dead_letter_url.as_ref().map(|url| url.without_query().as_str().to_owned()))
}

/// Shortens a text.
fn short(value: Value) -> Value {
    let cut =
        value.as_str().and_then(|text| text.char_indices().nth(VALUE_CHARS_MAX).map(|(end, _)| &text[..end]));
    cut.map(|cut| format!("{cut}…").into()).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use waypost_domain::{Auth, Sealed};

    fn subscription() -> Subscription {
        let target = "http://localhost/x?key=hush".parse().unwrap();
        Subscription::new("ann".into(), "mine".into(), "$".into(), target, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_change_says_which_members_and_no_secret() {
        let before = subscription();
        let by = Actor::program("root");
        let note = created(&before, &by);
        assert_eq!(
            Value::Object(note.detail),
            json!({"name": "mine", "target_url": "http://localhost/x", "jsonpath": "$"})
        );
        let after = Subscription {
            target_url: "http://localhost/x?key=other".parse().unwrap(),
            jsonpath: "é".repeat(201),
            extensions: serde_json::from_str(r#"{"token": "hush"}"#).unwrap(),
            activity: Activity::Disabled { since: Timestamp::UNIX_EPOCH, error: Some("404".to_owned()) },
            updated: clock::now(),
            ..before.clone()
        };
        let note = changed(&before, &after, &by);
        assert_eq!(note.action, Action::SubscriptionChange);
        let same = json!({"from": "http://localhost/x", "to": "http://localhost/x"});
        assert_eq!(
            Value::Object(note.detail),
            json!({
                "name": "mine",
                "target_url": same,
                "jsonpath": {"from": "$", "to": format!("{}…", "é".repeat(200))},
                "extensions": {"from": null, "to": null},
                "enabled": {"from": true, "to": "false: 404"},
            })
        );
        let with = |credentials: &str| {
            let auth = Auth::Header {
                scheme: "Bearer".to_owned(),
                credentials: Sealed::unsealed(credentials.to_owned().into()),
            };
            Subscription { auth, ..before.clone() }
        };
        let note = changed(&with("hush"), &with("hush hush"), &by);
        assert_eq!(note.detail["auth"], json!({"from": null, "to": null}));
        let gone = changed(&before, &before.deleted(clock::now()), &by);
        assert_eq!((gone.action, gone.user.as_deref()), (Action::SubscriptionDelete, Some("ann")));
    }
}
