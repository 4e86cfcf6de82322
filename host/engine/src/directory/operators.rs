//! What Waypost itself sends. Operator events are for the subscriptions of admins, and none gets those that are about it.
//! Where dead letters go is a recipient for each URL, as a subscription would be: it is in no index, and gets what the
//! announcer gives it.

use std::sync::Arc;

use jiff::Timestamp;

use super::Directory;
use waypost_domain::{Event, OPERATOR, RecipientId, Subscription, SubscriptionId, TargetUrl};
use waypost_matching::{self as matching, Matches};
use waypost_store::LoggedEvent;

/// The version of the service's own recipient, which changes only with the configuration.
const BEGIN: Timestamp = Timestamp::UNIX_EPOCH;

impl Directory {
    /// Names the admins, whose subscriptions get operator events.
    #[must_use]
    pub fn with_admins(mut self, admins: Vec<String>) -> Self {
        self.admins = admins.into_iter().collect();
        self
    }

    /// Tells whether a subscription may get an event, whatever its filter says and policy.
    pub fn may_get(&self, subscription: &Subscription, logged: &LoggedEvent) -> bool {
        logged.sender != OPERATOR || self.may_be_told(subscription, about(&logged.event))
    }

    /// Returns the subscriptions that get an operator event now.
    pub(crate) fn operator_matches(&self, event: &Event) -> Result<Matches, matching::Error> {
        let mut matches = self.matches(&event.json())?;
        let about = about(event);
        let may_be_told = |id: RecipientId| {
            let subscription = self.get(id.subscription_id());
            subscription.is_some_and(|subscription| self.may_be_told(&subscription, about))
        };
        matches.matched.retain(|id| may_be_told(*id));
        matches.failed.retain(|(id, _)| may_be_told(*id));
        Ok(matches)
    }

    fn may_be_told(&self, subscription: &Subscription, about: Option<SubscriptionId>) -> bool {
        // The announcer has chosen what goes where dead letters go.
        if let Some(owner) = RecipientId::from(subscription.id).dead_letters_owner() {
            return owner == SubscriptionId::NIL || about == Some(owner);
        }
        self.admins.contains(&subscription.user) && about != Some(subscription.id)
    }

    /// Sets where the dead letters of subscriptions go that say nothing else.
    #[must_use]
    pub fn with_dead_letter_url(mut self, url: Option<TargetUrl>) -> Self {
        self.dead_letters = url.as_ref().map(|url| Arc::new(recipient_of_service(url.clone())));
        self
    }

    /// Returns a recipient of deliveries, also a deleted one: a subscription, or one that stands for where dead letters go.
    /// The latter is deleted where nothing goes there any more, and belongs to whom the subscription belongs to, or to nobody.
    pub fn recipient(&self, id: RecipientId) -> Option<Arc<Subscription>> {
        let Some(owner) = id.dead_letters_owner() else { return self.get(id.subscription_id()) };
        if owner == SubscriptionId::NIL {
            let gone = || {
                let target = TargetUrl::from_stored(String::new());
                Arc::new(Subscription { deleted: Some(BEGIN), ..recipient_of_service(target) })
            };
            return Some(self.dead_letters.clone().unwrap_or_else(gone));
        }
        self.get(owner).map(|owner| Arc::new(recipient_of(&owner)))
    }

    /// Returns where a dead letter of a subscription goes, if anywhere. What policy has not let its user see goes to nobody
    /// but the operator.
    pub(crate) fn letters_go_to(&self, of: SubscriptionId, was_allowed: bool) -> Option<RecipientId> {
        let has_own = self.get(of).is_some_and(|of| of.deleted.is_none() && of.dead_letter_url.is_some());
        match has_own && was_allowed {
            true => Some(RecipientId::dead_letters_of(of)),
            false => self.dead_letters.as_ref().map(|letters| letters.id.into()),
        }
    }
}

/// Returns the subscription that an operator event is about.
fn about(event: &Event) -> Option<SubscriptionId> {
    event.subject()?.parse().ok()
}

fn recipient_of_service(target: TargetUrl) -> Subscription {
    let (user, name) = (OPERATOR.to_owned(), "dead letters".to_owned());
    let id = RecipientId::dead_letters_of(SubscriptionId::NIL).subscription_id();
    Subscription { id, ..Subscription::new(user, name, String::new(), target, BEGIN) }
}

fn recipient_of(owner: &Subscription) -> Subscription {
    let (user, name) = (owner.user.clone(), format!("dead letters of {}", owner.name));
    let target = owner.dead_letter_url.as_ref().unwrap_or(&owner.target_url).clone();
    let is_gone = owner.deleted.is_some() || owner.dead_letter_url.is_none();
    Subscription {
        id: RecipientId::dead_letters_of(owner.id).subscription_id(),
        deleted: is_gone.then_some(owner.updated),
        updated: owner.updated,
        ..Subscription::new(user, name, String::new(), target, owner.created)
    }
}
