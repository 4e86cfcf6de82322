//! The part of a subscription's record that says what it adds to its requests.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;

use super::Error;
use super::form::{Form, record};
use super::subscription::SealedRecord;
use waypost_domain::sending::{
    ClientAuth, ClientIdentity, Handshake, HeaderText, HmacSecrets, OAuth2, OldSecret, Sending, Signing,
};

record! {
    /// What a subscription adds to its requests. A member that later versions have added needs a default.
    pub(super) struct SendingRecord<'a> of Sending {
        headers: HeadersRecord<'a>,
        signing: SigningRecord<'a>,
        client_certificate: Option<ClientIdentityRecord<'a>>,
        target_ca: Option<Cow<'a, str>>,
        handshake: HandshakeRecord,
    }
}

record! {
    /// The value of a header.
    pub(super) enum HeaderTextRecord<'a> of HeaderText {
        Plain(Cow<'a, str>),
        Secret(SealedRecord<'a>),
    }
}

type HeadersRecord<'a> = BTreeMap<Cow<'a, str>, HeaderTextRecord<'a>>;

impl<'a> Form<'a, BTreeMap<String, HeaderText>> for HeadersRecord<'a> {
    fn of(headers: &'a BTreeMap<String, HeaderText>) -> Self {
        headers.iter().map(|(name, text)| (Cow::from(name), Form::of(text))).collect()
    }

    fn read(self, shared: &Bytes) -> Result<BTreeMap<String, HeaderText>, Error> {
        self.into_iter().map(|(name, text)| Ok((name.into_owned(), text.read(shared)?))).collect()
    }
}

record! {
    /// With what requests are signed.
    pub(super) struct SigningRecord<'a> of Signing {
        hmac: Option<HmacSecretsRecord<'a>>,
        ed25519: Option<Timestamp>,
    }
}

record! {
    /// The secrets of HMAC signatures.
    pub(super) struct HmacSecretsRecord<'a> of HmacSecrets {
        secret: SealedRecord<'a>,
        since: Timestamp,
        old: Vec<OldSecretRecord<'a>>,
    }
}

record! {
    /// A secret that was replaced.
    pub(super) struct OldSecretRecord<'a> of OldSecret {
        secret: SealedRecord<'a>,
        until: Timestamp,
    }
}

record! {
    /// A client certificate with its key.
    pub(super) struct ClientIdentityRecord<'a> of ClientIdentity {
        pem: SealedRecord<'a>,
        fingerprint: Cow<'a, str>,
        digest: Cow<'a, str>,
    }
}

record! {
    /// Credentials for a token.
    pub(super) struct OAuth2Record<'a> of OAuth2 {
        token_url: Cow<'a, str>,
        client_id: Cow<'a, str>,
        client_secret: SealedRecord<'a>,
        client_auth: ClientAuthRecord,
        scope: Option<Cow<'a, str>>,
        audience: Option<Cow<'a, str>>,
    }
}

record! {
    /// How a client authenticates with a token server.
    #[serde(rename_all = "lowercase")]
    pub(super) enum ClientAuthRecord of ClientAuth {
        Basic,
        Post,
    }
}

record! {
    /// Whether a target is asked before it gets events.
    #[serde(rename_all = "lowercase")]
    pub(super) enum HandshakeRecord of Handshake {
        Skip,
        Try,
        Require,
    }
}
