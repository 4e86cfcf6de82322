//! Identifies users: the one place that decides whom a request speaks for, and what it may be used for.
//!
//! A token counts first, then a session, then the user header of a trusted proxy, then a TLS client
//! certificate. A request with none of these has the default user if it comes from this machine. Wrong
//! credentials are refused: they never count as missing. A request that a Waypost sends on others' behalf (`net::mark`) has
//! no user unless it has a token, and may only be sent to `/receive`.

mod address;
mod signed;

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{AUTHORIZATION, COOKIE, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};

use waypost_domain::access::{SECRET_BYTES, TOKEN_PREFIX};
use waypost_domain::{Actor, Scope, Scopes, SecretHash, Token, TokenId, Via};
use waypost_net::{MARK, is_marked};
use waypost_runtime::clock;
use waypost_runtime::random;
use waypost_store::{KnownToken, Tokens};

pub use signed::{Producers, ProducersError, Signed};

/// The sender of anonymous events. No user has this name.
pub const NOBODY: &str = "";

/// How long a session lasts without a request.
pub const SESSION_IDLE: SignedDuration = SignedDuration::from_hours(12);
/// How long a session lasts at most.
pub const SESSION_MAX: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Fetch Metadata (W3C), which web pages cannot set themselves.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The user of a client certificate that the listener has verified. Requests have it as an extension.
#[derive(Clone, Debug)]
pub struct PeerCertificate {
    /// The user.
    pub user: String,
}

/// The user of a request, as the application that nests the routes has found out: it inserts this into the request's
/// extensions. Nothing that a client sends becomes one.
#[derive(Clone, Debug)]
pub struct Caller(pub String);

/// What a request counts towards where requests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// This machine: towards no limit.
    Here,
    /// A client behind a proxy that does not name its address: towards the limit of its user.
    Behind,
    /// Any other client: towards the limits of its address and its user.
    Address(IpAddr),
}

/// What `/receive` asks of senders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveAuth {
    /// Nothing: anonymous senders are accepted as well.
    None,
    /// A token with the scope `receive`.
    Token,
    /// A signature of a known producer, by Standard Webhooks.
    Signature,
}

/// How users are identified.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The header with the user's name.
    pub user_header: HeaderName,
    /// The user of a request from this machine without credentials; empty for none.
    pub default_user: String,
    /// The networks whose user header is believed.
    pub trusted: Vec<IpNet>,
    /// Whether the operator has named these networks. This machine is trusted by default, but a proxy on it
    /// that the operator has not named may pass on a user header from its client.
    pub names_proxies: bool,
    /// Whether all requests come from this machine.
    pub is_private: bool,
    /// The users who may see and change everything, except with a token, which has its own rights.
    pub admins: Vec<String>,
    /// What `/receive` asks; `None` for what every route asks.
    pub receive: Option<ReceiveAuth>,
    /// The name of a session's cookie.
    pub cookie: &'static str,
}

/// Identifies the users of requests.
pub struct Identity {
    settings: Settings,
    tokens: Arc<Tokens>,
    producers: Producers,
}

/// The user of a request.
#[derive(Clone, Debug)]
pub struct User {
    /// The name.
    pub name: String,
    /// What the request may be used for.
    pub scopes: Scopes,
    /// How the user was identified.
    pub via: Via,
    /// The address of the client, behind trusted proxies.
    pub address: IpAddr,
    /// When the token or session expires.
    pub expires: Option<Timestamp>,
}

impl User {
    /// Returns the user as the actor of a change.
    pub fn actor(&self) -> Actor {
        Actor { user: self.name.clone(), via: self.via }
    }

    /// Tells whether the request may be used for everything, for all users.
    pub fn is_admin(&self) -> bool {
        self.scopes.allow(Scope::Admin)
    }
}

