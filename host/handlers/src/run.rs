//! One attempt of a run: fetch, run, collect, upload.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dispatch;
use super::fetch::{self, FetchLimits};
use super::folder::{Folder, Leftover, ProgramRecord};
use super::mark;
use super::meter::{Meter, Phase};
use super::output::{Output, OutputError, OutputLimits};
use super::program::{Call, CallLimits, Run, Shortage};
use super::ready::Handler;
use super::upload::Origin;
use waypost_domain::handler::{Exit, HandlerRun, ProgramEnd, RunStart, UploadSummary};
use waypost_domain::parts::{FilePath, Parts};
use waypost_domain::{DeliveryId, RecipientId};
use waypost_runtime::chain;
use waypost_runtime::clock;
use waypost_runtime::shortage;
use waypost_runtime::stage::PANICKED;
use waypost_sandbox::last_words;
use waypost_store::LoggedEvent;

/// The note that an upload is done.
const DONE: &str = "done.json";
/// How long a run whose program has ended waits before it tries again to keep its outputs on a full disk.
const KEEP_PAUSE: Duration = Duration::from_secs(5);

/// One attempt.
pub(super) struct Attempt {
    /// The handler.
    pub(super) handler: Arc<Handler>,
    /// The event.
    pub(super) logged: Arc<LoggedEvent>,
    /// The recipient of the run.
    pub(super) recipient: RecipientId,
    /// 1 for the first.
    pub(super) number: u32,
    /// The run's folder.
    pub(super) folder: Folder,
    /// The run's progress.
    pub(super) meter: Arc<Meter>,
}

/// The result of an attempt.
pub(super) struct RunResult {
    /// The report for the event's story.
    pub(super) run: HandlerRun,
    /// What failed, if anything.
    pub(super) failure: Option<Failure>,
}

/// What failed.
pub(super) enum Failure {
    /// The fetch or the program: another attempt starts over.
    Run(String),
    /// The upload, after this many failures of the program: another attempt begins with it.
    Upload {
        /// Why.
        reason: String,
        /// How many attempts had failed when the program ended well.
        before: u32,
    },
    /// The upload, for a lasting reason: another attempt would fail in the same way.
    UploadForGood(String),
}

/// Why an attempt was not completed.
enum RunError {
    Shortage(Shortage),
    Failure(Failure),
}

impl From<Shortage> for RunError {
    fn from(shortage: Shortage) -> Self {
        Self::Shortage(shortage)
    }
}

impl From<Failure> for RunError {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// Why an output was not uploaded.
struct Refused {
    reason: String,
    whose: Whose,
}

/// Which side is at fault when an output was not uploaded.
enum Whose {
    /// The program's: only another run can make another output.
    Program,
    /// The destination's or the configuration's, and lasting until one of them is changed.
    Lasting,
    /// Neither side's: the cause may pass.
    Passing,
    /// This machine's: its disk is full, it has no descriptors, or the store has no room. It uses up no attempt.
    Host,
}

impl Whose {
    /// Tells which side is at fault when notes or outputs cannot be read or written here.
    fn disk(error: &(dyn std::error::Error + 'static), otherwise: Self) -> Self {
        if shortage::is_behind(error) { Self::Host } else { otherwise }
    }
}

impl Attempt {
    /// Makes the attempt. Dropping the future ends its program; the folder is then that of an interrupted run.
    ///
    /// # Errors
    /// When this machine lacks something that the run needs, such as a folder. The run itself is not at fault and can
    /// be made once the shortage has passed.
    pub(super) async fn make(&self) -> Result<RunResult, Shortage> {
        let mut run = self.blank();
        match self.go(&mut run).await {
            Ok(()) => Ok(RunResult { run, failure: None }),
            Err(RunError::Failure(failure)) => Ok(RunResult { run, failure: Some(failure) }),
            Err(RunError::Shortage(shortage)) => Err(shortage),
        }
    }

    /// Reports an attempt that ended with a panic of the service, or of an embedding program's code. If the program had
    /// ended well before, the upload is what failed.
    pub(super) async fn panicked(&self) -> RunResult {
        let reason = PANICKED.to_owned();
        match self.look().await {
            Ok(Leftover::Program(ran)) => {
                let run = HandlerRun { start: RunStart::Upload { ran: ran.at }, ..ran.run };
                RunResult { run, failure: Some(Failure::Upload { reason, before: ran.failed }) }
            }
            Ok(Leftover::Nothing | Leftover::Interrupted(_)) | Err(_) => {
                RunResult { run: self.blank(), failure: Some(Failure::Run(reason)) }
            }
        }
    }

    fn blank(&self) -> HandlerRun {
        HandlerRun {
            handler: self.handler.definition.name.to_string(),
            start: RunStart::Fresh,
            fetched: None,
            program: None,
            uploads: Vec::new(),
        }
    }

