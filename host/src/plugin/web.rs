//! The client of guests' requests: names resolved once, connections to checked addresses alone.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use ipnet::IpNet;
use tokio::sync::OnceCell;
use tower::Service;
use wasmtime_wasi_http::{Error, WasiBody};

use super::addresses::is_open;
use crate::{chain, tls};

/// The client of all calls.
pub(super) struct Web {
    networks: Arc<[IpNet]>,
    /// Made at the first request, whose runtime it belongs to.
    client: OnceCell<Client>,
}

type Client = legacy::Client<HttpsConnector<HttpConnector<Resolver>>, WasiBody>;

/// Why there is no response.
pub(super) enum Failed {
    /// None of the host's addresses may be connected to; one of them.
    NotPublic(IpAddr),
    /// A sentence, and what the guest is told.
    Other(String, Error),
}

impl Web {
    /// Makes a client that connects to public addresses and those within `networks`.
    pub(super) fn new(networks: &[IpNet]) -> Self {
        Self { networks: networks.into(), client: OnceCell::new() }
    }

    /// Returns the client. Reading the system's certificates takes its time.
    async fn client(&self) -> Result<&Client, Failed> {
        let failed = |reason: String| Failed::Other(reason, Error::ConfigurationError);
        let make = || async {
            let resolver = Resolver(Arc::clone(&self.networks));
            let made = tokio::task::spawn_blocking(move || client(resolver)).await;
            made.map_err(|error| failed(chain::of(&error)))?.map_err(|error| failed(chain::of(&error)))
        };
        self.client.get_or_try_init(make).await
    }

    /// Sends a request. Its URL has been allowed; where it leads is checked here.
    pub(super) async fn send(
        &self,
        request: Request<WasiBody>,
        first_byte: Option<Duration>,
    ) -> Result<Response<Incoming>, Failed> {
        // The resolver is asked about names alone.
        if let Some(address) = literal(request.uri()).filter(|address| !is_open(*address, &self.networks)) {
            return Err(Failed::NotPublic(address));
        }
        let sending = self.client().await?.request(request);
        let sent = match first_byte {
            None => sending.await,
            Some(wait) => tokio::time::timeout(wait, sending).await.map_err(|_| {
                let reason = format!("no answer within the {} ms that the guest gave it", wait.as_millis());
                Failed::Other(reason, Error::ConnectionReadTimeout)
            })?,
        };
        sent.map_err(|error| match not_public(&error) {
            Some(address) => Failed::NotPublic(address),
            None if error.is_connect() => Failed::Other(chain::of(&error), Error::ConnectionRefused),
            None => Failed::Other(chain::of(&error), Error::HttpProtocolError),
        })
    }
}

fn client(resolver: Resolver) -> Result<Client, rustls::Error> {
    let mut http = HttpConnector::new_with_resolver(resolver);
    http.enforce_http(false);
    http.set_nodelay(true);
    let https = tls::connector()?.https_or_http().enable_http1().enable_http2().wrap_connector(http);
    // No connection outlives its request: a plugin that calls one name after the other would leave as many open behind
    // it as the process may have.
    Ok(legacy::Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(https))
}

/// Returns the address that stands in a URL in place of a name.
fn literal(uri: &Uri) -> Option<IpAddr> {
    let host = uri.host()?;
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host).parse().ok()
}

fn not_public(error: &legacy::Error) -> Option<IpAddr> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(ResolveError::NotPublic(address)) = error.downcast_ref() {
            return Some(*address);
        }
        next = error.source();
    }
    None
}

/// Resolves names, and keeps back the addresses that may not be connected to.
#[derive(Clone)]
struct Resolver(Arc<[IpNet]>);

/// Why a name leads nowhere.
#[derive(Debug)]
enum ResolveError {
    NotPublic(IpAddr),
    Lookup(std::io::Error),
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPublic(address) => write!(f, "the address {address} is not public"),
            Self::Lookup(_) => f.write_str("the name cannot be resolved"),
        }
    }
}

impl std::error::Error for ResolveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotPublic(_) => None,
            Self::Lookup(error) => Some(error),
        }
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = ResolveError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ResolveError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), ResolveError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let networks = Arc::clone(&self.0);
        Box::pin(async move {
            // The port is a placeholder: the connector puts in the URL's.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await.map_err(ResolveError::Lookup)?;
            let (open, closed): (Vec<_>, Vec<_>) = found.partition(|found| is_open(found.ip(), &networks));
            match (open.is_empty(), closed.first()) {
                (true, Some(closed)) => Err(ResolveError::NotPublic(closed.ip())),
                (_, _) => Ok(open.into_iter()),
            }
        })
    }
}

/// How many bytes of responses a call may still read; clones share it.
#[derive(Clone)]
pub(super) struct Allowance(Arc<AtomicUsize>);

impl Allowance {
    pub(super) fn of(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    /// Limits a body. `over` is called once, when there is more of it than may be read.
    pub(super) fn limit<B, F: FnOnce()>(&self, body: B, over: F) -> LimitedBody<B, F> {
        LimitedBody { body, left: Arc::clone(&self.0), over: Some(over) }
    }
}

/// A body that ends with an error at the limit.
pub(super) struct LimitedBody<B, F> {
    body: B,
    left: Arc<AtomicUsize>,
    over: Option<F>,
}

impl<B, F> Body for LimitedBody<B, F>
where
    B: Body<Data = Bytes, Error = hyper::Error> + Unpin,
    F: FnOnce() + Unpin,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.body).poll_frame(cx).map(|frame| {
            let frame = match frame? {
                Ok(frame) => frame,
                Err(error) => return Some(Err(Error::Hyper(error))),
            };
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            let taken = |left: usize| left.checked_sub(bytes);
            if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok() {
                return Some(Ok(frame));
            }
            if let Some(over) = self.over.take() {
                over();
            }
            Some(Err(Error::HttpResponseBodySize(None)))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_a_url_is_seen_in_each_form_that_the_connector_takes() {
        let of = |url: &'static str| literal(&Uri::from_static(url)).map(|address| address.to_string());
        assert_eq!(of("http://127.0.0.1:1/").as_deref(), Some("127.0.0.1"));
        assert_eq!(of("http://[::ffff:7f00:1]/").as_deref(), Some("::ffff:127.0.0.1"));
        // These are names to the connector: the resolver is asked about them.
        for name in ["http://2130706433/", "http://127.1/", "http://0x7f000001/", "http://localhost/"] {
            assert_eq!(of(name), None);
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_to_an_address_that_is_not_public_leads_nowhere() {
        for name in ["localhost", "127.1", "2130706433"] {
            let found = Resolver(Arc::default()).call(name.parse().unwrap()).await;
            assert!(
                matches!(found, Err(ResolveError::NotPublic(address)) if address.is_loopback()),
                "{name}"
            );
        }
        let open = Resolver(["127.0.0.0/8".parse().unwrap()].into());
        assert!(open.clone().call("127.1".parse().unwrap()).await.is_ok());
    }
}
