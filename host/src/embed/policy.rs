//! Who may see an event, decided by the program.

use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use waypost_domain::{Answer, Event};
use waypost_engine::policy::{ProgramPolicy, Verdict};

/// Decides who may see an event.
///
/// It is asked before anything of an event is shown or sent to a user, once for each attempt. A closure is one:
/// `|user: String, event: Event| async move { … }`.
pub trait Policy: Send + Sync + 'static {
    /// Decides whether `user` may see `event`.
    fn decide(&self, user: &str, event: &Event) -> impl Future<Output = Decision> + Send;
}

/// What a [`Policy`] decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The user may see the event.
    Allow,
    /// The user may not see it, with a reason for the event's history.
    Deny(String),
    /// That cannot be said now: the delivery waits, and policy is asked again. No answer is never a yes.
    Unknown(String),
}

impl<F, R> Policy for F
where
    F: Fn(String, Event) -> R + Send + Sync + 'static,
    R: Future<Output = Decision> + Send,
{
    fn decide(&self, user: &str, event: &Event) -> impl Future<Output = Decision> + Send {
        self(user.to_owned(), event.clone())
    }
}

struct Asked<P>(P);

impl<P: Policy> ProgramPolicy for Asked<P> {
    fn ask<'a>(&'a self, user: &'a str, event: &'a Event) -> BoxFuture<'a, Verdict> {
        Box::pin(async move {
            match self.0.decide(user, event).await {
                Decision::Allow => Verdict::Allowed(None),
                // As the policy servers of Pacifica answer.
                Decision::Deny(reason) => Verdict::Denied(Answer { status: 403, body: reason }),
                Decision::Unknown(reason) => Verdict::Unavailable { reason, answer: None },
            }
        })
    }
}

pub(super) fn of(policy: impl Policy) -> Arc<dyn ProgramPolicy> {
    Arc::new(Asked(policy))
}
