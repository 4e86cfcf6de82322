//! Compiled modules on disk.

use super::error::{Error, Refused};
use super::host::Host;
use crate::domain::PluginDigest;
use wasmtime::component::Component;

impl Host {
    pub(super) fn keep(&self, digest: PluginDigest, code: Vec<u8>) -> Result<(), Refused> {
        let folder = &self.settings.folder;
        let failed = |source| Error::Folder { path: folder.clone(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        std::fs::write(folder.join(digest.hex()), code).map_err(failed)?;
        Ok(())
    }

    pub(super) fn fetch(&self, digest: PluginDigest) -> Result<Option<Component>, Refused> {
        let path = self.settings.folder.join(digest.hex());
        if !path.exists() {
            return Ok(None);
        }
        let engine = &self.running()?.engine;
        #[expect(unsafe_code, reason = "skeleton")]
        let loaded = unsafe { Component::deserialize_file(engine, &path) };
        loaded.map(Some).map_err(|error| Refused::Invalid(format!("{error:#}")))
    }
}
