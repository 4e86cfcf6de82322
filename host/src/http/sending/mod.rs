//! What a subscription adds to its requests, as JSON: headers, signatures, TLS, a handshake, and the credentials of
//! `oauth2`.
//!
//! A body is read once ([`SendingBody::take`]) and applied to the stored subscription
//! ([`SendingBody::apply`]), again after each concurrent change. Secrets are sealed here. None is shown
//! again, except one that Waypost has generated, in the response to that request. A body that was returned by
//! GET can be PUT back.

mod headers;
mod oauth2;
mod signing;
mod tls;

use std::sync::Arc;

use axum::Json;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::{Map, Value};
use waypost_api::v1;

use super::error::ApiError;
use super::subscription_body::{optional, wrong};
use waypost_domain::sending::{Handshake, Sending};
use waypost_domain::{Auth, Subscription};
use waypost_net::Guard;
use waypost_secrets::Vault;
use waypost_secrets::signing::WebhookSecret;

use headers::HeadersBody;
use oauth2::OAuth2Body;
use tls::TlsBody;

pub(super) use headers::show as show_headers;
pub(super) use oauth2::show as show_oauth2;
pub(super) use signing::{SigningBody, rotate, show as show_signing};

/// What is shown in place of a secret.
const HIDDEN: &str = "…";

/// The members of a body that say what is added to requests.
pub(crate) struct SendingBody {
    headers: Option<HeadersBody>,
    signing: SigningBody,
    tls: TlsBody,
    handshake: Option<Handshake>,
    oauth2: Option<OAuth2Body>,
}

impl SendingBody {
    /// Takes the members out of a body; `auth` only if it is of the type `oauth2`.
    ///
    /// # Errors
    /// Names the first member that is wrong by itself.
    pub(super) fn take(body: &mut Map<String, Value>, guard: &Guard) -> Result<Self, ApiError> {
        let expected = "\"require\", \"try\" or \"skip\"";
        Ok(Self {
            headers: HeadersBody::take(body, guard)?,
            signing: SigningBody::take(body)?,
            tls: TlsBody::take(body)?,
            handshake: optional(body, "handshake", expected)?.map(Option::unwrap_or_default),
            oauth2: OAuth2Body::take(body, guard)?,
        })
    }

    /// Applies the members to a subscription, after the rest of the body.
    ///
    /// # Errors
    /// Names the first member that does not fit the rest; the subscription must not be used then.
    pub(super) fn apply(&self, to: &mut Subscription, vault: &Vault, now: Timestamp) -> Result<(), ApiError> {
        if let Some(oauth2) = &self.oauth2 {
            to.auth = Auth::OAuth2(Box::new(oauth2.apply(&to.auth, to.id, vault)?));
        }
        let mut sending = to.sending.as_deref().cloned().unwrap_or_default();
        if let Some(headers) = &self.headers {
            sending.headers = headers.apply(&sending.headers, to.id, vault)?;
        }
        headers::check_authorization(&sending.headers, &to.auth)?;
        self.signing.apply(&mut sending.signing, to.id, vault, now)?;
        self.tls.apply(&mut sending, to.id, vault)?;
        tls::check_target(&sending, &to.target_url)?;
        if let Some(handshake) = self.handshake {
            sending.handshake = handshake;
        }
        if to.sending.as_deref() != Some(&sending) {
            to.sending = Some(sending).filter(|sending| *sending != Sending::default()).map(Arc::new);
        }
        Ok(())
    }

    /// Returns the secret that was generated for the subscription.
    pub(crate) fn made(&self) -> Option<&WebhookSecret> {
        self.signing.made()
    }

    /// Returns the response to the body: the subscription, with the secret that was generated for it.
    pub(super) fn answer(&self, shown: v1::Subscription) -> Response {
        answer(shown, &self.signing)
    }
}

/// Returns a subscription with the secret that was generated for it, if any, which no cache may keep.
pub(super) fn answer(shown: v1::Subscription, signing: &SigningBody) -> Response {
    let Some(secret) = signing.made() else { return Json(shown).into_response() };
    let shown = v1::Subscription { signing_secret: Some(secret.text().as_str().to_owned()), ..shown };
    ([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(shown)).into_response()
}
