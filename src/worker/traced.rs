//! What a worker says of publications that are traced: whom they reached, and when sockets were written.
//!
//! In: traced deliveries of a turn. Out: what [`Delivery`] is told, once for each of them, before the
//! turn ends. Of others nothing is noted, and a turn without traced ones does nothing here. Bounds: those
//! of a turn and of the tracer.

use std::sync::Arc;
use std::time::Instant;

use super::Worker;
use super::handle::Inbound;
use super::hub::Mode;
use super::outgoing::Outgoing;
use crate::tasks::turns::Stamp;
use crate::telemetry::trace::delivery::{Delivery, Reach, Writes};
use fanfare_protocol::ids::Topic;

/// The traced deliveries of one turn.
#[derive(Default)]
pub(super) struct TracedTurn(Vec<Arc<Delivery>>);

impl TracedTurn {
    /// This one is delivered in the turn.
    pub(super) fn note(&mut self, message: &Inbound) {
        if let Inbound::Traced(_, delivery) = message {
            self.0.push(Arc::clone(delivery));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Worker {
    /// [`Self::deliver`], and what became of it by what that counts.
    pub(super) fn deliver_traced(&self, outgoing: &Arc<Outgoing>, delivery: &Delivery) {
        let slow = self.slow_members(&outgoing.topic);
        let counters = &self.metrics.counters;
        let dropped = || {
            let all = [
                &counters.dropped_slow,
                &counters.dropped_behind,
                &counters.dropped_unreadable,
            ];
            all.iter().map(|counter| counter.get()).sum::<u64>()
        };
        let before = (counters.deliveries.get(), dropped());
        self.deliver(outgoing);
        delivery.reached(Reach {
            reached: counters.deliveries.get() - before.0,
            slow,
            dropped: dropped() - before.1,
        });
    }

    /// Sessions of a topic that do not get now what is published now.
    fn slow_members(&self, topic: &Topic) -> u64 {
        let state = self.state.borrow();
        let topic = state.hub.find(topic).and_then(|key| state.hub.get(key));
        let members = topic.map_or(&[][..], |topic| &topic.members);
        let is_slow = |member: &&super::hub::Member| match member.mode {
            Mode::Starting { .. } => false,
            Mode::Pull { .. } => true,
            Mode::Push { .. } => {
                let session = state.sessions.get(member.session);
                session.is_some_and(|session| session.blocked)
            }
        };
        members.iter().filter(is_slow).count() as u64
    }

    /// Writes what the turn has for sockets, and tells when the first and the last of them was written.
    /// So many sockets at most are written before other tasks of the thread run.
    pub(super) async fn write_timed(&self, traced: TracedTurn, most: usize, stamp: &Stamp) {
        let first = self.write_one();
        let mut last = first;
        loop {
            let left = self.state.borrow().dirty.len();
            match left {
                0 => break,
                1 => last = self.write_one(),
                _ => {
                    self.flush_dirty(most.min(left - 1));
                    stamp.turned();
                    tokio::task::yield_now().await;
                }
            }
        }
        for delivery in traced.0 {
            delivery.written(Writes { first, last });
        }
    }

    /// When it began and ended.
    fn write_one(&self) -> (Instant, Instant) {
        let begun = Instant::now();
        self.flush_dirty(1);
        (begun, Instant::now())
    }
}
