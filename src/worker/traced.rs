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
    /// What is to be noted of a message, before it is handled: if it is traced.
    pub(super) fn of(message: &Inbound) -> Option<Arc<Delivery>> {
        match message {
            Inbound::Traced(_, delivery) => Some(Arc::clone(delivery)),
            _ => None,
        }
    }

    /// It was queued for sockets of this worker.
    pub(super) fn reached(&mut self, delivery: Arc<Delivery>) {
        self.0.push(delivery);
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

    /// Writes what the turn has for sockets, and tells when the first and the last of them was written
    /// that took anything. So many sockets at most are written before other tasks of the thread run.
    pub(super) async fn write_timed(&self, traced: TracedTurn, most: usize, stamp: &Stamp) {
        let mut writes: Option<Writes> = None;
        loop {
            let mut begun = Instant::now();
            let is_done = self.flush_each(most, |bytes| {
                let ended = Instant::now();
                let write = (begun, ended);
                if bytes > 0 {
                    writes
                        .get_or_insert(Writes {
                            first: write,
                            last: write,
                        })
                        .last = write;
                }
                begun = ended;
            });
            if is_done {
                break;
            }
            stamp.turned();
            tokio::task::yield_now().await;
        }
        if let Some(writes) = writes {
            let all = traced.0.iter();
            all.for_each(|delivery| delivery.written(writes));
        }
    }
}
