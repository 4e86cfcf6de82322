//! Connects to judged addresses only: a name is resolved once, its addresses are judged, and those are connected to.
//! Through a proxy, the text of the host is judged, and the proxy resolves the name.

use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower::Service;

use super::error::Failure;
use super::proxy::{Proxy, ProxyFailure, is_plain};
use super::reach::Reach;
use super::resolver::Resolver;
use super::tls;
use super::wire::{Wired, wired};

type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send>>;

/// Makes a connector for both schemes, HTTP/1 and HTTP/2.
///
/// # Errors
/// When TLS cannot be set up.
pub(super) fn connector(reach: Reach, connect_timeout: Option<Duration>) -> Result<Connector, rustls::Error> {
    let road = match reach.proxy() {
        None => Road::Direct(Dialer::new(reach, connect_timeout)),
        Some(proxy) => {
            let dialer = Dialer::new(Reach::ANYWHERE, connect_timeout);
            Road::Proxied { reach, dialer, proxy, connect_timeout }
        }
    };
    let wait = connect_timeout.map(|timeout| timeout.saturating_mul(2) + LOOKUP);
    Ok(Connector::new(tls::anonymous()?, road, Arc::default(), wait))
}

/// Connects, with or without TLS, and lets the client look at what the connection has done.
#[derive(Clone)]
pub(crate) struct Connector {
    https: HttpsConnector<Road>,
    road: Road,
    /// How many of its connections there are, and of those that share its road.
    open: Arc<AtomicUsize>,
    /// The longest that all of connecting may take, a name's lookup and TLS with it. The client goes on with it after its
    /// request has found another connection.
    wait: Option<Duration>,
}

/// How much longer than two connections are waited for, a name's lookup may take.
const LOOKUP: Duration = Duration::from_secs(10);

impl Connector {
    fn new(tls: ClientConfig, road: Road, open: Arc<AtomicUsize>, wait: Option<Duration>) -> Self {
        let tls = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let https = tls.enable_http1().enable_http2().wrap_connector(road.clone());
        Self { https, road, open, wait }
    }

    /// Makes one that differs by its TLS alone: the road, its limits and the count are the same.
    pub(super) fn with_tls(&self, tls: ClientConfig) -> Self {
        Self::new(tls, self.road.clone(), self.open(), self.wait)
    }

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
        // A tunnel is the target's own connection.
        let takes_whole_urls = matches!(self.road, Road::Proxied { .. }) && is_plain(&to);
        let (connecting, open, wait) = (self.https.call(to), self.open(), self.wait.unwrap_or(Duration::MAX));
        Box::pin(async move {
            let connected = tokio::time::timeout(wait, connecting).await;
            let stream =
                connected.map_err(|_| "the connection was not ready in time: TLS did not begin")??;
            Ok(wired(stream, takes_whole_urls, open))
        })
    }
}

/// The way to targets.
#[derive(Clone)]
enum Road {
    Direct(Dialer),
    Proxied {
        /// Judges targets.
        reach: Reach,
        /// Connects to the proxy, which is the operator's.
        dialer: Dialer,
        proxy: Arc<Proxy>,
        connect_timeout: Option<Duration>,
    },
}

impl Service<Uri> for Road {
    type Response = TokioIo<TcpStream>;
    type Error = Failure;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        match self {
            Self::Direct(dialer) => dialer.call(to),
            Self::Proxied { reach, dialer, proxy, connect_timeout } => {
                let (reach, dialer, proxy) = (reach.clone(), dialer.clone(), Arc::clone(proxy));
                // The dialer's own timeout, which says that the proxy is away, ends before.
                let wait =
                    connect_timeout.map_or(Duration::MAX, |timeout| timeout.saturating_mul(2) + LOOKUP);
                Box::pin(async move {
                    reach.check_text(to.host().unwrap_or_default(), port(&to))?;
                    let connecting = tokio::time::timeout(wait, through(&proxy, dialer, to));
                    match connecting.await {
                        Ok(connected) => Ok(connected?),
                        Err(_) => {
                            Err(format!("the proxy at {proxy} (http_proxy) did not connect in time").into())
                        }
                    }
                })
            }
        }
    }
}

