//! Machine code on disk, so that a module is compiled once and not at every start.
//!
//! Loading machine code means running it, so write access to these files means code execution. The folder is accessible
//! to its owner only. Each file carries a keyed hash of its name and its bytes; the key is in the folder, in a file
//! that only the owner can read. A file with a wrong hash is dropped and its module is compiled again. The file's name
//! contains a hash of the engine's version and settings and of the rules of [`super::compile`]: files of another
//! version are not read, and [`Artefacts::sweep`] removes them. So the memory use of any code that is loaded has been
//! measured, and is stated in its file.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use wasmtime::Engine;
use wasmtime::component::Component;

use super::compile::{self, Code};
use super::engine;
use super::error::{Error, Refused};
use super::settings::CompileLimits;
use super::text;
use waypost_domain::PluginDigest;
use waypost_runtime::clock;
use waypost_runtime::durable;
use waypost_runtime::random;

/// The file with the key.
const KEY: &str = "key";
const KEY_BYTES: usize = 32;
/// The length of the keyed hash, with which each file begins.
const TAG_BYTES: usize = 32;
/// The length of what follows: how many bytes of memory the code takes when it is loaded, little-endian.
const WEIGHT_BYTES: usize = 8;
/// The extension of a file that is complete.
const EXTENSION: &str = "code";
/// Incremented when the form of the files changes, or when stored code must be compiled and weighed again.
const RULES: u32 = 1;

/// The machine code of modules. Clones share it.
#[derive(Clone)]
pub(super) struct Artefacts(Arc<Shared>);

struct Shared {
    folder: PathBuf,
    /// The most bytes of a file.
    bytes_max: u64,
    /// The hash of what machine code depends on.
    version: OnceLock<u64>,
    /// Held while the key of the folder is read or made.
    key: Mutex<()>,
}

/// A module's machine code, ready to be linked.
pub(super) struct Artefact {
    pub(super) component: Component,
    /// The size of the code.
    pub(super) code_bytes: u64,
    /// How many bytes of memory it takes.
    pub(super) loaded_bytes: u64,
}

/// What was read from a file.
enum Content {
    Nothing,
    Wrong,
    File(Vec<u8>, [u8; KEY_BYTES]),
}

impl Artefacts {
    /// Takes the path of the folder, which is created when it is needed.
    pub(super) fn new(folder: PathBuf, limits: CompileLimits) -> Self {
        // A limit on modules that was lowered applies only to new ones.
        let module_bytes = limits.module_bytes.max(CompileLimits::default().module_bytes);
        let bytes_max = (TAG_BYTES + WEIGHT_BYTES + compile::code_bytes_max(module_bytes)) as u64;
        let (version, key) = (OnceLock::new(), Mutex::default());
        Self(Arc::new(Shared { folder, bytes_max, version, key }))
    }

    /// Stores a module's machine code.
    pub(super) async fn put(&self, digest: PluginDigest, code: Code) -> Result<(), Error> {
        let own = self.clone();
        let putting = tokio::task::spawn_blocking(move || own.put_now(digest, &code));
        putting.await.expect("keeping does not panic")
    }

    fn put_now(&self, digest: PluginDigest, code: &Code) -> Result<(), Error> {
        let path = self.path(digest)?;
        let kept = || {
            durable::create_folder(&self.0.folder)?;
            let weight = code.loaded_bytes.to_le_bytes();
            let tag = tag(&self.key()?, &path, [&weight, &code.bytes]).finalize().into_bytes();
            durable::write(&path, &[&tag, &weight, &code.bytes])
        };
        kept().map_err(|source| self.failed(source))
    }

    /// Returns a module's machine code, ready to be linked in this engine, if it is stored and unaltered.
    pub(super) async fn get(
        &self,
        digest: PluginDigest,
        engine: &Engine,
    ) -> Result<Option<Artefact>, Refused> {
        let (own, engine) = (self.clone(), engine.clone());
        let getting = tokio::task::spawn_blocking(move || own.get_now(digest, &engine));
        getting.await.expect("reading and loading do not panic")
    }

    fn get_now(&self, digest: PluginDigest, engine: &Engine) -> Result<Option<Artefact>, Refused> {
        let path = self.path(digest)?;
        let (file, key) = match self.read(&path).map_err(|source| self.failed(source))? {
            Content::Nothing => return Ok(None),
            Content::Wrong => return Ok(drop_wrong(&path)),
            Content::File(file, key) => (file, key),
        };
        let Some((found, rest)) = file.split_at_checked(TAG_BYTES) else { return Ok(drop_wrong(&path)) };
        let Some((weight, code)) = rest.split_first_chunk::<WEIGHT_BYTES>() else {
            return Ok(drop_wrong(&path));
        };
        if tag(&key, &path, [weight, code]).verify_slice(found).is_err() {
            return Ok(drop_wrong(&path));
        }
        #[expect(unsafe_code, reason = "its hash says that the compiler's child process gave it to us")]
        // SAFETY: these bytes cannot have been written without the key, and they are in memory, so they cannot change.
        let loaded = unsafe { Component::deserialize(engine, code) };
        // This fails, for example, if the component is larger than a slot of the pool.
        let component = loaded.map_err(|error| Refused::DoesNotLoad(text::of(&error)))?;
        // Keeps `sweep` from removing it. If this fails, the file is only removed sooner.
        drop(File::open(&path).and_then(|file| file.set_modified(clock::now().into())));
        let code_bytes = code.len() as u64;
        let loaded_bytes = u64::from_le_bytes(*weight).max(code_bytes);
        Ok(Some(Artefact { component, code_bytes, loaded_bytes }))
    }

