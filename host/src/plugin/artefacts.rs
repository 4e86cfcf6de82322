//! Machine code on disk, so that a module is compiled once and not at every start.
//!
//! Loading machine code means running it, so write access to these files means code execution. The folder is accessible
//! to its owner only. Each file carries a keyed hash of its name and its bytes; the key is in the folder, in a file
//! that only the owner can read. A file with a wrong hash is dropped and its module is compiled again. The file's name
//! contains a hash of the engine's version and settings and of the rules of [`super::compile`]: files of another
//! version are not read, and [`Host::sweep`] removes them. So code that is loaded has been weighed before, and its file
//! says what it weighs.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;
use wasmtime::Engine;
use wasmtime::component::Component;

use super::compile::{self, Code, CompileLimits};
use super::engine;
use super::error::{Error, Refused};
use super::host::Host;
use super::text;
use crate::clock;
use crate::domain::PluginDigest;

/// The file with the key.
const KEY: &str = "key";
const KEY_BYTES: usize = 32;
/// The length of the keyed hash, with which each file begins.
const TAG_BYTES: usize = 32;
/// What follows: how many bytes of memory the code takes when it is loaded, little-endian.
const WEIGHT_BYTES: usize = 8;
/// The extension of a file that is complete.
const EXTENSION: &str = "code";
/// Changes with the form of the files, and when code that was kept before must be compiled and weighed again.
const RULES: u32 = 1;

/// A module's machine code, ready to be linked.
pub(super) struct Artefact {
    pub(super) component: Component,
    /// The size of the code.
    pub(super) code_bytes: u64,
    /// How many bytes of memory it takes.
    pub(super) loaded_bytes: u64,
}

impl Host {
    /// Keeps a module's machine code. Blocks on the disk.
    pub(super) fn keep(&self, digest: PluginDigest, code: &Code) -> Result<(), Refused> {
        let path = self.artefact(digest)?;
        let kept = (|| {
            create_folder(&self.settings.folder)?;
            let weight = code.loaded_bytes.to_le_bytes();
            let tag = tag(&self.key()?, &path, [&weight, &code.bytes]).finalize().into_bytes();
            // Of its own: an upload and a use may bring the same module at once.
            let temporary = path.with_extension(format!("{}.tmp", Uuid::new_v4()));
            let written = (|| {
                let mut file = private(&temporary, OpenOptions::new().create(true).truncate(true))?;
                file.write_all(&tag)?;
                file.write_all(&weight)?;
                file.write_all(&code.bytes)?;
                file.sync_all()?;
                fs::rename(&temporary, &path)
            })();
            if written.is_err() {
                drop(fs::remove_file(&temporary));
            }
            written
        })();
        kept.map_err(|source| Error::Folder { path: self.settings.folder.clone(), source }.into())
    }

    /// Returns a module's machine code, ready to be linked, if it is here and is what was kept. Blocks on the disk.
    pub(super) fn fetch(&self, digest: PluginDigest, engine: &Engine) -> Result<Option<Artefact>, Refused> {
        let path = self.artefact(digest)?;
        let read = self.read_file(&path);
        let read = read.map_err(|source| Error::Folder { path: self.settings.folder.clone(), source })?;
        let (file, key) = match read {
            Read::Nothing => return Ok(None),
            Read::Wrong => return Ok(self.drop_wrong(&path)),
            Read::File(file, key) => (file, key),
        };
        let Some((found, rest)) = file.split_at_checked(TAG_BYTES) else { return Ok(self.drop_wrong(&path)) };
        let Some((weight, code)) = rest.split_first_chunk::<WEIGHT_BYTES>() else {
            return Ok(self.drop_wrong(&path));
        };
        if tag(&key, &path, [weight, code]).verify_slice(found).is_err() {
            return Ok(self.drop_wrong(&path));
        }
        #[expect(unsafe_code, reason = "its hash says that the compiler's child process gave it to us")]
        // SAFETY: these bytes cannot have been written without the key, and they are in memory, so they cannot change.
        let loaded = unsafe { Component::deserialize(engine, code) };
        match loaded {
            Ok(component) => {
                // Keeps `sweep` from removing it. If this fails, the file is only removed sooner.
                drop(File::open(&path).and_then(|file| file.set_modified(clock::now().into())));
                let code_bytes = code.len() as u64;
                let loaded_bytes = u64::from_le_bytes(*weight).max(code_bytes);
                Ok(Some(Artefact { component, code_bytes, loaded_bytes }))
            }
            // Such as a component that is larger than the pool's places.
            Err(error) => Err(Refused::DoesNotLoad(text::of(&error))),
        }
    }

