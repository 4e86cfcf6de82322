//! The beginning of a connection: plain, or with a TLS handshake. After it, both are one type of stream.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::error::ApiError;
use super::peer;
use super::tls::Tls;
use crate::identity::PeerCertificate;

/// The first byte of a TLS client: a handshake record (RFC 8446 §5.1). No HTTP method begins with it.
const HANDSHAKE: u8 = 0x16;

/// The bytes of a connection, as HTTP sees them.
pub(super) enum Stream {
    Plain(TcpStream),
    /// Boxed, because it is much larger than the other.
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection that can send requests.
pub(super) struct Arrival {
    pub(super) stream: Stream,
    /// The user of the client certificate, if the client sent one.
    pub(super) peer: Option<PeerCertificate>,
    /// The error with which each request is answered, if the connection is refused.
    pub(super) refusal: Option<ApiError>,
}

impl Arrival {
    /// A connection without TLS.
    pub(super) fn plain(stream: TcpStream) -> Self {
        Self { stream: Stream::Plain(stream), peer: None, refusal: None }
    }

    /// Performs the TLS handshake.
    ///
    /// # Errors
    /// When the handshake fails, for example because no known CA has issued the client certificate.
    pub(super) async fn over_tls(tls: &Tls, stream: TcpStream) -> io::Result<Self> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if first != [HANDSHAKE] {
            let detail = "this is plain HTTP, and Waypost speaks TLS here (the setting tls_certificate): use `https://`";
            let refusal = Some(ApiError::bad_request(detail));
            return Ok(Self { refusal, ..Self::plain(stream) });
        }
        let stream = TlsAcceptor::from(tls.config()).accept(stream).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let (peer, refusal) = match shown.map(peer::read).transpose() {
            Ok(peer) => (peer, None),
            Err(nameless) => {
                let detail = format!("the client certificate names no user: {nameless}");
                (None, Some(ApiError::unauthorized(detail)))
            }
        };
        Ok(Self { stream: Stream::Tls(Box::new(stream)), peer, refusal })
    }
}

impl Stream {
    pub(super) fn is_tls(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(_) => true,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, parts),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
