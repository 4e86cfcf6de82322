//! Tokens and sessions, and the audit: who may ask, and who changed what.

use std::collections::HashMap;

use jiff::Timestamp;
use redb::{ReadableTable as _, StorageError};

use super::damage::Marks;
use super::handle::Fault;
use super::read::Reader;
use super::record;
use super::schema::tables;
use crate::tokens::TokenChange;
use crate::{AuditPlace, AuditQuery, Error, Position};
use waypost_domain::{AuditEntry, Token, TokenId};

tables! {
    /// The tables of tokens and of the audit.
    AccessTables {
        /// Token or session → the record. Its secret is not in it.
        TOKENS as tokens = "tokens": u128 => &'static [u8];
        /// Token or session → when it was last used, in microseconds since 1970; up to a minute behind.
        TOKEN_USES as uses = "token_uses": u128 => i64;
        /// (Group of writes, place in it) → who did what. Only added to, by the commit that does it, and removed by age.
        AUDIT as audit = "audit": (u64, u32) => &'static [u8];
    }
}

/// How many sessions a token has at most: the next one ends the oldest.
pub(super) const SESSIONS_MAX: usize = 16;
/// How many entries of the audit one write removes.
const PURGED_AT_ONCE: usize = 4096;
/// How many entries of the audit one read looks at.
const LOOKED_AT_MAX: usize = 10_000;

/// Tokens and the audit, as a group of writes changes them.
pub(super) struct Access<'a, 'txn> {
    tables: &'a mut AccessTables<'txn>,
    marks: &'a Marks,
    /// What is to be published.
    pub(super) changed: Vec<TokenChange>,
    /// How many entries of the audit the group has written.
    entries: u32,
}

impl<'a, 'txn> Access<'a, 'txn> {
    pub(super) fn new(tables: &'a mut AccessTables<'txn>, marks: &'a Marks) -> Self {
        Self { tables, marks, changed: Vec::new(), entries: 0 }
    }

    /// Writes a new token, unless its user has as many as may be, or a session; returns `false` if there is one with this id, or
    /// the token of a session is gone.
    pub(super) fn put(&mut self, token: &Token, most: u32) -> Result<Result<bool, Error>, Fault> {
        if self.tables.tokens.get(key(token.id))?.is_some() {
            return Ok(Ok(false));
        }
        if let Some(parent) = token.session_of {
            if self.tables.tokens.get(key(parent))?.is_none() {
                return Ok(Ok(false));
            }
            let mut sessions = self.of(|known| known.session_of == Some(parent))?;
            sessions.sort_by_key(|session| (session.created, session.id));
            let too_many = (sessions.len() + 1).saturating_sub(SESSIONS_MAX);
            for oldest in sessions.drain(..too_many) {
                self.forget(&oldest)?;
            }
        } else {
            let own = self.of(|known| known.session_of.is_none() && known.user == token.user)?;
            if u32::try_from(own.len()).is_ok_and(|own| own >= most) {
                let user = token.user.clone();
                return Ok(Err(Error::TooManyTokens { user, most }));
            }
        }
        self.tables.tokens.insert(key(token.id), record::encode_token(token).as_slice())?;
        self.changed.push(TokenChange::Put(token.clone()));
        Ok(Ok(true))
    }

    /// Removes a token with its sessions, or a session; returns whether it was there.
    pub(super) fn remove(&mut self, id: TokenId) -> Result<bool, Fault> {
        let row = self.tables.tokens.get(key(id))?.map(|row| record::decode_token(row.value()));
        let Some(read) = row else { return Ok(false) };
        for session in self.of(|known| known.session_of == Some(id))? {
            self.forget(&session)?;
        }
        match self.marks.pass("tokens", id, read) {
            Some(token) => self.forget(&token)?,
            None => drop(self.tables.tokens.remove(key(id))?),
        }
        Ok(true)
    }

