//! Modules: the bytes of each are a file in the folder `modules`, its metadata is a row of the table.
//!
//! The file is written before its row and removed after it, so that a row always has its file. A file without a row is
//! left over from a crash, and is removed when the store is opened.

use std::fs::{self, File};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use redb::{ReadableTable as _, StorageError};

use super::damage::Marks;
use super::group::Op;
use super::handle::Fault;
use super::open_error::OpenError;
use super::read::Reader;
use super::record;
use super::schema::tables;
use super::text::Text;
use crate::Module;
use waypost_domain::PluginDigest;
use waypost_runtime::durable;

tables! {
    /// The tables of modules.
    ModuleTables {
        /// Digest of a module → what is known of it; its bytes are a file of their own. Written with each upload.
        MODULES as modules = "modules": Text => &'static [u8];
        /// (Digest of a module, subscription) → nothing. The subscriptions that refer to a module and are not deleted.
        REFERRING as referring = "referring": (Text, u128) => ();
    }
}

/// The folder with the bytes.
#[derive(Clone)]
pub(super) struct Files(Arc<Path>);

/// The extension of a file that is complete, and of one whose parts come by a journal.
const EXTENSION: &str = "wasm";
const PART_EXTENSION: &str = "part";

impl Files {
    /// Makes the folder of modules in the data folder; it need not be there.
    pub(super) fn new(folder: &Path) -> Self {
        Self(folder.join("modules").into())
    }

    /// Writes a module's bytes, unless they are there.
    pub(super) fn write(&self, digest: PluginDigest, wasm: &[u8]) -> Result<(), Fault> {
        let path = self.path(digest);
        if fs::read(&path).is_ok_and(|found| found == wasm) {
            return Ok(());
        }
        let written = durable::create_folder(&self.0).and_then(|()| durable::write(&path, &[wasm]));
        written.map_err(|error| failed("write", &path, &error))
    }

