//! The cryptography beneath TLS, chosen in one place.

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
