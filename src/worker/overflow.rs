//! What happens when a session's outbox has no room for a delivery: nobody else waits.
//!
//! In: the delivery at hand and the sessions that have no room for it. Out: room, or a session that
//! is caught up later. In this order: of messages that a newer one of the same key may stand for,
//! the newest is kept; lower lanes are taken back, where their topics can be read again, or dropped
//! and told as a gap; then the topic at hand is no longer pushed but pulled, or, without history,
//! loses its oldest. Bound: the outbox never takes a live message over its bound, but a sixteenth
//! of those that may be conflated, and a quarter in bytes where one comes in the place of an older;
//! what must be told of losses may add as much again. A session ends with 4103 only when that alone is over the bound.

use std::sync::Arc;

use super::hub::{Hub, Mode, SessionKey, TopicKey};
use super::outbox::{Shed, TakenBack};
use super::outgoing::Outgoing;
use super::{State, Worker};
use fanfare_protocol::close::CloseReason;

impl Worker {
    /// Makes room for a delivery in the outboxes that have none, and queues it where that worked.
    pub(super) fn make_room(&self, state: &mut State, topic: TopicKey, outgoing: &Arc<Outgoing>) {
        let mut crowded = std::mem::take(&mut state.crowded);
        for session in crowded.drain(..) {
            self.make_room_in(state, session, topic, outgoing);
        }
        // The list keeps its memory for the next delivery.
        state.crowded = crowded;
    }

    fn make_room_in(
        &self,
        state: &mut State,
        session: SessionKey,
        topic: TopicKey,
        outgoing: &Arc<Outgoing>,
    ) {
        let State {
            hub,
            sessions,
            spares,
            ..
        } = state;
        let Some(entry) = sessions.get_mut(session) else {
            return;
        };
        let shed = entry
            .outbox
            .make_room(topic, outgoing, self.bound, spares, |t| has_history(hub, t));
        self.count_shed(&shed);
        let mut taken_back = shed.taken_back;
        if shed.fits {
            let message = Arc::clone(outgoing);
            entry.outbox.push_message(topic, message, spares);
            self.count(outgoing, 1, |counters| &counters.deliveries);
        } else if has_history(hub, topic) {
            taken_back.push(TakenBack {
                topic,
                at: outgoing.prev,
                urgency: outgoing.priority(),
            });
        } else {
            entry.outbox.push_dropped(topic, outgoing, spares);
            self.metrics.counters.dropped_slow.add_owned(1);
        }
        for back in taken_back {
            self.metrics.counters.taken_back.add_owned(1);
            let mut references = entry.references.iter();
            if let Some(reference) = references.find(|r| r.topic == back.topic) {
                let mode = &mut hub.member_mut(*reference).mode;
                let urgency = match *mode {
                    Mode::Pull { urgency, .. } => urgency.max(back.urgency),
                    _ => back.urgency,
                };
                *mode = Mode::pull(back.at, urgency);
                entry.catch_up();
            }
        }
        if entry.outbox.is_past_help(self.bound) {
            entry.end(CloseReason::SlowConsumer);
        }
    }

    fn count_shed(&self, shed: &Shed) {
        let counters = &self.metrics.counters;
        counters.conflated.add_owned(shed.conflated as u64);
        counters.dropped_slow.add_owned(shed.dropped);
    }
}

fn has_history(hub: &Hub, topic: TopicKey) -> bool {
    hub.get(topic).is_some_and(|t| t.has_history)
}
