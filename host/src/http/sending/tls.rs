//! The members `client_certificate`, which is shown by its fingerprint, and `target_ca`.

use axum::http::Uri;
use serde_json::{Map, Value};

use super::{ApiError, wrong};
use waypost_domain::sending::{ClientIdentity, Sending, field};
use waypost_domain::{Secret, SubscriptionId, TargetUrl};
use waypost_net::tls::{ClientCertificate, check_authorities};
use waypost_runtime::chain;
use waypost_secrets::{Label, Vault};

/// The most bytes of a PEM text.
const PEM_BYTES_MAX: usize = 64 * 1024;

/// What a body says about TLS.
pub(super) struct TlsBody {
    certificate: Option<CertificateBody>,
    authorities: Option<Option<String>>,
}

enum CertificateBody {
    None,
    /// The fingerprint, as it is shown.
    Shown(String),
    Given {
        certificate: ClientCertificate,
        pem: Secret,
    },
}

impl TlsBody {
    pub(super) fn take(body: &mut Map<String, Value>) -> Result<Self, ApiError> {
        Ok(Self { certificate: take_certificate(body)?, authorities: take_authorities(body)? })
    }

    pub(super) fn apply(&self, to: &mut Sending, id: SubscriptionId, vault: &Vault) -> Result<(), ApiError> {
        match &self.certificate {
            None => {}
            Some(CertificateBody::None) => to.client_certificate = None,
            Some(CertificateBody::Shown(shown))
                if to.client_certificate.as_ref().is_some_and(|known| known.fingerprint == *shown) => {}
            Some(CertificateBody::Shown(_)) => {
                let detail = "this is not the present `client_certificate`: give its PEM, with the key";
                return Err(ApiError::field("/client_certificate/sha256", detail));
            }
            Some(CertificateBody::Given { certificate, pem }) => {
                let digest = certificate.digest();
                // The same certificate again changes nothing.
                if to.client_certificate.as_ref().is_none_or(|known| known.digest != digest) {
                    let pem = vault.seal(Label::new(field::CLIENT_CERTIFICATE, id.uuid()), pem);
                    let fingerprint = certificate.fingerprint();
                    to.client_certificate = Some(ClientIdentity { pem, fingerprint, digest });
                }
            }
        }
        if let Some(authorities) = &self.authorities {
            to.target_ca.clone_from(authorities);
        }
        Ok(())
    }
}

fn take_certificate(body: &mut Map<String, Value>) -> Result<Option<CertificateBody>, ApiError> {
    let name = "client_certificate";
    match body.remove(name) {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(CertificateBody::None)),
        Some(Value::Object(shown)) => match shown.get("sha256") {
            Some(Value::String(fingerprint)) => Ok(Some(CertificateBody::Shown(fingerprint.clone()))),
            Some(_) | None => Err(wrong(name, EXPECTED, &Value::Object(shown))),
        },
        Some(Value::String(text)) => {
            check_size(name, &text)?;
            let pem = Secret::from(text);
            let certificate = ClientCertificate::from_pem(pem.expose());
            let certificate = certificate.map_err(|error| {
                ApiError::field(
                    "/client_certificate",
                    format!("`client_certificate`: {}", chain::text(&error)),
                )
            })?;
            Ok(Some(CertificateBody::Given { certificate, pem }))
        }
        Some(other) => Err(wrong(name, EXPECTED, &other)),
    }
}

const EXPECTED: &str = "a PEM text with certificates and key, or null";

fn take_authorities(body: &mut Map<String, Value>) -> Result<Option<Option<String>>, ApiError> {
    match body.remove("target_ca") {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(Value::String(pem)) => {
            check_size("target_ca", &pem)?;
            // `target_ca` is shown, so it must not contain a private key.
            if pem.contains("PRIVATE KEY") {
                let detail =
                    "`target_ca` holds a private key, and is shown to everyone who may see the subscription";
                return Err(ApiError::field("/target_ca", detail));
            }
            check_authorities(pem.as_bytes()).map_err(|error| {
                ApiError::field("/target_ca", format!("`target_ca`: {}", chain::text(&error)))
            })?;
            Ok(Some(Some(pem)))
        }
        Some(other) => Err(wrong("target_ca", "a PEM text with certificates, or null", &other)),
    }
}

fn check_size(name: &str, pem: &str) -> Result<(), ApiError> {
    match pem.len() > PEM_BYTES_MAX {
        false => Ok(()),
        true => {
            let detail = format!("`{name}` has {} bytes, and at most {PEM_BYTES_MAX} are allowed", pem.len());
            Err(ApiError::field(format!("/{name}"), detail))
        }
    }
}

/// Refuses TLS settings for a plain HTTP target, which would ignore them silently.
pub(super) fn check_target(sending: &Sending, target: &TargetUrl) -> Result<(), ApiError> {
    let is_plain = target.uri().ok().and_then(Uri::scheme_str) == Some("http");
    for (name, is_set) in [
        ("client_certificate", sending.client_certificate.is_some()),
        ("target_ca", sending.target_ca.is_some()),
    ] {
        if is_plain && is_set {
            let detail = format!("`{name}` is for a `target_url` that begins with `https://`");
            return Err(ApiError::field(format!("/{name}"), detail));
        }
    }
    Ok(())
}
