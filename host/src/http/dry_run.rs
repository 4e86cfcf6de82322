//! `POST /eventmatch/{uuid}/test`: what would happen to an event: filter, policy, plugin, the target's addresses, and the
//! requests that would be sent. Nothing is sent or kept.
//!
//! A dry run goes as far as a delivery would. If the filter does not match, policy and plugin are not asked. The plugin
//! sees no event that policy does not let its user see.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use utoipa::IntoParams;
use waypost_api::v1;

use super::error::ApiError;
use super::eventmatch::{may_manage, not_yours};
use super::events::find_shown;
use super::id::Id;
use super::parameters::Parameters;
use super::room::{Room, RoomPermit};
use super::story::{show_answer, show_run};
use super::{Api, body, explain};
use crate::identity::User;
use waypost_domain::event::{EventBody, decode};
use waypost_domain::{EventId, FilterDialect, PluginDigest, PluginUse, Subscription, SubscriptionId};
use waypost_engine::delivery::DryRun;
use waypost_engine::directory::CompiledSubscription;
use waypost_engine::policy::Verdict;
use waypost_matching::{Document, Filter};
use waypost_net::{Preview, Refused};
use waypost_runtime::clock;
use waypost_runtime::fair_semaphore::{FairPermit, FairSemaphore};
use waypost_store::LoggedEvent;

/// The most dry runs at once, of which one user may have half: each may use as much time and memory as the plugin call
/// of a delivery.
const DRY_RUNS_MAX: usize = 4;
/// How many dry runs of one user may wait.
const USER_WAITING_MAX: usize = 4;
/// The longest that a dry run waits for its permit.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// The permits for dry runs over REST.
#[derive(Clone)]
pub(super) struct DryRunPermits(FairSemaphore);

impl Default for DryRunPermits {
    fn default() -> Self {
        Self(FairSemaphore::new(DRY_RUNS_MAX, DRY_RUNS_MAX))
    }
}

impl DryRunPermits {
    pub(super) async fn take(&self, user: &str) -> Result<FairPermit, ApiError> {
        let busy =
            |whose: &str| ApiError::unavailable(format!("too many tests{whose} are under way: try again"));
        let taking = self.0.take_among(user, 1, DRY_RUNS_MAX / 2 + USER_WAITING_MAX);
        let taken = tokio::time::timeout(WAIT_MAX, taking).await.map_err(|_| busy(""))?;
        taken.ok_or_else(|| busy(" of yours"))
    }
}

/// What to test.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DryRunQuery {
    /// The id of a logged event, instead of a body.
    #[param(value_type = Option<Uuid>, nullable = false)]
    event: Option<EventId>,
    /// A filter to test instead of the subscription's own.
    #[param(nullable = false)]
    jsonpath: Option<String>,
    /// Its dialect: auto, rfc9535 or jsonpath2.
    #[param(value_type = Option<v1::FilterDialect>, nullable = false)]
    filter_dialect: Option<FilterDialect>,
    /// The digest of an uploaded module, sha256:…, to test instead of the subscription's own.
    #[param(value_type = Option<String>, nullable = false)]
    plugin: Option<PluginDigest>,
}

/// Tells what would happen to an event: a dry run
///
/// Filter, policy, plugin, the target's addresses, and the requests that would be sent. Nothing is sent or kept, and the
/// plugin may only GET and HEAD.
#[utoipa::path(post, path = "/eventmatch/{uuid}/test", operation_id = "try_subscription",
    tag = "Subscriptions", params(DryRunQuery),
    request_body(content = Option<v1::CloudEvent>, content_type = "application/cloudevents+json"),
    responses((status = 200, description = "What would happen", body = v1::DryRun)))]
