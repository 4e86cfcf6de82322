//! The clients of targets: one for all, and others for subscriptions with a certificate or authorities of their own.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use moka::future::Cache;
use sha2::{Digest as _, Sha256};

use super::answer::Trouble;
use waypost_domain::Subscription;
use waypost_domain::sending::{Sending, field};
use waypost_net::Client;
use waypost_net::tls::{self, ClientCertificate};
use waypost_runtime::chain;
use waypost_secrets::{Label, Vault};

/// The most clients with TLS of their own that are kept, each with its connections.
const OWN_MAX: u64 = 64;
/// How long an unused one is kept.
const IDLE: Duration = Duration::from_secs(5 * 60);

/// The clients of targets.
pub(super) struct Clients {
    shared: Client,
    /// By a digest of their certificate and authorities.
    own: Cache<String, Arc<Client>>,
}

/// A client for one attempt.
pub(super) enum TargetClient<'a> {
    Shared(&'a Client),
    Own(Arc<Client>),
}

impl std::ops::Deref for TargetClient<'_> {
    type Target = Client;

    fn deref(&self) -> &Client {
        match self {
            Self::Shared(client) => client,
            Self::Own(client) => client,
        }
    }
}

impl Clients {
    pub(super) fn new(shared: Client) -> Self {
        Self { shared, own: Cache::builder().max_capacity(OWN_MAX).time_to_idle(IDLE).build() }
    }

    /// Returns the client that subscriptions share.
    pub(super) fn shared(&self) -> &Client {
        &self.shared
    }

    /// Returns the client for a subscription's target.
    ///
    /// # Errors
    /// When its certificate cannot be opened or used.
    pub(super) async fn of(
        &self,
        vault: &Vault,
        subscription: &Subscription,
    ) -> Result<TargetClient<'_>, Trouble> {
        let Some(sending) = subscription.sending.as_deref().filter(|sending| sending.has_tls()) else {
            return Ok(TargetClient::Shared(&self.shared));
        };
        let making = async {
            let pem = match &sending.client_certificate {
                None => None,
                Some(identity) => {
                    let label = Label::new(field::CLIENT_CERTIFICATE, subscription.id.uuid());
                    let opened = vault.open(label, &identity.pem);
                    Some(opened.map_err(|error| Trouble::of_secret("the client certificate", error))?)
                }
            };
            let authorities = sending.target_ca.clone();
            // It may read the system's certificates.
            let making = tokio::task::spawn_blocking(move || {
                let certificate = pem.map(|pem| ClientCertificate::from_pem(pem.expose())).transpose()?;
                tls::of_target(certificate, authorities.as_deref().map(str::as_bytes))
            });
            let made = making.await.map_err(|error| Trouble::Ours(error.to_string()))?;
            let config = made.map_err(|error| {
                Trouble::Theirs(format!("`client_certificate` or `target_ca`: {}", chain::text(&error)))
            })?;
            Ok(Arc::new(self.shared.with_tls(config)))
        };
        let client = self.own.try_get_with(digest(sending), making).await;
        client.map(TargetClient::Own).map_err(|trouble: Arc<Trouble>| Trouble::clone(&trouble))
    }
}

/// Returns the digest of what a client is made from.
fn digest(sending: &Sending) -> String {
    let certificate = sending.client_certificate.as_ref().map_or("", |identity| &identity.digest);
    let authorities = sending.target_ca.as_ref().map(|pem| HEXLOWER.encode(&Sha256::digest(pem)));
    format!("{certificate} {}", authorities.unwrap_or_default())
}
