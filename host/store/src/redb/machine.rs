//! What the tables become: each group of writes is applied in its order, and what it does follows from the tables, the
//! group and its time alone. Settings that decide about writes are in the tables, too.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use redb::ReadableTable as _;

use super::access;
use super::accounts;
use super::apply::{Apply, Effects};
use super::damage::Marks;
use super::group::{Answer, Group, Op, Settings, Value};
use super::handle::Fault;
use super::modules::Files;
use super::read::Reader;
use super::record;
use super::registry;
use super::schema::{POSITION_KEY, Tables};
use super::usage::Usage;
use crate::journal::{Entry, Ticket};
use crate::{Position, Tokens};
use waypost_domain::{PluginDigest, SubscriptionId};
use waypost_runtime::clock;

/// Applies groups of writes.
pub(super) struct Machine {
    pub(super) settings: Settings,
    /// When targets were last reached, as the table has it.
    pub(super) reached: HashMap<SubscriptionId, Timestamp>,
    /// What is kept for users, as the table has it.
    pub(super) usage: Arc<Usage>,
    /// The tokens, as the table has them when this is loaded.
    pub(super) tokens: Arc<Tokens>,
    pub(super) marks: Marks,
    /// The last minute that was written for each recipient among those with ended deliveries: it saves writing it again.
    pub(super) ended_minutes: HashMap<u128, u64>,
}

impl Machine {
    /// Reads what it remembers of the tables.
    pub(super) fn load(reader: &Reader) -> Result<Self, Fault> {
        let settings = reader.settings()?.unwrap_or_default();
        Ok(Self {
            settings,
            reached: registry::reached(reader)?.into_iter().collect(),
            tokens: Arc::new(Tokens::new(access::tokens(reader)?)),
            usage: Arc::new(
                Usage::new(accounts::accounts(reader)?, settings.user_bytes_max)
                    .with_numbers(registry::numbers(reader)?),
            ),
            marks: reader.marks.clone(),
            ended_minutes: HashMap::new(),
        })
    }

    /// Reads it again after a transaction was lost.
    pub(super) fn load_again(&mut self, reader: &Reader) -> Result<(), Fault> {
        let Self { settings, reached, usage, ended_minutes, .. } = Self::load(reader)?;
        self.usage.replace(&usage);
        (self.settings, self.reached, self.ended_minutes) = (settings, reached, ended_minutes);
        Ok(())
    }

    /// Changes the settings of the file, unless it has these.
    pub(super) fn set(&mut self, reader: &Reader, settings: Settings) -> Result<(), Fault> {
        if reader.settings()? == Some(settings) {
            return Ok(());
        }
        let group = Group { ops: vec![Op::Settings(settings)], ends: Vec::new() };
        let written = reader.handle.write(|txn| self.apply(&mut Tables::open(txn)?, clock::now(), &group));
        self.remember(&mut written?.1);
        Ok(())
    }

    /// Applies a group at a time, and returns a value for each of its operations.
    pub(super) fn apply(
        &self,
        tables: &mut Tables<'_>,
        now: Timestamp,
        group: &Group,
    ) -> Result<(Vec<Answer>, Effects), Fault> {
        let mut apply = Apply::begin(self, tables, now)?;
        let answers = apply.group(group)?;
        Ok((answers, apply.finish()?))
    }

    /// Applies an entry of a journal, unless its group was applied before: then nothing but the position changes. Remembers
    /// what it changes at once, for the entries behind it in the transaction: where that fails, load this again.
    pub(super) fn apply_entry(
        &mut self,
        tables: &mut Tables<'_>,
        files: &Files,
        entry: &Entry,
    ) -> Result<(Ticket, AppliedEntry), Fault> {
        let (ticket, mut group) = record::decode_group(&entry.group).map_err(Fault::damaged("journal"))?;
        let expected = tables.meta.get(POSITION_KEY)?.map_or(0, |position| position.value()) + 1;
        if entry.position != Position(expected) {
            return Err(Fault::Closed(format!(
                "the journal gave {:?} instead of {expected}",
                entry.position
            )));
        }
        let is_new = registry::mark(&mut tables.registry, ticket)?;
        if is_new {
            files.write_parts(&group.ops)?;
        } else {
            group = Group::default();
        }
        let (answers, mut effects) = self.apply(tables, entry.at, &group)?;
        self.remember(&mut effects);
        let removed = group.ops.iter().zip(&answers).filter_map(|(op, answer)| match (op.inner(), answer) {
            (Op::RemoveModule { digest, .. }, Ok(Value::Flag(true))) => Some(*digest),
            _ => None,
        });
        let removed_modules = removed.collect();
        Ok((ticket, AppliedEntry { answers: is_new.then_some(answers), effects, removed_modules }))
    }

    /// Takes over what a commit has changed.
    pub(super) fn remember(&mut self, effects: &mut Effects) {
        self.reached.extend(std::mem::take(&mut effects.reached));
        for id in &effects.forgotten {
            self.reached.remove(id);
            self.ended_minutes.remove(&id.uuid().as_u128());
        }
        self.ended_minutes.extend(std::mem::take(&mut effects.ended_minutes));
        if let Some(settings) = effects.settings.take() {
            self.settings = settings;
            self.usage.limit(settings.user_bytes_max);
        }
        self.usage.publish(std::mem::take(&mut effects.usage));
    }
}

/// What an entry of a journal has led to.
pub(super) struct AppliedEntry {
    /// One for each operation; `None` if its group was applied before.
    pub(super) answers: Option<Vec<Answer>>,
    pub(super) effects: Effects,
    /// Modules whose files are to be removed.
    pub(super) removed_modules: Vec<PluginDigest>,
}
