//! `/eventmatch`: a user's subscriptions, as Pacifica's Notifications serves them.
//!
//! Unknown, deleted and other users' subscriptions get the same response, so that it does not reveal which ones exist.

use std::cmp::Reverse;
use std::num::NonZeroUsize;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::IntoParams;
use waypost_api::v1;

use super::error::ApiError;
use super::id::Id;
use super::idempotency::{IdempotencyKey, KeyHeader};
use super::parameters::{Here, Parameters, part};
use super::sending::{self, SendingBody};
use super::subscription_body::Fixed;
use super::version::{IfMatch, IfMatchHeader, IfNoneMatch, IfNoneMatchHeader, with_tag, with_tags};
use super::{Api, body, deliveries, module, multipart, plugins, recover, subscription_body, words};
use crate::identity::User;
use waypost_domain::{Recovery, Subscription, SubscriptionId, TargetUrl};
use waypost_engine::directory::CompiledSubscription;
use waypost_net::{Agent, Refused};
use waypost_runtime::clock;

/// Makes a subscription
///
/// With a module in the same request, as `multipart/form-data` with the parts `subscription` and `plugin`. With
/// `Idempotency-Key`, a repeated request makes no second one.
#[utoipa::path(post, path = "/eventmatch", operation_id = "create_subscription",
    tag = "Subscriptions", params(KeyHeader),
    request_body(content((v1::NewSubscription = "application/json"), (v1::NewSubscriptionParts = "multipart/form-data"))),
    responses((status = 200, description = "The subscription", body = v1::Subscription)))]
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    user: User,
    key: IdempotencyKey,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (mut body, module, _taken) = if multipart::is_multipart(&headers) {
        let (turn, body) = plugins::turn(&api, &user, body).await?;
        let (parts, taken) = multipart::read(&headers, body, &api.limits).await?;
        (parts.subscription, parts.plugin.map(|module| (module, turn)), taken)
    } else {
        let (body, taken) = body::read(&headers, body, &api.limits.subscription).await?;
        (body::object(&headers, &body)?, None, taken)
    };
    if let Some((module, _)) = &module {
        module::insert(&mut body, module)?;
    }
    let id = key.id("subscription", &user.name).map(SubscriptionId::from_uuid);
    if let Some(known) = id.and_then(|id| api.directory.compiled(id)) {
        return repeated(&api, &known, body);
    }
    let upload = async |now| {
        if let Some((module, _turn)) = module {
            api.modules.upload(module, &user.actor(), now).await?;
        }
        Ok(())
    };
    let (created, sending) = Box::pin(create_from(&api, &user, id, body, upload)).await?;
    Ok(with_tag(sending.answer(show(&api, &created)), created.revision))
}

/// Answers a request whose key has made a subscription already: with this, if the body would change nothing of it. Secrets
/// are not compared, nor what is said of sending.
fn repeated(
    api: &Api,
    known: &CompiledSubscription,
    mut body: Map<String, Value>,
) -> Result<Response, ApiError> {
    let (stored, now) = (&known.subscription, clock::now());
    recover::take_start_at(&mut body, now)?;
    SendingBody::take(&mut body, &api.guard)?;
    body.remove("auth");
    let mut again = Subscription::clone(stored);
    subscription_body::update(body, &mut again, api.filter_dialect, api.store.vault(), now)?;
    again.updated = stored.updated;
    if again != **stored || stored.deleted.is_some() {
        return Err(ApiError::unprocessable(format!(
            "this `Idempotency-Key` has made the subscription {}, which is another one, or was changed or deleted since: \
             use another key",
            stored.id
        )));
    }
    Ok(with_tag(Json(show(api, known)).into_response(), known.revision))
}

