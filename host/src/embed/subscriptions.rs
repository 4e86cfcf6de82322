//! A user's subscriptions.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::Waypost;
use crate::http::{Api, ApiError, IfMatch, Kind, eventmatch, recover};
use crate::identity::User;
use waypost_domain::subscription::NAME_CHARS_MAX;
use waypost_domain::{Activity, SubscriptionId, TargetUrl};
use waypost_engine::delivery::Function;
use waypost_engine::directory::CompiledSubscription;
use waypost_runtime::clock;
use waypost_secrets::signing::WebhookSecret;

/// A subscription to make, or what to change of one. Its members are those of `POST /eventmatch`, which
/// `host/docs/subscriptions.md` lists; [`Self::member`] sets any of them.
#[derive(Clone, Debug, Default)]
#[must_use = "a subscription is made once it is given to a router"]
pub struct NewSubscription(Map<String, Value>);

/// A subscription, as it was when it was read.
#[derive(Clone, Debug)]
pub struct Subscription {
    compiled: CompiledSubscription,
    /// The one that was generated for it by the call that returned this.
    secret: Option<WebhookSecret>,
}

/// The subscriptions of a user.
#[derive(Clone, Copy, Debug)]
pub struct Subscriptions<'a> {
    waypost: &'a Waypost,
}

/// From when on a recovery matches the log again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// From the first event on.
    Earliest,
    /// From the events that were received at this time on.
    Time(Timestamp),
}

/// Why nothing was done about a subscription.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscriptionError {
    /// A member is not right.
    #[error("{reason}")]
    Invalid {
        /// A JSON pointer to the member, where it is one.
        pointer: Option<String>,
        /// What is wrong.
        reason: String,
    },
    /// The user has no such subscription.
    #[error("{0}")]
    NotFound(String),
    /// Something else is under way, or the user has as many as may be.
    #[error("{0}")]
    Conflict(String),
    /// It cannot be done now: the disk is full, or too much waits. Try again later.
    #[error("{0}")]
    Unavailable(String),
}

impl NewSubscription {
    /// Subscribes this URL, `http` or `https`, to every event.
    pub fn to(url: impl Into<String>) -> Self {
        Self::default().member("target_url", url.into()).member("name", "").filter("$")
    }

    /// Changes nothing: what you set on it is what [`Subscriptions::update`] changes.
    pub fn unchanged() -> Self {
        Self::default()
    }

    /// Sets the filter, a JSONPath (RFC 9535) on the event's JSON: events in which it finds something are delivered.
    pub fn filter(self, jsonpath: impl Into<String>) -> Self {
        self.member("jsonpath", jsonpath.into())
    }

    /// Sets a name, for people.
    pub fn name(self, name: impl Into<String>) -> Self {
        self.member("name", name.into())
    }

    /// Sets the waits between attempts, such as `1s,10s,1m`, or `none`.
    pub fn retry(self, schedule: impl Into<String>) -> Self {
        self.member("retry", schedule.into())
    }

    /// Sets how long one attempt may take.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.member("timeout_ms", u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX))
    }

    /// Disables it, or enables it again.
    pub fn disabled(self, disabled: bool) -> Self {
        self.member("disabled", disabled)
    }

    /// Sets any member, by its name in REST.
    pub fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }
}

impl Subscription {
    fn known(compiled: CompiledSubscription) -> Self {
        Self { compiled, secret: None }
    }

    /// Returns its id.
    pub fn id(&self) -> SubscriptionId {
        self.compiled.subscription.id
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.compiled.subscription.name
    }

    /// Returns its owner.
    pub fn user(&self) -> &str {
        &self.compiled.subscription.user
    }

    /// Returns its filter.
    pub fn filter(&self) -> &str {
        &self.compiled.subscription.jsonpath
    }

    /// Returns what is odd about its filter: that it can never match, for example.
    pub fn warnings(&self) -> &[String] {
        self.compiled.filter.as_ref().map_or(&[], |filter| filter.warnings())
    }

    /// Returns its target as it was written; that of a function is `in-process:` with its name.
    pub fn target(&self) -> &str {
        self.compiled.subscription.target_url.as_str()
    }

    /// Tells whether it gets events.
    pub fn is_enabled(&self) -> bool {
        self.compiled.subscription.activity == Activity::Enabled
    }

    /// Returns why it was disabled, unless its owner did that.
    pub fn error(&self) -> Option<&str> {
        match &self.compiled.subscription.activity {
            Activity::Enabled => None,
            Activity::Disabled { error, .. } => error.as_deref(),
        }
    }

    /// Returns the secret that signs its requests, if Waypost has generated it in the call that returned this: with the
    /// member `signing_secret` set to `generate`. It is not shown again, so keep it for the target.
    pub fn signing_secret(&self) -> Option<String> {
        self.secret.as_ref().map(|secret| secret.text().as_str().to_owned())
    }

