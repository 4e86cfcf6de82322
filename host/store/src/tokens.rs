//! The tokens and sessions that are good, in memory: what a request's secret is looked up in. The store changes it after
//! each commit that changes one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use jiff::Timestamp;

use waypost_domain::{SecretHash, Token, TokenId};

/// A token, and when it was last used.
#[derive(Debug)]
pub struct KnownToken {
    /// The token.
    pub token: Token,
    /// When it was last used, in microseconds since 1970; [`NEVER`] before.
    used: AtomicI64,
    /// The last use that the store has.
    stored: AtomicI64,
}

const NEVER: i64 = i64::MIN;

impl KnownToken {
    fn new(token: Token, used: Option<Timestamp>) -> Self {
        let used = used.map_or(NEVER, Timestamp::as_microsecond);
        Self { token, used: AtomicI64::new(used), stored: AtomicI64::new(used) }
    }

    /// Remembers that it is used.
    pub fn touch(&self, now: Timestamp) {
        self.used.fetch_max(now.as_microsecond(), Relaxed);
    }

    /// Returns when it was last used.
    pub fn used(&self) -> Option<Timestamp> {
        let used = self.used.load(Relaxed);
        (used != NEVER).then(|| Timestamp::from_microsecond(used).ok()).flatten()
    }
}

/// All tokens and sessions.
#[derive(Debug, Default)]
pub struct Tokens(ArcSwap<HashMap<SecretHash, Arc<KnownToken>>>);

/// What a group of writes does to a token.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum TokenChange {
    Put(Token),
    Removed(SecretHash),
    /// It was used, perhaps in another process.
    Used(SecretHash, Timestamp),
}

impl Tokens {
    /// Returns these tokens, each with the time of its last use.
    pub fn new(tokens: Vec<(Token, Option<Timestamp>)>) -> Self {
        let known =
            tokens.into_iter().map(|(token, used)| (token.hash, Arc::new(KnownToken::new(token, used))));
        Self(ArcSwap::from_pointee(known.collect()))
    }

    /// Returns what has a secret with this hash; it may be expired.
    pub fn find(&self, hash: &SecretHash) -> Option<Arc<KnownToken>> {
        self.0.load().get(hash).map(Arc::clone)
    }

    /// Returns a token or session by its id.
    pub fn get(&self, id: TokenId) -> Option<Arc<KnownToken>> {
        self.0.load().values().find(|known| known.token.id == id).map(Arc::clone)
    }

    /// Returns all, oldest first.
    pub fn all(&self) -> Vec<Arc<KnownToken>> {
        let mut all: Vec<_> = self.0.load().values().map(Arc::clone).collect();
        all.sort_by_key(|known| (known.token.created, known.token.id));
        all
    }

    /// Tells whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.load().is_empty()
    }

    /// Returns the uses that are not stored yet, and takes them as stored.
    pub fn take_used(&self) -> Vec<(TokenId, Timestamp)> {
        let known = self.0.load();
        let changed = known.values().filter_map(|known| {
            let used = known.used.load(Relaxed);
            let is_new = known.stored.swap(used, Relaxed) != used;
            Some((known.token.id, known.used().filter(|_| is_new)?))
        });
        changed.collect()
    }

    pub(super) fn publish(&self, changes: Vec<TokenChange>) {
        if changes.is_empty() {
            return;
        }
        let mut known = HashMap::clone(&self.0.load());
        for change in changes {
            match change {
                TokenChange::Put(token) => {
                    known.insert(token.hash, Arc::new(KnownToken::new(token, None)));
                }
                TokenChange::Removed(hash) => {
                    known.remove(&hash);
                }
                TokenChange::Used(hash, at) => {
                    if let Some(known) = known.get(&hash) {
                        known.touch(at);
                        known.stored.fetch_max(at.as_microsecond(), Relaxed);
                    }
                }
            }
        }
        self.0.store(Arc::new(known));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use waypost_domain::Scopes;

    #[test]
    fn a_use_is_taken_once() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let token = Token {
            id: TokenId::from_uuid(uuid::Uuid::from_u128(1)),
            name: "n".to_owned(),
            user: "u".to_owned(),
            scopes: Scopes::USER,
            hash: SecretHash::of("x"),
            created: at(1),
            by: "root".to_owned(),
            expires: None,
            session_of: None,
        };
        let (id, hash) = (token.id, token.hash);
        let tokens = Tokens::new(vec![(token, Some(at(2)))]);
        assert_eq!(tokens.take_used(), []);
        let known = tokens.find(&hash).unwrap();
        known.touch(at(4));
        // A clock that was set back does not undo a use.
        known.touch(at(3));
        assert_eq!(tokens.take_used(), [(id, at(4))]);
        assert_eq!(tokens.take_used(), []);
        tokens.publish(vec![TokenChange::Used(hash, at(6))]);
        assert_eq!((known.used(), tokens.take_used()), (Some(at(6)), Vec::new()));
        tokens.publish(vec![TokenChange::Removed(hash)]);
        assert!(tokens.find(&hash).is_none() && tokens.is_empty());
    }
}
