//! `GET /events/{id}?explain=USER`: why each of a user's subscriptions has a delivery of an event, or has none.
//!
//! The response contains values of the event, so it is given only to those who may see the event itself.

use std::time::{Duration, Instant};

use waypost_api::v1;

use super::error::ApiError;
use super::story::{Delivery, View};
use super::{Api, words};
use crate::identity::User;
use waypost_domain::{Activity, SubscriptionId};
use waypost_engine::directory::CompiledSubscription;
use waypost_matching::{self as matching, Document, Explanation, Filter, Step};
use waypost_runtime::clock;

/// The most subscriptions of one response, and the longest that they may take; `next` leads to the rest.
const PAGE: usize = 100;
const TIME_MAX: Duration = Duration::from_millis(500);

/// Explains an event to `asking`: a page of `user`'s subscriptions, those after `after`. `link` leads to the page after a
/// subscription.
pub(super) async fn explain(
    api: &Api,
    asking: &User,
    view: &View,
    user: &str,
    after: Option<SubscriptionId>,
    link: impl Fn(SubscriptionId) -> String,
) -> Result<v1::Explanation, ApiError> {
    if !asking.is_admin() && asking.name != user {
        return Err(ApiError::forbidden(format!(
            "only an admin may ask about others: you are `{}` (the setting admin_users)",
            asking.name
        )));
    }
    let page = api.directory.page_of_user(user, after, PAGE);
    let page = page.ok_or_else(|| {
        ApiError::bad_request(format!("`after` has to be one of the subscriptions of `{user}`"))
    })?;
    let (count, json) = (page.len(), view.event.event.json());
    let explaining = tokio::task::spawn_blocking(move || explain_all(&json, page));
    let explained =
        explaining.await.expect("explaining does not panic, and the runtime outlives the request");
    let explained = explained.map_err(|error| ApiError::bad_request(error.to_string()))?;
    let more = explained.len() < count || count == PAGE;
    let next = explained.last().filter(|_| more).map(|(last, _)| link(last.subscription.id));
    let subscriptions = explained
        .iter()
        .map(|(known, explanation)| show_subscription(api, view, known, explanation.as_ref()));
    let subscriptions = subscriptions.collect();
    let handlers = if asking.is_admin() { Some(handlers(api, view).await?) } else { None };
    Ok(v1::Explanation { user: user.to_owned(), subscriptions, handlers, next })
}

/// Explains the routes of handlers, in their order: the first that matches gets an event.
async fn handlers(api: &Api, view: &View) -> Result<Vec<v1::HandlerExplanation>, ApiError> {
    let (json, routes) = (view.event.event.json(), api.directory.routes().to_vec());
    let explaining = tokio::task::spawn_blocking(move || {
        let event = Document::parse(&json)?;
        let explained = routes.into_iter().map(|route| {
            let explanation = route.filter.explain(&event);
            (route, explanation)
        });
        Ok::<Vec<_>, matching::Error>(explained.collect())
    });
    let explained =
        explaining.await.expect("explaining does not panic, and the runtime outlives the request");
    let explained = explained.map_err(|error| ApiError::bad_request(error.to_string()))?;
    let shown = explained.iter().map(|(route, explanation)| v1::HandlerExplanation {
        handler: api.runs.name(route.recipient).map(ToString::to_string),
        matches: explanation.matches,
        filter: show(&route.filter, explanation),
    });
    Ok(shown.collect())
}

/// Evaluates filters for as long as one response may take, but at least one.
fn explain_all(
    json: &[u8],
    page: Vec<CompiledSubscription>,
) -> Result<Vec<(CompiledSubscription, Option<Explanation>)>, matching::Error> {
    let event = Document::parse(json)?;
    let end = Instant::now() + TIME_MAX;
    let mut explained = Vec::with_capacity(page.len());
    for known in page {
        let explanation = known.filter.as_ref().map(|filter| filter.explain(&event));
        explained.push((known, explanation));
        if Instant::now() >= end {
            break;
        }
    }
    Ok(explained)
}

fn show_subscription(
    api: &Api,
    view: &View,
    known: &CompiledSubscription,
    explanation: Option<&Explanation>,
) -> v1::SubscriptionExplanation {
    let subscription = &known.subscription;
    let delivery = view.deliveries.iter().find(|delivery| delivery.recipient == subscription.id.into());
    let filter = known.filter.as_ref().zip(explanation);
    let may_get = api.directory.may_get(subscription, &view.event);
    v1::SubscriptionExplanation {
        subscription: subscription.id.uuid(),
        name: subscription.name.clone(),
        matches: explanation.is_some_and(|explanation| explanation.matches),
        delivery: delivery.map(|delivery| words::delivery_state(&delivery.state)),
        reason: reason(view, known, delivery, explanation, may_get),
        filter: filter.map(|(filter, explanation)| show(filter, explanation)),
    }
}

/// Explains why there is a delivery or none: first by what held when the event came, as far as it is known,
/// then by what the filter says now.
fn reason(
    view: &View,
    known: &CompiledSubscription,
    delivery: Option<&Delivery>,
    explanation: Option<&Explanation>,
    may_get: bool,
) -> String {
    let (event, subscription) = (&view.event, &known.subscription);
    if let Some(delivery) = delivery {
        return format!("there is a delivery of the event to it, in the state `{}`", delivery.state.name());
    }
    if !may_get {
        return "operator events go to the subscriptions of admins, and none goes to the one that it is about"
            .to_owned();
    }
    if let Some(failed) = view.failed.iter().find(|failed| failed.recipient == subscription.id.into()) {
        return format!("its filter failed when the event came: {}", failed.reason);
    }
    if event.received < subscription.created {
        return format!(
            "the event is older than the subscription, which was created at {}",
            clock::text(subscription.created)
        );
    }
    match &subscription.activity {
        Activity::Disabled { since, .. } if *since <= event.received => {
            return format!("it was disabled when the event came, since {}", clock::text(*since));
        }
        Activity::Disabled { .. } | Activity::Enabled => {}
    }
    match explanation {
        None => "its stored filter does not parse, and so it matches nothing".to_owned(),
        Some(explanation) if explanation.matches => format!(
            "its filter would match now; when the event came it had another one, or was disabled (last changed at {})",
            clock::text(subscription.updated)
        ),
        Some(explanation) => explanation.reason(),
    }
}

/// Shows what a filter did with an event.
pub(super) fn show(filter: &Filter, explanation: &Explanation) -> v1::FilterExplanation {
    v1::FilterExplanation {
        dialect: words::dialect(filter.dialect()),
        warnings: filter.warnings().to_vec(),
        reason: explanation.reason(),
        failure: explanation.failure.map(|failure| failure.to_string()),
        steps: explanation.steps.iter().map(show_step).collect(),
    }
}

fn show_step(step: &Step) -> v1::Step {
    let conditions = step.conditions.iter().map(|condition| v1::Condition {
        condition: condition.text.clone(),
        tested: condition.tested,
        passed: condition.passed,
        seen: condition.seen.clone(),
        problem: condition.problem.clone(),
        steps: condition.steps.iter().map(show_step).collect(),
    });
    v1::Step { path: step.path.clone(), found: step.found, conditions: conditions.collect() }
}
