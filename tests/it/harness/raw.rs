//! A connection written byte by byte, for what a well-behaved client never sends.

use bytes::Bytes;
use http::HeaderMap;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Reply;
use super::wait::BOUND;

/// One TCP connection to a server.
pub(crate) struct RawConnection {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl RawConnection {
    /// Connects to `http://host:port`.
    pub(crate) async fn open(url: &str) -> Self {
        let stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
        Self { stream, unread: Vec::new() }
    }

    /// Sends bytes as they are.
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads the next response, or `None` where the server closes the connection instead.
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

    /// Takes a whole response with a `Content-Length` off the bytes read so far.
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
