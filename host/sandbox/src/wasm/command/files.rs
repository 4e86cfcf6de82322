//! The file system's functions that a program calls: wasmtime's own, which ask the quota before outputs grow.
//!
//! Folders are opened read-only or as an output, and what is opened below one has the same permission. So everything
//! that may be changed belongs to an output, and wasmtime refuses all other changes. This implements the interface as a
//! whole instead of replacing functions by their names, so that a function that a new version adds is not forgotten.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wasmtime::component::{HasData, Linker, Resource};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemCtxView, WasiFilesystemView as _};
use wasmtime_wasi::p2::bindings::filesystem::types::{
    self, Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, DirectoryEntryStream,
    ErrorCode, Filesize, Host, HostDescriptor, HostDirectoryEntryStream, MetadataHashValue, NewTimestamp,
    OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsError, FsResult};

use super::quota::{ENTRY, Full, Quota, Usage};
use super::state::CommandState;
use super::stream::{At, FileStream};

/// A program's files, and how much of them there may be.
pub(super) struct Files<'a> {
    wasi: WasiFilesystemCtxView<'a>,
    quota: Arc<Mutex<Quota>>,
}

struct Own;

impl HasData for Own {
    type Data<'a> = Files<'a>;
}

/// Links the functions.
pub(super) fn link(linker: &mut Linker<CommandState>) -> wasmtime::Result<()> {
    types::add_to_linker::<_, Own>(linker, |state| {
        let quota = Arc::clone(&state.quota);
        Files { wasi: state.filesystem(), quota }
    })
}

type Fd = Resource<Descriptor>;

impl From<Full> for FsError {
    fn from(_: Full) -> Self {
        ErrorCode::InsufficientSpace.into()
    }
}

impl Files<'_> {
    fn quota(&self) -> MutexGuard<'_, Quota> {
        self.quota.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whether a file or folder belongs to an output, and so may be changed.
    fn is_output(&self, fd: &Fd) -> FsResult<bool> {
        let perms = match self.wasi.table.get(fd)? {
            Descriptor::File(file) => file.perms,
            Descriptor::Dir(dir) => dir.perms,
        };
        Ok(!perms.write_not_permitted())
    }

    /// Returns a file that may be changed. For everything else, wasmtime has an error of its own.
    fn output_file(&self, fd: &Fd) -> FsResult<Option<Arc<std::fs::File>>> {
        Ok(match self.wasi.table.get(fd)? {
            Descriptor::File(file) if !file.perms.write_not_permitted() => Some(Arc::clone(&file.file)),
            Descriptor::File(_) | Descriptor::Dir(_) => None,
        })
    }

    /// Counts what an operation on an output adds, before it is done.
    fn charge(&self, fd: &Fd, more: Usage) -> FsResult<Usage> {
        if !self.is_output(fd)? {
            return Ok(Usage::default());
        }
        self.quota().charge(more)?;
        Ok(more)
    }

    /// Takes back what was counted for an operation that failed.
    fn done<T>(&self, done: FsResult<T>, charged: Usage) -> FsResult<T> {
        if done.is_err() {
            self.quota().give_back(charged);
        }
        done
    }

    /// Notes that something was removed from an output.
    fn gone<T>(&self, done: FsResult<T>) -> FsResult<T> {
        if done.is_ok() {
            self.quota().may_be_less();
        }
        done
    }

    fn stream(&mut self, file: Arc<std::fs::File>, at: At) -> FsResult<Resource<DynOutputStream>> {
        let stream: DynOutputStream = Box::new(FileStream { file, at, quota: Arc::clone(&self.quota) });
        Ok(self.wasi.table.push(stream)?)
    }
}

impl Host for Files<'_> {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        self.wasi.convert_error_code(error)
    }

    fn filesystem_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        self.wasi.filesystem_error_code(error)
    }
}

/// Functions that change nothing, or nothing that counts.
macro_rules! forward {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        $(async fn $name(&mut self, $($argument: $type),*) -> $result {
            self.wasi.$name($($argument),*).await
        })*
    };
}

