//! The folder of one run, and which of its files survive a crash.
//!
//! ```text
//! runs/{run id}/began.json     which run this is, and since when
//!               work/          what the program sees: event.json, download/, output/
//!               stdout, stderr what it wrote, if anything
//!               ran.json       written last, when everything that is to be uploaded is on disk
//!               notes-0/ …     what the upload of each output remembers
//! ```
//!
//! A folder without `ran.json` belongs to an interrupted run: its outputs are not used.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use walkdir::WalkDir;

use super::mark;
use super::remove::remove;
use waypost_domain::handler::HandlerRun;
use waypost_domain::{DeliveryId, EventId, RecipientId};
use waypost_runtime::durable;

/// The extension of folders that are to be removed.
const ASIDE: &str = "removed";

/// The folder of one run.
#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

/// Which run a folder belongs to.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RunRecord {
    event: Uuid,
    recipient: Uuid,
    /// When it began.
    #[serde(with = "jiff::fmt::serde::timestamp::microsecond::required")]
    pub(super) at: Timestamp,
}

/// The record that the program ended well, with its result.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ProgramRecord {
    /// When.
    #[serde(with = "jiff::fmt::serde::timestamp::microsecond::required")]
    pub(super) at: Timestamp,
    /// How many attempts had failed before.
    pub(super) failed: u32,
    /// What the program did.
    pub(super) run: HandlerRun,
}

/// What an earlier attempt has left.
#[derive(Debug)]
pub(super) enum Leftover {
    /// Nothing.
    Nothing,
    /// An interrupted run.
    Interrupted(RunRecord),
    /// Outputs that wait to be uploaded.
    Program(Box<ProgramRecord>),
}

impl RunRecord {
    pub(super) fn event(&self) -> EventId {
        EventId::from_uuid(self.event)
    }

    pub(super) fn recipient(&self) -> RecipientId {
        RecipientId::from_uuid(self.recipient)
    }
}

impl Folder {
    /// Returns the folder of a run, which need not be there.
    pub(super) fn of(runs: &Path, run: DeliveryId) -> Self {
        Self(runs.join(run.to_string()))
    }

    /// Wraps a folder that was found among the runs.
    pub(super) fn found(path: PathBuf) -> Self {
        Self(path)
    }

    /// Returns the folder that the program sees.
    pub(super) fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    /// Returns where the event's files are fetched to.
    pub(super) fn download(&self) -> PathBuf {
        self.work().join("download")
    }

    /// Returns where stdout goes.
    pub(super) fn stdout(&self) -> PathBuf {
        self.0.join("stdout")
    }

    /// Returns where stderr goes.
    pub(super) fn stderr(&self) -> PathBuf {
        self.0.join("stderr")
    }

    /// Creates the folder for the notes of an output's upload, if it does not exist.
    pub(super) fn notes(&self, output: usize) -> io::Result<PathBuf> {
        let notes = self.0.join(format!("notes-{output}"));
        fs::create_dir_all(&notes)?;
        Ok(notes)
    }

    /// Looks for what an earlier attempt has left.
    pub(super) fn left(&self) -> io::Result<Leftover> {
        if let Some(ran) = mark::read(&self.0.join("ran.json"))? {
            return Ok(Leftover::Program(Box::new(ran)));
        }
        Ok(self.began()?.map_or(Leftover::Nothing, Leftover::Interrupted))
    }

    /// Returns which run it belongs to, if any.
    pub(super) fn began(&self) -> io::Result<Option<RunRecord>> {
        mark::read(&self.0.join("began.json"))
    }

    /// Makes a fresh folder in place of what was there.
    pub(super) fn begin(
        &self,
        (event, recipient): (EventId, RecipientId),
        at: Timestamp,
        event_json: &[u8],
        outputs: impl Iterator<Item = PathBuf>,
    ) -> io::Result<()> {
        if let Some(aside) = self.set_aside()?
            && let Err(error) = remove(&aside)
        {
            // The renamed folder is not in the way; its removal is tried again at the next start.
            tracing::warn!(%error, folder = %aside.display(), "the folder of an earlier run stays for now");
        }
        // Event data may be confidential.
        durable::create_folder(&self.0)?;
        let began = RunRecord { event: event.uuid(), recipient: recipient.uuid(), at };
        // This is not synced: the store already records that the run is pending. After a power cut the run starts
        // again, without this note.
        fs::write(self.0.join("began.json"), serde_json::to_vec(&began)?)?;
        fs::create_dir_all(self.download())?;
        fs::write(self.work().join("event.json"), event_json)?;
        outputs.map(|output| self.work().join(output)).try_for_each(fs::create_dir_all)
    }

    /// Syncs what is to be uploaded, and then records that it is on disk. Other files that the program has left are not
    /// checked.
    pub(super) fn ran(&self, ran: &ProgramRecord, outputs: &[String]) -> io::Result<()> {
        for entry in outputs.iter().flat_map(|output| WalkDir::new(self.work().join(output))) {
            let entry = entry?;
            if entry.file_type().is_file() || entry.file_type().is_dir() {
                sync(entry.path())?;
            }
        }
        for log in [self.stdout(), self.stderr()] {
            match sync(&log) {
                // The program wrote nothing to this stream.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                synced => synced?,
            }
        }
        mark::write(&self.0.join("ran.json"), ran)
    }

