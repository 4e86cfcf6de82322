//! What follows a commit: its changes become visible to readers and workers, and its callers get their answers.

use std::sync::Arc;

use tokio::runtime;
use tokio::sync::{Notify, watch};

use super::apply::Effects;
use super::group::{Answer, Value};
use super::queue::Reply;
use super::recent::Recent;
use super::tail::Tails;
use crate::{ChangeSet, Position, Tokens, WakeSet};
use waypost_domain::RecipientId;
use waypost_runtime::stage::{Alarm, caught};

/// From how many answers on a task of its own sends them. Never: `accept` took 1.29 times the processor time for each event.
/// Always: `fanout1` had 0.80 and 0.87 of the rate. (`cargo run --release -p waypost-bench -- accept fanout1 --seconds 1
/// --rounds 5`.)
const CROWD: usize = 4;

/// Where the changes go.
pub(super) struct Publisher {
    pub(super) recent: Arc<Recent>,
    pub(super) tails: Arc<Tails>,
    pub(super) wakes: Arc<WakeSet>,
    pub(super) changes: Arc<ChangeSet>,
    pub(super) applied: watch::Sender<Position>,
    pub(super) tokens: Arc<Tokens>,
    /// Told of each group with announcements.
    pub(super) announced: Arc<Notify>,
    /// Where the store was opened, if inside a runtime.
    pub(super) runtime: Option<runtime::Handle>,
    pub(super) alarm: Alarm,
}

impl Publisher {
    /// Makes committed changes visible to readers and workers.
    pub(super) fn publish(&self, effects: Effects) {
        for (key, batch) in effects.batches {
            self.recent.put(key, Arc::new(batch));
        }
        // Last: a purge may have changed a batch of the same group.
        for key in effects.changed {
            self.recent.drop_batch(key);
        }
        self.tails.add(effects.new_rows);
        let forgotten = effects.forgotten.iter().map(|id| RecipientId::from(*id));
        for recipient in effects.pruned.into_iter().chain(forgotten) {
            self.tails.end(recipient);
        }
        self.tokens.publish(effects.tokens);
        self.changes.push(effects.position, effects.put, effects.forgotten);
        self.wakes.push(effects.woken);
        if effects.has_announced {
            self.announced.notify_one();
        }
        // Without receivers, this is one lock that nobody else takes.
        self.applied.send_replace(effects.position);
    }

    /// Answers the callers of a group. Waking a task from outside the runtime costs a system call each, so many are woken by
    /// a task inside it.
    pub(super) fn answer(&self, ops: Vec<Reply>, ends: Vec<Reply>, answers: Vec<Answer>) {
        let crowd = ops.len() + ends.len() >= CROWD;
        let Some(runtime) = self.runtime.as_ref().filter(|_| crowd) else {
            return answer_now(ops, ends, answers);
        };
        let alarm = self.alarm.clone();
        drop(runtime.spawn(async move {
            if let Err(panic) = caught(async move { answer_now(ops, ends, answers) }).await {
                alarm.raise("the store's writer", format!("its answers panicked: {panic}"));
            }
        }));
    }
}

fn answer_now(ops: Vec<Reply>, ends: Vec<Reply>, answers: Vec<Answer>) {
    for (reply, answer) in ops.into_iter().zip(answers) {
        send(reply, answer);
    }
    for reply in ends {
        send(reply, Ok(Value::Unit));
    }
}

/// Sends an answer, and ignores that the receiver may be gone.
pub(super) fn send(reply: Reply, answer: Answer) {
    drop(reply.send(answer));
}
