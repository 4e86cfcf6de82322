//! A journal in memory, for tests: it can do whatever a journal on a network may do.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::sync::watch;

use super::{Entry, Journal, Ticket};
use crate::{Error, Position};
use waypost_runtime::clock;

/// The most bytes of a group.
const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What happens to one attempt to append a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing: it is kept and acknowledged.
    Nothing,
    /// It takes this long. Others may pass it: delays change the order.
    Delay(Duration),
    /// It is not kept, and fails.
    Refused,
    /// It is kept, and its acknowledgement is lost.
    LostAnswer,
    /// It is kept, even if it was kept before, as by a journal that has forgotten the ticket.
    Doubled,
}

/// The script of a journal's troubles.
type Script = dyn Fn(Ticket) -> Trouble + Send + Sync;

/// A journal in memory.
pub struct MemoryJournal {
    kept: Arc<Mutex<Kept>>,
    /// The last position.
    last: watch::Sender<Position>,
    script: Box<Script>,
}

#[derive(Default)]
struct Kept {
    /// How many of the first entries were dropped.
    trimmed: u64,
    entries: Vec<Entry>,
    tickets: HashSet<Ticket>,
}

impl Default for MemoryJournal {
    fn default() -> Self {
        Self::with_troubles(|_| Trouble::Nothing)
    }
}

impl MemoryJournal {
    /// Makes an empty journal that asks `script` at each attempt to append.
    pub fn with_troubles(script: impl Fn(Ticket) -> Trouble + Send + Sync + 'static) -> Self {
        let last = watch::channel(Position::default()).0;
        Self { kept: Arc::default(), last, script: Box::new(script) }
    }

    /// Returns a journal of its own that begins with what is kept here.
    pub fn fork(&self) -> Self {
        let kept = self.lock();
        let copy =
            Kept { trimmed: kept.trimmed, entries: kept.entries.clone(), tickets: kept.tickets.clone() };
        let last = watch::channel(*self.last.borrow()).0;
        Self { kept: Arc::new(Mutex::new(copy)), last, script: Box::new(|_| Trouble::Nothing) }
    }

    /// Returns all entries that are kept.
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().entries.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        lock(&self.kept)
    }

    /// Keeps a group, unless its ticket is known and nothing forgets it; returns the last position.
    fn keep(&self, ticket: Ticket, group: Bytes, forgetful: bool) -> Position {
        let mut kept = self.lock();
        if kept.tickets.insert(ticket) || forgetful {
            let position = Position(kept.trimmed + kept.entries.len() as u64 + 1);
            kept.entries.push(Entry { position, at: clock::now(), group });
        }
        let last = Position(kept.trimmed + kept.entries.len() as u64);
        self.last.send_replace(last);
        last
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(reason: &str) -> Error {
    Error::Unavailable { reason: reason.to_owned() }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn append(&self, ticket: Ticket, group: Bytes) -> Result<Position, Error> {
        let trouble = (self.script)(ticket);
        match trouble {
            Trouble::Refused => return Err(failed("the journal takes nothing now")),
            Trouble::Delay(time) => tokio::time::sleep(time).await,
            Trouble::Nothing | Trouble::LostAnswer | Trouble::Doubled => {}
        }
        let position = self.keep(ticket, group, trouble == Trouble::Doubled);
        if trouble == Trouble::LostAnswer { Err(failed("the answer is lost")) } else { Ok(position) }
    }

    fn read(&self, after: Position) -> BoxStream<'static, Result<Entry, Error>> {
        let start = (Arc::clone(&self.kept), self.last.subscribe(), after);
        let entries = stream::unfold(start, async |(kept, mut last, after)| {
            // The journal is gone.
            last.wait_for(|last| *last > after).await.ok()?;
            let next = {
                let kept = lock(&kept);
                let place = after.0.checked_sub(kept.trimmed).and_then(|place| usize::try_from(place).ok());
                place.and_then(|place| kept.entries.get(place).cloned())
            };
            let position = next.as_ref().map_or(after, |entry| entry.position);
            Some((next.ok_or_else(|| failed("it was trimmed")), (kept, last, position)))
        });
        entries.boxed()
    }

    async fn last(&self) -> Result<Position, Error> {
        Ok(*self.last.borrow())
    }

    async fn trim(&self, until: Position) -> Result<(), Error> {
        let mut kept = self.lock();
        let count = until.0.saturating_sub(kept.trimmed).min(kept.entries.len() as u64);
        kept.trimmed += count;
        let count = usize::try_from(count).expect("there are as many entries");
        kept.entries.drain(..count);
        Ok(())
    }

    fn group_bytes_max(&self) -> usize {
        GROUP_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn ticket(number: u64) -> Ticket {
        Ticket { member: 1, number }
    }

    #[tokio::test]
    async fn entries_stand_in_order_and_a_ticket_is_kept_once() {
        let journal = MemoryJournal::default();
        for (number, position) in [(1, 1), (2, 2), (1, 2), (3, 3)] {
            let kept = journal
                .append(ticket(number), Bytes::from(vec![u8::try_from(number).unwrap()]))
                .await
                .unwrap();
            assert_eq!(kept, Position(position));
        }
        let mut read = journal.read(Position(1));
        for number in [2u8, 3] {
            let entry = read.next().await.unwrap().unwrap();
            assert_eq!((entry.position, &entry.group[..]), (Position(u64::from(number)), &[number][..]));
        }
        assert!(read.next().now_or_never().is_none(), "it waits");
        journal.append(ticket(4), Bytes::new()).await.unwrap();
        assert_eq!(read.next().await.unwrap().unwrap().position, Position(4));
        journal.trim(Position(2)).await.unwrap();
        assert!(journal.read(Position(1)).next().await.unwrap().is_err(), "a hole is an error");
        assert_eq!(journal.read(Position(2)).next().await.unwrap().unwrap().position, Position(3));
        assert_eq!(journal.last().await.unwrap(), Position(4));
    }

    #[tokio::test]
    async fn troubles_happen() {
        let troubles = [Trouble::Refused, Trouble::LostAnswer, Trouble::Doubled, Trouble::Nothing];
        let journal =
            MemoryJournal::with_troubles(move |ticket| troubles[usize::try_from(ticket.number).unwrap()]);
        for (number, is_ok, last) in [(0, false, 0), (1, false, 1), (2, true, 2), (2, true, 3), (3, true, 4)]
        {
            assert_eq!(journal.append(ticket(number), Bytes::new()).await.is_ok(), is_ok, "{number}");
            assert_eq!(journal.last().await.unwrap(), Position(last));
        }
    }
}
