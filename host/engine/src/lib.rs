//! From an event to a settled delivery.
//!
//! [`intake`] matches events with the compiled subscriptions of the [`directory`] and hands both to the store. The
//! `worker`s of a recipient read the store and let a deliverer make the attempts: [`delivery`] has the one for targets,
//! the crate `waypost-handlers` the one for programs. [`recovery`] is the second source of deliveries: it matches the
//! log again and enqueues what a subscription missed; [`jobs`] send dead letters again; both are [`walks`]. [`modules`]
//! keeps what users upload, [`policy`] says who may see an event. The [`announcer`] tells operators what happens.

pub mod directory;
pub mod modules;
pub mod policy;

pub mod announcer;
pub mod worker;

pub mod delivery;
pub mod intake;
pub mod jobs;
pub mod recovery;
pub mod walks;

#[cfg(test)]
mod simulation;
