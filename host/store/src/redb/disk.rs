//! A disk in memory that fails when it is told to, and forgets what was not synced when the machine crashes, or keeps a
//! part of it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use rand::RngExt as _;
use rand::rngs::StdRng;
use redb::StorageBackend;

/// A disk with one file. A cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What is read: all that was written.
    file: Vec<u8>,
    /// What was on the disk at the last sync, and the writes since then.
    synced: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
    /// How many writes and syncs go well before all fail.
    good: Option<u32>,
    /// How many have failed.
    failed: u32,
}

impl Disk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics with it")
    }

    /// Lets all writes and syncs after the next few fail; `None` mends it. Every other write that fails is short: a part of
    /// it is there.
    pub fn fail_after(&self, good: Option<u32>) {
        self.lock().good = good;
    }

    /// Tells whether a write or sync has ever failed.
    #[cfg(test)]
    pub(crate) fn has_failed(&self) -> bool {
        self.lock().failed > 0
    }

    /// Returns what a crash leaves: of the writes that were not synced, any may have reached the disk, or its first bytes.
    pub fn crashed(&self, dice: &mut StdRng) -> Self {
        let state = self.lock();
        let mut file = state.synced.clone();
        for (offset, bytes) in &state.unsynced {
            let there = match dice.random_range(0..4) {
                0 | 1 => 0,
                2 => bytes.len(),
                _ => dice.random_range(0..=bytes.len()),
            };
            apply(&mut file, *offset, &bytes[..there]);
        }
        Self::with(file)
    }

    /// Returns what is read of it.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.lock().file.clone()
    }

    /// Returns the same with one bit flipped.
    #[cfg(test)]
    pub(crate) fn flipped(&self, bit: usize) -> Self {
        let mut file = self.lock().file.clone();
        file[bit / 8] ^= 1 << (bit % 8);
        Self::with(file)
    }

    /// Returns what is there after everything was closed.
    pub fn closed(&self) -> Self {
        Self::with(self.lock().file.clone())
    }

    fn with(file: Vec<u8>) -> Self {
        let state = State { synced: file.clone(), file, ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }
}

fn apply(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(bytes);
}

impl State {
    fn meet_fault(&mut self) -> io::Result<()> {
        match &mut self.good {
            None => Ok(()),
            Some(0) => {
                self.failed += 1;
                Err(io::Error::other("the simulated disk fails"))
            }
            Some(good) => {
                *good -= 1;
                Ok(())
            }
        }
    }
}

fn place(offset: u64) -> usize {
    usize::try_from(offset).expect("a simulated disk is in memory")
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().file.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (state, offset) = (self.lock(), place(offset));
        let found = state.file.get(offset..offset + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    /// A length is there at once, as in a file system with a journal.
    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.lock();
        state.meet_fault()?;
        state.file.resize(place(len), 0);
        state.synced.resize(place(len), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut guard = self.lock();
        guard.meet_fault()?;
        let state = &mut *guard;
        for (offset, bytes) in state.unsynced.drain(..) {
            apply(&mut state.synced, offset, &bytes);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut guard = self.lock();
        let met = guard.meet_fault();
        let there = match met {
            Ok(()) => data,
            Err(_) if guard.failed.is_multiple_of(2) => &data[..data.len() / 2],
            Err(_) => &[],
        };
        let state = &mut *guard;
        apply(&mut state.file, place(offset), there);
        state.unsynced.push((place(offset), there.to_vec()));
        met
    }
}
