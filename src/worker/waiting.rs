//! What waits in all outboxes of a worker, by its lane, as its gauges tell it.
//!
//! In: the outboxes of sessions whose sockets take nothing more; all others are empty between turns.
//! Out: two gauges a lane. Looked at with each tick, where there is such a session at all: the cost is
//! a glance at each session, and nothing on the way of a message.

use crate::telemetry::family::Label as _;
use crate::telemetry::labels::Lane;

use super::outbox::Waiting;
use super::{State, Worker};

impl Worker {
    /// Looks, and tells.
    pub(super) fn tell_waiting(&self, state: &State) {
        let mut sums = [Waiting::default(); Lane::ALL.len()];
        if self.metrics.counters.slow.get() > 0 {
            let slow = state.sessions.values().filter(|entry| entry.blocked);
            for entry in slow {
                for (sum, more) in sums.iter_mut().zip(entry.outbox.waiting()) {
                    *sum = [*sum, more].into_iter().sum();
                }
            }
        }
        for (lane, sum) in Lane::ALL.iter().zip(sums) {
            let (messages, bytes) = (sum.messages as u64, sum.bytes as u64);
            self.metrics.outbox_messages.of(*lane).set(messages);
            self.metrics.outbox_bytes.of(*lane).set(bytes);
        }
    }
}
