//! The records of tokens and of the audit, as JSON.

use std::borrow::Cow;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::form::{Form, forms, record};
use super::{Error, body, json};
use waypost_domain::{Action, Actor, AuditEntry, Scope, Scopes, SecretHash, Token, TokenId, Via};

record! {
    /// A token or a session.
    struct TokenRecord<'a> of Token {
        id: Uuid,
        name: Cow<'a, str>,
        user: Cow<'a, str>,
        scopes: Vec<String>,
        /// In hexadecimal.
        hash: String,
        created: Timestamp,
        by: Cow<'a, str>,
        expires: Option<Timestamp>,
        session_of: Option<Uuid>,
    }
}

record! {
    /// Who did what.
    struct AuditRecord<'a> of AuditEntry {
        at: Timestamp,
        by: ActorRecord<'a>,
        action: String,
        id: Cow<'a, str>,
        user: Option<Cow<'a, str>>,
        detail: Cow<'a, Map<String, Value>>,
    }
}

record! {
    /// Who changes something.
    struct ActorRecord<'a> of Actor {
        user: Cow<'a, str>,
        via: ViaRecord,
    }
}

record! {
    /// How the user is known.
    #[serde(rename_all = "lowercase")]
    enum ViaRecord of Via {
        Program,
        Token(Uuid),
        Session(Uuid),
        Header,
        Certificate,
        Default,
    }
}

forms! {
    Uuid => TokenId: |id| id.uuid(), |uuid, _| Ok(TokenId::from_uuid(uuid));
    u128 => TokenId: |id| id.uuid().as_u128(), |number, _| Ok(TokenId::from_uuid(Uuid::from_u128(number)));
    Vec<String> => Scopes: |scopes| scopes.iter().map(|scope| scope.name().to_owned()).collect(), |names, _| {
        let scopes = names.iter().map(|name| Scope::of(name));
        scopes.collect::<Option<_>>().ok_or(Error::Value("it has a scope that this waypost does not know"))
    };
    String => SecretHash: |hash| HEXLOWER.encode(&hash.0), |text, _| {
        let hash = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        hash.map(SecretHash).ok_or(Error::Value("its hash is none"))
    };
    String => Action: |action| action.name().to_owned(),
        |name, _| Action::of(&name).ok_or(Error::Value("it has an action that this waypost does not know"));
    Cow<'a, [u8]> => Token: |token| encode_token(token).into(), |record, _| decode_token(&record);
    Cow<'a, [u8]> => Box<Token>: |token| encode_token(token).into(), |record, _| decode_token(&record).map(Box::new);
    Cow<'a, [u8]> => AuditEntry: |entry| encode_audit(entry).into(), |record, _| decode_audit(&record);
}

/// Writes a token.
pub(crate) fn encode_token(token: &Token) -> Vec<u8> {
    json(&TokenRecord::of(token))
}

/// Reads a token.
pub(crate) fn decode_token(record: &[u8]) -> Result<Token, Error> {
    serde_json::from_slice::<TokenRecord<'_>>(body(record)?)?.read(&Bytes::new())
}

/// Writes an entry of the audit.
pub(crate) fn encode_audit(entry: &AuditEntry) -> Vec<u8> {
    json(&AuditRecord::of(entry))
}

/// Reads an entry of the audit.
pub(crate) fn decode_audit(record: &[u8]) -> Result<AuditEntry, Error> {
    serde_json::from_slice::<AuditRecord<'_>>(body(record)?)?.read(&Bytes::new())
}
