//! The cryptography beneath TLS, chosen in one place.

use hyper_rustls::HttpsConnectorBuilder;
use hyper_rustls::builderstates::WantsSchemes;
use rustls::crypto::{CryptoProvider, ring};

/// Makes ring the process's provider for rustls, unless the embedding program has chosen one already.
///
/// reqwest and hyper-rustls are built without a provider of their own, so whoever builds a client calls this
/// before. Calling it again changes nothing.
pub fn install_provider() {
    if CryptoProvider::get_default().is_none() {
        // Losing a race against another thread means that there is a provider now.
        drop(ring::default_provider().install_default());
    }
}

/// Begins a connector that trusts the system's root certificates.
///
/// # Errors
/// When TLS cannot be set up at all.
pub(crate) fn connector() -> Result<HttpsConnectorBuilder<WantsSchemes>, rustls::Error> {
    match HttpsConnectorBuilder::new().with_provider_and_native_roots(ring::default_provider()) {
        Ok(connector) => Ok(connector),
        // A small container has no certificates of its own.
        Err(error) => {
            tracing::warn!(%error, "no TLS root certificates on this system: those of Mozilla are used");
            HttpsConnectorBuilder::new().with_provider_and_webpki_roots(ring::default_provider())
        }
    }
}