    /// Returns when it was made.
    pub fn created(&self) -> Timestamp {
        self.compiled.subscription.created
    }

    /// Returns when it was last changed.
    pub fn updated(&self) -> Timestamp {
        self.compiled.subscription.updated
    }
}

impl<'a> Subscriptions<'a> {
    pub(super) fn new(waypost: &'a Waypost) -> Self {
        Self { waypost }
    }

    /// Makes a subscription, as [`Waypost::subscribe`] does.
    ///
    /// # Errors
    /// As for that.
    pub async fn create(self, subscription: NewSubscription) -> Result<Subscription, SubscriptionError> {
        let (api, user) = self.parts();
        // The name is a member that REST requires; here it has a default, the target.
        let mut body = subscription.0;
        if body.get("name").and_then(Value::as_str) == Some("") {
            let target = body.get("target_url").and_then(Value::as_str).unwrap_or_default();
            body["name"] = target.chars().take(NAME_CHARS_MAX).collect::<String>().into();
        }
        let (created, sending) =
            Box::pin(eventmatch::create_from(api, &user, None, body, async |_| Ok(()))).await?;
        Ok(Subscription { compiled: created, secret: sending.made().cloned() })
    }

    /// Makes or changes the subscription of a function, and registers the function.
    pub(super) async fn put_function(
        self,
        name: &str,
        filter: &str,
        target: TargetUrl,
        function: Function,
    ) -> Result<Subscription, SubscriptionError> {
        let (api, user) = self.parts();
        let found = self.list().into_iter().find(|found| found.compiled.subscription.target_url == target);
        let subscription = match found {
            Some(found) if found.filter() == filter && found.error().is_none() => found,
            Some(found) => {
                let change = NewSubscription::unchanged().filter(filter);
                // Its owner may have disabled it; failures of a function that is gone are no reason to.
                let change = if found.error().is_some() { change.disabled(false) } else { change };
                self.update(found.id(), change).await?
            }
            None => {
                let body = NewSubscription::unchanged().name(name).filter(filter).0;
                Subscription::known(
                    Box::pin(eventmatch::create_within(api, &user, body, target.clone())).await?,
                )
            }
        };
        api.dispatcher.register(target.function().unwrap_or_default(), function);
        Ok(subscription)
    }

    /// Returns one; `None` when the user has none with this id.
    pub fn get(self, id: SubscriptionId) -> Option<Subscription> {
        let (api, user) = self.parts();
        let found = api.directory.compiled(id)?;
        eventmatch::may_manage(&found.subscription, &user).then(|| Subscription::known(found))
    }

    /// Returns all of the user's, in the order in which they were made.
    pub fn list(self) -> Vec<Subscription> {
        let (api, user) = self.parts();
        let all = api.directory.page_of_user(&user.name, None, usize::MAX);
        all.unwrap_or_default().into_iter().map(Subscription::known).collect()
    }

    /// Changes one: the members that `change` has set.
    ///
    /// # Errors
    /// As for [`Self::create`], and when there is none.
    pub async fn update(
        self,
        id: SubscriptionId,
        change: NewSubscription,
    ) -> Result<Subscription, SubscriptionError> {
        let (api, user) = self.parts();
        let (changed, sending) =
            Box::pin(eventmatch::update_from(api, &user, id, &IfMatch::default(), change.0)).await?;
        Ok(Subscription { compiled: changed, secret: sending.made().cloned() })
    }

    /// Deletes one, with what is pending for it.
    ///
    /// # Errors
    /// When there is none, or the store cannot write.
    pub async fn delete(self, id: SubscriptionId) -> Result<(), SubscriptionError> {
        let (api, user) = self.parts();
        Ok(eventmatch::remove_of(api, &user, id, &IfMatch::default()).await?)
    }

    /// Begins to match the log again for one, which gets what it has missed.
    ///
    /// # Errors
    /// When there is none, another recovery of it runs, or the store cannot write.
    pub async fn recover(self, id: SubscriptionId, since: Since) -> Result<(), SubscriptionError> {
        let (api, user) = self.parts();
        let since = match since {
            Since::Earliest => None,
            Since::Time(time) => Some(time),
        };
        recover::begin_of(api, &user, id, (since, None), clock::now()).await?;
        Ok(())
    }

    fn parts(self) -> (&'a Api, User) {
        (self.waypost.service().api(), self.waypost.caller())
    }
}

impl From<ApiError> for SubscriptionError {
    fn from(error: ApiError) -> Self {
        let reason = error.detail().to_owned();
        match error.kind() {
            Kind::NotFound => Self::NotFound(reason),
            Kind::Conflict => Self::Conflict(reason),
            Kind::Unavailable => Self::Unavailable(reason),
            Kind::Invalid => Self::Invalid { pointer: error.pointer().map(str::to_owned), reason },
        }
    }
}