    /// Remembers when tokens were used.
    pub(super) fn used(&mut self, uses: &[(TokenId, Timestamp)]) -> Result<(), Fault> {
        for (id, at) in uses {
            let row = self.tables.tokens.get(key(*id))?.map(|row| record::decode_token(row.value()));
            let known = row.and_then(|read| self.marks.pass("tokens", id, read));
            let before = self.tables.uses.get(key(*id))?.map(|before| before.value());
            if let Some(token) = known.filter(|_| before.is_none_or(|before| before < at.as_microsecond())) {
                self.tables.uses.insert(key(*id), at.as_microsecond())?;
                self.changed.push(TokenChange::Used(token.hash, *at));
            }
        }
        Ok(())
    }

    /// Returns the tokens and sessions that are meant.
    fn of(&self, is_meant: impl Fn(&Token) -> bool) -> Result<Vec<Token>, Fault> {
        let mut found = Vec::new();
        for row in self.tables.tokens.iter()? {
            let (id, row) = row?;
            let token = self.marks.pass("tokens", id.value(), record::decode_token(row.value()));
            found.extend(token.filter(|token| is_meant(token)));
        }
        Ok(found)
    }

    fn forget(&mut self, token: &Token) -> Result<(), StorageError> {
        self.tables.tokens.remove(key(token.id))?;
        self.tables.uses.remove(key(token.id))?;
        self.changed.push(TokenChange::Removed(token.hash));
        Ok(())
    }

    /// Adds an entry to the audit.
    pub(super) fn audit(&mut self, position: Position, entry: &AuditEntry) -> Result<(), StorageError> {
        let place = (position.0, self.entries);
        self.entries += 1;
        self.tables.audit.insert(place, record::encode_audit(entry).as_slice()).map(drop)
    }

    /// Removes the oldest entries from before a time, up to the first that is not; returns whether there may be more.
    pub(super) fn purge_audit(&mut self, before: Timestamp) -> Result<bool, Fault> {
        let mut old = Vec::new();
        for row in self.tables.audit.iter()?.take(PURGED_AT_ONCE) {
            let (place, row) = row?;
            let entry = self.marks.pass("audit", place.value(), record::decode_audit(row.value()));
            if entry.is_some_and(|entry| entry.at >= before) {
                break;
            }
            old.push(place.value());
        }
        for place in &old {
            self.tables.audit.remove(place)?;
        }
        Ok(old.len() == PURGED_AT_ONCE)
    }
}

fn key(id: TokenId) -> u128 {
    id.uuid().as_u128()
}

/// Returns all tokens and sessions, and when they were last used.
pub(super) fn tokens(reader: &Reader) -> Result<Vec<(Token, Option<Timestamp>)>, Fault> {
    reader.handle.read(|txn| {
        let mut uses = HashMap::new();
        for row in txn.open_table(TOKEN_USES)?.iter()? {
            let (id, at) = row?;
            let at = reader.marks.pass("token_uses", id.value(), record::timestamp(at.value()));
            uses.extend(at.map(|at| (id.value(), at)));
        }
        let mut tokens = Vec::new();
        for row in txn.open_table(TOKENS)?.iter()? {
            let (id, row) = row?;
            let token = reader.marks.pass("tokens", id.value(), record::decode_token(row.value()));
            tokens.extend(token.map(|token| (token, uses.get(&id.value()).copied())));
        }
        Ok(tokens)
    })
}

/// See [`crate::Store::audit`].
pub(super) fn audit(
    reader: &Reader,
    query: &AuditQuery,
) -> Result<(Vec<AuditEntry>, Option<AuditPlace>), Fault> {
    reader.handle.read(|txn| {
        let table = txn.open_table(AUDIT)?;
        let end = query.before.map_or((u64::MAX, u32::MAX), |place| (place.group, place.index));
        let (mut found, mut next) = (Vec::new(), None);
        for (looked_at, row) in table.range(..end)?.rev().enumerate() {
            if found.len() == query.limit || looked_at == LOOKED_AT_MAX {
                return Ok((found, next));
            }
            let (place, row) = row?;
            let (group, index) = place.value();
            next = Some(AuditPlace { group, index });
            let entry = reader.marks.pass("audit", (group, index), record::decode_audit(row.value()));
            let Some(entry) = entry else { continue };
            if query.since.is_some_and(|since| entry.at < since) {
                break;
            }
            found.extend(query.fits(&entry).then_some(entry));
        }
        Ok((found, None))
    })
}
