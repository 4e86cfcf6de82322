//! What was found while the settings were read, and is no error.

use std::path::PathBuf;

/// What an operator should know. Settings are read before the log is open, so the caller logs this later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Variables that look like settings are those of a Kubernetes Service.
    Foreign {
        /// Their names.
        variables: Vec<String>,
    },
    /// A file in a folder of scripts is a copy that an editor or a package manager has left of one.
    Skipped {
        /// The file.
        path: PathBuf,
    },
}

impl Note {
    /// Logs it.
    pub fn log(&self) {
        match self {
            Self::Foreign { variables } => {
                let variables = variables.join(" ");
                tracing::info!(
                    variables,
                    "these are no settings: Kubernetes sets them for a Service of this name"
                );
            }
            Self::Skipped { path } => {
                let file = path.display();
                tracing::warn!(%file, "this copy in scripts_dir is skipped, and is no handler: rename it, or remove it");
            }
        }
    }
}