    async fn go(&self, run: &mut HandlerRun) -> Result<(), RunError> {
        let parts = Parts::of(&self.logged.event).map_err(|error| Failure::Run(chain::text(&error)))?;
        let before = match self.look().await? {
            Leftover::Program(ran) => {
                *run = HandlerRun { start: RunStart::Upload { ran: ran.at }, ..ran.run };
                ran.failed
            }
            Leftover::Nothing => self.run(&parts, run).await?,
            Leftover::Interrupted(began) => {
                run.start = RunStart::Again { interrupted: began.at };
                self.run(&parts, run).await?
            }
        };
        self.upload(&parts, run).await.map_err(|Refused { reason, whose }| match whose {
            Whose::Host => RunError::Shortage(Shortage(reason)),
            Whose::Program => Failure::Run(reason).into(),
            Whose::Lasting => Failure::UploadForGood(reason).into(),
            Whose::Passing => Failure::Upload { reason, before }.into(),
        })
    }

    async fn look(&self) -> Result<Leftover, Shortage> {
        let folder = self.folder.clone();
        blocking(move || folder.left()).await.map_err(|error| no_folder(&error))
    }

    /// Fetches and runs; returns how many attempts had failed before.
    async fn run(&self, parts: &Parts, run: &mut HandlerRun) -> Result<u32, RunError> {
        self.begin().await?;
        let definition = &self.handler.definition;
        let (download, limits) = (self.folder.download(), FetchLimits::of(&definition.limits));
        let fetching = self.handler.fetcher.fetch(&parts.files, &download, limits, &self.meter);
        match fetching.await {
            Ok(fetched) => run.fetched = Some(fetched),
            Err(error) => return Err(self.unfetched(error).await),
        }
        self.meter.enter(Phase::Running, clock::now(), 0, 0);
        let (begun, call) = (Instant::now(), self.call());
        let ended = match self.handler.program.run(&call, || self.closures(parts)).await {
            Ok(ended) => ended,
            Err(Shortage(reason)) => return Err(self.put_off(reason).await),
        };
        let (exit, took) = (ended.exit, begun.elapsed());
        let failure = (!exit.is_success()).then(|| with_last_words(&exit, &ended.stderr.tail));
        run.program = Some(ProgramEnd { exit, took, stdout: ended.stdout, stderr: ended.stderr });
        if let Some(reason) = failure {
            return Err(Failure::Run(reason).into());
        }
        let before = self.number - 1;
        if self.handler.definition.keeps_outputs() {
            let (folder, ran) =
                (self.folder.clone(), ProgramRecord { at: clock::now(), failed: before, run: run.clone() });
            let outputs = call.outputs;
            let (ran, outputs) = (Arc::new(ran), Arc::new(outputs));
            loop {
                let (folder, ran, outputs) = (folder.clone(), Arc::clone(&ran), Arc::clone(&outputs));
                let Err(error) = blocking(move || folder.ran(&ran, &outputs)).await else { break };
                let reason = format!("its outputs cannot be kept: {}", chain::text(&error));
                if !shortage::is_behind(&error) {
                    return Err(Failure::Run(reason).into());
                }
                // The program has succeeded: a full disk must not make it run again.
                tracing::error!(handler = %self.handler.definition.name, event = %self.logged.id, reason, "a run waits to keep its outputs");
                tokio::time::sleep(KEEP_PAUSE).await;
            }
        }
        Ok(before)
    }

    /// Classifies a failed fetch.
    async fn unfetched(&self, error: fetch::Error) -> RunError {
        let reason = format!("fetch: {}", chain::text(&error));
        if !shortage::is_behind(&error) {
            return Failure::Run(reason).into();
        }
        self.put_off(reason).await
    }

    /// Puts the run off. Its files are removed first: they may have filled the disk, which the store needs as well.
    async fn put_off(&self, reason: String) -> RunError {
        let folder = self.folder.clone();
        if let Err(error) = blocking(move || folder.remove()).await {
            tracing::warn!(%error, "the folder of a run stays for now");
        }
        Shortage(reason).into()
    }

    async fn begin(&self) -> Result<(), Shortage> {
        let (folder, recipient) = (self.folder.clone(), (self.logged.id, self.recipient));
        let json = self.logged.event.json();
        let outputs: Vec<_> =
            self.handler.definition.outputs.iter().map(|output| PathBuf::from(&output.folder)).collect();
        let beginning = move || folder.begin(recipient, clock::now(), &json, outputs.into_iter());
        blocking(beginning).await.map_err(|error| no_folder(&error))
    }

    fn id(&self) -> DeliveryId {
        DeliveryId::of(self.logged.id, self.recipient)
    }