/// The sender of events.
#[derive(Clone, Debug)]
pub enum Sender {
    /// This user, or [`NOBODY`].
    Known(String),
    /// A producer, once the signature of the body has been checked.
    Signed(Signed),
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It was sent by a Waypost for others.
    #[error(
        "a Waypost has sent this request for others (the header {MARK}): it speaks for no user, and only /receive takes it"
    )]
    Marked,
    /// It names a user, and its address is not trusted to do so.
    #[error(
        "requests from {address} carry no identity here: only those from trusted_proxies do, and those with a token \
         (`Authorization: Bearer wp_…`, which `waypost token create` makes)"
    )]
    Untrusted {
        /// Where it comes from.
        address: IpAddr,
    },
    /// It names no user.
    #[error(
        "this request names no user: send a token (`Authorization: Bearer wp_…`), which `waypost token create \
         --user NAME` makes on the server's machine, or send it through a proxy of trusted_proxies that sets the \
         header {header}"
    )]
    Unknown {
        /// The user header.
        header: HeaderName,
    },
    /// Its token or session is unknown, revoked or expired.
    #[error("this {what} is unknown, revoked or expired: ask an admin for a new one")]
    Expired {
        /// Which of the two it is.
        what: &'static str,
    },
    /// Its `Authorization` is not a token of Waypost.
    #[error("`Authorization` holds no token of Waypost: write `Bearer wp_…`")]
    Credentials,
    /// The header appears more than once, so it is unclear which value counts.
    #[error("the header {0} appears more than once: let the proxy replace it")]
    Twice(HeaderName),
    /// The header is not UTF-8.
    #[error("the header {0} is not UTF-8")]
    NotText(HeaderName),
    /// The name cannot be a user's.
    #[error("`{0}` cannot be a user's name: no URL can hold it")]
    Name(String),
    /// The cookie of a session came without the headers in which browsers name the page.
    #[error("a session is for browsers: send a token (`Authorization: Bearer wp_…`) instead of the cookie")]
    NoBrowser,
    /// Its token or session lacks a scope.
    #[error("this {what} has the scopes `{has}`, and this needs `{needs}`")]
    Scope {
        /// Which of the two it is: a token or a session.
        what: &'static str,
        /// Its scopes.
        has: Scopes,
        /// What is needed.
        needs: Scope,
    },
    /// The user is not an admin.
    #[error(
        "only an admin may do this, and `{user}` is not one (the setting admin_users, or a token with the scope admin)"
    )]
    NoAdmin {
        /// The user.
        user: String,
    },
    /// Events are accepted with a token only.
    #[error("events need a token here (receive_auth = token): `Authorization: Bearer wp_…`")]
    TokenNeeded,
    /// Events are accepted with a signature only.
    #[error("events need a signature here (receive_auth = signature): {0}")]
    Signature(&'static str),
}

impl Identity {
    /// Identifies users by these settings, tokens and producers.
    pub fn new(settings: Settings, tokens: Arc<Tokens>, producers: Producers) -> Self {
        Self { settings, tokens, producers }
    }

    /// Returns the tokens and sessions.
    pub fn tokens(&self) -> &Arc<Tokens> {
        &self.tokens
    }

