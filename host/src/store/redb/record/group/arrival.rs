//! The record of an event on its way into the log.

use std::borrow::Cow;

use crate::domain::RecipientId;
use crate::store::Arrival;
use crate::store::redb::record::event::EventRecord;
use crate::store::redb::record::form::{List, Nanos, record};

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
