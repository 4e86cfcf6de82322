//! The members `signing_secret`, which is never shown again, and `signing`, which says how requests are signed.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};
use waypost_api::v1;
use zeroize::Zeroizing;

use super::{ApiError, wrong};
use waypost_domain::retry::parse_duration;
use waypost_domain::sending::{HmacSecrets, OLD_SECRETS_MAX, Signing, field};
use waypost_domain::{Sealed, Secret, Subscription, SubscriptionId};
use waypost_secrets::signing::{ServiceKey, WebhookSecret};
use waypost_secrets::{Label, Vault};

/// The names of the algorithms.
const HMAC: &str = "hmac-sha256";
const ED25519: &str = "ed25519";
/// How long an old secret signs, unless a rotation says otherwise.
const KEEP: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest that an old secret signs.
const KEEP_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What a body says about signatures.
pub(in crate::http) struct SigningBody {
    secret: Option<SecretBody>,
    algorithms: Option<Algorithms>,
}

enum SecretBody {
    None,
    Given(WebhookSecret),
    Made(WebhookSecret),
}

#[derive(Clone, Copy, Default)]
struct Algorithms {
    hmac: bool,
    ed25519: bool,
}

impl SigningBody {
    pub(super) fn take(body: &mut Map<String, Value>) -> Result<Self, ApiError> {
        Ok(Self { secret: take_secret(body)?, algorithms: take_algorithms(body)? })
    }

    /// Returns the secret that Waypost has generated.
    pub(super) fn made(&self) -> Option<&WebhookSecret> {
        match &self.secret {
            Some(SecretBody::Made(secret)) => Some(secret),
            Some(SecretBody::Given(_) | SecretBody::None) | None => None,
        }
    }

    /// Returns the secret that is to be used from now on.
    fn new_secret(&self) -> Option<&WebhookSecret> {
        match &self.secret {
            Some(SecretBody::Made(secret) | SecretBody::Given(secret)) => Some(secret),
            Some(SecretBody::None) | None => None,
        }
    }

    pub(super) fn apply(
        &self,
        to: &mut Signing,
        id: SubscriptionId,
        vault: &Vault,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        match (&self.secret, self.new_secret()) {
            (Some(SecretBody::None), _) => to.hmac = None,
            (_, Some(secret)) if !is_present(secret, to, id, vault) => {
                to.hmac = Some(HmacSecrets { secret: seal(secret, id, vault), since: now, old: Vec::new() });
            }
            (_, Some(_) | None) => {}
        }
        let Some(algorithms) = self.algorithms else { return Ok(()) };
        if algorithms.hmac && to.hmac.is_none() {
            let detail =
                "`hmac-sha256` needs `signing_secret`: \"generate\", or one that begins with `whsec_`";
            return Err(ApiError::field("/signing_secret", detail));
        }
        if !algorithms.hmac {
            if self.new_secret().is_some() {
                let detail = "`signing.algorithms` leaves out `hmac-sha256`, which `signing_secret` is for";
                return Err(ApiError::field("/signing_secret", detail));
            }
            to.hmac = None;
        }
        to.ed25519 = algorithms.ed25519.then(|| to.ed25519.unwrap_or(now));
        Ok(())
    }
}

/// Tells whether a secret is the present one: setting it again changes nothing.
fn is_present(secret: &WebhookSecret, known: &Signing, id: SubscriptionId, vault: &Vault) -> bool {
    let Some(hmac) = &known.hmac else { return false };
    let opened = vault.open(label(id), &hmac.secret);
    opened.is_ok_and(|opened| opened.expose() == secret.text().as_bytes())
}

fn seal(secret: &WebhookSecret, id: SubscriptionId, vault: &Vault) -> Sealed {
    vault.seal(label(id), &Secret::from(Zeroizing::new(secret.text().as_bytes().to_vec())))
}

fn label(id: SubscriptionId) -> Label {
    Label::new(field::SIGNING_SECRET, id.uuid())
}

fn take_secret(body: &mut Map<String, Value>) -> Result<Option<SecretBody>, ApiError> {
    match body.remove("signing_secret") {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(SecretBody::None)),
        Some(Value::String(text)) if text == "generate" => {
            Ok(Some(SecretBody::Made(WebhookSecret::generate())))
        }
        Some(Value::String(text)) => {
            let secret = Zeroizing::new(text).parse::<WebhookSecret>();
            let secret = secret
                .map_err(|error| ApiError::field("/signing_secret", format!("`signing_secret` {error}")))?;
            Ok(Some(SecretBody::Given(secret)))
        }
        Some(other) => Err(wrong("signing_secret", "\"generate\", a string `whsec_…`, or null", &other)),
    }
}

