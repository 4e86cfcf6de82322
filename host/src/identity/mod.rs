//! Who asks: the one place that decides whom a request speaks for, and what it may be used for.
//!
//! A token counts first, then a session, then the user header of a trusted proxy, then the certificate of a TLS client.
//! A request with none of these is the default user's if it comes from this machine. Wrong credentials are refused: they
//! never count as none. What a Waypost sends for others (`net::mark`) speaks for nobody without a token, and asks for
//! nothing but `/receive`.

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

/// The sender of events that nobody answers for. No user has this name.
pub const NOBODY: &str = "";

/// How long a session lasts without a request.
pub const SESSION_IDLE: SignedDuration = SignedDuration::from_hours(12);
/// How long a session lasts at most.
pub const SESSION_MAX: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Fetch Metadata (W3C), which web pages cannot set themselves.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The user of a TLS client's certificate, which the listener has verified: an extension of its requests.
#[derive(Clone, Debug)]
pub struct PeerCertificate {
    /// The user.
    pub user: String,
}

/// For whom a request counts where requests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// This machine: for nobody.
    Here,
    /// Somebody behind a proxy that does not say who: for the user.
    Behind,
    /// For the address and the user.
    Address(IpAddr),
}

/// What `/receive` asks of those who send events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveAuth {
    /// Nothing: a sender whom nobody knows may send as well.
    None,
    /// A token with the scope `receive`.
    Token,
    /// A signature of a known producer, by Standard Webhooks.
    Signature,
}

/// Who is believed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The header with the user's name.
    pub user_header: HeaderName,
    /// The user of a request of this machine without credentials; empty for none.
    pub default_user: String,
    /// The networks whose user header is believed.
    pub trusted: Vec<IpNet>,
    /// Whether the operator has named these. This machine is trusted by default, and a proxy on it that nobody has named may
    /// pass on a header that its client has written.
    pub names_proxies: bool,
    /// Whether only this machine asks.
    pub is_private: bool,
    /// The users who may see and change everything, unless they come with a token, which has its own rights.
    pub admins: Vec<String>,
    /// What `/receive` asks; `None` for what every route asks.
    pub receive: Option<ReceiveAuth>,
    /// The name of a session's cookie.
    pub cookie: &'static str,
}

/// Knows users by what their requests bring.
pub struct Identity {
    settings: Settings,
    tokens: Arc<Tokens>,
    producers: Producers,
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct User {
    /// The name.
    pub name: String,
    /// What the request may be used for.
    pub scopes: Scopes,
    /// How the user is known.
    pub via: Via,
    /// The address that the request comes from, behind trusted proxies.
    pub address: IpAddr,
    /// Until when the token or session is good.
    pub expires: Option<Timestamp>,
}

impl User {
    /// Returns who changes something.
    pub fn actor(&self) -> Actor {
        Actor { user: self.name.clone(), via: self.via }
    }

    /// Tells whether everybody's things are open to the request.
    pub fn is_admin(&self) -> bool {
        self.scopes.allow(Scope::Admin)
    }
}

/// Who sends events.
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
    /// It brings nothing that says who it is from.
    #[error(
        "who asks? Send a token (`Authorization: Bearer wp_…`), which `waypost token create --user NAME` makes on the \
         server's machine, or ask through a proxy of trusted_proxies that sets the header {header}"
    )]
    Unknown {
        /// The user header.
        header: HeaderName,
    },
    /// Its token or session is not known, or not any more.
    #[error("this {what} is not known here, is revoked or has expired: ask an admin for a new one")]
    Expired {
        /// Which of the two it is.
        what: &'static str,
    },
    /// Its `Authorization` is something else.
    #[error("`Authorization` holds no token of Waypost, which is written `Bearer wp_…`")]
    Credentials,
    /// The header stands there more than once: its values cannot be told apart.
    #[error("the header {0} stands there more than once: let the proxy replace it")]
    Twice(HeaderName),
    /// The name cannot be one.
    #[error("the header {0} is not UTF-8")]
    NotText(HeaderName),
    /// The name cannot be one.
    #[error("`{0}` cannot be a user's name: no URL can hold it")]
    Name(String),
    /// The session's cookie came without what browsers send of the page that asks.
    #[error("a session is for browsers: send a token (`Authorization: Bearer wp_…`) instead of the cookie")]
    NoBrowser,
    /// It may not be used for this.
    #[error("this {what} has the scopes `{has}`, and this needs `{needs}`")]
    Scope {
        /// What has too few.
        what: &'static str,
        /// Its scopes.
        has: Scopes,
        /// What is needed.
        needs: Scope,
    },
    /// The user is no admin.
    #[error(
        "only an admin may do this: `{user}` is none (the setting admin_users, or a token with the scope admin)"
    )]
    NoAdmin {
        /// The user.
        user: String,
    },
    /// Events are taken with a token only.
    #[error("events need a token here (receive_auth = token): `Authorization: Bearer wp_…`")]
    TokenNeeded,
    /// Events are taken with a signature only.
    #[error("events need a signature here (receive_auth = signature): {0}")]
    Signature(&'static str),
}

