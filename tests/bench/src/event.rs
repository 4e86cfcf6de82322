//! The event that every producer sends: Pacifica's example (CloudEvents 0.1, 2 KB), patched in place.

use bytes::Bytes;
use serde_json::Value;

const EVENT: &str = include_str!("event.json");
const ID: &str = "wpb-0000-000000000000";
const TAG: &str = "\"tag-none\"";
const TYPE: &str = "\"org.pacifica.metadata.ingest\"";
const ID_MARK: &[u8] = b"wpb-";

/// How many bytes one event has.
pub(crate) const EVENT_BYTES: usize = EVENT.len();

/// The filter of the fan-out scenarios; the event's two named files are why it finds three nodes.
pub(crate) const FILES_FILTER: &str = "$.data[?@.destinationTable=='Files'].name";

/// Returns the filter of subscription `n` of `total`: the first half asks for a key-value, the second for the type.
pub(crate) fn equality_filter(n: usize, total: usize) -> String {
    if by_tag(n, total) {
        format!("$.data[?@.key=='tag-{n:04}']")
    } else {
        format!("$[?$.eventType=='type-{n:04}']")
    }
}

/// Finds what differs between events for different subscriptions with [`equality_filter`].
pub(crate) const KEY: &str = "$..['eventType','key']";

/// Returns the event with another id and other data.
pub(crate) fn with_data(id: &str, rows: Vec<Value>) -> Value {
    let mut event: Value = serde_json::from_str(EVENT).expect("event.json is JSON");
    (event["eventID"], event["data"]) = (id.into(), rows.into());
    event
}

fn by_tag(n: usize, total: usize) -> bool {
    n < total / 2
}

/// Names an event: the run of the program that sent it, and its number in that run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventName {
    pub(crate) run: usize,
    pub(crate) seq: usize,
}

impl EventName {
    /// Finds the name in a delivered body, whatever its layout; `None` when there is none.
    pub(crate) fn find(body: &[u8]) -> Option<Self> {
        // From the end: `eventID` comes after the data.
        let at = body.windows(ID_MARK.len()).rposition(|window| window == ID_MARK)?;
        let id = body.get(at..at + ID.len())?;
        Some(Self { run: decimal(&id[4..8])?, seq: decimal(&id[9..])? })
    }
}

/// The event with the positions of the parts that differ from one event to the next.
pub(crate) struct Template {
    id: usize,
    tag: usize,
    ty: usize,
}

impl Template {
    pub(crate) fn new() -> Self {
        let place = |text: &str| EVENT.find(text).expect("event.json holds the placeholders");
        Self { id: place(ID), tag: place(TAG), ty: place(TYPE) }
    }

    /// Renders one event; with `pick` = (n, total) it matches [`equality_filter`] `n` of `total` and no other.
    pub(crate) fn render(&self, name: EventName, pick: Option<(usize, usize)>) -> Bytes {
        let mut body = EVENT.as_bytes().to_vec();
        write_decimal(&mut body[self.id + 4..self.id + 8], name.run);
        write_decimal(&mut body[self.id + 9..self.id + ID.len()], name.seq);
        if let Some((n, total)) = pick {
            // A shorter value is followed by spaces, which JSON ignores.
            let (slot, value) = if by_tag(n, total) {
                (&mut body[self.tag..self.tag + TAG.len()], b"\"tag-0000\"".as_slice())
            } else {
                (&mut body[self.ty..self.ty + TYPE.len()], b"\"type-0000\"".as_slice())
            };
            slot.fill(b' ');
            slot[..value.len()].copy_from_slice(value);
            write_decimal(&mut slot[value.len() - 5..value.len() - 1], n);
        }
        Bytes::from(body)
    }
}

fn write_decimal(slot: &mut [u8], mut value: usize) {
    for digit in slot.iter_mut().rev() {
        *digit = b"0123456789"[value % 10];
        value /= 10;
    }
}

fn decimal(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_json_with_the_name_in_it() {
        let name = EventName { run: 7, seq: 123_456_789 };
        let body = Template::new().render(name, None);
        let event: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(event["eventID"], "wpb-0007-000123456789");
        assert_eq!(EventName::find(&body), Some(name));
        assert_eq!(EventName::find(event.to_string().as_bytes()), Some(name), "also when written anew");
        assert_eq!(EventName::find(b"{\"eventID\":\"wpb-00"), None);
        assert!((1900..2200).contains(&body.len()));
    }

    #[test]
    fn a_picked_event_has_one_key_or_one_type() {
        let name = EventName { run: 0, seq: 1 };
        let tagged: Value = serde_json::from_slice(&Template::new().render(name, Some((7, 1000)))).unwrap();
        assert_eq!(tagged["data"][6]["key"], "tag-0007");
        assert_eq!(tagged["eventType"], "org.pacifica.metadata.ingest");
        let typed: Value = serde_json::from_slice(&Template::new().render(name, Some((507, 1000)))).unwrap();
        assert_eq!(typed["eventType"], "type-0507");
        assert_eq!(typed["data"][6]["key"], "tag-none");
        assert_eq!(equality_filter(7, 1000), "$.data[?@.key=='tag-0007']");
        assert_eq!(equality_filter(507, 1000), "$[?$.eventType=='type-0507']");
    }
}