/// Takes `signing`. Its read-only members are ignored.
fn take_algorithms(body: &mut Map<String, Value>) -> Result<Option<Algorithms>, ApiError> {
    let given = match body.remove("signing") {
        None => return Ok(None),
        Some(Value::Null) => return Ok(Some(Algorithms::default())),
        Some(Value::Object(given)) => given,
        Some(other) => return Err(wrong("signing", "an object with `algorithms`, or null", &other)),
    };
    let expected = "a list of \"hmac-sha256\" and \"ed25519\"";
    let names = match given.get("algorithms") {
        None => return Ok(None),
        Some(Value::Array(names)) => names,
        Some(other) => return Err(wrong("signing/algorithms", expected, other)),
    };
    let mut algorithms = Algorithms::default();
    for (place, name) in names.iter().enumerate() {
        match name.as_str() {
            Some(HMAC) => algorithms.hmac = true,
            Some(ED25519) => algorithms.ed25519 = true,
            _ => {
                let detail = "an algorithm is \"hmac-sha256\" or \"ed25519\"";
                return Err(ApiError::field(format!("/signing/algorithms/{place}"), detail));
            }
        }
    }
    Ok(Some(algorithms))
}

/// Returns the member `signing` as REST shows it.
pub(in crate::http) fn show(
    signing: &Signing,
    service_key: &ServiceKey,
    now: Timestamp,
) -> Option<v1::Signing> {
    let hmac = signing.hmac.as_ref();
    let algorithms = hmac.map(|_| v1::Algorithm::Hmac).into_iter();
    let algorithms = algorithms.chain(signing.ed25519.map(|_| v1::Algorithm::Ed25519));
    (!signing.is_off()).then(|| v1::Signing {
        algorithms: algorithms.collect(),
        since: hmac.map(|hmac| hmac.since).or(signing.ed25519).map(v1::Time),
        old_until: hmac.and_then(|hmac| hmac.old_until(now)).map(v1::Time),
        public_key: signing.ed25519.map(|_| service_key.public_text()),
    })
}

/// A rotation that a request asks for.
pub(in crate::http) struct Rotation {
    body: SigningBody,
    keep: Duration,
}

/// Reads the body of a rotation, which may be empty: then a new secret is generated, and the old one signs
/// for a day.
pub(in crate::http) fn rotate(mut body: Map<String, Value>) -> Result<Rotation, ApiError> {
    let keep = match body.remove("keep_old_for") {
        None => KEEP,
        Some(value) => {
            let expected = "a time such as \"24h\", at most \"30d\"";
            let keep = value.as_str().and_then(parse_duration).filter(|keep| *keep <= KEEP_MAX);
            keep.ok_or_else(|| wrong("keep_old_for", expected, &value))?
        }
    };
    let secret = match take_secret(&mut body)? {
        Some(SecretBody::None) => return Err(wrong("signing_secret", "a new secret", &Value::Null)),
        Some(given) => given,
        None => SecretBody::Made(WebhookSecret::generate()),
    };
    if let Some(unknown) = body.keys().next() {
        let detail =
            format!("there is no member `{unknown}`: a rotation has `keep_old_for` and `signing_secret`");
        return Err(ApiError::field(format!("/{}", unknown.replace('~', "~0").replace('/', "~1")), detail));
    }
    Ok(Rotation { body: SigningBody { secret: Some(secret), algorithms: None }, keep })
}

impl Rotation {
    /// Returns the new secret, for the response.
    pub(in crate::http) fn body(&self) -> &SigningBody {
        &self.body
    }

    /// Replaces the present secret with the new one.
    ///
    /// # Errors
    /// When there is no secret, or too many old ones are still in use.
    pub(in crate::http) fn apply(
        &self,
        to: &mut Subscription,
        vault: &Vault,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let mut sending = to.sending.as_deref().cloned().unwrap_or_default();
        let Some(hmac) = &mut sending.signing.hmac else {
            let detail =
                "this subscription has no signing secret to rotate: give it one with `signing_secret`";
            return Err(ApiError::conflict(detail));
        };
        let Some(secret) = self.body.new_secret() else { return Ok(()) };
        hmac.rotate(seal(secret, to.id, vault), self.keep, now);
        if hmac.old.len() > OLD_SECRETS_MAX {
            let detail = format!(
                "{OLD_SECRETS_MAX} old secrets are still in use: wait until `signing.old_until`, or end them with \
                 `keep_old_for` \"0\""
            );
            return Err(ApiError::conflict(detail));
        }
        to.sending = Some(Arc::new(sending));
        to.updated = now;
        Ok(())
    }
}