impl Identity {
    /// Knows users by these settings, tokens and producers.
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

    /// Finds who asks for something that needs a scope; `peer` is the address of the connection's other end.
    ///
    /// # Errors
    /// When it is not known, or may not.
    pub fn user(&self, peer: IpAddr, parts: &Parts, needs: Scope) -> Result<User, Refusal> {
        if is_marked(&parts.headers) {
            return Err(Refusal::Marked);
        }
        let user = self.known(peer, parts)?.ok_or_else(|| self.unknown())?;
        permitted(user, needs)
    }

    /// Finds who sends events.
    ///
    /// # Errors
    /// When it is not known, or may not.
    pub fn sender(&self, peer: IpAddr, parts: &Parts) -> Result<Sender, Refusal> {
        if self.settings.receive == Some(ReceiveAuth::Signature) {
            return self.producers.claimed(parts).map(Sender::Signed);
        }
        // A token is the sender's own. The user header and this machine's default user are not what a Waypost speaks for.
        let known = match self.token(&parts.headers)? {
            Some(known) => Some(self.of_token(peer, parts, &known)),
            None if is_marked(&parts.headers) => return self.waypost(peer.to_canonical()),
            None => self.known(peer, parts)?,
        };
        match (known, self.settings.receive) {
            (Some(user), Some(ReceiveAuth::Token)) if !matches!(user.via, Via::Token(_)) => {
                Err(Refusal::TokenNeeded)
            }
            (Some(user), _) => Ok(Sender::Known(permitted(user, Scope::Receive)?.name)),
            (None, Some(ReceiveAuth::None)) => Ok(Sender::Known(NOBODY.to_owned())),
            (None, Some(ReceiveAuth::Token)) => Err(Refusal::TokenNeeded),
            (None, _) => Err(self.unknown()),
        }
    }

    /// Decides whether a Waypost without a token may send events, which are nobody's.
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

    /// Returns for whom a request counts.
    pub fn asker(&self, peer: IpAddr, headers: &HeaderMap) -> Asker {
        let client = self.address(peer, headers);
        if !client.is_loopback() && !self.trusts(client) {
            return Asker::Address(client);
        }
        // What a proxy on this machine passes on is not from this machine.
        if client.is_loopback() && !address::is_forwarded(headers) { Asker::Here } else { Asker::Behind }
    }

    fn unknown(&self) -> Refusal {
        Refusal::Unknown { header: self.settings.user_header.clone() }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.settings.trusted.iter().any(|network| network.contains(&address))
    }

    /// Returns whom a request speaks for; `None` if it brings nothing that says so.
    fn known(&self, peer: IpAddr, parts: &Parts) -> Result<Option<User>, Refusal> {
        let (peer, headers) = (peer.to_canonical(), &parts.headers);
        let named = self.named(headers)?;
        // A session that has ended must not keep a good token out.
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
        // What a proxy on this machine passes on is not from this machine.
        let is_local = peer.is_loopback() && is_trusted && !is_forwarded;
        let default = &self.settings.default_user;
        Ok(if is_local && !default.is_empty() { user(default.clone(), Via::Default) } else { None })
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

    /// Returns the token of a request, if it has one. What is no token of Waypost may be between a client and its proxy.
    fn token(&self, headers: &HeaderMap) -> Result<Option<Arc<KnownToken>>, Refusal> {
        let Some(value) = single(headers, &AUTHORIZATION)? else { return Ok(None) };
        let Some(secret) = value.to_str().ok().and_then(bearer) else { return Ok(None) };
        let known = self.tokens.find(&SecretHash::of(secret));
        let now = clock::now();
        let good = known.filter(|known| known.token.session_of.is_none() && !known.token.is_expired(now));
        let good = good.ok_or(Refusal::Expired { what: "token" })?;
        good.touch(now);
        Ok(Some(good))
    }

    /// Returns the session of a request, if it has one.
    fn session(&self, headers: &HeaderMap) -> Result<Option<Arc<KnownToken>>, Refusal> {
        let Some(secret) = cookie(headers, self.settings.cookie) else { return Ok(None) };
        let now = clock::now();
        let known = self.tokens.find(&SecretHash::of(secret));
        let known =
            known.filter(|known| is_good_session(known, now)).ok_or(Refusal::Expired { what: "session" })?;
        // Browsers say which page asks, and `http::sites` has checked it. Other programs have no use for a cookie.
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

/// Rolls the secret of a new token or session.
pub fn secret() -> [u8; SECRET_BYTES] {
    let mut secret = [0; SECRET_BYTES];
    random::fill(&mut secret);
    secret
}

fn permitted(user: User, needs: Scope) -> Result<User, Refusal> {
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

/// Returns the value of a header that may stand there once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() { Err(Refusal::Twice(name.clone())) } else { Ok(value) }
}

#[cfg(test)]
mod tests;