/// Creates a subscription of a user from the members of a body, with `id` or a random one. `upload` stores its module, once
/// the rest is right.
pub(crate) async fn create_from(
    api: &Api,
    user: &User,
    id: Option<SubscriptionId>,
    mut body: Map<String, Value>,
    upload: impl AsyncFnOnce(Timestamp) -> Result<(), ApiError>,
) -> Result<(CompiledSubscription, SendingBody), ApiError> {
    let now = clock::now();
    let start = recover::take_start_at(&mut body, now)?;
    let sending = SendingBody::take(&mut body, &api.guard)?;
    let (fixed, vault) = (Fixed { id, target: None }, api.store.vault());
    let mut subscription =
        subscription_body::create(body, user.name.clone(), api.filter_dialect, fixed, vault, now)?;
    sending.apply(&mut subscription, vault, now)?;
    check_target(api, &subscription)?;
    upload(now).await?;
    let _referring = plugins::refer(api, None, &subscription).await?;
    let created = match start {
        None => api.directory.by(&user.actor()).create(subscription, None).await?,
        Some(since) => {
            let by = subscription.user.clone();
            let recovery = Recovery::new(subscription.id, since.time(), None, by, now);
            api.recoveries.create(subscription, recovery, &user.actor()).await?
        }
    };
    Ok((created, sending))
}

/// Creates a subscription of a user whose target is within this program.
pub(crate) async fn create_within(
    api: &Api,
    user: &User,
    body: Map<String, Value>,
    target: TargetUrl,
) -> Result<CompiledSubscription, ApiError> {
    let fixed = Fixed { id: None, target: Some(target) };
    let (owner, vault, now) = (user.name.clone(), api.store.vault(), clock::now());
    let created = subscription_body::create(body, owner, api.filter_dialect, fixed, vault, now)?;
    Ok(api.directory.by(&user.actor()).create(created, None).await?)
}

/// Which part of the list to return: all of it without parameters.
#[derive(Clone, Debug, Deserialize, Serialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// How many to list, from 1 on: all unless it is set.
    #[param(value_type = Option<u64>, nullable = false, minimum = 1)]
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<NonZeroUsize>,
    /// The UUID of a subscription in the list: only those after it.
    #[param(value_type = Option<Uuid>, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<SubscriptionId>,
    /// Whose subscriptions to list, for admins.
    #[param(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// Only those with this text in their name, filter or target, in capital letters or not, or with this UUID.
    #[param(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    q: Option<String>,
    /// Only those that are active, or disabled.
    #[param(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<v1::SubscriptionState>,
    /// By what to sort: created (unless it is set), updated or name; with a `-` before it, backwards.
    #[param(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    sort: Option<v1::SubscriptionOrder>,
}

impl Page {
    /// Tells whether it asks for nothing but a part of all, in their order.
    fn is_plain(&self) -> bool {
        self.q.is_none() && self.state.is_none() && self.sort.is_none()
    }

    /// Tells whether a subscription is to be listed.
    fn wants(&self, known: &CompiledSubscription) -> bool {
        let subscription = &known.subscription;
        let has_text = |text: &str| {
            let text = text.to_lowercase();
            let parts = [&subscription.name, &subscription.jsonpath, subscription.target_url.as_str()];
            parts.into_iter().any(|part| part.to_lowercase().contains(&text))
                || text.parse().is_ok_and(|id: SubscriptionId| id == subscription.id)
        };
        self.q.as_deref().is_none_or(has_text)
            && self
                .state
                .is_none_or(|state| (state == v1::SubscriptionState::Active) == subscription.is_active())
    }

    /// Sorts subscriptions that are in the order in which they were made.
    fn sort(&self, all: &mut [CompiledSubscription]) {
        use v1::SubscriptionOrder as Order;
        match self.sort {
            Some(Order::CreatedLast) => all.reverse(),
            Some(Order::Updated) => all.sort_by_key(|known| known.subscription.updated),
            Some(Order::UpdatedLast) => all.sort_by_key(|known| Reverse(known.subscription.updated)),
            Some(Order::Name) => all.sort_by_cached_key(|known| known.subscription.name.to_lowercase()),
            Some(Order::NameLast) => {
                all.sort_by_cached_key(|known| Reverse(known.subscription.name.to_lowercase()));
            }
            // They are in this order already.
            None | Some(Order::Created) => {}
        }
    }
}