    /// Reads a file, unless it is larger than any that is kept: then this program did not write it.
    fn read_file(&self, path: &Path) -> io::Result<Read> {
        let length = match path.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Read::Nothing),
            found => found?.len(),
        };
        // A lower limit of modules than it was holds for new ones alone.
        let module_bytes = self.settings.compile.module_bytes.max(CompileLimits::default().module_bytes);
        if length > (TAG_BYTES + WEIGHT_BYTES + compile::code_bytes_max(module_bytes)) as u64 {
            return Ok(Read::Wrong);
        }
        Ok(Read::File(fs::read(path)?, self.key()?))
    }

    /// Removes the machine code of modules that are not in `wanted`, unless it was used within `grace` or is a command's
    /// that this host has loaded, and all that another version has left. Blocks on the disk.
    ///
    /// # Errors
    /// When the folder cannot be read or a file cannot be removed.
    pub fn sweep(&self, wanted: &HashSet<PluginDigest>, grace: Duration) -> Result<(), Error> {
        let failed = |source| Error::Folder { path: self.settings.folder.clone(), source };
        let found = match fs::read_dir(&self.settings.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found.map_err(failed)?,
        };
        let version = self.version()?;
        for entry in found {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let digest = name.strip_suffix(&format!("-{version:016x}.{EXTENSION}"));
            let digest = digest.and_then(|hex| format!("sha256:{hex}").parse().ok());
            let is_wanted = match digest {
                Some(digest) => {
                    wanted.contains(&digest) || self.is_command(digest) || is_younger(&path, grace)
                }
                // The key, and what is being written.
                None => name == KEY || (name.ends_with(".tmp") && is_younger(&path, grace)),
            };
            if !is_wanted {
                remove(&path).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Removes a module's machine code, and forgets the module. Calls that run go on. Blocks on the disk.
    ///
    /// # Errors
    /// When its file cannot be removed.
    pub async fn discard(&self, digest: PluginDigest) -> Result<(), Error> {
        self.forget(digest).await;
        let path = self.artefact(digest)?;
        let removing = tokio::task::spawn_blocking(move || remove(&path).map_err(|source| (path, source)));
        let removed = removing.await.expect("removing does not panic");
        removed.map_err(|(path, source)| Error::Folder { path, source })
    }

    /// Returns how many bytes of disk the machine code takes. Blocks on the disk.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn kept_bytes(&self) -> Result<u64, Error> {
        let counted = || -> io::Result<u64> {
            let mut bytes = 0;
            for entry in fs::read_dir(&self.settings.folder)? {
                bytes += entry?.metadata()?.len();
            }
            Ok(bytes)
        };
        match counted() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            counted => counted.map_err(|source| Error::Folder { path: self.settings.folder.clone(), source }),
        }
    }

    /// Tells whether a module's machine code is here.
    pub fn has(&self, digest: PluginDigest) -> bool {
        self.artefact(digest).is_ok_and(|path| path.exists())
    }

    fn artefact(&self, digest: PluginDigest) -> Result<PathBuf, Error> {
        let name = format!("{}-{:016x}.{EXTENSION}", digest.hex(), self.version()?);
        Ok(self.settings.folder.join(name))
    }

    /// Returns the hash of all that machine code depends on.
    fn version(&self) -> Result<u64, Error> {
        if let Some(version) = self.version.get() {
            return Ok(*version);
        }
        let engine = engine::compiler().map_err(|error| Error::Engine { reason: format!("{error:#}") })?;
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        RULES.hash(&mut hasher);
        Ok(*self.version.get_or_init(|| hasher.finish()))
    }

    /// Returns nothing, and sees that there is nothing.
    fn drop_wrong<T>(&self, path: &Path) -> Option<T> {
        tracing::warn!(path = %path.display(), "this machine code is not what was kept: it is compiled again");
        if let Err(error) = remove(path) {
            tracing::warn!(path = %path.display(), %error, "it could not be removed");
        }
        None
    }

    /// Returns the key, made at the first use.
    fn key(&self) -> io::Result<[u8; KEY_BYTES]> {
        let path = self.settings.folder.join(KEY);
        let _one_at_a_time = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = [0; KEY_BYTES];
        match File::open(&path) {
            Ok(mut file) if file.metadata()?.len() == KEY_BYTES as u64 => {
                file.read_exact(&mut key)?;
                return Ok(key);
            }
            // A crash while it was written: no file can have been kept with it.
            Ok(_) => fs::remove_file(&path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        rand::TryRng::try_fill_bytes(&mut rand::rngs::SysRng, &mut key).map_err(io::Error::other)?;
        let mut file = private(&path, OpenOptions::new().create_new(true))?;
        file.write_all(&key)?;
        file.sync_all()?;
        Ok(key)
    }
}

/// What there is of a file.
enum Read {
    Nothing,
    Wrong,
    File(Vec<u8>, [u8; KEY_BYTES]),
}

/// Hashes what a file has, in its parts, together with its name, so that one module's does not pass for another's.
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

/// Creates a folder that only its owner may enter.
fn create_folder(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Opens a file for writing that only its owner may read.
fn private(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options.write(true).open(path)
}
