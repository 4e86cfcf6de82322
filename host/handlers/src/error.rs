//! Why a handler cannot be used.

use std::path::PathBuf;

#[cfg(feature = "programs")]
use super::{fetch, upload};
use waypost_domain::HandlerName;
use waypost_matching::FilterError;
use waypost_sandbox::Refused;

/// Why a handler cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Two have the same name.
    #[error("two handlers have the name `{0}`: each needs one of its own")]
    Name(HandlerName),
    /// Its filter does not parse.
    #[error("failed to parse the filter of the handler `{name}`")]
    Filter {
        /// Which.
        name: HandlerName,
        /// Why not.
        source: FilterError,
    },
    /// This program was built without handlers.
    #[error("the handler `{0}` cannot run: this program was built without the feature `handlers`")]
    Absent(HandlerName),
    /// Its component cannot be read.
    #[error("failed to read the component {} of the handler `{name}`", path.display())]
    Read {
        /// Which.
        name: HandlerName,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Its component is not accepted.
    #[error("failed to load the component {} of the handler `{name}`", path.display())]
    Component {
        /// Which.
        name: HandlerName,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Refused,
    },
    /// A native program needs the `waypost` program, which supervises it.
    #[error(
        "the handler `{0}` is a native command, which the `waypost` program supervises: name that program \
         (plugin_compiler)"
    )]
    NoSupervisor(HandlerName),
    /// This machine lacks something that a run needs, such as a folder.
    #[error("the handler `{name}` cannot run here now: {reason}")]
    Shortage {
        /// Which.
        name: HandlerName,
        /// What is missing.
        reason: String,
    },
    /// The client that fetches cannot be made.
    #[cfg(feature = "programs")]
    #[error("failed to prepare the fetch of the handler `{name}`")]
    Fetch {
        /// Which.
        name: HandlerName,
        /// Why not.
        source: fetch::Error,
    },
    /// The client that uploads cannot be made.
    #[cfg(feature = "programs")]
    #[error("failed to prepare the upload of the handler `{name}`")]
    Upload {
        /// Which.
        name: HandlerName,
        /// Why not.
        source: upload::Error,
    },
}
