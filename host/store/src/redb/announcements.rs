//! What Waypost has to tell its operators and has not logged yet: written in the commit of its cause, removed in the commit
//! that logs its event.

use redb::{ReadTransaction, ReadableTable as _, ReadableTableMetadata as _, StorageError};

use super::handle::Fault;
use super::log::{self, BATCHES};
use super::read::Reader;
use super::record;
use super::schema::tables;
use crate::{AnnouncementPage, AnnouncementPlace, AnnouncementRow, EventName, Position};
use waypost_domain::{Announcement, EventId};

tables! {
    /// The table of announcements.
    AnnouncementTables {
        /// (Group of writes, place in it) → what it has to announce. Written by the group, removed when the event is logged.
        ANNOUNCEMENTS as rows = "announcements": (u64, u32) => &'static [u8];
    }
}

/// How many announcements wait at most: while nobody logs them, further ones are dropped.
pub(super) const WAITING_MAX: u64 = 100_000;

/// Announcements, as a group of writes changes them.
pub(super) struct Announcements<'a, 'txn> {
    tables: &'a mut AnnouncementTables<'txn>,
    /// How many the group has written.
    pub(super) added: u32,
}

impl<'a, 'txn> Announcements<'a, 'txn> {
    pub(super) fn new(tables: &'a mut AnnouncementTables<'txn>) -> Self {
        Self { tables, added: 0 }
    }

    /// Adds an announcement of the group at `position`.
    pub(super) fn add(
        &mut self,
        position: Position,
        announcement: &Announcement,
    ) -> Result<(), StorageError> {
        if self.tables.rows.len()? >= WAITING_MAX {
            return Ok(());
        }
        let record = record::encode_announcement(announcement);
        self.tables.rows.insert((position.0, self.added), record.as_slice())?;
        self.added += 1;
        Ok(())
    }

    /// Removes what was read from `first` to `last`; returns `false` if somebody else has.
    pub(super) fn take(&mut self, first: AnnouncementPlace, last: AnnouncementPlace) -> Result<bool, Fault> {
        let oldest = self.tables.rows.first()?.map(|(place, _)| place.value());
        if oldest != Some(key(first)) {
            return Ok(false);
        }
        self.tables.rows.retain_in(..=key(last), |_, _| false)?;
        Ok(true)
    }
}

fn key(AnnouncementPlace { group, index }: AnnouncementPlace) -> (u64, u32) {
    (group, index)
}

/// See [`crate::Store::announcements`].
pub(super) fn page(reader: &Reader, limit: usize) -> Result<Option<AnnouncementPage>, Fault> {
    reader.handle.read(|txn| {
        let mut page: Option<AnnouncementPage> = None;
        for row in txn.open_table(ANNOUNCEMENTS)?.iter()?.take(limit) {
            let (key, record) = row?;
            let (group, index) = key.value();
            let place = AnnouncementPlace { group, index };
            let page = page.get_or_insert(AnnouncementPage { first: place, last: place, found: Vec::new() });
            page.last = place;
            let read = record::decode_announcement(record.value());
            if let Some(announcement) = reader.marks.pass("announcements", (group, index), read) {
                let event = announcement.event().map(|event| name(reader, txn, event)).transpose()?.flatten();
                page.found.push(AnnouncementRow { place, announcement, event });
            }
        }
        Ok(page)
    })
}

/// Returns what an event says of itself, if it is there and can be read.
fn name(reader: &Reader, txn: &ReadTransaction, event: EventId) -> Result<Option<EventName>, Fault> {
    let id = event.uuid().as_u128();
    let Some(key) = log::batch_of(&txn.open_table(BATCHES)?, id)? else { return Ok(None) };
    let batch = reader.wanted(txn, key, |_, found| found == id)?;
    let found = batch.iter().flatten().find(|logged| logged.id == event);
    Ok(found.map(|logged| {
        let [id, source, ty] =
            [logged.event.id(), logged.event.source(), logged.event.ty()].map(str::to_owned);
        EventName { id, source, ty }
    }))
}
