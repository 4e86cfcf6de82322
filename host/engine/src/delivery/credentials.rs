//! What a subscription adds to the requests of one attempt: its secrets, opened for as long as the attempt takes.
//!
//! A subscription without credentials, headers and signatures has [`Credentials::NONE`], which costs nothing.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::answer::Trouble;
use super::oauth::Token;
use super::request::Unsendable;
use waypost_domain::sending::{HeaderText, field};
use waypost_domain::subscription::{CREDENTIALS, PASSWORD};
use waypost_domain::{Auth, DeliveryId, Sealed, Secret, Subscription};
use waypost_net::Guard;
use waypost_runtime::clock;
use waypost_secrets::signing::{self, ServiceKey, WebhookSecret};
use waypost_secrets::{Label, Vault};

const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
/// Says whose consent the target has given (CloudEvents HTTP web hooks §4.1.1).
pub(super) const REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");

/// What replaces a secret in a text.
const HIDDEN: &str = "(secret)";
/// Shorter secrets are not hidden: they would be found in ordinary words.
const HIDDEN_BYTES_MIN: usize = 6;

/// What a subscription adds to the requests of one attempt.
#[derive(Default)]
pub(super) struct Credentials {
    headers: Vec<(HeaderName, HeaderValue)>,
    authorization: Option<HeaderValue>,
    secrets: Vec<WebhookSecret>,
    service_key: Option<Arc<ServiceKey>>,
    origin: Option<HeaderValue>,
    /// The secrets that the target is sent, and that its answer may repeat.
    told: Vec<Secret>,
}

impl Credentials {
    /// Adds nothing.
    pub(super) const NONE: Self = Self {
        headers: Vec::new(),
        authorization: None,
        secrets: Vec::new(),
        service_key: None,
        origin: None,
        told: Vec::new(),
    };

    /// Opens a subscription's secrets. A token and an origin are added later.
    ///
    /// # Errors
    /// When a secret cannot be opened, or something does not fit into a request.
    pub(super) fn open(
        vault: &Vault,
        service_key: &Arc<ServiceKey>,
        guard: &Guard,
        subscription: &Subscription,
    ) -> Result<Self, Trouble> {
        let open = |field, sealed: &Sealed| {
            let opened = vault.open(Label::new(field, subscription.id.uuid()), sealed);
            opened.map_err(|error| Trouble::of_secret("a secret of the subscription", error))
        };
        let mut credentials = Self::NONE;
        match &subscription.auth {
            Auth::None | Auth::OAuth2(_) => {}
            Auth::Basic { username, password } => {
                let password = open(PASSWORD, password)?;
                let pair = Secret::from([username.as_bytes(), b":", password.expose()].concat());
                credentials.authorize("Basic", Secret::from(BASE64_STANDARD.encode(pair.expose())))?;
                credentials.told.push(password);
            }
            Auth::Header { scheme, credentials: sealed } => {
                credentials.authorize(scheme, open(CREDENTIALS, sealed)?)?;
            }
        }
        let Some(sending) = &subscription.sending else { return Ok(credentials) };
        for (name, text) in &sending.headers {
            let parsed = HeaderName::from_bytes(name.as_bytes());
            let parsed = parsed.map_err(|_| unsendable(name, "it is not a header's name"))?;
            guard.check_owner_header(&parsed).map_err(|reason| unsendable(name, reason))?;
            let value = match text {
                HeaderText::Plain(text) => HeaderValue::from_str(text).ok(),
                HeaderText::Secret(sealed) => {
                    let secret = open(field::HEADER, sealed)?;
                    let value = sensitive(secret.expose());
                    credentials.told.push(secret);
                    value
                }
            };
            credentials
                .headers
                .push((parsed, value.ok_or_else(|| unsendable(name, "its value is not valid"))?));
        }
        for sealed in sending.signing.hmac.iter().flat_map(|hmac| hmac.at(clock::now())) {
            let secret = open(field::SIGNING_SECRET, sealed)?;
            let text = secret.expose_str().unwrap_or_default();
            credentials.secrets.push(text.parse().map_err(|_| Unsendable::Secret)?);
        }
        credentials.service_key = sending.signing.ed25519.is_some().then(|| Arc::clone(service_key));
        Ok(credentials)
    }