/// Connects to the proxy, and for TLS through it.
async fn through(proxy: &Proxy, mut dialer: Dialer, to: Uri) -> Result<TokioIo<TcpStream>, ProxyFailure> {
    if is_plain(&to) {
        let away = |source| ProxyFailure::Away { proxy: proxy.to_string(), source };
        return dialer.call(proxy.uri().clone()).await.map_err(away);
    }
    let mut tunnel = Tunnel::new(proxy.uri().clone(), dialer);
    if let Some(value) = proxy.authorization() {
        tunnel = tunnel.with_auth(value.clone());
    }
    tunnel.call(to.clone()).await.map_err(|error| proxy.failure(error, &to))
}

/// Connects by TCP, where its reach lets it.
#[derive(Clone)]
struct Dialer {
    reach: Reach,
    resolver: Resolver,
    connect_timeout: Option<Duration>,
}

impl Dialer {
    fn new(reach: Reach, connect_timeout: Option<Duration>) -> Self {
        Self { resolver: reach.resolver(), reach, connect_timeout }
    }
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<TcpStream>;
    type Error = Failure;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let Self { reach, resolver, connect_timeout } = self.clone();
        Box::pin(async move {
            let addresses = reach.addresses(&resolver, to.host().unwrap_or_default(), port(&to)).await?;
            let mut http = HttpConnector::new_with_resolver(Judged(addresses));
            http.enforce_http(false);
            http.set_nodelay(true);
            http.set_connect_timeout(connect_timeout);
            http.call(to).await.map_err(Into::into)
        })
    }
}

fn port(to: &Uri) -> u16 {
    to.port_u16().unwrap_or(if is_plain(to) { 80 } else { 443 })
}

/// The addresses of the one name that is connected to.
#[derive(Clone)]
struct Judged(Vec<SocketAddr>);

impl Service<Name> for Judged {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Failure;
    type Future = Ready<Result<Self::Response, Failure>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        ready(Ok(std::mem::take(&mut self.0).into_iter()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::find;
    use crate::{Agent, Guard, Refused, Rules};

    async fn resolved(reach: &Reach, name: &str) -> Result<usize, Refused> {
        let found = reach.addresses(&reach.resolver(), name, 8070).await;
        found.map(|found| found.len()).map_err(|failure| find::<Refused>(&*failure).unwrap().clone())
    }

    async fn dialled(reach: &Reach, url: &str) -> Refused {
        let connected = Dialer::new(reach.clone(), None).call(url.parse().unwrap()).await;
        find::<Refused>(&*connected.unwrap_err()).unwrap().clone()
    }

    #[tokio::test]
    async fn a_name_that_leads_to_an_address_that_is_not_public_leads_nowhere() {
        let public = |networks: &[&str]| {
            let allow = networks.iter().map(|network| network.parse().unwrap()).collect();
            let guard = Guard::default().with(Rules { allow, ..Rules::default() });
            Reach::guarded(Arc::new(guard), Agent::Plugin)
        };
        for name in ["localhost", "127.1", "2130706433"] {
            let refused = resolved(&public(&[]), name).await.unwrap_err();
            assert!(matches!(refused, Refused::NotPublic { address, .. } if address.is_loopback()), "{name}");
        }
        assert!(resolved(&public(&["127.0.0.0/8"]), "127.1").await.unwrap() > 0);
        for url in ["http://127.0.0.1:1/", "http://[::ffff:7f00:1]/", "https://169.254.169.254/"] {
            assert!(matches!(dialled(&public(&[]), url).await, Refused::NotPublic { .. }), "{url}");
        }
    }

    /// A name that resolves to another machine when a subscription is created, and to this one when it is delivered to.
    #[tokio::test]
    async fn no_name_leads_to_the_service_itself() {
        let guard = Arc::new(Guard::default().with(Rules { is_local: true, ..Rules::default() }));
        let reach = Reach::guarded(Arc::clone(&guard), Agent::Delivery);
        assert!(resolved(&reach, "127.1").await.unwrap() > 0);
        guard.serves_at("127.0.0.1:8070".parse().unwrap());
        for name in ["127.1", "2130706433", "0x7f000001"] {
            assert!(matches!(resolved(&reach, name).await, Err(Refused::Own(_))), "{name}");
        }
        for url in ["http://127.0.0.1:8070/", "http://[::ffff:7f00:1]:8070/", "http://0.0.0.0:8070/"] {
            assert!(matches!(dialled(&reach, url).await, Refused::Own(_)), "{url}");
        }
        guard.serves_at("127.0.0.1:80".parse().unwrap());
        assert!(matches!(dialled(&reach, "http://127.0.0.1/").await, Refused::Own(_)));
    }
}
