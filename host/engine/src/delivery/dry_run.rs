//! Tries a delivery without consequences: may the user see the event, what does the plugin make of it, and which
//! requests would go to the target? Nothing is sent and nothing is kept.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};

use super::Dispatcher;
use super::credentials::Credentials;
use super::targets::Targets;
use super::{failure, request};
use crate::policy;
use waypost_domain::plugin::{OnError, Output, PluginRun, Verdict};
use waypost_domain::sending::Handshake;
use waypost_domain::{Auth, DeliveryId, PluginUse, Subscription};
use waypost_net::{Agent, Preview};
use waypost_runtime::clock;
use waypost_sandbox::{Call, CallResult, Plugin, Purpose, State, Steps};
use waypost_store::{Error, LoggedEvent};

/// What a delivery of the event would do.
#[derive(Debug)]
pub struct DryRun {
    /// What the operator's policy says; the rest is empty unless it allows.
    pub policy: Arc<policy::Verdict>,
    /// What the subscription's plugin did, where there is one.
    pub run: Option<PluginRun>,
    /// What would be sent; or an error, if the subscription or an output does not make a valid request.
    pub requests: Vec<Result<Request<Bytes>, String>>,
    /// What would become of the connection to the target, where something would be sent.
    pub target: Option<Preview>,
}

/// What would be sent.
enum DryRunPlan {
    Event,
    Outputs(Vec<Output>),
    Nothing,
}

impl Dispatcher {
    /// Tries to deliver an event to a subscription, whose plugin may call hosts only to read (RFC 9110 §9.2.1). The
    /// event need not be logged; if it is not, its id must be a new one.
    ///
    /// # Errors
    /// When the plugin's state cannot be read.
    pub async fn try_out(
        &self,
        event: &LoggedEvent,
        subscription: &Arc<Subscription>,
    ) -> Result<DryRun, Error> {
        let targets = &self.targets;
        let policy = targets.policy.ask(event.id, &event.event, subscription).await;
        match *policy {
            policy::Verdict::Allowed(_) => {}
            policy::Verdict::Denied(_) | policy::Verdict::Unavailable { .. } => {
                return Ok(DryRun { policy, run: None, requests: Vec::new(), target: None });
            }
        }
        let (run, plan) = match &subscription.plugin {
            None => (None, DryRunPlan::Event),
            Some(used) => {
                let (run, plan) = try_plugin(targets, event, subscription, used).await?;
                (Some(run), plan)
            }
        };
        let id = DeliveryId::of(event.id, subscription.id);
        let credentials = match targets.credentials_to_show(subscription) {
            Ok(credentials) => credentials,
            Err(reason) => return Ok(DryRun { policy, run, requests: vec![Err(reason)], target: None }),
        };
        let made = match plan {
            DryRunPlan::Event => vec![request::make(event, subscription, &credentials)],
            DryRunPlan::Outputs(outputs) => outputs
                .iter()
                .enumerate()
                .map(|(place, output)| {
                    request::of_output(output, id.output(place), subscription, &targets.guard, &credentials)
                })
                .collect(),
            DryRunPlan::Nothing => Vec::new(),
        };
        let mut requests = Vec::with_capacity(made.len());
        for request in made {
            requests.push(match request {
                Ok(request) => Ok(whole(request).await),
                Err(unsendable) => Err(unsendable.to_string()),
            });
        }
        let target = match requests.iter().any(Result::is_ok).then(|| subscription.target_url.host_and_port())
        {
            Some(Some((host, port))) => Some(targets.guard.preview(Agent::Delivery, host, port).await),
            Some(None) | None => None,
        };
        Ok(DryRun { policy, run, requests, target })
    }
}

/// Runs the plugin, without consequences.
async fn try_plugin(
    targets: &Targets,
    event: &LoggedEvent,
    subscription: &Arc<Subscription>,
    used: &Arc<PluginUse>,
) -> Result<(PluginRun, DryRunPlan), Error> {
    let now = clock::now();
    let plugin: Arc<Plugin> = match targets.modules.plugin(used.digest).await {
        Ok(plugin) => plugin,
        Err(failed) => return Ok((PluginRun::failed(used.digest, 1, now, failed), DryRunPlan::Nothing)),
    };
    let state = match plugin.uses_state() {
        true => State::over(Arc::new(targets.store.plugin_state(subscription.id).await?)),
        false => State::default(),
    };
    let call = Call {
        event: event.event.clone(),
        subscription: Arc::clone(subscription),
        plugin: Arc::clone(used),
        attempt: 1,
        now,
        state,
        steps: Steps::All,
        purpose: Purpose::Try,
    };
    let has_policy = plugin.has_policy();
    let CallResult { run, outputs, .. } = targets.modules.host().run(plugin, call).await;
    let plan = match &run.verdict {
        Verdict::Deliver => DryRunPlan::Event,
        Verdict::Transformed { .. } => DryRunPlan::Outputs(outputs),
        Verdict::Denied { .. } | Verdict::Skipped { .. } => DryRunPlan::Nothing,
        Verdict::Failed(failed) if failure::is_counted(failed) => {
            match failure::on_error(used.on_error, &run, has_policy) {
                OnError::Deliver => DryRunPlan::Event,
                OnError::Retry | OnError::Skip | OnError::DeadLetter => DryRunPlan::Nothing,
            }
        }
        Verdict::Failed(_) => DryRunPlan::Nothing,
    };
    Ok((run, plan))
}

impl Targets {
    /// Opens what a subscription adds to its requests; no token and no consent is asked for.
    fn credentials_to_show(&self, subscription: &Subscription) -> Result<Credentials, String> {
        let mut credentials = self.credentials(subscription).map_err(|error| error.to_string())?;
        if matches!(subscription.auth, Auth::OAuth2(_)) {
            credentials.bear_nothing();
        }
        let handshake = subscription.sending.as_ref().map_or(Handshake::Skip, |sending| sending.handshake);
        match handshake {
            Handshake::Skip => {}
            Handshake::Try | Handshake::Require => {
                credentials.name_origin(self.handshakes.origin().clone());
            }
        }
        Ok(credentials)
    }
}

async fn whole(request: Request<Full<Bytes>>) -> Request<Bytes> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap_or_else(|never| match never {});
    Request::from_parts(head, body.to_bytes())
}
