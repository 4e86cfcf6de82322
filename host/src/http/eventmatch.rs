//! `/eventmatch`: a user's subscriptions, as Pacifica's Notifications serves them.
//!
//! Unknown, deleted and other users' subscriptions get the same response, so that it does not reveal which ones exist.

use std::num::NonZeroUsize;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};
use waypost_api::v1;

use super::error::ApiError;
use super::id::Id;
use super::parameters::{Parameters, QueryDoc};
use super::sending::{self, SendingBody};
use super::version::{IfMatch, IfNoneMatch, with_tag};
use super::{Api, body, module, multipart, plugins, recover, subscription_body};
use crate::identity::User;
use waypost_domain::{Recovery, Subscription, SubscriptionId, TargetUrl};
use waypost_engine::directory::CompiledSubscription;
use waypost_net::{Agent, Refused};
use waypost_runtime::clock;

/// `POST /eventmatch`
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    user: User,
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
    let (created, sending) = create_from(&api, &user, body, async |now| {
        if let Some((module, _turn)) = module {
            api.modules.upload(module, &user.actor(), now).await?;
        }
        Ok(())
    })
    .await?;
    Ok(with_tag(sending.answer(show(&api, &created)), created.revision))
}

/// Creates a subscription of a user from the members of a body; `upload` stores its module, once the rest is right.
pub(crate) async fn create_from(
    api: &Api,
    user: &User,
    mut body: Map<String, Value>,
    upload: impl AsyncFnOnce(Timestamp) -> Result<(), ApiError>,
) -> Result<(CompiledSubscription, SendingBody), ApiError> {
    let now = clock::now();
    let start = recover::take_start_at(&mut body, now)?;
    let sending = SendingBody::take(&mut body, &api.guard)?;
    let (owner, dialect, vault) = (user.name.clone(), api.filter_dialect, api.store.vault());
    let mut subscription = subscription_body::create(body, owner, dialect, None, vault, now)?;
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
    let (owner, dialect, vault) = (user.name.clone(), api.filter_dialect, api.store.vault());
    let created = subscription_body::create(body, owner, dialect, Some(target), vault, clock::now())?;
    Ok(api.directory.by(&user.actor()).create(created, None).await?)
}

/// Which part of the list to return: all of it without parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    limit: Option<NonZeroUsize>,
    after: Option<SubscriptionId>,
    user: Option<String>,
}

impl QueryDoc for Page {
    const DOC: &'static str = "limit (from 1 on), after (the UUID of a subscription in the list) and user (whose \
        subscriptions to list, for admins)";
}

/// `GET /eventmatch`
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    user: User,
    Parameters(page): Parameters<Page>,
) -> Result<Json<Vec<v1::Subscription>>, ApiError> {
    let whose = page.user.as_ref().unwrap_or(&user.name);
    if *whose != user.name && !user.is_admin() {
        return Err(ApiError::forbidden("only an admin may list the subscriptions of others"));
    }
    let own = api.directory.page_of_user(whose, page.after, page.limit.map_or(usize::MAX, NonZeroUsize::get));
    Ok(Json(own.ok_or_else(not_yours)?.iter().map(|known| show(&api, known)).collect()))
}

/// `GET /eventmatch/{uuid}`
pub(super) async fn read(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<SubscriptionId>,
    if_none_match: IfNoneMatch,
) -> Result<Response, ApiError> {
    let known = api.directory.compiled(id).filter(|found| may_manage(&found.subscription, &user));
    let known = known.ok_or_else(not_yours)?;
    let fresh = || with_tag(Json(show(&api, &known)).into_response(), known.revision);
    Ok(if_none_match.not_modified(known.revision).unwrap_or_else(fresh))
}

/// `PUT /eventmatch/{uuid}`
pub(super) async fn update(
    State(api): State<Arc<Api>>,
    user: User,
    Id(id): Id<SubscriptionId>,
    if_match: IfMatch,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (body, _taken) = body::read(&headers, body, &api.limits.subscription).await?;
    let (changed, sending) = update_from(&api, &user, id, &if_match, body::object(&headers, &body)?).await?;
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
    if wanted.target_url != stored.target_url {
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

/// `POST /eventmatch/{uuid}/rotate-secret`
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

/// `DELETE /eventmatch/{uuid}`
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
    let target = &subscription.target_url;
    let Some((host, port)) = target.host_and_port() else { return Ok(()) };
    api.guard.check_url(Agent::Delivery, host, port).map_err(|refused| {
        let detail = match refused {
            Refused::Own(_) => format!(
                "`target_url` is this Waypost itself ({host}:{port}), which takes no deliveries: name another service"
            ),
            Refused::NotPublic { .. } | Refused::Denied { .. } | Refused::NoHost(_) => {
                format!("`target_url` must not lead there: {refused}")
            }
        };
        ApiError::field("/target_url", detail)
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
