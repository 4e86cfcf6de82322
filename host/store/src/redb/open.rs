//! How a store is opened: on the direct road, with a writer; or on a journal's, with an appender and an applier.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::apply::bury_stranded;
use super::damage::Marks;
use super::examine;
use super::group::Op;
use super::handle::{FILE_NAME, Fault, Handle};
use super::keys;
use super::log;
use super::machine::Machine;
use super::modules::{self, Files};
use super::open_error::OpenError;
use super::publish::Publisher;
use super::queue::Queue;
use super::read::Reader;
use super::road::{Appender, Applier, SyncPace, Waiting};
use super::writer::Writer;
use super::{Options, Store};
#[cfg(any(test, feature = "testing"))]
use crate::faulty::Faults;
use crate::journal::Journal;
use crate::{Error, Position};
use waypost_runtime::clock;
use waypost_runtime::stage::panic_text;

/// What a store that has joined a journal needs.
pub(super) struct JournalSide {
    /// Up to where the journal is applied.
    pub(super) followed: watch::Receiver<Position>,
    /// The most bytes of a part of a module.
    pub(super) chunk: usize,
}

/// How many parts of modules fit into a group, at least.
const MODULE_PARTS_OF_A_GROUP: usize = 8;

/// A file that was opened, without a writer.
struct OpenFile {
    reader: Reader,
    machine: Machine,
}

impl OpenFile {
    fn new(folder: &Path, handle: Handle) -> Result<Self, OpenError> {
        let handle = Arc::new(handle);
        let (recent, tails) = (Arc::default(), Arc::default());
        let reader = Reader { handle, recent, tails, marks: Marks::default() };
        reader.tails.begin_after(log::last_batch(&reader).map_err(|fault| unreadable(folder, fault))?);
        let machine = Machine::load(&reader).map_err(|fault| unreadable(folder, fault))?;
        Ok(Self { reader, machine })
    }
}

fn unreadable(folder: &Path, fault: Fault) -> OpenError {
    OpenError::Read { path: folder.join(FILE_NAME), source: fault.into() }
}

/// See [`Store::with`].
pub(super) fn direct(folder: &Path, options: Options) -> Result<Store, OpenError> {
    unless_damaged(folder, || write_to(folder, Handle::open(folder, &options.key(folder))?, options))
}

/// Opens a file. A damaged one may let the storage engine panic.
fn unless_damaged<T>(folder: &Path, open: impl FnOnce() -> Result<T, OpenError>) -> Result<T, OpenError> {
    catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|panic| {
        let path = folder.join(FILE_NAME);
        match examine::damage_of(&path) {
            Some(reason) => Err(OpenError::Damaged { path, reason }),
            None => resume_unwind(panic),
        }
    })
}

/// See [`Store::in_memory`].
pub(super) fn in_memory(folder: &Path, options: Options) -> Result<Store, OpenError> {
    write_to(folder, Handle::in_memory()?, options)
}

fn write_to(folder: &Path, handle: Handle, options: Options) -> Result<Store, OpenError> {
    let (store, writer) = with_writer(folder, handle, &options)?;
    // A store without its writer answers every write with `Closed`: the service cannot go on without it.
    start(&store, "waypost-writer", "the store's writer", move || {
        writer.run();
        Ok(())
    })?;
    Ok(store)
}

/// Opens a store whose writer makes a step when it is told to, on a simulated disk.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn stepped(
    disk: super::disk::Disk,
    options: Options,
) -> Result<(Store, super::Stepper), OpenError> {
    let (mut store, writer) = with_writer(Path::new("the simulated disk"), Handle::on(disk)?, &options)?;
    store.is_simulated = true;
    Ok((store, super::Stepper(writer)))
}

fn with_writer(folder: &Path, handle: Handle, options: &Options) -> Result<(Store, Writer), OpenError> {
    let OpenFile { reader, mut machine } = OpenFile::new(folder, handle)?;
    machine.set(&reader, options.settings()).map_err(|fault| unreadable(folder, fault))?;
    if let Err(fault) = bury_stranded(&reader, &mut machine, clock::now()) {
        let error = Error::from(fault);
        tracing::warn!(%error, "pending deliveries of damaged subscriptions stay until the next start");
    }
    let modules = modules::open(folder, &reader, false)?;
    let store = around(reader, &machine, modules, None, options);
    let (handle, queue) = (Arc::clone(&store.reader.handle), Arc::clone(&store.queue));
    let writer = Writer { handle, queue, machine, publisher: publisher(&store), doubt: None };
    Ok((store, writer))
}

/// See [`Store::join`].
pub(super) async fn join(
    folder: &Path,
    options: Options,
    journal: Arc<dyn Journal>,
) -> Result<Store, OpenError> {
    let (owned, key) = (folder.to_owned(), options.key(folder));
    join_with(folder, move || Handle::open(&owned, &key), SyncPace::default(), options, journal).await
}

/// Joins a journal with a file on a simulated disk, where each transaction is synced.
#[cfg(test)]
pub(super) async fn join_simulated(
    disk: super::disk::Disk,
    journal: Arc<dyn Journal>,
) -> Result<Store, OpenError> {
    let (folder, pace) = (Path::new("the simulated disk"), SyncPace::after(std::time::Duration::ZERO));
    join_with(folder, move || Handle::on(disk), pace, Options::default(), journal).await
}

