//! Faults of the store, on request of a test.

use std::sync::{Arc, Mutex};

use super::Error;
use waypost_domain::RecipientId;

/// What a call meets.
pub enum Fault {
    /// It panics.
    Panic,
    /// It fails.
    Fails(Error),
}

type Script = dyn Fn(&'static str, Option<RecipientId>) -> Option<Fault> + Send + Sync;

/// The script of a store's faults; without one there are none.
#[derive(Default)]
pub struct Faults(Mutex<Option<Arc<Script>>>);

impl Faults {
    /// Lets each call ask `script` first, by the method's name and the recipient where it has one. Only methods that a test
    /// has needed so far ask.
    pub fn follow(
        &self,
        script: impl Fn(&'static str, Option<RecipientId>) -> Option<Fault> + Send + Sync + 'static,
    ) {
        *self.0.lock().expect("no test panics with it") = Some(Arc::new(script));
    }

    pub(super) fn meet(&self, method: &'static str, whose: Option<RecipientId>) -> Result<(), Error> {
        let script = self.0.lock().expect("no test panics with it").clone();
        match script.and_then(|script| script(method, whose)) {
            None => Ok(()),
            Some(Fault::Panic) => panic!("a test wants `{method}` to panic"),
            Some(Fault::Fails(error)) => Err(error),
        }
    }
}
