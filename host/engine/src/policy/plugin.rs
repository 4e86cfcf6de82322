//! The operator's policy plugin: a component that exports `policy`, asked about each event, user and target.
//!
//! It has a sandbox of its own, so that subscribers' plugins do not delay it. It keeps no state: no question depends on
//! an earlier one. A failed call is no answer, and without an answer nothing is delivered.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::Verdict;
use waypost_domain::json;
use waypost_domain::plugin::{self, Failure};
use waypost_domain::{Answer, Event, PluginUse, Subscription};
use waypost_runtime::clock;
use waypost_sandbox::{Call, CallResult, Host, Plugin, Problem, Purpose, Refused, State, Steps};

/// Why the policy plugin cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyPluginError {
    /// A file cannot be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Its configuration is not a JSON object.
    #[error("{} is not a JSON object", path.display())]
    NoObject {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The module is not accepted.
    #[error("{} is not accepted", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Arc<Refused>,
    },
    /// The module exports no policy.
    #[error("{} exports no `policy`: name a policy plugin", path.display())]
    NoPolicy {
        /// The file.
        path: PathBuf,
    },
    /// The module failed to check its configuration.
    #[error("{} failed to check its configuration: {reason}", path.display())]
    Unchecked {
        /// The file.
        path: PathBuf,
        /// What failed.
        reason: String,
    },
    /// The module rejects this configuration.
    #[error("{} does not accept its configuration (policy_plugin_config): {problems}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, each with a JSON pointer.
        problems: String,
    },
}

/// A policy plugin, ready to be called.
pub struct PolicyPlugin {
    host: Arc<Host>,
    plugin: Arc<Plugin>,
    used: Arc<PluginUse>,
}

impl PolicyPlugin {
    /// Compiles the module in the file `path`, with the configuration in the file `config`, to run in `host`.
    ///
    /// # Errors
    /// When a file cannot be read, or the module or its configuration is wrong.
    pub async fn load(
        host: Arc<Host>,
        path: &Path,
        config: Option<&Path>,
    ) -> Result<Self, PolicyPluginError> {
        let wasm = read(path).await?;
        let config = match config {
            Some(file) => object(file, &read(file).await?)?,
            None => Map::new(),
        };
        let path = path.to_owned();
        let refused = |source| PolicyPluginError::Refused { path: path.clone(), source };
        let report = host.admit("", wasm.clone()).await.map_err(|error| refused(Arc::new(error)))?;
        let plugin = host.load(report.digest, async { Ok(wasm) }).await.map_err(refused)?;
        if !plugin.has_policy() {
            return Err(PolicyPluginError::NoPolicy { path });
        }
        match host.check_config("", &plugin, report.manifest.as_ref(), &config).await {
            Ok(problems) if problems.is_empty() => {}
            Ok(problems) => return Err(PolicyPluginError::Config { path, problems: list(&problems) }),
            Err(failed) => return Err(PolicyPluginError::Unchecked { path, reason: failed.reason() }),
        }
        let used = PluginUse { config, ..PluginUse::new(report.digest) };
        Ok(Self { host, plugin, used: Arc::new(used) })
    }

    /// Asks whether the user of `subscription` may see `event`.
    pub(super) async fn ask(&self, event: &Event, subscription: &Arc<Subscription>) -> Verdict {
        let call = Call {
            event: event.clone(),
            subscription: Arc::clone(subscription),
            plugin: Arc::clone(&self.used),
            attempt: 1,
            now: clock::now(),
            state: State::default(),
            steps: Steps::Policy,
            purpose: Purpose::Deliver,
        };
        let CallResult { run, .. } = self.host.run(Arc::clone(&self.plugin), call).await;
        judge(run.verdict)
    }
}

/// Returns a decision in the form of a policy server's answer.
fn judge(verdict: plugin::Verdict) -> Verdict {
    match verdict {
        plugin::Verdict::Deliver => Verdict::Allowed(Some(Answer { status: 200, body: String::new() })),
        plugin::Verdict::Denied { reason } => Verdict::Denied(Answer { status: 403, body: reason }),
        plugin::Verdict::Failed(failed) => unavailable(&failed),
        plugin::Verdict::Skipped { .. } | plugin::Verdict::Transformed { .. } => {
            unavailable(&Failure::Host("it was asked for more than its policy".to_owned()))
        }
    }
}

fn unavailable(failed: &Failure) -> Verdict {
    Verdict::Unavailable { reason: format!("the policy {}", failed.reason()), answer: None }
}

async fn read(path: &Path) -> Result<bytes::Bytes, PolicyPluginError> {
    let read = tokio::fs::read(path).await;
    read.map(Into::into).map_err(|source| PolicyPluginError::Read { path: path.to_owned(), source })
}

fn object(path: &Path, text: &[u8]) -> Result<Map<String, Value>, PolicyPluginError> {
    serde_json::from_slice(json::without_mark(text))
        .map_err(|source| PolicyPluginError::NoObject { path: path.to_owned(), source })
}

fn list(problems: &[Problem]) -> String {
    let problems: Vec<_> =
        problems.iter().map(|Problem { at, message }| format!("`{at}`: {message}")).collect();
    problems.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_decision_allows_or_denies() {
        assert!(
            matches!(judge(plugin::Verdict::Deliver), Verdict::Allowed(Some(answer)) if answer.status == 200)
        );
        let denied = judge(plugin::Verdict::Denied { reason: "no".to_owned() });
        assert_eq!(denied, Verdict::Denied(Answer { status: 403, body: "no".to_owned() }));
        let failed = judge(plugin::Verdict::Failed(Failure::Limit("time limit of 250 ms".to_owned())));
        let reason = "the policy plugin: time limit of 250 ms".to_owned();
        assert_eq!(failed, Verdict::Unavailable { reason, answer: None });
        let skipped = plugin::Verdict::Skipped { reason: String::new() };
        for no_answer in [skipped, plugin::Verdict::Transformed { outputs: 1 }] {
            assert!(matches!(judge(no_answer), Verdict::Unavailable { .. }));
        }
    }
}
