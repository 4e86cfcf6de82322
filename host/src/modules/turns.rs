//! Who uploads now: each upload holds a whole module in memory and waits for the one compiler.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Error;

/// The most uploads under way at once, those that wait for the compiler included.
pub const UPLOADS_MAX: usize = 8;
/// The most of one user's.
pub const USER_UPLOADS_MAX: usize = 2;

/// The uploads under way, by user.
#[derive(Default)]
pub(super) struct Turns(Arc<Mutex<HashMap<String, usize>>>);

/// The right to upload one module, until it is dropped.
pub struct Turn {
    user: String,
    turns: Arc<Mutex<HashMap<String, usize>>>,
}

impl Turns {
    /// Begins an upload.
    pub(super) fn begin(&self, user: &str) -> Result<Turn, Error> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.get(user).is_some_and(|own| *own >= USER_UPLOADS_MAX) {
            return Err(Error::TooMany { most: USER_UPLOADS_MAX });
        }
        if turns.values().sum::<usize>() >= UPLOADS_MAX {
            return Err(Error::Busy { most: UPLOADS_MAX });
        }
        *turns.entry(user.to_owned()).or_default() += 1;
        Ok(Turn { user: user.to_owned(), turns: Arc::clone(&self.0) })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = turns.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                turns.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_all_turns() {
        let turns = Turns::default();
        let mut held: Vec<_> = (0..USER_UPLOADS_MAX).map(|_| turns.begin("a").unwrap_or_else(no)).collect();
        assert!(matches!(turns.begin("a"), Err(Error::TooMany { .. })));
        for user in ["b", "c", "d"] {
            held.extend((0..USER_UPLOADS_MAX).map(|_| turns.begin(user).unwrap_or_else(no)));
        }
        assert!(matches!(turns.begin("e"), Err(Error::Busy { .. })));
        drop(held.remove(0));
        assert!(turns.begin("e").is_ok());
        drop(held);
        assert!(turns.0.lock().unwrap().is_empty());
    }

    fn no(error: Error) -> Turn {
        panic!("{error}")
    }
}
