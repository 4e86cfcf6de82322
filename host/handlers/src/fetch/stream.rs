//! A response's body as a blocking reader that reads no further than allowed.

use std::cell::{Cell, RefCell};
use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use tokio::sync::mpsc;

/// A piece of the body, or why there is none.
pub(super) type Piece = Result<Bytes, reqwest::Error>;

/// The body as it is received. The tar crate reads as much into memory as a header announces, without a limit;
/// therefore each step is given an allowance of bytes first.
pub(super) struct Incoming {
    pieces: RefCell<mpsc::Receiver<Piece>>,
    piece: RefCell<Bytes>,
    allowed: Cell<u64>,
    state: Cell<State>,
}

/// The state of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It has not ended.
    Open,
    /// It is complete.
    Ended,
    /// It failed before its end.
    Broken,
    /// The reader asked for more than allowed.
    Refused,
}

impl Incoming {
    pub(super) fn new(pieces: mpsc::Receiver<Piece>) -> Self {
        Self {
            pieces: RefCell::new(pieces),
            piece: RefCell::default(),
            allowed: Cell::new(0),
            state: Cell::new(State::Open),
        }
    }

    /// Sets the allowance to this many bytes from here, in place of the previous one.
    pub(super) fn allow(&self, bytes: u64) {
        self.allowed.set(bytes);
    }

    /// Returns how many bytes may still be read.
    pub(super) fn allowed(&self) -> u64 {
        self.allowed.get()
    }

    pub(super) fn state(&self) -> State {
        self.state.get()
    }
}

impl Read for &Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.allowed.get().min(buffer.len() as u64);
        if count == 0 && !buffer.is_empty() {
            self.state.set(State::Refused);
            return Err(io::Error::other("more bytes than are allowed"));
        }
        let mut piece = self.piece.borrow_mut();
        while piece.is_empty() {
            match self.pieces.borrow_mut().blocking_recv() {
                Some(Ok(next)) => *piece = next,
                Some(Err(error)) => {
                    self.state.set(State::Broken);
                    return Err(io::Error::other(error));
                }
                None => {
                    self.state.set(State::Ended);
                    return Ok(0);
                }
            }
        }
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(piece.len());
        piece.copy_to_slice(&mut buffer[..count]);
        self.allowed.set(self.allowed.get() - count as u64);
        Ok(count)
    }
}
