//! Keeps the data folder small: gives back what the store's file does not need, and holds the folder below its limit.
//!
//! At `max_disk_bytes` the events go first that nothing waits for, oldest first. What is left is still to be delivered and is
//! never thrown away: then no event is accepted until there is room again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use walkdir::WalkDir;

use jiff::Timestamp;
use waypost_domain::{EventId, Notice};
use waypost_engine::announcer::Notices;
use waypost_engine::intake::{DiskFull, Intake};
use waypost_store::redb::FILE_NAME;
use waypost_store::{DiskUse, Error, Purge, Store};

/// How often it looks, with a limit and without.
const LOOK_LIMITED: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_secs(60);
/// How often it measures what is in the folder besides the file.
const LOOK_BESIDE: Duration = Duration::from_secs(60);
/// A file gives room back by itself when it does not need so much, and a quarter of itself.
const SPARE_MIN: u64 = 64 * 1024 * 1024;
/// The most in a file that gives room back by itself: nothing is read or written meanwhile, for a second or two. A larger one
/// does so when an admin asks for it.
const LIVE_MAX: u64 = 256 * 1024 * 1024;
/// How often it may do so.
const COMPACT_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// What looks after the data folder.
pub(super) struct DiskKeeper {
    pub(super) store: Arc<Store>,
    pub(super) intake: Intake,
    pub(super) data: PathBuf,
    /// The most bytes that the folder may have.
    pub(super) max: Option<u64>,
    /// Operators are told when it is nearly full.
    pub(super) notices: Arc<Notices>,
}

impl DiskKeeper {
    /// Looks until the service stops.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut state = State::default();
        let rounds = async {
            loop {
                if let Err(error) = self.round(&mut state).await {
                    tracing::warn!(%error, "the data folder cannot be kept small for now");
                }
                tokio::time::sleep(if self.max.is_some() { LOOK_LIMITED } else { LOOK }).await;
            }
        };
        // A purge is many small writes, so a shutdown need not wait for the last one.
        stop.run_until_cancelled(rounds).await;
    }

    async fn round(&self, state: &mut State) -> Result<(), Error> {
        let mut disk = self.store.disk().await?;
        state.file.learn(disk);
        if is_loose(disk) && disk.live > LIVE_MAX && !state.has_hinted {
            state.has_hinted = true;
            let (file, spare) = (disk.file, disk.spare());
            tracing::info!(
                file,
                spare,
                "the database's file has much spare room: `waypost db compact` gives it back"
            );
        }
        if state.is_to_compact(disk) {
            state.compacted = Some(Instant::now());
            disk = self.compact(disk).await?;
            state.file = FileNeed::default();
        }
        let Some(max) = self.max else { return Ok(()) };
        state.look_beside(&self.data).await;
        if state.used(disk) > max && state.is_to_purge(disk) {
            self.make_room(state, max).await?;
        }
        let used = state.used(self.store.disk().await?);
        if used <= max {
            state.walked = None;
        }
        let before = state.room;
        state.room = before.next(used, max);
        if state.room > before {
            self.notices.tell(Notice::DiskLow { used, max });
        }
        if state.room == Room::Full && before != Room::Full {
            tracing::warn!(used, max, "the data folder is full: no event is accepted (max_disk_bytes)");
        } else if before == Room::Full && state.room != Room::Full {
            tracing::info!(used, max, "the data folder has room again");
        }
        self.intake.set_full((state.room == Room::Full).then_some(DiskFull { used, max }));
        Ok(())
    }

    async fn compact(&self, before: DiskUse) -> Result<DiskUse, Error> {
        let begun = Instant::now();
        self.store.compact().await?;
        let after = self.store.disk().await?;
        tracing::info!(before = before.file, after = after.file, took = ?begun.elapsed(), "the database gave room back");
        Ok(after)
    }

    /// Removes events that nothing waits for, oldest first, until there is some room.
    async fn make_room(&self, state: &mut State, max: u64) -> Result<(), Error> {
        let (mut purged, begun) = (0, Instant::now());
        loop {
            let from = state.purge_from.unwrap_or(EventId::NIL);
            let everything = Purge::Before(Timestamp::MAX);
            let (report, next) = self.store.purge_some(everything, from, None).await?;
            purged += report.purged;
            state.purge_from = next;
            let disk = self.store.disk().await?;
            if next.is_none() {
                // All that is left waits.
                state.walked =
                    Some(Walked { waiting: disk.waiting, rest_until: Instant::now() + 4 * begun.elapsed() });
                break;
            }
            if state.used(disk) <= enough(max) {
                break;
            }
        }
        if purged > 0 {
            tracing::info!(purged, "events made room, oldest first (the setting max_disk_bytes)");
        }
        Ok(())
    }
}

