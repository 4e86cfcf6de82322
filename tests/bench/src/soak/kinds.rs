//! The kinds of subscriptions of a soak, and what their targets do.

use std::time::Duration;

use serde_json::{Value, json};

use crate::event::KEY;

/// How many producers there are. Each sends the next when the last was answered, so that its events have an order; their
/// [`KEY`] tells them apart.
pub(super) const PRODUCERS: usize = 16;

/// One subscription.
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// The producer whose events alone match; all match without.
    pub(super) of: Option<usize>,
    /// Whether each event reaches its target in the end.
    pub(super) is_owed: bool,
    pub(super) is_ordered: bool,
    pub(super) plugin: Plugin,
    pub(super) does: Does,
}

/// The plugin of a subscription, if it has one: the probe of the tests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Plugin {
    None,
    Transform,
    State,
}

/// What a target does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    Answer,
    /// Answers after a while.
    Wait(Duration),
    /// Answers one of this many requests with 500.
    FailAtRandom(u64),
    /// Answers all but one of ten events with 415: a dead letter at once.
    Refuse,
    /// Answers 503, always.
    Down,
}

const PLAIN: Kind = Kind {
    name: "plain",
    of: None,
    is_owed: true,
    is_ordered: false,
    plugin: Plugin::None,
    does: Does::Answer,
};

/// All of them.
pub(super) const KINDS: [Kind; 9] = [
    PLAIN,
    Kind { name: "transform", plugin: Plugin::Transform, ..PLAIN },
    // One call after the other: 130 a second on two busy cores.
    Kind { name: "state", of: Some(3), plugin: Plugin::State, ..PLAIN },
    Kind { name: "fifo", of: Some(0), is_ordered: true, ..PLAIN },
    Kind { name: "keyed", is_ordered: true, ..PLAIN },
    Kind { name: "slow", of: Some(1), does: Does::Wait(Duration::from_millis(150)), ..PLAIN },
    Kind { name: "flaky", does: Does::FailAtRandom(20), ..PLAIN },
    Kind { name: "refusing", does: Does::Refuse, ..PLAIN },
    Kind { name: "down", of: Some(2), is_owed: false, does: Does::Down, ..PLAIN },
];

/// The place of the kind whose target is down, and of the one whose target makes dead letters.
pub(super) const DOWN: usize = 8;
pub(super) const REFUSING: usize = 7;

impl Kind {
    /// Returns the members of the subscription that differ from those of a plain one.
    pub(super) fn members(&self, digest: &str) -> Value {
        let mut members = json!({});
        if self.is_ordered {
            members["ordering"] = if self.of.is_some() { json!("fifo") } else { json!({"key": KEY}) };
        }
        match self.plugin {
            Plugin::None => {}
            Plugin::Transform => {
                members["plugin"] = json!({"digest": digest, "config": {"transform": "same"}})
            }
            // Sends each event's id and the number that its state has got by it.
            Plugin::State => {
                let config = json!({"count": "events", "transform": "numbered"});
                members["plugin"] = json!({"digest": digest, "config": config});
            }
        }
        match self.does {
            Does::Answer | Does::Wait(_) | Does::Refuse => {}
            Does::FailAtRandom(_) => members["retry"] = json!("100ms,200ms,400ms,1s,1s,1s,1s,1s,1s,1s"),
            // Longer than the soak: its deliveries wait until they are discarded.
            Does::Down => members["retry"] = json!("1s,10s,100s,24h"),
        }
        members
    }
}