    /// Returns the name of a session's cookie.
    pub fn cookie(&self) -> &'static str {
        self.settings.cookie
    }

    /// Returns the user of a request that needs a scope; `peer` is the address of the connection's other end.
    ///
    /// # Errors
    /// When the user is unknown, or lacks the scope.
    pub fn user(&self, peer: IpAddr, parts: &Parts, needs: Scope) -> Result<User, Refusal> {
        if is_marked(&parts.headers) {
            return Err(Refusal::Marked);
        }
        let user = self.known(peer, parts)?.ok_or_else(|| self.unknown())?;
        check_scope(user, needs)
    }

    /// Returns the sender of events.
    ///
    /// # Errors
    /// When the sender is unknown, or may not send events.
    pub fn sender(&self, peer: IpAddr, parts: &Parts) -> Result<Sender, Refusal> {
        if self.settings.receive == Some(ReceiveAuth::Signature) {
            return self.producers.claimed(parts).map(Sender::Signed);
        }
        // A token identifies its sender. But neither the user header nor the default user says who sends a
        // request that a Waypost makes on others' behalf.
        let known = match self.token(&parts.headers)? {
            Some(known) => Some(self.of_token(peer, parts, &known)),
            None if is_marked(&parts.headers) => return self.waypost(peer.to_canonical()),
            None => self.known(peer, parts)?,
        };
        match (known, self.settings.receive) {
            (Some(user), Some(ReceiveAuth::Token)) if !matches!(user.via, Via::Token(_)) => {
                Err(Refusal::TokenNeeded)
            }
            (Some(user), _) => Ok(Sender::Known(check_scope(user, Scope::Receive)?.name)),
            (None, Some(ReceiveAuth::None)) => Ok(Sender::Known(NOBODY.to_owned())),
            (None, Some(ReceiveAuth::Token)) => Err(Refusal::TokenNeeded),
            (None, _) => Err(self.unknown()),
        }
    }

    /// Decides whether a Waypost may send events without a token; they are anonymous.
    fn waypost(&self, peer: IpAddr) -> Result<Sender, Refusal> {
        match self.settings.receive {
            Some(ReceiveAuth::None) => Ok(Sender::Known(NOBODY.to_owned())),
            _ if !self.trusts(peer) => Err(Refusal::Untrusted { address: peer }),
            Some(ReceiveAuth::Token) => Err(Refusal::TokenNeeded),
            Some(ReceiveAuth::Signature) | None => Ok(Sender::Known(NOBODY.to_owned())),
        }
    }

    /// Returns the address that a request comes from, behind trusted proxies: for limits and logs.
    pub fn address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        address::client(peer.to_canonical(), headers, |address| self.trusts(address))
    }

    /// Returns what a request counts towards.
    pub fn asker(&self, peer: IpAddr, headers: &HeaderMap) -> Asker {
        let client = self.address(peer, headers);
        if !client.is_loopback() && !self.trusts(client) {
            return Asker::Address(client);
        }
        // What a proxy on this machine forwards does not come from this machine.
        if client.is_loopback() && !address::is_forwarded(headers) { Asker::Here } else { Asker::Behind }
    }

    fn unknown(&self) -> Refusal {
        Refusal::Unknown { header: self.settings.user_header.clone() }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.settings.trusted.iter().any(|network| network.contains(&address))
    }

    /// Returns the user that a request speaks for; `None` if it names none and the default user does not
    /// apply.
    fn known(&self, peer: IpAddr, parts: &Parts) -> Result<Option<User>, Refusal> {
        let (peer, headers) = (peer.to_canonical(), &parts.headers);
        let named = self.named(headers)?;
        // An expired session must not make a request with a valid token fail.
        let known = match self.token(headers)? {
            Some(known) => Some(known),
            None => self.session(headers)?,
        };
        if let Some(known) = known {
            return Ok(Some(self.of_token(peer, parts, &known)));
        }
        let is_trusted = self.trusts(peer);
        let user = |user: String, via| {
            let scopes = if self.settings.admins.contains(&user) { Scopes::ADMIN } else { Scopes::USER };
            Some(User { name: user, scopes, via, address: self.address(peer, headers), expires: None })
        };
        if let Some(Caller(name)) = parts.extensions.get() {
            return Ok(user(checked(name)?, Via::Program));
        }
        let is_forwarded = address::is_forwarded(headers);
        if let Some(name) = named {
            let Settings { names_proxies, is_private, .. } = &self.settings;
            return if is_trusted && (*names_proxies || *is_private && !is_forwarded) {
                Ok(user(name, Via::Header))
            } else {
                Err(Refusal::Untrusted { address: peer })
            };
        }
        if let Some(certificate) = parts.extensions.get::<PeerCertificate>() {
            return Ok(user(certificate.user.clone(), Via::Certificate));
        }
        if headers.contains_key(AUTHORIZATION) {
            return Err(Refusal::Credentials);
        }
        // What a proxy on this machine forwards does not come from this machine.
        let is_local = peer.is_loopback() && is_trusted && !is_forwarded;
        let default = &self.settings.default_user;
        Ok(if is_local && !default.is_empty() { user(checked(default)?, Via::Default) } else { None })
    }

    /// Returns the name in the user header, if there is one.
    fn named(&self, headers: &HeaderMap) -> Result<Option<String>, Refusal> {
        let header = &self.settings.user_header;
        let Some(value) = single(headers, header)? else { return Ok(None) };
        let text = std::str::from_utf8(value.as_bytes()).map_err(|_| Refusal::NotText(header.clone()))?;
        let name = text.trim();
        if matches!(name, "." | "..") {
            return Err(Refusal::Name(name.to_owned()));
        }
        Ok((!name.is_empty()).then(|| name.to_owned()))
    }

    /// Returns the token of a request, if it has one. Other credentials are ignored here: they may be meant
    /// for the proxy.
    fn token(&self, headers: &HeaderMap) -> Result<Option<Arc<KnownToken>>, Refusal> {
        let Some(value) = single(headers, &AUTHORIZATION)? else { return Ok(None) };
        let Some(secret) = value.to_str().ok().and_then(bearer) else { return Ok(None) };
        let known = self.tokens.find(&SecretHash::of(secret));
        let now = clock::now();
        let valid = known.filter(|known| known.token.session_of.is_none() && !known.token.is_expired(now));
        let valid = valid.ok_or(Refusal::Expired { what: "token" })?;
        valid.touch(now);
        Ok(Some(valid))
    }

    /// Returns the session of a request, if it has one.
    fn session(&self, headers: &HeaderMap) -> Result<Option<Arc<KnownToken>>, Refusal> {
        let Some(secret) = cookie(headers, self.settings.cookie) else { return Ok(None) };
        let now = clock::now();
        let known = self.tokens.find(&SecretHash::of(secret));
        let known =
            known.filter(|known| is_good_session(known, now)).ok_or(Refusal::Expired { what: "session" })?;
        // Browsers send these headers, and `http::sites` has checked them. Other programs have no use for a
        // cookie.
        if !headers.contains_key(FETCH_SITE) && !headers.contains_key(ORIGIN) {
            return Err(Refusal::NoBrowser);
        }
        known.touch(now);
        Ok(Some(known))
    }

    fn of_token(&self, peer: IpAddr, parts: &Parts, known: &KnownToken) -> User {
        let Token { user, scopes, expires, session_of, id, .. } = &known.token;
        let via = if session_of.is_some() { Via::Session(*id) } else { Via::Token(*id) };
        let address = self.address(peer, &parts.headers);
        User { name: user.clone(), scopes: *scopes, via, address, expires: *expires }
    }

    /// Returns the sessions and tokens that can never be used again.
    pub fn spent(&self, now: Timestamp) -> Vec<TokenId> {
        let all = self.tokens.all().into_iter();
        let spent = all.filter(|known| match known.token.session_of {
            Some(_) => !is_good_session(known, now),
            None => known.token.is_expired(now),
        });
        spent.map(|known| known.token.id).collect()
    }
}

