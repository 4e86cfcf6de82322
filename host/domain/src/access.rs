//! Who may ask for what: tokens and sessions; and the audit, the list of who changed what.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use jiff::Timestamp;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::TokenId;

/// What the text of a token begins with.
pub const TOKEN_PREFIX: &str = "wp_";
/// How many random bytes a token or a session has.
pub const SECRET_BYTES: usize = 32;
/// The longest name of a token, in characters.
pub const TOKEN_NAME_CHARS_MAX: usize = 100;

/// A right that a token can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// To send events, and nothing else.
    Receive,
    /// To see what the user may see.
    Read,
    /// To change what is the user's own: subscriptions, modules, redeliveries. It includes `read`.
    Subscribe,
    /// Everything, for everybody's things.
    Admin,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 4] = [Self::Receive, Self::Read, Self::Subscribe, Self::Admin];

    /// Returns its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Read => "read",
            Self::Subscribe => "subscribe",
            Self::Admin => "admin",
        }
    }

    /// Returns the scope of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The scopes of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// What a user may do who is no admin.
    pub const USER: Self = Self(0b111);
    /// Everything.
    pub const ADMIN: Self = Self(0b1000);

    /// Tells whether they allow what needs this scope.
    pub const fn allow(self, scope: Scope) -> bool {
        let bits = match scope {
            Scope::Receive => 0b1001,
            Scope::Read => 0b1110,
            Scope::Subscribe => 0b1100,
            Scope::Admin => 0b1000,
        };
        self.0 & bits != 0
    }

    /// Tells whether everything that the others allow is allowed by these, too.
    pub fn cover(self, others: Self) -> bool {
        others.iter().all(|scope| self.allow(scope))
    }

    /// Returns them in order.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.0 & bit(*scope) != 0)
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | bit(scope)))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(Scope::name).collect();
        f.write_str(&names.join(", "))
    }
}

const fn bit(scope: Scope) -> u8 {
    match scope {
        Scope::Receive => 0b1,
        Scope::Read => 0b10,
        Scope::Subscribe => 0b100,
        Scope::Admin => 0b1000,
    }
}

/// The SHA-256 of a token's or a session's secret. The secret has 256 random bits, so that a fast hash is as good as a slow
/// one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecretHash(pub [u8; 32]);

impl SecretHash {
    /// Hashes a secret as it is sent: `wp_…` of a token, the value of a session's cookie.
    pub fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash")
    }
}

/// Writes the secret of a new token.
pub fn token_text(secret: &[u8; SECRET_BYTES]) -> String {
    format!("{TOKEN_PREFIX}{}", BASE64URL_NOPAD.encode(secret))
}

/// A token, or a session that was begun with one. Its secret is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its id, which is no secret.
    pub id: TokenId,
    /// A name for people, at most [`TOKEN_NAME_CHARS_MAX`] characters.
    pub name: String,
    /// Whom it speaks for.
    pub user: String,
    /// What it may be used for.
    pub scopes: Scopes,
    /// What its secret is known by.
    pub hash: SecretHash,
    /// When it was made.
    pub created: Timestamp,
    /// Who made it.
    pub by: String,
    /// From when on it is no good.
    pub expires: Option<Timestamp>,
    /// The token that a session was begun with, and ends with; `None` for a token.
    pub session_of: Option<TokenId>,
}

impl Token {
    /// Tells whether it is past its end.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// How a request says who it is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The program that embeds Waypost, or Waypost itself.
    Program,
    /// A token.
    Token(TokenId),
    /// A session.
    Session(TokenId),
    /// The header of a trusted proxy.
    Header,
    /// The certificate of a TLS client.
    Certificate,
    /// Nothing: it comes from this machine, and is the default user's.
    Default,
}

impl Via {
    /// Returns its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Program => "program",
            Self::Token(_) => "token",
            Self::Session(_) => "session",
            Self::Header => "header",
            Self::Certificate => "certificate",
            Self::Default => "default",
        }
    }

    /// Returns the token or session, if it is one.
    pub const fn token(self) -> Option<TokenId> {
        match self {
            Self::Token(id) | Self::Session(id) => Some(id),
            Self::Program | Self::Header | Self::Certificate | Self::Default => None,
        }
    }
}

/// Who changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The user.
    pub user: String,
    /// How the user is known.
    pub via: Via,
}

impl Actor {
    /// Returns the program that embeds Waypost, in the name of a user.
    pub fn program(user: impl Into<String>) -> Self {
        Self { user: user.into(), via: Via::Program }
    }
}