/// Lists your subscriptions
///
/// The header `Link` leads to the next page.
#[utoipa::path(get, path = "/eventmatch", operation_id = "list_subscriptions",
    tag = "Subscriptions", params(Page),
    responses((status = 200, description = "The subscriptions", body = Vec<v1::Subscription>)))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    user: User,
    here: Here,
    Parameters(page): Parameters<Page>,
) -> Result<(HeaderMap, Json<Vec<v1::Subscription>>), ApiError> {
    let whose = page.user.as_ref().unwrap_or(&user.name);
    if *whose != user.name && !user.is_admin() {
        return Err(ApiError::forbidden("only an admin may list the subscriptions of others"));
    }
    let id = |known: &CompiledSubscription| known.subscription.id;
    let part = if page.is_plain() {
        // One more than are shown tells whether more follow.
        let limit = page.limit.map_or(usize::MAX, |limit| limit.get().saturating_add(1));
        let all = api.directory.page_of_user(whose, page.after, limit);
        all.and_then(|all| part(all, page.limit, None, id))
    } else {
        // Up to `user_subscriptions_max` are searched and sorted.
        let (api, whose, page) = (Arc::clone(&api), whose.clone(), page.clone());
        let searching = tokio::task::spawn_blocking(move || {
            let mut all = api.directory.page_of_user(&whose, None, usize::MAX).unwrap_or_default();
            all.retain(|known| page.wants(known) || page.after == Some(id(known)));
            page.sort(&mut all);
            part(all, page.limit, page.after, id)
        });
        searching.await.expect("searching does not panic, and the runtime outlives the request")
    };
    let (shown, last) = part.ok_or_else(not_yours)?;
    let next = last.map(|last| Page { after: Some(last), ..page.clone() });
    Ok((here.link(next), Json(shown.iter().map(|known| show(&api, known)).collect())))
}

/// Shows a subscription
///
/// With what keeps its deliveries from the target now, and how many there are in each state.
#[utoipa::path(get, path = "/eventmatch/{uuid}", operation_id = "read_subscription",
    tag = "Subscriptions", params(IfNoneMatchHeader),
    responses((status = 200, description = "The subscription", body = v1::Subscription),
        (status = 304, description = "You know this version")))]
pub(super) async fn read(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<SubscriptionId>,
    if_none_match: IfNoneMatch,
) -> Result<Response, ApiError> {
    let known = api.directory.compiled(id).filter(|found| may_manage(&found.subscription, &user));
    let known = known.ok_or_else(not_yours)?;
    let active = Some(&known.subscription).filter(|subscription| subscription.is_active());
    let knows_all = user.is_admin() || !api.dispatcher.asks_policy();
    let mut held = active.and_then(|active| api.dispatcher.gate(active));
    if let (None, Some(active), true) = (&held, active, knows_all) {
        held = api.dispatcher.stopped(active).await?;
    }
    let held = held.map(words::gate_hold);
    let breaker = active.and_then(|active| api.dispatcher.target(active)).map(words::target_breaker);
    let counts = deliveries::show_counts(&api.store.counts(id.into()).await?, knows_all);
    let besides = match (&held, &breaker, &counts) {
        (None, None, counts) if deliveries::shows_none(counts) => String::new(),
        besides => serde_json::to_string(&besides).expect("times, texts and numbers are JSON"),
    };
    let fresh = || {
        let shown = v1::Subscription { held, breaker, counts: Some(counts), ..show(&api, &known) };
        with_tags(Json(shown).into_response(), known.revision, &besides)
    };
    Ok(if_none_match.not_modified(known.revision, &besides).unwrap_or_else(fresh))
}

/// Tries the target of a subscription now, whose breaker is open
///
/// With the delivery that is due next, before its time if need be; if none is pending, with the next event.
#[utoipa::path(post, path = "/eventmatch/{uuid}/probe", operation_id = "probe_target",
    tag = "Subscriptions",
    responses((status = 202, description = "It is tried with the next delivery; how that ended is in the subscription", body = v1::TargetBreaker)))]
pub(super) async fn probe(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<SubscriptionId>,
    body: Body,
) -> Result<(StatusCode, Json<v1::TargetBreaker>), ApiError> {
    // A client that is still sending would not see the response.
    body::drain(body).await;
    let subscription = own(&api, &user, id)?;
    if !subscription.is_active() {
        return Err(ApiError::conflict("this subscription is disabled: enable it, and its deliveries go on"));
    }
    let is_open = api.dispatcher.probe(&subscription);
    match api.dispatcher.target(&subscription).filter(|_| is_open) {
        Some(breaker) => Ok((StatusCode::ACCEPTED, Json(words::target_breaker(breaker)))),
        None => Err(ApiError::conflict(
            "there is nothing to try: the breaker of this subscription's target is closed",
        )),
    }
}