    /// Authorizes requests with a token.
    pub(super) fn bear(&mut self, token: &Token) -> Result<(), Unsendable> {
        self.authorize("Bearer", Secret::from(token.expose().to_vec()))
    }

    /// Adds the header of a token without the token, for a dry run.
    pub(super) fn bear_nothing(&mut self) {
        self.authorization = sensitive(b"Bearer");
    }

    /// Names the origin that the target has consented to.
    pub(super) fn name_origin(&mut self, origin: HeaderValue) {
        self.origin = Some(origin);
    }

    fn authorize(&mut self, scheme: &str, secret: Secret) -> Result<(), Unsendable> {
        let value = Secret::from([scheme.as_bytes(), b" ", secret.expose()].concat());
        let value = sensitive(value.expose()).ok_or(Unsendable::Auth)?;
        self.authorization = Some(value);
        self.told.push(secret);
        Ok(())
    }

    /// Adds the headers that are the same for each request: those of the subscription, and what authorizes it.
    pub(super) fn add_to(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        if let Some(value) = &self.authorization {
            headers.insert(AUTHORIZATION, value.clone());
        }
        if let Some(origin) = &self.origin {
            headers.insert(REQUEST_ORIGIN, origin.clone());
        }
    }

    /// Signs a request's body, with the present time.
    pub(super) fn sign(&self, headers: &mut HeaderMap, id: DeliveryId, body: &[u8]) {
        if self.secrets.is_empty() && self.service_key.is_none() {
            return;
        }
        let (id, now) = (id.to_string(), clock::now().as_second());
        let by_secrets = self.secrets.iter().map(|secret| signing::sign(secret, &id, now, body));
        let by_key = self.service_key.iter().map(|key| key.sign(&id, now, body));
        let signatures: Vec<_> = by_secrets.chain(by_key).collect();
        headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(now));
        // Sensitive, so that a dry run does not show the signature of a request that was not sent.
        let value = sensitive(signatures.join(" ").as_bytes());
        headers.insert(WEBHOOK_SIGNATURE, value.expect("Base64 is visible ASCII"));
    }

    /// Hides the secrets in a target's text: some targets repeat the request.
    pub(super) fn hide<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for secret in &self.told {
            match secret.expose_str() {
                Ok(secret) if secret.len() >= HIDDEN_BYTES_MIN && text.contains(secret) => {
                    text = Cow::Owned(text.replace(secret, HIDDEN));
                }
                Ok(_) | Err(_) => {}
            }
        }
        text
    }
}

fn unsendable(name: &str, reason: &'static str) -> Unsendable {
    Unsendable::Header { name: name.to_owned(), reason }
}

/// Makes a value that is neither logged nor kept in HTTP/2's header table, and is overwritten when the request is
/// dropped.
fn sensitive(bytes: &[u8]) -> Option<HeaderValue> {
    let bytes = Bytes::from_owner(Zeroizing::new(bytes.to_vec()));
    let mut value = HeaderValue::from_maybe_shared(bytes).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_target_was_told_is_taken_out_of_its_answer() {
        let told = ["s3cret-word", "a", ""].map(|text| Secret::from(text.to_owned()));
        let credentials = Credentials { told: told.into(), ..Credentials::NONE };
        let answer = "got s3cret-word, a and s3cret-words";
        assert_eq!(credentials.hide(answer), "got (secret), a and (secret)s");
        assert!(matches!(credentials.hide("ok"), Cow::Borrowed("ok")));
    }

    #[test]
    fn a_value_that_is_no_header_is_none() {
        assert!(sensitive(b"a\nb").is_none());
        assert!(sensitive(b"ab").unwrap().is_sensitive());
    }
}