pub(super) async fn test(
    State(api): State<Arc<Api>>,
    Extension(permits): Extension<DryRunPermits>,
    user: User,
    Id(id): Id<SubscriptionId>,
    Parameters(query): Parameters<DryRunQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<v1::DryRun>, ApiError> {
    let known = api.directory.compiled(id).filter(|found| may_manage(&found.subscription, &user));
    let known = known.ok_or_else(not_yours)?;
    let filter = query.filter(&known)?;
    let (event, _taken) = query.event(&api, &user, &headers, body).await?;
    let _permit = permits.take(&user.name).await?;
    let subscription = query.subscription(&api, &known).await?;
    let (matches, shown) = explain_filter(filter, &event).await?;
    let tried = match matches {
        true => Some(api.dispatcher.try_out(&event, &subscription).await?),
        false => None,
    };
    if query.event.is_none() && tried.is_some() {
        // The cached answer is of no further use: this event is not in the log.
        api.dispatcher.ask_policy_again(event.id, &[id.into()]).await;
    }
    Ok(Json(v1::DryRun {
        matches,
        filter: shown,
        policy: tried.as_ref().map(|tried| show_policy(&tried.policy)),
        plugin: tried.as_ref().and_then(|tried| tried.run.as_ref()).map(show_run),
        target: tried.as_ref().and_then(|tried| tried.target.as_ref()).map(show_target),
        requests: tried.map_or_else(Vec::new, show_requests),
    }))
}

/// Returns whether the filter matches, and shows why.
async fn explain_filter(
    filter: Arc<Filter>,
    event: &LoggedEvent,
) -> Result<(bool, v1::FilterExplanation), ApiError> {
    let json = event.event.json();
    let explaining = tokio::task::spawn_blocking(move || {
        let explanation = Document::parse(&json).map(|event| filter.explain(&event))?;
        Ok((explanation.matches, explain::show(&filter, &explanation)))
    });
    let explained =
        explaining.await.expect("explaining does not panic, and the runtime outlives the request");
    explained.map_err(|error: waypost_matching::Error| ApiError::bad_request(error.to_string()))
}

fn show_policy(verdict: &Verdict) -> v1::PolicyAnswer {
    let (verdict, reason, answer) = match verdict {
        Verdict::Allowed(answer) => (v1::PolicyVerdict::Allowed, None, answer.as_ref()),
        Verdict::Denied(answer) => (v1::PolicyVerdict::Denied, None, Some(answer)),
        Verdict::Unavailable { reason, answer } => {
            (v1::PolicyVerdict::Unavailable, Some(reason.clone()), answer.as_ref())
        }
    };
    v1::PolicyAnswer { verdict, reason, answer: answer.map(show_answer) }
}

/// Shows whether the guard allows the target, and each address of its name.
fn show_target(target: &Preview) -> v1::Target {
    let (verdict, reason, addresses) = match target {
        Preview::Refused(refused) => (v1::TargetVerdict::Refused, Some(refused.to_string()), &[][..]),
        Preview::Proxy(proxy) => (
            v1::TargetVerdict::Allowed,
            Some(format!("the proxy at {proxy} (http_proxy) resolves and judges the name")),
            &[][..],
        ),
        Preview::Unresolved(reason) => (v1::TargetVerdict::Unavailable, Some(reason.clone()), &[][..]),
        Preview::Addresses(addresses) => {
            let refused = addresses.iter().find_map(|(_, refused)| refused.as_ref());
            match addresses.iter().any(|(_, refused)| refused.is_none()) {
                true => (v1::TargetVerdict::Allowed, None, &addresses[..]),
                false => (v1::TargetVerdict::Refused, refused.map(ToString::to_string), &addresses[..]),
            }
        }
    };
    let show = |(address, refused): &(IpAddr, Option<Refused>)| v1::Address {
        address: address.to_string(),
        refused: refused.as_ref().map(ToString::to_string),
    };
    v1::Target { verdict, reason, addresses: addresses.iter().map(show).collect() }
}

fn show_requests(tried: DryRun) -> Vec<v1::Request> {
    let show_error = |reason: &String| v1::Request { error: Some(reason.clone()), ..v1::Request::default() };
    tried.requests.iter().map(|request| request.as_ref().map_or_else(show_error, show)).collect()
}

/// Shows a request; `Authorization` without its value.
fn show(request: &Request<Bytes>) -> v1::Request {
    let headers = request.headers().iter().map(|(name, value)| {
        let value = match value.is_sensitive() {
            true => "(secret)".to_owned(),
            false => String::from_utf8_lossy(value.as_bytes()).into_owned(),
        };
        (name.as_str().to_owned(), value)
    });
    let (body, body_base64) = match str::from_utf8(request.body()) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(BASE64_STANDARD.encode(request.body()))),
    };
    v1::Request {
        error: None,
        method: Some(request.method().to_string()),
        url: Some(request.uri().to_string()),
        headers: Some(headers.collect()),
        body,
        body_base64,
    }
}

impl DryRunQuery {
    /// Returns the filter to test.
    fn filter(&self, known: &CompiledSubscription) -> Result<Arc<Filter>, ApiError> {
        let subscription = &known.subscription;
        if self.jsonpath.is_none()
            && self.filter_dialect.is_none()
            && let Some(filter) = &known.filter
        {
            return Ok(Arc::clone(filter));
        }
        let text = self.jsonpath.as_ref().unwrap_or(&subscription.jsonpath);
        let dialect = self.filter_dialect.unwrap_or(subscription.filter_dialect);
        Ok(Arc::new(Filter::parse(text, dialect)?))
    }

    /// Returns the subscription to test, with the plugin that the query names.
    async fn subscription(
        &self,
        api: &Api,
        known: &CompiledSubscription,
    ) -> Result<Arc<Subscription>, ApiError> {
        let Some(digest) = self.plugin else { return Ok(Arc::clone(&known.subscription)) };
        let mut subscription = Subscription::clone(&known.subscription);
        let used = PluginUse::moved(subscription.plugin.as_deref(), digest);
        api.modules.check(&subscription.user, &used).await?;
        subscription.plugin = Some(Arc::new(used));
        Ok(Arc::new(subscription))
    }

    /// Returns the event to test: a logged one, or the body as if it were received now.
    async fn event<'a>(
        &self,
        api: &'a Api,
        user: &User,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<(Arc<LoggedEvent>, RoomPermit<&'a Room>), ApiError> {
        let (body, taken) = body::read(headers, body, &api.limits.event).await?;
        let Some(id) = self.event else {
            let EventBody::One(event) = decode(headers, body)? else {
                return Err(ApiError::bad_request("a test takes one event, not a batch"));
            };
            let event = LoggedEvent {
                id: EventId::from_uuid(uuid::Uuid::now_v7()),
                event,
                received: clock::now(),
                sender: user.name.clone(),
                matched: Vec::new(),
            };
            return Ok((Arc::new(event), taken));
        };
        if !body.is_empty() {
            let detail = "a test takes one event: name one with `?event=`, or send one as the body";
            return Err(ApiError::bad_request(detail));
        }
        let view = find_shown(api, user, id).await?;
        Ok((Arc::clone(&view.event), taken))
    }
}
