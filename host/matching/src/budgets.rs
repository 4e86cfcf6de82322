//! The work budget that the filters of one owner share for one event.
//!
//! Each filter has a limit of its own, but thousands of filters at their limits would stall every event. The work of
//! ordinary filters is not counted, so a user does not lose events by having many subscriptions.

use std::collections::HashMap;
use std::hash::Hash;

use super::evaluate::Failure;

/// The visits that one owner's filters may take together, unless four of them may take more: some milliseconds.
const TOGETHER: u64 = 2_000_000;
/// How many times one filter's limit they may take at least.
const FILTERS: u64 = 4;
/// The part of one filter's limit that an evaluation uses free of charge: about what it takes to visit a whole event
/// twice.
const FREE_PART: u64 = 24;
/// The most owners of an expression that its evaluation is charged to. It is evaluated once for all of them.
const OWNERS_MAX: usize = 16;

/// The budgets of all owners, for one event.
pub(super) struct Budgets<K> {
    /// What one filter may take.
    limit: u64,
    spent: HashMap<K, u64>,
}

impl<K: Eq + Hash> Budgets<K> {
    /// Makes full budgets for an event of which one filter may visit `limit` nodes.
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, spent: HashMap::new() }
    }

    /// Returns the most that an evaluation for these owners may use.
    ///
    /// # Errors
    /// The budgets of all of them are used up.
    pub(super) fn allowance(&self, owners: impl Iterator<Item = K>) -> Result<u64, Failure> {
        if self.spent.is_empty() {
            return Ok(self.limit);
        }
        let left = |owner: K| self.together().saturating_sub(self.spent.get(&owner).copied().unwrap_or(0));
        match owners.take(OWNERS_MAX).map(left).max() {
            Some(0) => Err(Failure::TooExpensiveTogether { limit: self.together() }),
            left => Ok(left.unwrap_or(self.limit).min(self.limit)),
        }
    }

    /// Names the limit that ended an evaluation with an allowance of `limit` visits.
    pub(super) fn name(&self, failure: Failure, limit: u64) -> Failure {
        match failure {
            Failure::TooExpensive { .. } if limit < self.limit => {
                Failure::TooExpensiveTogether { limit: self.together() }
            }
            other => other,
        }
    }

    /// Charges the visits of an evaluation.
    pub(super) fn charge(&mut self, owners: impl Iterator<Item = K>, visits: u64) {
        if visits > self.limit / FREE_PART {
            for owner in owners.take(OWNERS_MAX) {
                *self.spent.entry(owner).or_default() += visits;
            }
        }
    }

    fn together(&self) -> u64 {
        TOGETHER.max(FILTERS * self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_spent_all_harms_himself_alone() {
        let mut budgets = Budgets::new(4_000_000);
        assert_eq!(budgets.allowance(["ann"].into_iter()), Ok(4_000_000));
        budgets.charge(["ann"].into_iter(), 13_000_000);
        assert_eq!(budgets.allowance(["ann"].into_iter()), Ok(3_000_000));
        assert_eq!(budgets.allowance(["bob"].into_iter()), Ok(4_000_000));
        budgets.charge(["ann"].into_iter(), 3_000_000);
        let failure = budgets.allowance(["ann"].into_iter()).unwrap_err();
        assert_eq!(failure, Failure::TooExpensiveTogether { limit: 16_000_000 });
        assert_eq!(budgets.allowance(["ann", "bob"].into_iter()), Ok(4_000_000));
    }

    #[test]
    fn many_cheap_filters_cost_nothing() {
        let mut budgets = Budgets::new(100_000);
        for _ in 0..100_000 {
            budgets.charge(["ann"].into_iter(), 100_000 / FREE_PART);
        }
        assert_eq!(budgets.allowance(["ann"].into_iter()), Ok(100_000));
    }
}