/// Tells whether a file would give back enough to be worth it.
fn is_loose(disk: DiskUse) -> bool {
    disk.spare() > SPARE_MIN && disk.spare() > disk.file / 4
}

/// How much room the folder has. It is full at its limit and nearly full at nine tenths of it, and so until there is clearly
/// more room: a folder that was full is not full again at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Room {
    #[default]
    Enough,
    Low,
    Full,
}

impl Room {
    fn next(self, used: u64, max: u64) -> Self {
        let full = if self == Self::Full { enough(max) } else { max };
        let low = max - max / if self == Self::Enough { 10 } else { 5 };
        match used {
            _ if used > full => Self::Full,
            _ if used > low => Self::Low,
            _ => Self::Enough,
        }
    }
}

/// With how much in it a folder that was full has room again.
fn enough(max: u64) -> u64 {
    max - max / 20
}

/// What it remembers.
#[derive(Default)]
struct State {
    file: FileNeed,
    /// When the file gave room back last.
    compacted: Option<Instant>,
    /// How much is in the folder besides the file, in bytes, and when that was measured.
    beside: u64,
    beside_at: Option<Instant>,
    /// Where the next purge goes on: behind what had to stay.
    purge_from: Option<EventId>,
    /// The last purge that came to the end of the log.
    walked: Option<Walked>,
    room: Room,
    /// Whether it was said that an admin may give room back.
    has_hinted: bool,
}

/// A purge that came to the end of the log without making enough room.
struct Walked {
    /// How much waited then.
    waiting: u64,
    /// Reading all of a large log takes a while, and most of the time is for others.
    rest_until: Instant,
}

impl State {
    fn is_to_compact(&self, disk: DiskUse) -> bool {
        is_loose(disk)
            && disk.live <= LIVE_MAX
            && self.compacted.is_none_or(|last| last.elapsed() >= COMPACT_INTERVAL)
    }

    /// Tells whether a purge may find something: not while all waits that waited before.
    fn is_to_purge(&self, disk: DiskUse) -> bool {
        let is_new = |walked: &Walked| disk.waiting < walked.waiting && Instant::now() >= walked.rest_until;
        self.walked.as_ref().is_none_or(is_new)
    }

    /// Returns how much of the folder is in use: room inside the file is room.
    fn used(&self, disk: DiskUse) -> u64 {
        self.beside + self.file.of(disk)
    }

    async fn look_beside(&mut self, data: &Path) {
        if self.beside_at.is_some_and(|at| at.elapsed() < LOOK_BESIDE) {
            return;
        }
        let data = data.to_owned();
        // The runtime is shutting down where this ends otherwise.
        if let Ok(beside) = tokio::task::spawn_blocking(move || bytes_beside(&data)).await {
            (self.beside, self.beside_at) = (beside, Some(Instant::now()));
        }
    }
}

/// How much of the file is needed. [`DiskUse::live`] is an estimate, and a file that grows has no room: it corrects the
/// estimate.
#[derive(Clone, Copy, Debug, Default)]
struct FileNeed {
    file: u64,
    /// By how much more than the estimate is needed, in thousandths of it.
    more: u64,
}