impl HostDescriptor for Files<'_> {
    forward! {
        fn advise(fd: Fd, offset: Filesize, len: Filesize, advice: Advice) -> FsResult<()>;
        fn sync_data(fd: Fd) -> FsResult<()>;
        fn get_flags(fd: Fd) -> FsResult<DescriptorFlags>;
        fn get_type(fd: Fd) -> FsResult<DescriptorType>;
        fn set_times(fd: Fd, accessed: NewTimestamp, modified: NewTimestamp) -> FsResult<()>;
        fn read(fd: Fd, len: Filesize, offset: Filesize) -> FsResult<(Vec<u8>, bool)>;
        fn read_directory(fd: Fd) -> FsResult<Resource<DirectoryEntryStream>>;
        fn sync(fd: Fd) -> FsResult<()>;
        fn stat(fd: Fd) -> FsResult<DescriptorStat>;
        fn stat_at(fd: Fd, flags: PathFlags, path: String) -> FsResult<DescriptorStat>;
        fn set_times_at(
            fd: Fd, flags: PathFlags, path: String, accessed: NewTimestamp, modified: NewTimestamp
        ) -> FsResult<()>;
        fn readlink_at(fd: Fd, path: String) -> FsResult<String>;
        fn is_same_object(one: Fd, other: Fd) -> wasmtime::Result<bool>;
        fn metadata_hash(fd: Fd) -> FsResult<MetadataHashValue>;
        fn metadata_hash_at(fd: Fd, flags: PathFlags, path: String) -> FsResult<MetadataHashValue>;
    }

    async fn set_size(&mut self, fd: Fd, size: Filesize) -> FsResult<()> {
        let Some(file) = self.output_file(&fd)? else { return self.wasi.set_size(fd, size).await };
        let before = file.metadata()?;
        let charged = self.quota().grow(&before, size)?;
        let done = self.wasi.set_size(fd, size).await;
        self.done(done, charged)?;
        self.quota().shrunk(&before, size);
        Ok(())
    }

    async fn write(&mut self, fd: Fd, bytes: Vec<u8>, offset: Filesize) -> FsResult<Filesize> {
        let Some(file) = self.output_file(&fd)? else { return self.wasi.write(fd, bytes, offset).await };
        let len = bytes.len() as u64;
        let charged = self.quota().grow(&file.metadata()?, offset.saturating_add(len))?;
        let done = self.wasi.write(fd, bytes, offset).await;
        let written = self.done(done, charged)?;
        if written < len {
            self.quota().may_be_less();
        }
        Ok(written)
    }

    async fn create_directory_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        let charged = self.charge(&fd, ENTRY)?;
        let done = self.wasi.create_directory_at(fd, path).await;
        self.done(done, charged)
    }

    async fn link_at(
        &mut self,
        fd: Fd,
        flags: PathFlags,
        path: String,
        new_fd: Fd,
        new_path: String,
    ) -> FsResult<()> {
        let target = self.wasi.stat_at(same(&fd), PathFlags::empty(), path.clone()).await?;
        let charged = self.charge(&new_fd, Usage { bytes: target.size, ..ENTRY })?;
        let done = self.wasi.link_at(fd, flags, path, new_fd, new_path).await;
        self.done(done, charged)
    }

    async fn symlink_at(&mut self, fd: Fd, target: String, path: String) -> FsResult<()> {
        let charged = self.charge(&fd, Usage { bytes: target.len() as u64, ..ENTRY })?;
        let done = self.wasi.symlink_at(fd, target, path).await;
        self.done(done, charged)
    }

    async fn open_at(
        &mut self,
        fd: Fd,
        path_flags: PathFlags,
        path: String,
        how: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Fd> {
        if !self.is_output(&fd)? {
            return self.wasi.open_at(fd, path_flags, path, how, flags).await;
        }
        let (creates, cuts) = (how.contains(OpenFlags::CREATE), how.contains(OpenFlags::TRUNCATE));
        let before = match creates || cuts {
            true => self.wasi.stat_at(same(&fd), path_flags, path.clone()).await.ok(),
            false => None,
        };
        let charged = match &before {
            None if creates => self.charge(&fd, ENTRY)?,
            Some(_) | None => Usage::default(),
        };
        let done = self.wasi.open_at(fd, path_flags, path, how, flags).await;
        let opened = self.done(done, charged)?;
        if let (true, Some(before)) = (cuts, before) {
            let bytes = before.size.saturating_mul(before.link_count.max(1));
            self.quota().give_back(Usage { bytes, entries: 0 });
        }
        if let Some(file) = self.output_file(&opened)? {
            self.quota().opened(&file);
        }
        Ok(opened)
    }

    async fn remove_directory_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        let done = self.wasi.remove_directory_at(fd, path).await;
        self.gone(done)
    }

    async fn unlink_file_at(&mut self, fd: Fd, path: String) -> FsResult<()> {
        let done = self.wasi.unlink_file_at(fd, path).await;
        self.gone(done)
    }

    /// A rename may replace what was there.
    async fn rename_at(&mut self, fd: Fd, path: String, new_fd: Fd, new_path: String) -> FsResult<()> {
        let done = self.wasi.rename_at(fd, path, new_fd, new_path).await;
        self.gone(done)
    }

    fn read_via_stream(&mut self, fd: Fd, offset: Filesize) -> FsResult<Resource<DynInputStream>> {
        self.wasi.read_via_stream(fd, offset)
    }

    fn write_via_stream(&mut self, fd: Fd, offset: Filesize) -> FsResult<Resource<DynOutputStream>> {
        match self.output_file(&fd)? {
            Some(file) => self.stream(file, At::Place(offset)),
            None => self.wasi.write_via_stream(fd, offset),
        }
    }

    fn append_via_stream(&mut self, fd: Fd) -> FsResult<Resource<DynOutputStream>> {
        match self.output_file(&fd)? {
            Some(file) => self.stream(file, At::End),
            None => self.wasi.append_via_stream(fd),
        }
    }

    fn drop(&mut self, fd: Fd) -> wasmtime::Result<()> {
        HostDescriptor::drop(&mut self.wasi, fd)
    }
}

/// Borrows a descriptor again.
fn same(fd: &Fd) -> Fd {
    Resource::new_borrow(fd.rep())
}

impl HostDirectoryEntryStream for Files<'_> {
    forward! {
        fn read_directory_entry(stream: Resource<DirectoryEntryStream>) -> FsResult<Option<DirectoryEntry>>;
    }

    fn drop(&mut self, stream: Resource<DirectoryEntryStream>) -> wasmtime::Result<()> {
        HostDirectoryEntryStream::drop(&mut self.wasi, stream)
    }
}
