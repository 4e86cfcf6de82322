//! The tables of the one file: the version of their layout, the facts about the file, and the handles of a write
//! transaction on all of them.
//!
//! Each table stands with what reads and writes it: the log (`log`), the history of deliveries (`history`), where they
//! stand (`deliveries`), subscriptions and recoveries (`registry`), modules (`modules`), what plugins make and keep
//! (`plugin_data`), what is kept for users (`accounts`), tokens and
//! the audit (`access`), what operators are to know (`announcements`), pieces of large records (`pieces`). Keys sort in the order in
//! which the code walks them.
//!
//! The unit of the log is the **batch**: the events of one commit, in one value. One value costs redb about as much as
//! a whole batch, so batching makes a durable event cheap. An event is found by the last batch key that is not above
//! its id.

use redb::{Table, TableDefinition, TableError, WriteTransaction};

use super::access::AccessTables;
use super::accounts::{USAGE, UsageTable};
use super::announcements::AnnouncementTables;
use super::deliveries::DeliveryTables;
use super::history::{HISTORY, HistoryTable};
use super::log::LogTables;
use super::modules::ModuleTables;
use super::pieces::{PIECES, PiecesTable};
use super::plugin_data::PluginTables;
use super::registry::RegistryTables;
use super::rewrite::Copy;
use super::text::Text;

/// The version of this layout and of its records, under [`SCHEMA_KEY`] in [`META`]: an older Waypost refuses the file
/// instead of calling its records damaged. Since 2, records end with a checksum (`record`); files of version 1 have records
/// without one, which stay readable. Since 3, tables say where each delivery stands; `migrate` makes them of older files.
/// Since 4, secrets are sealed; `rewrite` copies older files, so that no page of them is left. Since 5, what waits is
/// listed by state, and first attempts are counted with the others. Since 6, large batches lie in pieces, and the bytes of the
/// log are counted.
pub(super) const SCHEMA_VERSION: u64 = 6;
/// See [`SCHEMA_VERSION`].
pub(super) const SCHEMA_KEY: &str = "schema";
/// The number of groups of writes so far: each writes it, and has its position by it.
pub(super) const POSITION_KEY: &str = "position";
/// The latest time in an event's id so far, in milliseconds since 1970.
pub(super) const MILLIS_KEY: &str = "millis";

/// By how many milliseconds the time in an id is after its event's receipt, at most, where that is more than
/// [`SLACK`](super::log::SLACK): the clock was set back.
pub(super) const LEAD_KEY: &str = "lead_millis";

/// How many bytes the records of the log and of the history have.
pub(super) const LOG_BYTES_KEY: &str = "log_bytes";

/// The position of the newest change that events are matched with: a new filter, an end of one.
pub(super) const MATCHING_KEY: &str = "matching";
/// See [`Settings`](super::group::Settings).
pub(super) const DEDUP_WINDOW_KEY: &str = "dedup_window_ms";
/// See [`Settings`](super::group::Settings).
pub(super) const USER_BYTES_KEY: &str = "user_bytes_max";

/// Facts about the file. Written when it is created or migrated, and by each group of writes.
pub(super) const META: TableDefinition<'_, Text, u64> = TableDefinition::new("meta");

/// The handles of a write transaction on the facts about the file.
pub(super) type MetaTable<'txn> = Table<'txn, Text, u64>;

/// Defines tables, and the handles of a write transaction on them.
macro_rules! tables {
    (
        $(#[$meta:meta])*
        $handles:ident {
            $($(#[$table_meta:meta])* $table:ident as $field:ident = $name:literal: $key:ty => $value:ty;)+
        }
    ) => {
        $(
            $(#[$table_meta])*
            pub(in $crate::redb) const $table: ::redb::TableDefinition<'_, $key, $value> =
                ::redb::TableDefinition::new($name);
        )+

        $(#[$meta])*
        pub(in $crate::redb) struct $handles<'txn> {
            $(pub(in $crate::redb) $field: ::redb::Table<'txn, $key, $value>,)+
        }

        impl<'txn> $handles<'txn> {
            /// Opens the tables, and creates those that are missing.
            pub(in $crate::redb) fn open(
                txn: &'txn ::redb::WriteTransaction,
            ) -> Result<Self, ::redb::TableError> {
                Ok(Self { $($field: txn.open_table($table)?),+ })
            }

            /// Copies the tables of another file.
            pub(in $crate::redb) fn copy(
                copy: &mut $crate::redb::rewrite::Copy<'_>,
            ) -> Result<(), ::redb::Error> {
                $(copy.table($table)?;)+
                Ok(())
            }
        }
    };
}

pub(super) use tables;

/// All tables of one write transaction.
pub(super) struct Tables<'txn> {
    pub(super) meta: MetaTable<'txn>,
    pub(super) log: LogTables<'txn>,
    pub(super) history: HistoryTable<'txn>,
    pub(super) pieces: PiecesTable<'txn>,
    pub(super) deliveries: DeliveryTables<'txn>,
    pub(super) registry: RegistryTables<'txn>,
    pub(super) modules: ModuleTables<'txn>,
    pub(super) plugin_data: PluginTables<'txn>,
    pub(super) usage: UsageTable<'txn>,
    pub(super) access: AccessTables<'txn>,
    pub(super) announcements: AnnouncementTables<'txn>,
}

impl<'txn> Tables<'txn> {
    /// Opens all tables, and creates those that are missing.
    pub(super) fn open(txn: &'txn WriteTransaction) -> Result<Self, TableError> {
        Ok(Self {
            meta: txn.open_table(META)?,
            log: LogTables::open(txn)?,
            history: txn.open_table(HISTORY)?,
            pieces: txn.open_table(PIECES)?,
            deliveries: DeliveryTables::open(txn)?,
            registry: RegistryTables::open(txn)?,
            modules: ModuleTables::open(txn)?,
            plugin_data: PluginTables::open(txn)?,
            usage: txn.open_table(USAGE)?,
            access: AccessTables::open(txn)?,
            announcements: AnnouncementTables::open(txn)?,
        })
    }

    /// Copies all tables of another file.
    pub(super) fn copy(copy: &mut Copy<'_>) -> Result<(), redb::Error> {
        copy.table(META)?;
        LogTables::copy(copy)?;
        copy.table(HISTORY)?;
        copy.table(PIECES)?;
        DeliveryTables::copy(copy)?;
        RegistryTables::copy(copy)?;
        ModuleTables::copy(copy)?;
        PluginTables::copy(copy)?;
        AccessTables::copy(copy)?;
        AnnouncementTables::copy(copy)?;
        copy.table(USAGE)
    }
}
