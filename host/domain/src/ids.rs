//! Ids as types of their own, so that one cannot be used in place of another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// The smallest value, which no real id has: the start of a walk over all ids.
            pub const NIL: Self = Self(Uuid::nil());
            /// The largest value, which no real id has.
            pub const MAX: Self = Self(Uuid::max());

            /// Wraps a UUID.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// Returns the UUID.
            pub const fn uuid(self) -> Uuid {
                self.0
            }

            /// Returns the 16 bytes, big-endian, as they stand in the store's keys.
            pub const fn into_bytes(self) -> [u8; 16] {
                self.0.into_bytes()
            }

            /// Reads the 16 bytes of a key.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

uuid_id! {
    /// An event's place in the log: a UUIDv7, so that ids sort by the time of acceptance.
    ///
    /// It is Waypost's own; the producer's `id` attribute is [`crate::Event::id`].
    EventId
}

impl EventId {
    /// Returns the largest value below this one: a walk behind that begins here.
    #[must_use]
    pub const fn before(self) -> Self {
        Self(Uuid::from_u128(self.0.as_u128().saturating_sub(1)))
    }
}

uuid_id! {
    /// A subscription's UUID (version 4), as REST shows it.
    SubscriptionId
}

uuid_id! {
    /// The recipient of deliveries: a subscription, whose id it then has, a handler ([`crate::HandlerName`]), or where the
    /// dead letters of a subscription go.
    RecipientId
}

impl From<SubscriptionId> for RecipientId {
    fn from(id: SubscriptionId) -> Self {
        Self(id.0)
    }
}

impl RecipientId {
    /// Returns the id of the subscription, if the recipient is one; no subscription has the id of a handler.
    pub const fn subscription_id(self) -> SubscriptionId {
        SubscriptionId(self.0)
    }

    /// Returns the recipient that gets the dead letters of a subscription; of [`SubscriptionId::NIL`], those of the service.
    /// Its hash slot is the same.
    pub const fn dead_letters_of(subscription: SubscriptionId) -> Self {
        Self(Uuid::from_u128(subscription.0.as_u128() ^ DEAD_LETTERS))
    }

    /// Returns the subscription whose dead letters this recipient gets, if that is what it is.
    pub const fn dead_letters_owner(self) -> Option<SubscriptionId> {
        let owner = self.0.as_u128() ^ DEAD_LETTERS;
        match Uuid::from_u128(owner) {
            uuid if owner == 0 || matches!(uuid.get_version_num(), 4 | 5) => Some(SubscriptionId(uuid)),
            _ => None,
        }
    }
}

/// The first bit of a UUID's version: no id of a subscription (version 4, or 5) or of a handler (5) has it.
const DEAD_LETTERS: u128 = 1 << 79;

uuid_id! {
    /// The UUID (version 4) of a token or a session. It is no secret.
    TokenId
}

uuid_id! {
    /// The delivery of one event to one recipient: what a target sees as `webhook-id`, the same for every attempt.
    DeliveryId
}

impl DeliveryId {
    /// Derives the id (UUIDv5 of the recipient's id in the event's name space), so that a repeat has the same one
    /// without anything being stored.
    pub fn of(event: EventId, recipient: impl Into<RecipientId>) -> Self {
        Self(Uuid::new_v5(&event.uuid(), recipient.into().uuid().as_bytes()))
    }

    /// Returns the id of one output of the delivery's plugin: the delivery's own for the first, and another for each
    /// further one (UUIDv5 of its place in the delivery's name space).
    pub fn output(self, place: usize) -> Self {
        match place {
            0 => self,
            place => Self(Uuid::new_v5(&self.0, place.to_string().as_bytes())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_dead_letters_go_is_told_from_whose_they_are() {
        for owner in [Uuid::nil(), Uuid::new_v4(), Uuid::new_v5(&Uuid::nil(), b"handler")] {
            let owner = SubscriptionId::from_uuid(owner);
            let letters = RecipientId::dead_letters_of(owner);
            assert_eq!(letters.dead_letters_owner(), Some(owner));
            assert_eq!(RecipientId::from(owner).dead_letters_owner(), None);
            assert_eq!(letters.into_bytes()[15], owner.into_bytes()[15]);
        }
        assert_eq!(RecipientId::MAX.dead_letters_owner(), None);
    }

    #[test]
    fn a_delivery_id_is_stable_and_distinct() {
        let (event, other) = (EventId::from_uuid(Uuid::from_u128(1)), EventId::from_uuid(Uuid::from_u128(2)));
        let subscription = SubscriptionId::from_uuid(Uuid::from_u128(3));
        assert_eq!(DeliveryId::of(event, subscription), DeliveryId::of(event, subscription));
        assert_ne!(DeliveryId::of(event, subscription), DeliveryId::of(other, subscription));
        assert!(!DeliveryId::of(event, subscription).to_string().contains('.'));
        let delivery = DeliveryId::of(event, subscription);
        assert_eq!(delivery.output(0), delivery);
        assert_eq!(delivery.output(2), delivery.output(2));
        assert_ne!(delivery.output(1), delivery.output(2));
    }
}