    /// Reads a file, unless it is larger than any file that this program writes.
    fn read(&self, path: &Path) -> io::Result<Content> {
        let length = match path.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Content::Nothing),
            found => found?.len(),
        };
        if length > self.0.bytes_max {
            return Ok(Content::Wrong);
        }
        Ok(Content::File(fs::read(path)?, self.key()?))
    }

    /// Removes a module's machine code.
    pub(super) async fn evict(&self, digest: PluginDigest) -> Result<(), Error> {
        let path = self.path(digest)?;
        let removing = tokio::task::spawn_blocking(move || remove(&path).map_err(|source| (path, source)));
        let removed = removing.await.expect("removing does not panic");
        removed.map_err(|(path, source)| Error::Folder { path, source })
    }

    /// Removes the machine code of modules that are not wanted, unless it was used within `grace`. Also removes what
    /// other versions have left. Blocks on the disk.
    pub(super) fn sweep(
        &self,
        is_wanted: impl Fn(PluginDigest) -> bool,
        grace: Duration,
    ) -> Result<(), Error> {
        let failed = |source| self.failed(source);
        let found = match fs::read_dir(&self.0.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found.map_err(failed)?,
        };
        let version = self.version()?;
        for entry in found {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let digest = name.strip_suffix(&format!("-{version:016x}.{EXTENSION}"));
            let digest = digest.and_then(|hex| format!("sha256:{hex}").parse().ok());
            let stays = match digest {
                Some(digest) => is_wanted(digest) || is_younger(&path, grace),
                // The key, and what is being written.
                None => name == KEY || (name.ends_with(durable::UNFINISHED) && is_younger(&path, grace)),
            };
            if !stays {
                remove(&path).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Returns how many bytes of disk the machine code takes. Blocks on the disk.
    pub(super) fn kept_bytes(&self) -> Result<u64, Error> {
        let counted = || -> io::Result<u64> {
            let mut bytes = 0;
            for entry in fs::read_dir(&self.0.folder)? {
                bytes += entry?.metadata()?.len();
            }
            Ok(bytes)
        };
        match counted() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            counted => counted.map_err(|source| self.failed(source)),
        }
    }

    /// Tells whether a module's machine code is stored.
    pub(super) fn has(&self, digest: PluginDigest) -> bool {
        self.path(digest).is_ok_and(|path| path.exists())
    }

    fn path(&self, digest: PluginDigest) -> Result<PathBuf, Error> {
        Ok(self.0.folder.join(format!("{}-{:016x}.{EXTENSION}", digest.hex(), self.version()?)))
    }

    /// Returns the hash of all that machine code depends on.
    fn version(&self) -> Result<u64, Error> {
        if let Some(version) = self.0.version.get() {
            return Ok(*version);
        }
        let engine = engine::compiler().map_err(Error::engine)?;
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        RULES.hash(&mut hasher);
        Ok(*self.0.version.get_or_init(|| hasher.finish()))
    }

    /// Returns the key, made at the first use.
    fn key(&self) -> io::Result<[u8; KEY_BYTES]> {
        let path = self.0.folder.join(KEY);
        let _one_at_a_time = self.0.key.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = [0; KEY_BYTES];
        match File::open(&path) {
            Ok(mut file) if file.metadata()?.len() == KEY_BYTES as u64 => {
                file.read_exact(&mut key)?;
                return Ok(key);
            }
            // Not written by this program; files with another key are dropped and compiled again.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        random::fill(&mut key);
        durable::write(&path, &[&key])?;
        Ok(key)
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Folder { path: self.0.folder.clone(), source }
    }
}

/// Removes an altered file, and returns `None`.
fn drop_wrong<T>(path: &Path) -> Option<T> {
    tracing::warn!(path = %path.display(), "this machine code is not what was kept: it is compiled again");
    if let Err(error) = remove(path) {
        tracing::warn!(path = %path.display(), %error, "it could not be removed");
    }
    None
}

/// Hashes the parts of a file together with its name, so that one module's code cannot pass for another's.
fn tag(key: &[u8; KEY_BYTES], path: &Path, parts: [&[u8]; 2]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key may have any length");
    mac.update(path.file_name().unwrap_or_default().as_encoded_bytes());
    mac.update(&[0]);
    parts.into_iter().for_each(|part| mac.update(part));
    mac
}

fn is_younger(path: &Path, grace: Duration) -> bool {
    let modified = path.metadata().and_then(|file| file.modified());
    // A time in the future is young as well.
    modified.is_ok_and(|modified| modified.elapsed().map_or(true, |age| age < grace))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
