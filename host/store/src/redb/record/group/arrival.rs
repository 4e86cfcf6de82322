//! The record of an event on its way into the log.

use std::borrow::Cow;

use crate::Arrival;
use crate::redb::record::event::EventRecord;
use crate::redb::record::form::{List, Nanos, record};
use waypost_domain::RecipientId;

record! {
    /// An event on its way into the log.
    pub(super) struct ArrivalRecord<'a> of Arrival {
        received: Nanos,
        sender: Cow<'a, str>,
        matched: List<'a, RecipientId, u128>,
        failed: List<'a, (RecipientId, String), (u128, Cow<'a, str>)>,
        #[serde(borrow)]
        event: EventRecord<'a>,
    }
}