    /// Reads a module's bytes; `None` when there are none.
    pub(super) fn read(&self, digest: PluginDigest) -> Result<Option<Bytes>, Fault> {
        let path = self.path(digest);
        let wasm = match fs::read(&path) {
            Ok(wasm) => wasm,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &path, &error)),
        };
        if PluginDigest::of(&wasm) != digest {
            let reason = record::Error::Value("a module's file is not what was uploaded: upload it again");
            return Err(Fault::damaged("modules")(reason));
        }
        Ok(Some(wasm.into()))
    }

    /// Removes a module's bytes.
    pub(super) fn remove(&self, digest: PluginDigest) -> Result<(), Fault> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path, &error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Removes the bytes of modules; what fails is removed when the store is opened next.
    pub(super) fn remove_all(&self, digests: &[PluginDigest]) {
        for digest in digests {
            if let Err(fault) = self.remove(*digest) {
                tracing::warn!(%digest, ?fault, "the bytes of a removed module stay for now");
            }
        }
    }

    /// Writes the parts of modules that a group brings, and completes the modules that it has the record of. Does the same
    /// when it is done again.
    pub(super) fn write_parts(&self, ops: &[Op]) -> Result<(), Fault> {
        for op in ops {
            match op.inner() {
                Op::ModulePart { digest, offset, bytes } => {
                    let path = self.path(*digest).with_extension(PART_EXTENSION);
                    self.write_part(&path, *offset, bytes).map_err(|error| failed("write", &path, &error))?;
                }
                Op::PutModule(module) => self.complete(module.report.digest)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn write_part(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        durable::create_folder(&self.0)?;
        durable::create_file(path)?;
        let mut file = File::options().write(true).open(path)?;
        if offset == 0 {
            file.set_len(0)?;
        }
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn complete(&self, digest: PluginDigest) -> Result<(), Fault> {
        let path = self.path(digest);
        let parts = path.with_extension(PART_EXTENSION);
        let Ok(wasm) = fs::read(&parts) else { return Ok(()) };
        if PluginDigest::of(&wasm) == digest {
            self.write(digest, &wasm)?;
        } else {
            tracing::error!(%digest, "the parts of a module are not what was uploaded");
        }
        fs::remove_file(&parts).map_err(|error| failed("remove", &parts, &error))
    }

    fn path(&self, digest: PluginDigest) -> PathBuf {
        self.0.join(digest.hex()).with_extension(EXTENSION)
    }

    /// Removes every file but those of `known` modules, and the parts of others where they may still be completed.
    fn sweep(&self, known: &[Module], keep_parts: bool) -> io::Result<()> {
        let known: Vec<_> = known.iter().map(|module| self.path(module.report.digest)).collect();
        let found = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        for entry in found {
            let path = entry?.path();
            let is_part = path.extension().is_some_and(|extension| extension == PART_EXTENSION);
            let stays = known.contains(&path) || is_part && keep_parts;
            if !stays {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

fn failed(verb: &str, path: &Path, error: &io::Error) -> Fault {
    Fault::Closed(format!("failed to {verb} {}: {error}", path.display()))
}

/// Opens the folder of modules in the data folder, which need not be there.
pub(super) fn open(folder: &Path, reader: &Reader, keep_parts: bool) -> Result<Files, OpenError> {
    let files = Files::new(folder);
    let damaged = reader.marks.count();
    let known =
        modules(reader).map_err(|fault| OpenError::Read { path: folder.into(), source: fault.into() })?;
    if reader.marks.count() > damaged {
        tracing::warn!(folder = %files.0.display(), "leftovers of uploads stay: the list of modules is damaged");
    } else if let Err(error) = files.sweep(&known, keep_parts) {
        tracing::warn!(%error, folder = %files.0.display(), "leftovers of uploads stay");
    }
    Ok(files)
}

/// The table of modules, as a group of writes changes it.
pub(super) struct Modules<'a, 'txn> {
    tables: &'a mut ModuleTables<'txn>,
    marks: &'a Marks,
}

impl<'a, 'txn> Modules<'a, 'txn> {
    pub(super) fn new(tables: &'a mut ModuleTables<'txn>, marks: &'a Marks) -> Self {
        Self { tables, marks }
    }

    /// Tells whether there is such a module.
    pub(super) fn has(&self, digest: PluginDigest) -> Result<bool, StorageError> {
        Ok(self.tables.modules.get(digest.to_string().as_str())?.is_some())
    }

    /// Writes a module.
    pub(super) fn put(&mut self, module: &Module) -> Result<(), StorageError> {
        let key = module.report.digest.to_string();
        self.tables.modules.insert(key.as_str(), record::encode_module(module).as_slice()).map(drop)
    }

    /// Removes a module, unless a subscription refers to it or it was uploaded again since the time that is given.
    pub(super) fn remove(&mut self, digest: PluginDigest, uploaded: Timestamp) -> Result<bool, Fault> {
        let key = digest.to_string();
        let row = self.tables.modules.get(key.as_str())?.map(|row| record::decode_module(row.value()));
        let known = row.and_then(|read| self.marks.pass("modules", &key, read));
        let whole = (key.as_str(), 0)..=(key.as_str(), u128::MAX);
        let is_held = self.tables.referring.range(whole)?.next().is_some();
        if is_held || known.is_none_or(|known| known.uploaded != uploaded) {
            return Ok(false);
        }
        self.tables.modules.remove(key.as_str())?;
        Ok(true)
    }

    /// Lets a subscription refer to another module.
    pub(super) fn refer(
        &mut self,
        subscription: u128,
        before: Option<PluginDigest>,
        now: Option<PluginDigest>,
    ) -> Result<(), StorageError> {
        if before == now {
            return Ok(());
        }
        if let Some(digest) = before {
            self.tables.referring.remove((digest.to_string().as_str(), subscription))?;
        }
        if let Some(digest) = now {
            self.tables.referring.insert((digest.to_string().as_str(), subscription), ())?;
        }
        Ok(())
    }
}

/// See [`crate::Store::module`].
pub(super) fn module(reader: &Reader, digest: PluginDigest) -> Result<Option<Module>, Fault> {
    reader.handle.read(|txn| {
        let row = txn.open_table(MODULES)?.get(digest.to_string().as_str())?;
        row.map(|row| record::decode_module(row.value())).transpose().map_err(Fault::damaged("modules"))
    })
}

/// See [`crate::Store::modules`].
pub(super) fn modules(reader: &Reader) -> Result<Vec<Module>, Fault> {
    reader.handle.read(|txn| {
        let mut modules = Vec::new();
        for row in txn.open_table(MODULES)?.iter()? {
            let (digest, module) = row?;
            let read = record::decode_module(module.value());
            modules.extend(reader.marks.pass("modules", digest.value(), read));
        }
        Ok(modules)
    })
}
