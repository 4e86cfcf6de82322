//! A bundle, packed while it is sent: a tar of `data/<path>` and, last, `metadata.txt`.
//!
//! Its size is known in advance, because no size in it depends on what the files contain: some services do not accept
//! chunked bodies. A thread packs piece by piece, as fast as the connection takes them.

use std::io::{self, Read as _, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tar::{Builder, Header};
use tokio::sync::mpsc;

use crate::meter::Meter;
use crate::output::Output;
use crate::upload::source::Source;
use crate::upload::{Error, Origin, rows};
use crate::work::{PIECE_BYTES, Stop};

/// How many pieces wait between the thread and the connection.
const PIECES_MAX: usize = 4;
/// Each member is padded to a multiple of this size.
const BLOCK_BYTES: u64 = 512;
/// How a tar ends: two blocks of zeros.
const END_BYTES: usize = 1024;

/// An output to be packed.
pub(super) struct Bundle {
    output: Arc<Output>,
    origin: Arc<Origin>,
}

impl Bundle {
    /// Makes a bundle of an output.
    pub(super) fn new(output: Arc<Output>, origin: Arc<Origin>) -> Self {
        Self { output, origin }
    }

    /// Returns its size, counted from the same headers that the packing writes.
    pub(super) fn size(&self) -> u64 {
        let mut counted = Builder::new(Counter(0));
        let unknown = self.output.files.iter().map(|_| rows::HASH_UNKNOWN);
        let metadata = rows::metadata(&self.output, &self.origin, unknown).len() as u64;
        let files =
            self.output.files.iter().map(|file| (member(file.path.as_str()), file.size, file.modified));
        for (name, size, modified) in files.chain([last_member(metadata)]) {
            header(&mut counted, &name, size, modified).expect("a counter takes everything");
            counted.get_mut().0 += size.next_multiple_of(BLOCK_BYTES);
        }
        counted.get_ref().0 + END_BYTES as u64
    }

    /// Packs it. Blocks on the disk and on the receiver of the pieces.
    pub(super) fn pack(self, stop: &Stop, meter: &Meter, sender: mpsc::Sender<Bytes>) -> Result<(), Error> {
        let mut tar = Builder::new(Pieces { piece: Vec::with_capacity(PIECE_BYTES), sender, stop });
        let mut sums = Vec::with_capacity(self.output.files.len());
        for file in &self.output.files {
            let mut from = Source::open(file, stop, meter)?;
            packed(header(&mut tar, &member(file.path.as_str()), file.size, file.modified))?;
            let pieces = tar.get_mut();
            while from.read(&mut pieces.piece)? {
                pieces.send_full()?;
            }
            pieces.fill_up(file.size)?;
            sums.push(from.finish()?);
        }
        let metadata = rows::metadata(&self.output, &self.origin, sums.iter().map(String::as_str));
        let size = metadata.len() as u64;
        let (name, size, modified) = last_member(size);
        packed(header(&mut tar, &name, size, modified))?;
        let pieces = tar.get_mut();
        packed(pieces.write_all(&metadata))?;
        pieces.fill_up(size)?;
        packed(pieces.write_all(&[0; END_BYTES]))?;
        pieces.send()
    }
}

fn member(path: &str) -> String {
    format!("data/{path}")
}

fn last_member(size: u64) -> (String, u64, SystemTime) {
    ("metadata.txt".to_owned(), size, SystemTime::UNIX_EPOCH)
}

/// Writes a member's header alone, with one before it for a long name.
fn header(tar: &mut Builder<impl Write>, name: &str, size: u64, modified: SystemTime) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(modified.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()));
    tar.append_data(&mut header, name, io::empty())
}

/// Sending a piece fails only when the work should end.
fn packed<T>(result: io::Result<T>) -> Result<T, Error> {
    result.map_err(|_| Error::Stopped)
}

/// Counts what is written.
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends what is written in pieces.
struct Pieces<'a> {
    piece: Vec<u8>,
    sender: mpsc::Sender<Bytes>,
    stop: &'a Stop,
}

impl Pieces<'_> {
    fn room(&self) -> usize {
        PIECE_BYTES - self.piece.len()
    }

    fn send_full(&mut self) -> Result<(), Error> {
        if self.room() == 0 { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), Error> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES));
        Ok(self.stop.send(&self.sender, Bytes::from(piece))?)
    }

    /// Pads a member of this size to a whole block.
    fn fill_up(&mut self, size: u64) -> Result<(), Error> {
        let missing = size.next_multiple_of(BLOCK_BYTES) - size;
        packed(io::copy(&mut io::repeat(0).take(missing), self)).map(drop)
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.room());
        self.piece.extend_from_slice(&bytes[..taken]);
        self.send_full().map_err(io::Error::other)?;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The pieces as the body of a request.
pub(super) struct TarBody {
    receiver: mpsc::Receiver<Bytes>,
    left: u64,
    taken: Arc<AtomicU64>,
}

/// The thread ended before the bundle did.
#[derive(Debug, thiserror::Error)]
#[error("the bundle ended {left} bytes too early")]
pub(super) struct BrokenOff {
    left: u64,
}

impl TarBody {
    /// Makes a body of this size, and the place for its pieces.
    pub(super) fn new(size: u64) -> (Self, mpsc::Sender<Bytes>) {
        let (sender, receiver) = mpsc::channel(PIECES_MAX);
        (Self { receiver, left: size, taken: Arc::default() }, sender)
    }

    /// Returns the count of the bytes that are taken.
    pub(super) fn taken(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.taken)
    }
}

impl http_body::Body for TarBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        self.receiver.poll_recv(context).map(|piece| match piece {
            Some(piece) => {
                let bytes = piece.len() as u64;
                self.left = self.left.saturating_sub(bytes);
                self.taken.fetch_add(bytes, Ordering::Relaxed);
                Some(Ok(Frame::data(piece)))
            }
            None if self.left > 0 => Some(Err(BrokenOff { left: self.left })),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