    fn call(&self) -> Call {
        let definition = &self.handler.definition;
        let limits = &definition.limits;
        let mut arguments = definition.arguments.clone();
        if self.recipient == definition.name.dispatched() {
            arguments.extend(dispatch::arguments(&self.logged.event.json()));
        }
        let environment = [
            ("WAYPOST_HANDLER", definition.name.to_string()),
            ("WAYPOST_RUN", self.id().to_string()),
            ("WAYPOST_EVENT", self.logged.id.to_string()),
            ("WAYPOST_ATTEMPT", self.number.to_string()),
        ];
        Call {
            folder: self.folder.work(),
            name: definition.name.to_string(),
            arguments,
            environment: environment.map(|(name, value)| (name.to_owned(), value)).into(),
            outputs: definition.outputs.iter().map(|output| output.folder.clone()).collect(),
            stdout: self.folder.stdout(),
            stderr: self.folder.stderr(),
            limits: CallLimits {
                time: limits.timeout,
                output_bytes: limits.output_bytes_max,
                output_files: limits.output_files_max,
                memory_bytes: limits.memory_bytes,
                log_bytes: limits.log_bytes_max,
            },
        }
    }

    fn closures(&self, parts: &Parts) -> Run {
        Run {
            event: self.logged.event.clone(),
            id: self.logged.id,
            parts: parts.clone(),
            attempt: self.number,
            folder: self.folder.work(),
        }
    }

    /// Uploads the outputs that are not uploaded yet.
    async fn upload(&self, parts: &Parts, run: &mut HandlerRun) -> Result<(), Refused> {
        if !self.handler.definition.keeps_outputs() {
            return Ok(());
        }
        let origin = Arc::new(Origin {
            event: self.logged.event.clone(),
            event_id: self.logged.id,
            sender: self.logged.sender.clone(),
            transaction: parts.transaction.clone(),
            handler: self.handler.definition.name.clone(),
            run: self.id(),
        });
        run.uploads.clear();
        for place in 0..self.handler.definition.outputs.len() {
            if let Some(uploaded) = self.upload_one(place, &origin).await? {
                run.uploads.push(uploaded);
            }
        }
        Ok(())
    }

    async fn upload_one(&self, place: usize, origin: &Arc<Origin>) -> Result<Option<UploadSummary>, Refused> {
        let name = &self.handler.definition.outputs[place].folder;
        let failed = |error: &(dyn std::error::Error + 'static), whose| Refused {
            reason: format!("upload of {name}: {}", chain::text(error)),
            whose,
        };
        let folder = self.folder.clone();
        let (notes, done) = blocking(move || {
            let notes = folder.notes(place)?;
            let done = mark::read(&notes.join(DONE))?;
            Ok::<_, std::io::Error>((notes, done))
        })
        .await
        .map_err(|error| failed(&error, Whose::disk(&error, Whose::Passing)))?;
        if done.is_some() {
            return Ok(done);
        }
        let output = self.collect(place).await;
        let output = output.map_err(|error| failed(&error, Whose::disk(&error, Whose::Program)))?;
        if output.files.is_empty() && output.key_values.is_empty() {
            return Ok(None);
        }
        let uploading = self.handler.uploader.upload(&output, origin, &notes, &self.meter);
        let uploaded = uploading.await.map_err(|error| {
            let whose = if error.is_shortage() {
                Whose::Host
            } else if error.is_lasting() {
                Whose::Lasting
            } else {
                Whose::Passing
            };
            failed(&error, Whose::disk(&error, whose))
        })?;
        let noted = uploaded.clone();
        blocking(move || mark::write(&notes.join(DONE), &noted))
            .await
            .map_err(|error| failed(&error, Whose::disk(&error, Whose::Passing)))?;
        Ok(Some(uploaded))
    }

    async fn collect(&self, place: usize) -> Result<Arc<Output>, OutputError> {
        let definition = &self.handler.definition;
        let output = definition.outputs[place].clone();
        let folder = self.folder.work().join(&output.folder);
        let limits = OutputLimits {
            files_max: definition.limits.output_files_max,
            bytes_max: definition.limits.output_bytes_max,
        };
        let logs = match place {
            0 => self.logs(),
            _ => Vec::new(),
        };
        let collecting =
            move || Output::collect(place, &output.folder, &folder, &output.key_values, &logs, limits);
        blocking(collecting).await.map(Arc::new)
    }

    /// Returns the files with what the program wrote to stdout and stderr, if any.
    fn logs(&self) -> Vec<(FilePath, PathBuf)> {
        let name = &self.handler.definition.name;
        let logs = [("stdout", self.folder.stdout()), ("stderr", self.folder.stderr())];
        let spoke = |path: &Path| path.metadata().is_ok_and(|metadata| metadata.len() > 0);
        let named = |(stream, path): (&str, PathBuf)| {
            let own = FilePath::parse(&format!("{name}.{stream}.log"));
            Some((own.ok()?, path))
        };
        logs.into_iter().filter(|(_, path)| spoke(path)).filter_map(named).collect()
    }
}

fn no_folder(error: &std::io::Error) -> Shortage {
    Shortage(format!("the folder of the run cannot be used: {}", chain::text(error)))
}

/// Appends the end of what a program wrote to stderr.
fn with_last_words(exit: &Exit, stderr: &str) -> String {
    match last_words(stderr) {
        Some(words) => format!("{exit}: {words}"),
        None => exit.to_string(),
    }
}

/// Runs a blocking closure on a blocking thread.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("work on the disk does not panic")
}
