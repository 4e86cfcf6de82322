//! Findings about the settings that are not errors.

use std::path::PathBuf;

/// A finding for the operator. Settings are read before the log is open, so the caller logs it later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Environment variables look like settings, but belong to a Kubernetes Service.
    Foreign {
        /// Their names.
        variables: Vec<String>,
    },
    /// A file in a script folder is a copy that an editor or a package manager left behind.
    Skipped {
        /// The file.
        path: PathBuf,
    },
}

impl Note {
    /// Logs the note.
    pub fn log(&self) {
        match self {
            Self::Foreign { variables } => {
                let variables = variables.join(" ");
                tracing::info!(
                    variables,
                    "these variables are not settings: Kubernetes sets them for a Service of this name"
                );
            }
            Self::Skipped { path } => {
                let file = path.display();
                tracing::warn!(%file, "skipped a copy of a script in scripts_dir: rename it to make it a handler, or remove it");
            }
        }
    }
}
