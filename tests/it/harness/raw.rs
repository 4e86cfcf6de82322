//! A connection written byte by byte, to send what a well-behaved client never sends.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Reply;
use super::wait::BOUND;

/// One connection to a server.
pub(crate) struct RawConnection {
    stream: Box<dyn Stream>,
    unread: Vec<u8>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The result of a TLS handshake.
pub(crate) struct Handshake {
    pub(crate) connection: RawConnection,
    /// The protocol that both sides chose.
    pub(crate) alpn: Option<Vec<u8>>,
    /// The server's certificate.
    pub(crate) certificate: CertificateDer<'static>,
}

impl RawConnection {
    /// Connects to `http://host:port`, or to the same port of `https`, without a handshake.
    pub(crate) async fn open(url: &str) -> Self {
        let at = url.strip_prefix("http://").or(url.strip_prefix("https://")).unwrap();
        Self { stream: Box::new(TcpStream::connect(at).await.unwrap()), unread: Vec::new() }
    }

    /// Connects to `https://host:port`, and completes the TLS handshake.
    pub(crate) async fn open_tls(url: &str, config: ClientConfig) -> std::io::Result<Handshake> {
        let stream = TcpStream::connect(url.strip_prefix("https://").unwrap()).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let session = stream.get_ref().1;
        let (alpn, chain) =
            (session.alpn_protocol().map(<[u8]>::to_vec), session.peer_certificates().unwrap());
        let certificate = chain[0].clone().into_owned();
        let connection = Self { stream: Box::new(stream), unread: Vec::new() };
        Ok(Handshake { connection, alpn, certificate })
    }

    /// Sends bytes.
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends bytes, unless the server has already closed the connection.
    pub(crate) async fn write_if_open(&mut self, bytes: impl AsRef<[u8]>) {
        drop(self.stream.write_all(bytes.as_ref()).await);
    }

    /// Reads the next response, or returns `None` if the server closes the connection instead.
    pub(crate) async fn reply(&mut self) -> Option<Reply> {
        loop {
            if let Some(reply) = self.take_reply() {
                return Some(reply);
            }
            let read = self.stream.read_buf(&mut self.unread);
            let read = tokio::time::timeout(BOUND, read).await.expect("an answer within the bound");
            if !matches!(read, Ok(1..)) {
                return None;
            }
        }
    }

    /// Takes a complete response with a `Content-Length` off the bytes read so far.
    fn take_reply(&mut self) -> Option<Reply> {
        let head_end = self.unread.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
        let head = String::from_utf8(self.unread[..head_end].to_vec()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            headers.append(http::HeaderName::try_from(name).unwrap(), value.trim().parse().unwrap());
        }
        let length =
            headers.get("content-length").map_or(0, |length| length.to_str().unwrap().parse().unwrap());
        let body = Bytes::copy_from_slice(self.unread.get(head_end..head_end + length)?);
        self.unread.drain(..head_end + length);
        Some(Reply { status, headers, body })
    }
}