/// Changes a subscription: the members that the body has
#[utoipa::path(put, path = "/eventmatch/{uuid}", operation_id = "update_subscription",
    tag = "Subscriptions", params(IfMatchHeader),
    request_body = v1::NewSubscription,
    responses((status = 200, description = "The subscription", body = v1::Subscription)))]
pub(super) async fn update(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<SubscriptionId>,
    if_match: IfMatch,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (body, _taken) = body::read(&headers, body, &api.limits.subscription).await?;
    let (changed, sending) =
        Box::pin(update_from(&api, &user, id, &if_match, body::object(&headers, &body)?)).await?;
    Ok(with_tag(sending.answer(show(&api, &changed)), changed.revision))
}

/// Changes a subscription that a user may manage by the members of a body.
pub(crate) async fn update_from(
    api: &Api,
    user: &User,
    id: SubscriptionId,
    if_match: &IfMatch,
    mut body: Map<String, Value>,
) -> Result<(CompiledSubscription, SendingBody), ApiError> {
    recover::refuse_start_at(&body)?;
    let sending = SendingBody::take(&mut body, &api.guard)?;
    let now = clock::now();
    // The plugin is checked outside the directory's lock: the check is slow, and other changes must not wait for it.
    let known = api.directory.compiled(id).ok_or_else(not_yours)?;
    let stored = own(api, user, id)?;
    if_match.check(known.revision)?;
    let mut wanted = Subscription::clone(&stored);
    let (dialect, vault) = (api.filter_dialect, api.store.vault());
    subscription_body::update(body.clone(), &mut wanted, dialect, vault, now)?;
    sending.apply(&mut wanted, vault, now)?;
    if wanted.target_url != stored.target_url || wanted.dead_letter_url != stored.dead_letter_url {
        check_target(api, &wanted)?;
    }
    let _referring = plugins::refer(api, Some(&stored), &wanted).await?;
    let changed = change(api, user, id, if_match, |current| {
        let mut changed = current.clone();
        subscription_body::update(body.clone(), &mut changed, dialect, vault, now)?;
        sending.apply(&mut changed, vault, now)?;
        refuse_to_move_credentials(user, current, &changed)?;
        refuse_other_plugin(&changed, &wanted)?;
        Ok(changed)
    });
    Ok((changed.await?, sending))
}

/// Changes a subscription that a user may manage. `edit` returns the new version from the stored one; it is
/// called again if another change is stored first. The stored version has to be one of `if_match`.
pub(super) async fn change(
    api: &Api,
    user: &User,
    id: SubscriptionId,
    if_match: &IfMatch,
    mut edit: impl FnMut(&Subscription) -> Result<Subscription, ApiError>,
) -> Result<CompiledSubscription, ApiError> {
    let (actor, mut refused) = (user.actor(), None);
    let changed = api.directory.by(&actor).change(id, |current| {
        let subscription = &current.subscription;
        let edited = may_manage(subscription, user)
            .then(|| if_match.check(current.revision).and_then(|()| edit(subscription)));
        edited.transpose().unwrap_or_else(|error| {
            refused = Some(error);
            None
        })
    });
    let changed = changed.await?;
    match refused {
        Some(error) => Err(error),
        None => changed.ok_or_else(not_yours),
    }
}

/// Refuses a change whose plugin is not the one that was checked before.
pub(super) fn refuse_other_plugin(now: &Subscription, checked: &Subscription) -> Result<(), ApiError> {
    match now.plugin == checked.plugin {
        true => Ok(()),
        false => Err(ApiError::conflict("another request has just changed `plugin`: try again")),
    }
}

