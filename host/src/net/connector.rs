//! Connects to checked addresses only: a name is resolved once, its addresses are checked, and those are connected to.

use std::future::ready;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioIo;
use rustix::io::Errno;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tower::Service;

use super::guard::literal;
use super::reach::{Failure, Reach};
use super::tls;
use super::wire::{Wired, wired};

type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send>>;

/// How many names are resolved at once. The system's resolver blocks a thread until a name server answers, even if the
/// request was given up. Half of the runtime's blocking threads are left for the store and intake.
const LOOKUPS_MAX: usize = 256;
/// How long a lookup waits to begin. It waits only for other lookups, so this is not the target's fault.
const LOOKUP_WAIT: Duration = Duration::from_secs(2);

/// Makes a connector for both schemes, HTTP/1 and HTTP/2.
///
/// # Errors
/// When TLS cannot be set up.
pub(super) fn connector(reach: Reach, connect_timeout: Option<Duration>) -> Result<Connector, rustls::Error> {
    let tls = HttpsConnectorBuilder::new().with_tls_config(tls::anonymous()?);
    let dialer = Dialer { reach, connect_timeout, lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) };
    let https = tls.https_or_http().enable_http1().enable_http2().wrap_connector(dialer);
    Ok(Connector { https, open: Arc::default() })
}

/// Connects, with or without TLS, and lets the client look at what the connection has done.
#[derive(Clone)]
pub(crate) struct Connector {
    https: HttpsConnector<Dialer>,
    /// How many of its connections there are.
    open: Arc<AtomicUsize>,
}

impl Connector {
    /// Returns the number of its connections, as it will be.
    pub(super) fn open(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.open)
    }
}

impl Service<Uri> for Connector {
    type Response = Wired<MaybeHttpsStream<TokioIo<TcpStream>>>;
    type Error = Failure;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.https.poll_ready(cx)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let (connecting, open) = (self.https.call(to), self.open());
        Box::pin(async move { Ok(wired(connecting.await?, open)) })
    }
}

/// Connects by TCP, where its reach lets it.
#[derive(Clone)]
struct Dialer {
    reach: Reach,
    connect_timeout: Option<Duration>,
    lookups: Arc<Semaphore>,
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<TcpStream>;
    type Error = Failure;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let port = to.port_u16().unwrap_or(if to.scheme_str() == Some("https") { 443 } else { 80 });
        // The resolver is asked about names alone.
        if let Some(address) = to.host().and_then(literal)
            && let Err(failure) = self.reach.check(SocketAddr::new(address, port))
        {
            return Box::pin(ready(Err(failure)));
        }
        let resolver = Resolver { reach: self.reach.clone(), port, lookups: Arc::clone(&self.lookups) };
        let mut http = HttpConnector::new_with_resolver(resolver);
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(self.connect_timeout);
        Box::pin(async move { http.call(to).await.map_err(Into::into) })
    }
}

/// Resolves names, and keeps back the addresses that may not be connected to.
#[derive(Clone)]
pub(super) struct Resolver {
    reach: Reach,
    port: u16,
    lookups: Arc<Semaphore>,
}

impl Resolver {
    /// Makes a resolver with lookups of its own. Addresses are checked with this port.
    pub(super) fn new(reach: Reach, port: u16) -> Self {
        Self { reach, port, lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Failure;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let Self { reach, port, lookups } = self.clone();
        Box::pin(async move {
            let Ok(permit) = tokio::time::timeout(LOOKUP_WAIT, lookups.acquire_owned()).await else {
                return Err(io::Error::from(Errno::AGAIN).into());
            };
            let permit = permit?;
            let looking = tokio::task::spawn_blocking(move || {
                let found = (name.as_str(), port).to_socket_addrs();
                drop(permit);
                found
            });
            let found = looking.await??;
            let (mut open, mut failed) = (Vec::new(), None);
            for address in found {
                match reach.check(address) {
                    Ok(()) => open.push(address),
                    Err(failure) => failed = Some(failure),
                }
            }
            match failed {
                Some(failure) if open.is_empty() => Err(failure),
                _ => Ok(open.into_iter()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::error::find;
    use crate::net::{Guard, Refused};

    async fn resolved(reach: Reach, name: &str) -> Result<usize, Refused> {
        let lookups = Arc::new(Semaphore::new(1));
        let found = Resolver { reach, port: 8070, lookups }.call(name.parse().unwrap()).await;
        found.map(Iterator::count).map_err(|error| *find(&*error).unwrap())
    }

    async fn dialled(reach: Reach, url: &str) -> Refused {
        let lookups = Arc::new(Semaphore::new(1));
        let connected = Dialer { reach, connect_timeout: None, lookups }.call(url.parse().unwrap()).await;
        *find(&*connected.unwrap_err()).unwrap()
    }

    #[tokio::test]
    async fn a_name_that_leads_to_an_address_that_is_not_public_leads_nowhere() {
        let public = |networks: &[&str]| {
            let networks: Vec<_> = networks.iter().map(|network| network.parse().unwrap()).collect();
            Reach::public(Arc::default(), &networks)
        };
        for name in ["localhost", "127.1", "2130706433"] {
            let refused = resolved(public(&[]), name).await.unwrap_err();
            assert!(matches!(refused, Refused::NotPublic(address) if address.is_loopback()), "{name}");
        }
        assert!(resolved(public(&["127.0.0.0/8"]), "127.1").await.unwrap() > 0);
        for url in ["http://127.0.0.1:1/", "http://[::ffff:7f00:1]/", "https://169.254.169.254/"] {
            assert!(matches!(dialled(public(&[]), url).await, Refused::NotPublic(_)), "{url}");
        }
    }

    /// Names that no server resolved kept other lookups waiting until they timed out, which counted as failures of
    /// their targets.
    #[tokio::test]
    async fn a_name_that_is_not_resolved_because_of_others_is_our_own_shortage() {
        let mut resolver =
            Resolver { reach: Reach::ANYWHERE, port: 80, lookups: Arc::new(Semaphore::new(0)) };
        let failure = resolver.call("localhost".parse().unwrap()).await.unwrap_err();
        assert!(crate::shortage::is_behind(&*failure));
    }

    /// A name that resolves to another machine when a subscription is created, and to this one when it is delivered to.
    #[tokio::test]
    async fn no_name_leads_to_the_service_itself() {
        let guard = Arc::new(Guard::default());
        let reach = Reach::elsewhere(Arc::clone(&guard));
        assert!(resolved(reach.clone(), "127.1").await.unwrap() > 0);
        guard.serves_at("127.0.0.1:8070".parse().unwrap());
        for name in ["127.1", "2130706433", "0x7f000001"] {
            assert!(matches!(resolved(reach.clone(), name).await, Err(Refused::Own(_))), "{name}");
        }
        for url in ["http://127.0.0.1:8070/", "http://[::ffff:7f00:1]:8070/", "http://0.0.0.0:8070/"] {
            assert!(matches!(dialled(reach.clone(), url).await, Refused::Own(_)), "{url}");
        }
        guard.serves_at("127.0.0.1:80".parse().unwrap());
        assert!(matches!(dialled(reach, "http://127.0.0.1/").await, Refused::Own(_)));
    }
}
