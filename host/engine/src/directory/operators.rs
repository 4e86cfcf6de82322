//! Who gets operator events: the subscriptions of admins, and none the events that are about it.

use super::Directory;
use waypost_domain::{Event, OPERATOR, RecipientId, Subscription, SubscriptionId};
use waypost_matching::{self as matching, Matches};
use waypost_store::LoggedEvent;

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
}

/// Returns the subscription that an operator event is about.
fn about(event: &Event) -> Option<SubscriptionId> {
    event.subject()?.parse().ok()
}
