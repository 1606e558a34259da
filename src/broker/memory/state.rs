//! All topics and queues of the in-process broker, and that they fit.
//!
//! In: changes of one topic at a time, under the broker's lock. Out: the answer of the change, after
//! what is too much was forgotten. Owned by the broker. Bound: `memory.bytes_max`, see
//! [`super::room`].

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::queue::queues::Queues;
use super::room::{Forgotten, Room};
use super::topic::TopicState;
use crate::broker::feed_sender::FeedSender;
use crate::broker::unavailable::Unavailable;
use crate::telemetry::metrics::Metrics;
use fanfare_protocol::ids::Topic;

#[derive(Debug)]
pub(super) struct State {
    pub(super) topics: HashMap<Topic, TopicState>,
    pub(super) queues: Queues,
    pub(super) sender: FeedSender,
    pub(super) room: Room,
    /// A publication or an entry was refused for want of room since the last sweep, and why.
    pub(super) has_refused: Option<Unavailable>,
    pub(super) metrics: Arc<Metrics>,
}

impl State {
    /// Changes a topic, which is made if it is not known, and forgets others where that is too much.
    pub(super) fn change<T>(
        &mut self,
        topic: &Topic,
        now_ms: u64,
        change: impl FnOnce(&mut TopicState, &mut FeedSender) -> T,
    ) -> T {
        let floor = self.room.floor();
        let mut before = 0;
        let state = match self.topics.entry(topic.clone()) {
            Entry::Occupied(known) => {
                let known = known.into_mut();
                before = known.weight() + topic.name().len();
                known
            }
            Entry::Vacant(place) => place.insert(TopicState::beginning(floor, now_ms)),
        };
        let answer = change(state, &mut self.sender);
        let (is_in_use, keeps) = (state.is_in_use(), state.keeps());
        self.room.weigh(before, state.weight() + topic.name().len());
        self.room.changed(topic, &mut state.turn, is_in_use, keeps);
        self.make_room();
        answer
    }

    /// Forgets until the rest fits, or nothing is left to forget.
    pub(super) fn make_room(&mut self) {
        let metrics = Arc::clone(&self.metrics);
        let counters = &metrics.control;
        while self.room.is_short()
            && let Some(topic) = self.room.next_to_forget()
            && let Some(state) = self.topics.get_mut(&topic)
        {
            let before = state.weight();
            match state.forget_oldest() {
                Some(Forgotten::Entry) => counters.forgotten_entries.add(1),
                Some(Forgotten::Key) => counters.forgotten_keys.add(1),
                None => {
                    counters.forgotten_topics.add(1);
                    self.remove(&topic);
                    continue;
                }
            }
            self.room.weigh(before, state.weight());
            if state.is_in_use() && !state.keeps() {
                self.room.forget(&mut state.turn);
            }
        }
        counters.embedded_bytes.set(self.room.bytes() as u64);
        counters.embedded_topics.set(self.topics.len() as u64);
    }

    /// Forgets a topic before its time: what is not known of it from now on begins above it.
    fn remove(&mut self, topic: &Topic) {
        let highest = self.topics.get(topic).and_then(TopicState::highest);
        if let Some(highest) = highest {
            self.room.raise_floor(highest);
        }
        self.free(topic);
    }

    /// Frees a topic of which nothing is alive.
    pub(super) fn free(&mut self, topic: &Topic) {
        let Some(mut state) = self.topics.remove(topic) else {
            return;
        };
        self.room.weigh(state.weight() + topic.name().len(), 0);
        self.room.forget(&mut state.turn);
    }
}
