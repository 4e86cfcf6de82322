//! What a guest writes to stderr and stdout. Only the end is kept, since a panic's text comes last.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError};

use super::text;

/// The most bytes that are kept.
const KEPT_BYTES_MAX: usize = 8 * 1024;

/// A stream that keeps its end.
#[derive(Clone, Default)]
pub(super) struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Tail {
    /// Returns the end of what was written, without terminal escapes.
    pub(super) fn text(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.is_empty() {
            return String::new();
        }
        let bytes: Vec<u8> = kept.iter().copied().collect();
        drop(kept);
        text::without_escapes(&String::from_utf8_lossy(&bytes)).into_owned()
    }

    fn put(&self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(KEPT_BYTES_MAX)..];
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let surplus = (kept.len() + bytes.len()).saturating_sub(KEPT_BYTES_MAX);
        kept.drain(..surplus);
        kept.extend(bytes);
    }
}

impl IsTerminal for Tail {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Tail {
    /// Never called: guests are components of WASI 0.2, which use the stream below.
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for Tail {
    async fn ready(&mut self) {}
}

impl OutputStream for Tail {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        self.put(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(64 * 1024)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_without_escapes() {
        let tail = Tail::default();
        assert_eq!(tail.text(), "");
        tail.put(&vec![b'a'; 3 * KEPT_BYTES_MAX]);
        tail.put("\x1b[31mü\n".as_bytes());
        let text = tail.text();
        assert!(text.ends_with("aü\n") && text.starts_with("aaa"), "{text}");
        assert_eq!(text.len(), KEPT_BYTES_MAX - "\x1b[31m".len());
    }
}
