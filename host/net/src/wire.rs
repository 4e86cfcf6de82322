//! What a connection has done, for the case that it fails: whether it served a request before, and the first bytes of
//! the last response.
//!
//! hyper reports that a response cannot be parsed, but not its bytes. These few bytes tell whether a target has
//! answered at all, and with which status.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use http::StatusCode;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How many bytes of an answer are remembered: a status line's beginning, and some words of another protocol.
const BEGIN_BYTES: usize = 24;

/// What one connection has done. The connection's task writes it; it is read after the connection has failed.
#[derive(Debug, Default)]
pub(super) struct Wire {
    begin: [AtomicU8; BEGIN_BYTES],
    /// How many of them there are.
    length: AtomicUsize,
    is_used: AtomicBool,
}

impl Wire {
    /// Returns the first bytes of the answer to the last request.
    pub(super) fn begin(&self) -> Vec<u8> {
        let length = self.length.load(Ordering::Relaxed).min(BEGIN_BYTES);
        self.begin[..length].iter().map(|byte| byte.load(Ordering::Relaxed)).collect()
    }

    /// Tells whether the connection had an answer before it got the last request.
    pub(super) fn is_used(&self) -> bool {
        self.is_used.load(Ordering::Relaxed)
    }

    fn note_read(&self, bytes: &[u8]) {
        let length = self.length.load(Ordering::Relaxed);
        if length == BEGIN_BYTES {
            return;
        }
        let taken = bytes.len().min(BEGIN_BYTES - length);
        for (place, byte) in self.begin[length..].iter().zip(&bytes[..taken]) {
            place.store(*byte, Ordering::Relaxed);
        }
        self.length.store(length + taken, Ordering::Relaxed);
    }

    /// What is written after an answer is the next request.
    fn note_write(&self) {
        if self.length.load(Ordering::Relaxed) != 0 {
            self.is_used.store(true, Ordering::Relaxed);
            self.length.store(0, Ordering::Relaxed);
        }
    }
}

/// Reads the status off an answer's first bytes (RFC 9112 §4), if they are HTTP.
pub(super) fn status(begin: &[u8]) -> Option<StatusCode> {
    let rest = begin.strip_prefix(b"HTTP/")?;
    let [major, b'.', minor, b' ', status @ ..] = rest else { return None };
    let status = status.get(..3)?;
    (major.is_ascii_digit() && minor.is_ascii_digit()).then(|| StatusCode::from_bytes(status).ok())?
}

/// Tells whether first bytes may be those of an HTTP answer that broke off.
pub(super) fn may_be_http(begin: &[u8]) -> bool {
    const NAME: &[u8] = b"HTTP/";
    let length = begin.len().min(NAME.len());
    begin[..length] == NAME[..length]
}

/// A connection whose reads and writes are recorded.
pub(crate) type Wired<T> = TokioIo<Noted<TokioIo<T>>>;

/// Records what a connection does, and counts it as open until it is dropped. One to a proxy for plain HTTP takes whole
/// URLs.
pub(super) fn wired<T: Connection>(stream: T, takes_whole_urls: bool, open: Arc<AtomicUsize>) -> Wired<T> {
    let is_h2 = stream.connected().is_negotiated_h2();
    open.fetch_add(1, Ordering::Relaxed);
    let (stream, wire) = (TokioIo::new(stream), Arc::default());
    TokioIo::new(Noted { stream, is_h2, takes_whole_urls, wire, _open: Open(open) })
}

/// Counts a connection until it is dropped.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The stream beneath a [`Wired`].
pub(crate) struct Noted<T> {
    stream: T,
    is_h2: bool,
    takes_whole_urls: bool,
    wire: Arc<Wire>,
    _open: Open,
}

impl<T> Connection for Noted<T> {
    fn connected(&self) -> Connected {
        let connected = Connected::new().extra(Arc::clone(&self.wire)).proxy(self.takes_whole_urls);
        if self.is_h2 { connected.negotiated_h2() } else { connected }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Noted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.wire.note_read(&buffer.filled()[before..]);
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Noted<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.wire.note_write();
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.wire.note_write();
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_is_read_as_far_as_it_says_the_status() {
        for (begin, expected) in [
            ("HTTP/1.1 200 OK\r\n", Some(200)),
            ("HTTP/1.0 503", Some(503)),
            ("HTTP/1.1 20", None),
            ("HTTP/1.1  200", None),
            ("http/1.1 200", None),
            ("HTTP/x.1 200", None),
            ("SSH-2.0-OpenSSH_9.9\r\n", None),
            ("", None),
        ] {
            assert_eq!(status(begin.as_bytes()).map(|status| status.as_u16()), expected, "{begin}");
        }
        for http in ["", "H", "HTTP", "HTTP/1.1 200"] {
            assert!(may_be_http(http.as_bytes()), "{http}");
        }
        for other in ["SSH-2.0", "220 smtp", "HTTQ", "\x15\x03"] {
            assert!(!may_be_http(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn a_connection_is_used_once_it_writes_after_it_has_read() {
        let wire = Wire::default();
        wire.note_write();
        wire.note_write();
        assert!(!wire.is_used() && wire.begin().is_empty());
        wire.note_read(b"HTTP/1.1");
        wire.note_read(b"");
        wire.note_read(b" 200 OK\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(wire.begin(), b"HTTP/1.1 200 OK\r\ncontent");
        assert!(!wire.is_used());
        wire.note_write();
        assert!(wire.is_used() && wire.begin().is_empty());
    }
}
