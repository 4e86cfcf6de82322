//! Streams that a program writes to. They write synchronously: the thread is the program's own, and so what has been
//! counted is also written.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use super::quota::Quota;

/// How much is written at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Where in a file a stream writes.
pub(super) enum At {
    Place(u64),
    End,
}

/// A file of an output, with what may still be written.
pub(super) struct FileStream {
    pub(super) file: Arc<File>,
    pub(super) at: At,
    pub(super) quota: Arc<Mutex<Quota>>,
}

impl FileStream {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut quota = self.quota.lock().unwrap_or_else(PoisonError::into_inner);
        let metadata = self.file.metadata()?;
        let begin = match self.at {
            At::Place(place) => place,
            At::End => metadata.len(),
        };
        let end = begin.saturating_add(bytes.len() as u64);
        quota.grow(&metadata, end)?;
        let written = self.file.write_all_at(bytes, begin);
        if written.is_err() {
            // Some of it may have been written.
            quota.may_be_less();
        } else if let At::Place(place) = &mut self.at {
            *place = end;
        }
        written
    }
}

#[async_trait::async_trait]
impl Pollable for FileStream {
    async fn ready(&mut self) {}
}

impl OutputStream for FileStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.put(&bytes).map_err(|error| StreamError::LastOperationFailed(error.into()))
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(CHUNK_BYTES)
    }
}

/// A program's stdout or stderr. Clones write to the same stream.
#[derive(Clone)]
pub(super) struct StdStream(Arc<Mutex<Box<dyn Write + Send>>>);

impl StdStream {
    pub(super) fn new(to: Box<dyn Write + Send>) -> Self {
        Self(Arc::new(Mutex::new(to)))
    }

    pub(super) fn say(&self, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(bytes)
    }
}

impl IsTerminal for StdStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for StdStream {
    /// Never called: programs are components of WASI 0.2, which use the stream below.
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for StdStream {
    async fn ready(&mut self) {}
}

impl OutputStream for StdStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.say(&bytes).map_err(|error| StreamError::LastOperationFailed(error.into()))
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(CHUNK_BYTES)
    }
}