/// Returns a name that no header has carried: one with control characters could be that of no user
/// ([`waypost_domain::OPERATOR`]).
fn checked(name: &str) -> Result<String, Refusal> {
    match name.contains(char::is_control) {
        true => Err(Refusal::Name(name.escape_default().to_string())),
        false => Ok(name.to_owned()),
    }
}

/// Generates the secret of a new token or session.
pub fn secret() -> [u8; SECRET_BYTES] {
    let mut secret = [0; SECRET_BYTES];
    random::fill(&mut secret);
    secret
}

fn check_scope(user: User, needs: Scope) -> Result<User, Refusal> {
    if user.scopes.allow(needs) {
        return Ok(user);
    }
    let what = match user.via {
        Via::Token(_) => "token",
        Via::Session(_) => "session",
        Via::Program | Via::Header | Via::Certificate | Via::Default => {
            return Err(Refusal::NoAdmin { user: user.name });
        }
    };
    Err(Refusal::Scope { what, has: user.scopes, needs })
}

fn is_good_session(known: &KnownToken, now: Timestamp) -> bool {
    let used = known.used().unwrap_or(known.token.created).max(known.token.created);
    known.token.session_of.is_some()
        && !known.token.is_expired(now)
        && now.duration_since(used) < SESSION_IDLE
}

/// Returns the token of `Bearer wp_…`; the scheme's case does not count (RFC 9110 §11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && token.starts_with(TOKEN_PREFIX)).then_some(token)
}

/// Returns the value of a cookie, if it is there and not empty.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(found, value)| *found == name && !value.is_empty()).map(|(_, value)| value)
}

/// Returns the value of a header that may be there only once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() { Err(Refusal::Twice(name.clone())) } else { Ok(value) }
}

#[cfg(test)]
mod tests;