/// What was done to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A subscription was created.
    SubscriptionCreate,
    /// A subscription was changed; the detail has the members.
    SubscriptionChange,
    /// A subscription was deleted.
    SubscriptionDelete,
    /// A module was uploaded.
    ModuleUpload,
    /// A replay of the log was begun.
    RecoveryBegin,
    /// A replay of the log was cancelled.
    RecoveryCancel,
    /// The sending again of all dead letters was begun.
    RedeliverBegin,
    /// That was cancelled.
    RedeliverCancel,
    /// The giving up of deliveries was begun.
    DiscardBegin,
    /// That was cancelled.
    DiscardCancel,
    /// An event was sent again.
    EventRedeliver,
    /// Events were removed.
    EventPurge,
    /// A token was made.
    TokenCreate,
    /// A token was revoked.
    TokenRevoke,
    /// A session was begun.
    SessionBegin,
    /// A session was ended.
    SessionEnd,
}

impl Action {
    /// All actions.
    pub const ALL: [Self; 16] = [
        Self::SubscriptionCreate,
        Self::SubscriptionChange,
        Self::SubscriptionDelete,
        Self::ModuleUpload,
        Self::RecoveryBegin,
        Self::RecoveryCancel,
        Self::RedeliverBegin,
        Self::RedeliverCancel,
        Self::DiscardBegin,
        Self::DiscardCancel,
        Self::EventRedeliver,
        Self::EventPurge,
        Self::TokenCreate,
        Self::TokenRevoke,
        Self::SessionBegin,
        Self::SessionEnd,
    ];

    /// Returns its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SubscriptionCreate => "subscription.create",
            Self::SubscriptionChange => "subscription.change",
            Self::SubscriptionDelete => "subscription.delete",
            Self::ModuleUpload => "module.upload",
            Self::RecoveryBegin => "recovery.begin",
            Self::RecoveryCancel => "recovery.cancel",
            Self::RedeliverBegin => "redeliver.begin",
            Self::RedeliverCancel => "redeliver.cancel",
            Self::DiscardBegin => "discard.begin",
            Self::DiscardCancel => "discard.cancel",
            Self::EventRedeliver => "event.redeliver",
            Self::EventPurge => "event.purge",
            Self::TokenCreate => "token.create",
            Self::TokenRevoke => "token.revoke",
            Self::SessionBegin => "session.begin",
            Self::SessionEnd => "session.end",
        }
    }

    /// Returns the action of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }
}

/// One entry of the audit: who did what, to what, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: Actor,
    /// What was done.
    pub action: Action,
    /// To what: a UUID, a digest; empty where it is not one thing.
    pub id: String,
    /// Whose it is, where it is somebody's.
    pub user: Option<String>,
    /// What else there is to say. No secrets.
    pub detail: Map<String, Value>,
}

impl AuditEntry {
    /// Notes that somebody did something to the thing with this id.
    pub fn new(action: Action, id: impl ToString, by: &Actor, at: Timestamp) -> Self {
        Self { at, by: by.clone(), action, id: id.to_string(), user: None, detail: Map::new() }
    }

    /// Says whose the thing is.
    pub fn of(self, user: &str) -> Self {
        Self { user: Some(user.to_owned()), ..self }
    }

    /// Says something more.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.detail.insert(name.to_owned(), value.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_may_do_everything_and_a_receiver_nothing_else() {
        let allowed = |scopes: Scopes| {
            let allowed = Scope::ALL.into_iter().filter(|scope| scopes.allow(*scope)).map(Scope::name);
            allowed.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(allowed(Scopes::ADMIN), "receive read subscribe admin");
        assert_eq!(allowed(Scopes::USER), "receive read subscribe");
        let one = |scope| Scopes::from_iter([scope]);
        assert_eq!(allowed(one(Scope::Receive)), "receive");
        assert_eq!(allowed(one(Scope::Read)), "read");
        assert_eq!(allowed(one(Scope::Subscribe)), "read subscribe");
        assert!(Scopes::ADMIN.cover(Scopes::USER) && !Scopes::USER.cover(Scopes::ADMIN));
        assert!(!one(Scope::Read).cover(one(Scope::Receive)));
        assert_eq!(Scopes::USER.to_string(), "receive, read, subscribe");
    }

    #[test]
    fn a_token_is_text_that_a_header_can_hold() {
        let text = token_text(&[0xff; SECRET_BYTES]);
        assert_eq!(text, "wp___________________________________________8");
        assert_ne!(SecretHash::of(&text), SecretHash::of(&token_text(&[0; SECRET_BYTES])));
        assert_eq!(format!("{:?}", SecretHash::of(&text)), "SecretHash");
    }

    #[test]
    fn names_lead_back() {
        assert!(Scope::ALL.into_iter().all(|scope| Scope::of(scope.name()) == Some(scope)));
        assert!(Action::ALL.into_iter().all(|action| Action::of(action.name()) == Some(action)));
    }
}
