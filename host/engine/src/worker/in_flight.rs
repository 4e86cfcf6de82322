//! Deliveries with an attempt in flight, in memory only.

use std::collections::HashMap;

use parking_lot::{Mutex, MutexGuard};

use waypost_domain::{EventId, RecipientId};

/// Deliveries with an attempt in flight, each with the mark that others see of it.
#[derive(Debug)]
pub struct InFlight<M>(Mutex<HashMap<(EventId, RecipientId), M>>);

/// Removes a delivery from [`InFlight`] when its attempt ends or is dropped.
pub(super) struct InFlightGuard<'a, M>(&'a InFlight<M>, (EventId, RecipientId));

impl<M> Default for InFlight<M> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<M> InFlight<M> {
    pub(super) fn enter(&self, event: EventId, recipient: RecipientId, mark: M) -> InFlightGuard<'_, M> {
        self.0.lock().insert((event, recipient), mark);
        InFlightGuard(self, (event, recipient))
    }

    /// Tells whether an attempt of this delivery is in flight.
    pub fn contains(&self, event: EventId, recipient: RecipientId) -> bool {
        self.0.lock().contains_key(&(event, recipient))
    }

    /// Returns the mark of an attempt in flight.
    pub fn mark(&self, event: EventId, recipient: RecipientId) -> Option<M>
    where
        M: Clone,
    {
        self.0.lock().get(&(event, recipient)).cloned()
    }

    /// Keeps attempts from beginning and ending until the guard is dropped.
    pub fn lock(&self) -> MutexGuard<'_, HashMap<(EventId, RecipientId), M>> {
        self.0.lock()
    }
}

impl<M> Drop for InFlightGuard<'_, M> {
    fn drop(&mut self) {
        self.0.0.lock().remove(&self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_in_flight_until_its_guard_goes() {
        let (event, recipient) = (EventId::MAX, RecipientId::MAX);
        let in_flight = InFlight::default();
        let guard = in_flight.enter(event, recipient, 7);
        assert_eq!(in_flight.mark(event, recipient), Some(7));
        drop(guard);
        assert_eq!(in_flight.mark(event, recipient), None);
    }
}