async fn join_with(
    folder: &Path,
    open: impl FnOnce() -> Result<Handle, OpenError> + Send + 'static,
    pace: SyncPace,
    options: Options,
    journal: Arc<dyn Journal>,
) -> Result<Store, OpenError> {
    let (runtime, owned, wanted) = (runtime::Handle::current(), folder.to_owned(), options.settings());
    let opening = tokio::task::spawn_blocking({
        let journal = Arc::clone(&journal);
        move || {
            unless_damaged(&owned, || {
                begin_to_join(OpenFile::new(&owned, open()?)?, &owned, pace, &options, journal, runtime)
            })
        }
    });
    let store = opening.await.expect("opening a store does not panic, and the runtime runs")?;
    let failed = |source| OpenError::Read { path: folder.join(FILE_NAME), source };
    applied(&store, journal.last().await.map_err(failed)?).await.map_err(failed)?;
    match store.read(Reader::settings).await.map_err(failed)? {
        None => drop(store.write(Op::Settings(wanted)).await.map_err(failed)?),
        Some(found) if found != wanted => {
            store.close().await;
            return Err(OpenError::Settings { found: found.to_string(), wanted: wanted.to_string() });
        }
        Some(_) => {}
    }
    check_keys(folder, store).await
}

/// Refuses a journal whose secrets are sealed with a key that is not here.
async fn check_keys(folder: &Path, store: Store) -> Result<Store, OpenError> {
    let path = folder.join(FILE_NAME);
    let vault = Arc::clone(store.vault());
    let looking =
        store.read(move |reader| reader.handle.read(|txn| keys::unknown_key(txn, Some(&vault)))).await;
    match looking.map_err(|source| OpenError::Read { path: path.clone(), source })? {
        None => Ok(store),
        Some(other) => {
            let source = store.vault().other_key(other);
            store.close().await;
            Err(OpenError::OtherKey { path, source })
        }
    }
}

fn begin_to_join(
    OpenFile { reader, machine }: OpenFile,
    folder: &Path,
    pace: SyncPace,
    options: &Options,
    journal: Arc<dyn Journal>,
    runtime: runtime::Handle,
) -> Result<Store, OpenError> {
    let files = modules::open(folder, &reader, true)?;
    let position = reader.position().map_err(|fault| unreadable(folder, fault))?;
    let (applied, followed) = watch::channel(position);
    let chunk = journal.group_bytes_max() / MODULE_PARTS_OF_A_GROUP;
    let store = around(reader, &machine, files.clone(), Some(JournalSide { followed, chunk }), options);
    let (waiting, stop) = (Arc::<Waiting>::default(), CancellationToken::new());
    let member = rand::random();
    let applier = Applier {
        reader: store.reader.clone(),
        machine,
        files,
        publisher: publisher(&store),
        journal: Arc::clone(&journal),
        member,
        waiting: Arc::clone(&waiting),
        runtime: runtime.clone(),
        stop: stop.clone(),
        applied,
        pace,
        doubt: None,
    };
    let queue = Arc::clone(&store.queue);
    let appender = Appender { queue, journal, member, waiting, runtime, stop };
    start(&store, "waypost-applier", "the store's applier", move || applier.run())?;
    start(&store, "waypost-append", "the store's appender", move || {
        appender.run();
        Ok(())
    })?;
    Ok(store)
}

fn around(
    reader: Reader,
    machine: &Machine,
    modules: Files,
    joined: Option<JournalSide>,
    options: &Options,
) -> Store {
    Store {
        queue: Arc::new(Queue::new(options.queue_bytes_max)),
        wakes: Arc::default(),
        changes: Arc::default(),
        applied: watch::Sender::default(),
        threads: Mutex::default(),
        modules,
        changing_modules: tokio::sync::Mutex::default(),
        alarm: reader.handle.alarm.clone(),
        reader,
        usage: Arc::clone(&machine.usage),
        tokens: Arc::clone(&machine.tokens),
        announced: Arc::default(),
        share: Arc::default(),
        counts: options.counts,
        joined,
        #[cfg(any(test, feature = "testing"))]
        faults: Faults::default(),
        #[cfg(any(test, feature = "testing"))]
        is_simulated: false,
    }
}

fn publisher(store: &Store) -> Publisher {
    Publisher {
        recent: Arc::clone(&store.reader.recent),
        tails: Arc::clone(&store.reader.tails),
        wakes: Arc::clone(&store.wakes),
        changes: Arc::clone(&store.changes),
        applied: store.applied.clone(),
        tokens: Arc::clone(&store.tokens),
        announced: Arc::clone(&store.announced),
        runtime: runtime::Handle::try_current().ok(),
        alarm: store.alarm.clone(),
    }
}

/// Starts a thread of the store. When it dies, all waiters learn it, and the alarm is raised.
fn start(
    store: &Store,
    name: &str,
    stage: &'static str,
    run: impl FnOnce() -> Result<(), Error> + Send + 'static,
) -> Result<(), OpenError> {
    let (alarm, queue) = (store.alarm.clone(), Arc::clone(&store.queue));
    let handle = Arc::clone(&store.reader.handle);
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let reason = match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(panic) => {
                let panic = panic_text(&*panic);
                handle.examine_after(&panic);
                format!("it panicked: {panic}")
            }
        };
        queue.abandon();
        alarm.raise(stage, reason);
    });
    let thread = thread.map_err(|source| OpenError::Thread { source })?;
    store.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
    Ok(())
}

/// Waits until everything up to a position of the journal is applied here.
async fn applied(store: &Store, position: Position) -> Result<(), Error> {
    let Some(joined) = &store.joined else { return Ok(()) };
    let mut followed = joined.followed.clone();
    let applied = followed.wait_for(|applied| *applied >= position).await;
    applied.map(drop).map_err(|_| Error::Closed)
}