    /// Removes the folder with everything in it, even when the program has made that hard.
    pub(super) fn remove(&self) -> io::Result<()> {
        match self.set_aside()? {
            Some(aside) => remove(&aside),
            None => Ok(()),
        }
    }

    /// Renames the folder so that no run owns it any more, and returns its new path. The rename comes first so that a
    /// crash during the removal cannot leave `ran.json` without the outputs that it refers to.
    pub(super) fn set_aside(&self) -> io::Result<Option<PathBuf>> {
        let aside = self.0.with_extension(format!("{}.{ASIDE}", Uuid::new_v4()));
        match fs::rename(&self.0, &aside) {
            Ok(()) => Ok(Some(aside)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns how many bytes the files in it have.
    pub(super) fn bytes(&self) -> u64 {
        let found = WalkDir::new(&self.0).into_iter().filter_map(|entry| entry.ok()?.metadata().ok());
        found.filter(|found| found.is_file()).map(|found| found.len()).sum()
    }

    /// Tells whether [`Self::set_aside`] has renamed this folder.
    pub(super) fn is_aside(&self) -> bool {
        self.0.extension().is_some_and(|extension| extension == ASIDE)
    }

    /// Returns its path.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

/// The file or folder that cannot be synced. The system's error is kept as the source: its number tells a full disk
/// from a problem with what the program has left.
#[derive(Debug, thiserror::Error)]
#[error("{}", path.display())]
struct NotSynced {
    path: PathBuf,
    source: io::Error,
}

/// Syncs a file or folder, or returns an error that names it.
fn sync(path: &Path) -> io::Result<()> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|source| io::Error::new(source.kind(), NotSynced { path: path.to_owned(), source }))
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;
    use waypost_runtime::chain;
    use waypost_runtime::clock;

    /// The error number was lost: when the disk was full, the failure was counted as the program's, and it ran again.
    #[test]
    fn what_cannot_be_synced_is_named_and_keeps_the_systems_number() {
        let error = sync(Path::new("/no/such/file")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
        assert_eq!(cause.and_then(io::Error::raw_os_error), Some(rustix::io::Errno::NOENT.raw_os_error()));
        assert!(chain::text(&error).starts_with("/no/such/file: "), "{}", chain::text(&error));
    }

    fn ids() -> (EventId, RecipientId) {
        (EventId::from_uuid(Uuid::from_u128(1)), RecipientId::from_uuid(Uuid::from_u128(2)))
    }

    fn begin(folder: &Folder) {
        folder.begin(ids(), clock::now(), b"{}", [PathBuf::from("output")].into_iter()).unwrap();
    }

    #[test]
    fn a_folder_without_its_mark_is_that_of_an_interrupted_run() {
        let runs = tempfile::tempdir().unwrap();
        let folder = Folder::of(runs.path(), DeliveryId::of(ids().0, ids().1));
        assert!(matches!(folder.left().unwrap(), Leftover::Nothing));
        begin(&folder);
        fs::write(folder.work().join("output/half"), "x").unwrap();
        let Leftover::Interrupted(began) = folder.left().unwrap() else { panic!("it was begun") };
        assert_eq!((began.event(), began.recipient()), ids());
        begin(&folder);
        assert!(!folder.work().join("output/half").exists());
        fs::write(folder.0.join("ran.json"), "{\"at\":").unwrap();
        assert!(matches!(folder.left().unwrap(), Leftover::Interrupted(_)));
    }

    #[test]
    fn an_interrupted_removal_leaves_nothing_that_looks_like_a_run() {
        let runs = tempfile::tempdir().unwrap();
        let folder = Folder::of(runs.path(), DeliveryId::of(ids().0, ids().1));
        begin(&folder);
        let aside = Folder::found(folder.set_aside().unwrap().unwrap());
        assert!(aside.is_aside() && !folder.is_aside());
        assert!(matches!(folder.left().unwrap(), Leftover::Nothing));
        begin(&folder);
        folder.remove().unwrap();
        folder.remove().unwrap();
        assert!(!folder.path().exists() && aside.path().exists());
    }

    /// A cache that could not be walked, beside the outputs, failed the run.
    #[test]
    fn what_lies_beside_the_outputs_does_not_fail_the_run() {
        let runs = tempfile::tempdir().unwrap();
        let folder = Folder::of(runs.path(), DeliveryId::of(ids().0, ids().1));
        begin(&folder);
        let (deep, next) = (folder.work().join("cache"), folder.work().join("next"));
        fs::create_dir(&deep).unwrap();
        for _ in 0..3_000 {
            fs::create_dir(&next).unwrap();
            fs::rename(&deep, next.join("d")).unwrap();
            fs::rename(&next, &deep).unwrap();
        }
        fs::write(folder.stdout(), "").unwrap();
        fs::write(folder.stderr(), "").unwrap();
        let run = HandlerRun {
            handler: "h".to_owned(),
            start: waypost_domain::handler::RunStart::Fresh,
            fetched: None,
            program: None,
            uploads: Vec::new(),
        };
        folder.ran(&ProgramRecord { at: clock::now(), failed: 0, run }, &["output".to_owned()]).unwrap();
        assert!(matches!(folder.left().unwrap(), Leftover::Program(_)));
        folder.remove().unwrap();
    }
}
