//! Secrets at rest: what people entrust to Waypost lies sealed on its disk, in its journal and in its memory, and is
//! opened for the moment of its use.
//!
//! A [`Secret`] comes in by REST and is sealed there, before anything is queued: applying a write rolls no dice. From
//! then on everything holds a [`Sealed`]; delivery opens it while it makes a request. The [`Vault`] does both, with
//! XChaCha20-Poly1305 and the master key of a file ([`vault::KeyFile`]). What a secret is for is part of what its tag
//! covers ([`Label`]): a sealed secret that is moved to another place in the data file does not open.

mod error;
pub mod file;
pub mod signing;
pub mod vault;

pub use error::{KeyFileError, OpenError};
pub use file::{SealedFile, SealedFileError};
pub use vault::{KeyFile, Label, Vault};
pub use waypost_domain::{KeyId, Sealed, Secret};