impl FileNeed {
    fn learn(&mut self, disk: DiskUse) {
        if disk.file > self.file && self.file > 0 {
            let needed = disk.file - disk.spare();
            self.more = (disk.file - needed).saturating_mul(1_000) / needed.max(1);
        }
        self.file = disk.file;
    }

    fn of(self, disk: DiskUse) -> u64 {
        let needed = disk.file - disk.spare();
        disk.file.min(needed + needed.saturating_mul(self.more) / 1_000)
    }
}

/// Returns how many bytes the files of the folder have, but for the store's.
fn bytes_beside(data: &Path) -> u64 {
    let files = WalkDir::new(data).into_iter().filter_map(Result::ok);
    let beside = files.filter(|entry| entry.depth() != 1 || entry.file_name() != FILE_NAME);
    // What is removed meanwhile has none.
    let bytes = beside.filter_map(|entry| entry.metadata().ok()).filter(|found| found.is_file());
    bytes.map(|found| found.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn disk(file: u64, live: u64) -> DiskUse {
        DiskUse { file: file * MIB, live: live * MIB, waiting: 0 }
    }

    #[test]
    fn a_file_that_grows_needs_all_of_itself() {
        let mut need = FileNeed::default();
        need.learn(disk(400, 150));
        assert_eq!(need.of(disk(400, 150)), 200 * MIB);
        need.learn(disk(410, 150));
        assert_eq!(need.of(disk(410, 150)), 410 * MIB, "it had no room");
        assert_eq!(need.of(disk(410, 75)), 205 * MIB);
        need.learn(disk(410, 75));
        assert_eq!(need.of(disk(410, 75)), 205 * MIB, "and that is remembered");
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_gives_room_back_when_it_is_worth_it_and_not_too_often() {
        let mut state = State::default();
        assert!(state.is_to_compact(disk(400, 150)));
        assert!(!state.is_to_compact(disk(100, 30)), "a little is no matter");
        assert!(!state.is_to_compact(disk(400, 255)), "nor is a tenth");
        assert!(!state.is_to_compact(disk(9_000, 300)), "that would take long");
        state.compacted = Some(Instant::now());
        assert!(!state.is_to_compact(disk(400, 150)));
        tokio::time::advance(COMPACT_INTERVAL).await;
        assert!(state.is_to_compact(disk(400, 150)));
    }

    /// A full folder was read from its beginning to its end every second, while all in it waited.
    #[tokio::test(start_paused = true)]
    async fn what_waits_is_not_looked_for_again_and_again() {
        let waiting = |waiting| DiskUse { waiting, ..disk(1, 1) };
        let mut state = State::default();
        assert!(state.is_to_purge(waiting(7)));
        let rest_until = Instant::now() + Duration::from_secs(9);
        state.walked = Some(Walked { waiting: 7, rest_until });
        assert!(!state.is_to_purge(waiting(6)), "it has just been read");
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(!state.is_to_purge(waiting(7)) && state.is_to_purge(waiting(6)));
    }

    /// A folder that stays about as full as that told operators again and again.
    #[test]
    fn room_is_low_or_gone_until_there_is_clearly_more() {
        let mut room = Room::default();
        let rooms = [90, 91, 85, 81, 80, 91, 100, 101, 96, 95, 101, 50].map(|used| {
            room = room.next(used, 100);
            room
        });
        use Room::{Enough, Full, Low};
        assert_eq!(rooms, [Enough, Low, Low, Low, Enough, Low, Low, Full, Full, Low, Full, Enough]);
    }

    #[test]
    fn the_folder_is_measured_without_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: usize| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, vec![0; bytes]).unwrap();
        };
        write(FILE_NAME, 1_000);
        write("modules/a", 100);
        write(&format!("runs/1/{FILE_NAME}"), 10);
        assert_eq!(bytes_beside(folder.path()), 110);
    }
}
