//! The TLS set-up: the provider of cryptography and the trusted roots, chosen in one place.

use std::sync::{Arc, OnceLock};

use data_encoding::HEXLOWER;
use hyper_rustls::ConfigBuilderExt;
use rustls::client::WantsClientCert;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use sha2::{Digest as _, Sha256};

/// Makes ring the process's provider for rustls, unless the embedding program has chosen one already.
///
/// What is made here names its provider. This is for libraries beneath that ask for the process's own. Calling it again
/// changes nothing.
pub fn install_provider() {
    if CryptoProvider::get_default().is_none() {
        // Losing a race against another thread means that there is a provider now.
        drop(ring::default_provider().install_default());
    }
}

/// A client certificate with its key.
pub struct ClientCertificate {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// Why a file holds no client certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It cannot be parsed as PEM, or a certificate in it cannot be read.
    #[error("it is no PEM file with a certificate")]
    Certificate(#[source] rustls::pki_types::pem::Error),
    /// It has no certificate.
    #[error("it holds no certificate")]
    NoCertificate,
    /// It has no private key that can be read.
    #[error("it holds no private key, which belongs into the same file")]
    Key(#[source] rustls::pki_types::pem::Error),
    /// The key is another certificate's.
    #[error("the key does not fit the certificate")]
    Mismatch(#[source] rustls::Error),
    /// A certificate in it is no authority.
    #[error("it holds a certificate that vouches for nothing")]
    Authority(#[source] rustls::Error),
    /// The TLS library refused what was read.
    #[error("failed to set up TLS")]
    SetUp(#[source] rustls::Error),
}

impl ClientCertificate {
    /// Reads a PEM file with a certificate, those that vouch for it, and its key.
    ///
    /// # Errors
    /// When one is missing, or the key is another's.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CertificateError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let chain = chain.map_err(CertificateError::Certificate)?;
        if chain.is_empty() {
            return Err(CertificateError::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(CertificateError::Key)?;
        let certified =
            rustls::sign::CertifiedKey::from_der(chain.clone(), key.clone_key(), &ring::default_provider());
        certified.map_err(CertificateError::Mismatch)?;
        Ok(Self { chain, key })
    }

    /// Returns the SHA-256 of the certificate, in hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        HEXLOWER.encode(&Sha256::digest(&self.chain[0]))
    }

    /// Returns the SHA-256 of certificates and key, in hexadecimal digits.
    pub fn digest(&self) -> String {
        let chain = self.chain.iter().fold(Sha256::new(), |hash, certificate| {
            hash.chain_update(certificate.len().to_le_bytes()).chain_update(certificate)
        });
        HEXLOWER.encode(&chain.chain_update(self.key.secret_der()).finalize())
    }
}

/// Checks that a PEM text holds certificates of authorities.
///
/// # Errors
/// When it holds none, or one that cannot be used.
pub fn check_authorities(pem: &[u8]) -> Result<(), CertificateError> {
    authorities(pem).map(drop)
}

fn authorities(pem: &[u8]) -> Result<RootCertStore, CertificateError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots
            .add(certificate.map_err(CertificateError::Certificate)?)
            .map_err(CertificateError::Authority)?;
    }
    if roots.is_empty() { Err(CertificateError::NoCertificate) } else { Ok(roots) }
}

/// Returns the configuration of a client for one target: the certificate that it shows, if any, and the authorities that
/// it trusts in the place of the system's, if any. Reads the system's roots, which is slow.
///
/// # Errors
/// When TLS cannot be set up with these.
pub fn of_target(
    certificate: Option<ClientCertificate>,
    authorities_pem: Option<&[u8]>,
) -> Result<ClientConfig, CertificateError> {
    let builder = match authorities_pem {
        None => trusting().map_err(CertificateError::SetUp)?,
        Some(pem) => plain().map_err(CertificateError::SetUp)?.with_root_certificates(authorities(pem)?),
    };
    match certificate {
        None => Ok(builder.with_no_client_auth()),
        Some(ClientCertificate { chain, key }) => {
            builder.with_client_auth_cert(chain, key).map_err(CertificateError::Mismatch)
        }
    }
}

/// Returns the configuration of clients without a certificate. It is made once, because reading the system's roots is
/// slow.
///
/// # Errors
/// When TLS cannot be set up at all.
pub(super) fn anonymous() -> Result<ClientConfig, rustls::Error> {
    static ANONYMOUS: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = ANONYMOUS.get() {
        return Ok(ClientConfig::clone(config));
    }
    let config = trusting()?.with_no_client_auth();
    Ok(ClientConfig::clone(ANONYMOUS.get_or_init(|| Arc::new(config))))
}

/// Returns what a client uses that shows this certificate.
///
/// # Errors
/// When TLS cannot be set up, or not with this certificate.
pub(super) fn certified(certificate: ClientCertificate) -> Result<ClientConfig, rustls::Error> {
    trusting()?.with_client_auth_cert(certificate.chain, certificate.key)
}

/// Begins a configuration that trusts the system's root certificates.
fn trusting() -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, rustls::Error> {
    match plain()?.with_native_roots() {
        Ok(builder) => Ok(builder),
        // A small container has no certificates of its own.
        Err(error) => {
            tracing::warn!(%error, "no TLS root certificates on this system: those of Mozilla are used");
            Ok(plain()?.with_webpki_roots())
        }
    }
}

/// Begins a configuration.
fn plain() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_or_key_says_which() {
        for (pem, problem) in [
            ("", "no certificate"),
            ("rubbish", "no certificate"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no private key"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n", "no PEM file"),
        ] {
            let error = ClientCertificate::from_pem(pem.as_bytes()).err().unwrap();
            assert!(error.to_string().contains(problem), "{pem}: {error}");
        }
    }

    #[test]
    fn authorities_are_certificates() {
        for (pem, problem) in [
            ("", "no certificate"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "vouches for nothing"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n", "no PEM file"),
        ] {
            let error = check_authorities(pem.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(problem), "{pem}: {error}");
            assert!(of_target(None, Some(pem.as_bytes())).is_err());
        }
    }

    #[test]
    fn an_anonymous_client_has_no_certificate_and_names_no_protocol() {
        let config = anonymous().unwrap();
        assert!(!config.client_auth_cert_resolver.has_certs());
        assert!(config.alpn_protocols.is_empty(), "the client's maker says which versions it speaks");
    }
}
