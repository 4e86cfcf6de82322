//! The memory for the bodies of all requests under way, with one bound for all.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::Semaphore;

use super::error::ApiError;

/// The largest body that counts as small. A quarter of the memory is reserved for small bodies, so that large and slow
/// uploads do not block small events.
const SMALL_BYTES: usize = 64 * 1024;

/// The memory for bodies. Bytes count from their arrival, not from their announcement.
#[derive(Debug)]
pub(super) struct Room {
    taken: AtomicUsize,
    bytes: usize,
    /// Permits for decoding, which takes processor time and memory of its own.
    pub(super) decoders: Arc<Semaphore>,
}

impl Room {
    pub(super) fn new(bytes: usize) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self { taken: AtomicUsize::new(0), bytes, decoders: Arc::new(Semaphore::new(processors)) }
    }
}

/// The memory that one body holds, until this is dropped. `R` is a reference to the [`Room`].
#[derive(Debug)]
#[must_use = "the bytes count for as long as this lives"]
pub(super) struct RoomPermit<R: Deref<Target = Room>> {
    room: R,
    bytes: usize,
}

impl<R: Deref<Target = Room>> RoomPermit<R> {
    /// Makes a permit that holds no memory yet.
    pub(super) fn of(room: R) -> Self {
        Self { room, bytes: 0 }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes memory for more of the body.
    pub(super) fn add(&mut self, bytes: usize) -> Result<(), Full> {
        let total = self.bytes + bytes;
        let most = if total <= SMALL_BYTES { self.room.bytes } else { self.room.bytes - self.room.bytes / 4 };
        let before = self.room.taken.fetch_add(bytes, Relaxed);
        if before + bytes > most {
            self.room.taken.fetch_sub(bytes, Relaxed);
            return Err(Full { bytes: self.room.bytes });
        }
        self.bytes = total;
        Ok(())
    }

    /// Gives back the memory of a part of the body that is dropped.
    pub(super) fn give_back(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.room.taken.fetch_sub(bytes, Relaxed);
        self.bytes -= bytes;
    }

    /// Takes over the memory of another part of the same body.
    pub(super) fn absorb<O: Deref<Target = Room>>(&mut self, mut other: RoomPermit<O>) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl<R: Deref<Target = Room>> Drop for RoomPermit<R> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.room.taken.fetch_sub(self.bytes, Relaxed);
        }
    }
}

/// The memory for bodies is used up.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full {
    bytes: usize,
}

impl From<Full> for ApiError {
    fn from(full: Full) -> Self {
        Self::unavailable(format!(
            "the bodies of requests under way take all of their {} bytes (the setting bodies_bytes_max): try again",
            full.bytes
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    #[test]
    fn what_is_taken_is_given_back_exactly() {
        let room = Room::new(1024 * KIB);
        let mut one = RoomPermit::of(&room);
        one.add(100).unwrap();
        one.add(700 * KIB).unwrap();
        assert_eq!(one.add(100 * KIB), Err(Full { bytes: 1024 * KIB }), "large bodies have three quarters");
        assert_eq!(room.taken.load(Relaxed), 700 * KIB + 100, "a refusal takes nothing");
        one.give_back(100);
        let mut other = RoomPermit::of(&room);
        other.add(10).unwrap();
        one.absorb(other);
        assert_eq!(room.taken.load(Relaxed), 700 * KIB + 10);
        drop(one);
        assert_eq!(room.taken.load(Relaxed), 0);
    }

    #[test]
    fn small_bodies_have_room_that_large_ones_never_get() {
        let room = Room::new(1024 * KIB);
        let mut large = RoomPermit::of(&room);
        while large.add(32 * KIB).is_ok() {}
        let mut small = Vec::new();
        loop {
            let mut next = RoomPermit::of(&room);
            if next.add(64 * KIB).is_err() {
                break;
            }
            small.push(next);
        }
        assert_eq!(small.len(), 4);
        drop(small.pop());
        RoomPermit::of(&room).add(64 * KIB).unwrap();
        assert!(large.add(1).is_err());
    }
}