/// Keeps an admin from sending the credentials of the owner to another origin: nothing shows them, and a new
/// target must not receive them.
fn refuse_to_move_credentials(
    user: &User,
    before: &Subscription,
    after: &Subscription,
) -> Result<(), ApiError> {
    if user.name == before.user || before.target_url.has_same_origin(&after.target_url) {
        return Ok(());
    }
    let (before_it, after_it) = (before.carried_secrets(), after.carried_secrets());
    let Some((part, _)) = before_it.into_iter().find(|secret| after_it.contains(secret)) else {
        return Ok(());
    };
    Err(ApiError::field(
        format!("/{part}"),
        format!(
            "`target_url` leads to another place, and `{part}` has credentials of `{}`: set it again, or to null",
            before.user
        ),
    ))
}

/// Replaces the secret that signs the requests of a subscription
///
/// The new one is shown in this response alone. The old one signs for a while, too.
#[utoipa::path(post, path = "/eventmatch/{uuid}/rotate-secret", operation_id = "rotate_secret",
    tag = "Subscriptions", params(IfMatchHeader),
    request_body = Option<v1::Rotation>,
    responses((status = 200, description = "The subscription", body = v1::Subscription)))]
pub(super) async fn rotate_secret(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<SubscriptionId>,
    if_match: IfMatch,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (body, _taken) = body::read(&headers, body, &api.limits.subscription).await?;
    let body = if body.is_empty() { Map::new() } else { body::object(&headers, &body)? };
    let (rotation, now) = (sending::rotate(body)?, clock::now());
    let changed = change(&api, &user, id, &if_match, |current| {
        let mut changed = current.clone();
        rotation.apply(&mut changed, api.store.vault(), now)?;
        Ok(changed)
    });
    let changed = changed.await?;
    Ok(with_tag(sending::answer(show(&api, &changed), rotation.body()), changed.revision))
}

/// Deletes a subscription, with what is pending for it
#[utoipa::path(delete, path = "/eventmatch/{uuid}", operation_id = "delete_subscription",
    tag = "Subscriptions", params(IfMatchHeader),
    responses((status = 200, description = "It is gone")))]
pub(super) async fn remove(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<SubscriptionId>,
    if_match: IfMatch,
) -> Result<(), ApiError> {
    remove_of(&api, &user, id, &if_match).await
}

/// Deletes a subscription that a user may manage.
pub(crate) async fn remove_of(
    api: &Api,
    user: &User,
    id: SubscriptionId,
    if_match: &IfMatch,
) -> Result<(), ApiError> {
    let now = clock::now();
    change(api, user, id, if_match, |current| Ok(current.deleted(now))).await.map(drop)
}

/// Refuses a target that the guard refuses by its text: this Waypost itself, an address that is not open, a
/// name that is denied. The addresses of a name are checked when a connection is made.
fn check_target(api: &Api, subscription: &Subscription) -> Result<(), ApiError> {
    check_url(api, "target_url", &subscription.target_url)?;
    subscription.dead_letter_url.as_ref().map_or(Ok(()), |url| check_url(api, "dead_letter_url", url))
}

fn check_url(api: &Api, member: &str, url: &TargetUrl) -> Result<(), ApiError> {
    let Some((host, port)) = url.host_and_port() else { return Ok(()) };
    api.guard.check_url(Agent::Delivery, host, port).map_err(|refused| {
        let detail = match refused {
            Refused::Own(_) => format!(
                "`{member}` is this Waypost itself ({host}:{port}), which takes no deliveries: name another service"
            ),
            Refused::NotPublic { .. } | Refused::Denied { .. } | Refused::NoHost(_) => {
                format!("`{member}` must not lead there: {refused}")
            }
        };
        ApiError::field(format!("/{member}"), detail)
    })
}

fn show(api: &Api, known: &CompiledSubscription) -> v1::Subscription {
    let index = api.directory.access_path(known.subscription.id);
    subscription_body::show(known, index, &api.service_key)
}

/// Returns a subscription that the user may manage: their own, or any for an admin.
pub(super) fn own(api: &Api, user: &User, id: SubscriptionId) -> Result<Arc<Subscription>, ApiError> {
    api.directory.get(id).filter(|found| may_manage(found, user)).ok_or_else(not_yours)
}

pub(crate) fn may_manage(subscription: &Subscription, user: &User) -> bool {
    subscription.deleted.is_none() && (subscription.user == user.name || user.is_admin())
}

pub(super) fn not_yours() -> ApiError {
    ApiError::forbidden("you have no subscription with this UUID")
}
