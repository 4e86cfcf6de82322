//! A component that is ready to run: it is linked, and all work that need not be repeated for each call is done.

use std::sync::atomic::{AtomicUsize, Ordering};

use wasmtime::component::{Component, InstancePre, Linker};

use super::bindings::exports::waypost::plugin::{filter, metadata, policy, transform};
use super::guest::Guest;
use waypost_domain::PluginDigest;

/// A loaded module. Making an instance of it takes microseconds.
pub struct Plugin {
    digest: PluginDigest,
    pub(super) pre: InstancePre<Guest>,
    pub(super) exports: Exports,
    uses_state: bool,
    /// How many bytes of memory its last call wanted.
    last_bytes: AtomicUsize,
}

/// The memory that a module's first call is assumed to need, in bytes: as much as most calls use.
const FIRST_BYTES: usize = 2 * 1024 * 1024;

/// The interfaces that a component exports, out of those that the host calls.
pub(super) struct Exports {
    pub(super) metadata: Option<metadata::GuestIndices>,
    pub(super) policy: Option<policy::GuestIndices>,
    pub(super) filter: Option<filter::GuestIndices>,
    pub(super) transform: Option<transform::GuestIndices>,
}

impl Plugin {
    /// Links a component.
    pub(super) fn link(
        digest: PluginDigest,
        linker: &Linker<Guest>,
        component: &Component,
    ) -> Result<Self, wasmtime::Error> {
        let pre = linker.instantiate_pre(component)?;
        let exports = Exports {
            metadata: metadata::GuestIndices::new(&pre).ok(),
            policy: policy::GuestIndices::new(&pre).ok(),
            filter: filter::GuestIndices::new(&pre).ok(),
            transform: transform::GuestIndices::new(&pre).ok(),
        };
        let uses_state = component
            .component_type()
            .imports(component.engine())
            .any(|(name, _)| name.starts_with("waypost:plugin/state@"));
        Ok(Self { digest, pre, exports, uses_state, last_bytes: AtomicUsize::new(FIRST_BYTES) })
    }

    /// Returns which module it is.
    pub fn digest(&self) -> PluginDigest {
        self.digest
    }

    /// Returns how many bytes of memory its next call most likely needs.
    pub(super) fn expected_bytes(&self) -> usize {
        self.last_bytes.load(Ordering::Relaxed)
    }

    /// Notes how many bytes of memory a call wanted.
    pub(super) fn note_bytes(&self, bytes: usize) {
        self.last_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Tells whether it may use state: if so, its calls for one subscription run one after the other.
    pub fn uses_state(&self) -> bool {
        self.uses_state
    }

    /// Tells whether it exports `policy`, which decides about a user's access to events.
    pub fn has_policy(&self) -> bool {
        self.exports.policy.is_some()
    }

    /// Tells whether it exports `transform`.
    pub fn has_transform(&self) -> bool {
        self.exports.transform.is_some()
    }
}
