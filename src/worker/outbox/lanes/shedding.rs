//! What leaves the lanes without being sent: taken back to be read again, or dropped and told.
//!
//! In: a lane or a topic, and what may go. Out: where to read again, or how many messages went; a
//! gap stands where they stood. A part of [`super`], which owns the queues and has their bounds.

use std::collections::VecDeque;

use crate::worker::hub::TopicKey;
use crate::worker::outgoing::Outgoing;
use fanfare_protocol::form::WireForm;

use super::{FIRST, Item, Lanes, PRIORITIES, TakenBack, Waiting};

impl Lanes {
    /// Takes back the messages of every topic of this lane that can be read again, as far back as
    /// the last notice of the topic.
    pub(in crate::worker::outbox) fn take_back(
        &mut self,
        lane: usize,
        form: WireForm,
        has_history: impl Fn(TopicKey) -> bool,
    ) -> Vec<TakenBack> {
        let in_lane = self.places.iter().filter(|p| p.lane == lane);
        let topics: Vec<_> = in_lane
            .map(|p| p.topic)
            .filter(|t| has_history(*t))
            .collect();
        let topics = topics.into_iter();
        topics
            .filter_map(|topic| self.take_back_of(topic, lane, form))
            .collect()
    }

    /// The same for one topic, which waits in this lane.
    pub(in crate::worker::outbox) fn take_back_of(
        &mut self,
        topic: TopicKey,
        lane: usize,
        form: WireForm,
    ) -> Option<TakenBack> {
        let queue = &self.queues[lane];
        let is_notice = |i: &Item| i.topic() == Some(topic) && !i.is_message_of(topic);
        let begins = queue.iter().rposition(is_notice).map_or(0, |at| at + 1);
        let mut behind = queue.iter().skip(begins);
        let Some(Item::Message { outgoing, .. }) = behind.find(|i| i.is_message_of(topic)) else {
            return None;
        };
        let taken = TakenBack {
            topic,
            at: outgoing.prev,
            urgency: PRIORITIES[lane - FIRST],
        };
        self.remove(lane, form, |at, i| at >= begins && i.is_message_of(topic));
        Some(taken)
    }

    /// Drops the oldest messages that `may_drop` names while `is_over` what waits; where they
    /// stood, a gap is told. Returns how many messages went.
    pub(in crate::worker::outbox) fn drop_oldest(
        &mut self,
        lane: usize,
        form: WireForm,
        is_over: impl Fn(Waiting) -> bool,
        may_drop: impl Fn(TopicKey, &Outgoing) -> bool,
    ) -> u64 {
        let mut dropped = 0;
        let mut kept: VecDeque<Item> = VecDeque::new();
        // Where the last item of a topic is, if that is a gap: what is dropped next joins it.
        let mut open: Vec<(TopicKey, usize)> = Vec::new();
        for item in std::mem::take(&mut self.queues[lane]) {
            let Some(topic) = item.topic() else { continue };
            let gap_at = open.iter().find(|(t, _)| *t == topic).map(|(_, at)| *at);
            match (item, gap_at) {
                (Item::Message { topic, outgoing }, gap_at)
                    if may_drop(topic, &outgoing) && is_over(self.messages()) =>
                {
                    dropped += 1;
                    let bytes = outgoing.frame(form).len();
                    if let Some(at) = gap_at
                        && let Item::Dropped(gap) = &mut kept[at]
                    {
                        gap.add(Some(outgoing.position), Some(1));
                        self.uncount(&Item::Message { topic, outgoing }, lane, form);
                    } else {
                        let gap = Item::dropped(topic, &outgoing);
                        self.waiting[lane].remove(bytes);
                        self.waiting[lane].add(gap.bytes_count(form));
                        open.push((topic, kept.len()));
                        kept.push_back(gap);
                    }
                }
                (Item::Dropped(later), Some(at)) => {
                    if let Item::Dropped(gap) = &mut kept[at] {
                        gap.add(later.gap.to, later.gap.dropped);
                    }
                    self.uncount(&Item::Dropped(later), lane, form);
                }
                (item, _) => {
                    open.retain(|(t, _)| *t != topic);
                    if matches!(item, Item::Dropped(_)) {
                        open.push((topic, kept.len()));
                    }
                    kept.push_back(item);
                }
            }
        }
        self.queues[lane] = kept;
        dropped
    }

    /// Adds a dropped message to the gap that its topic ends with, if it ends with one.
    pub(in crate::worker::outbox) fn join_gap(
        &mut self,
        topic: TopicKey,
        outgoing: &Outgoing,
    ) -> bool {
        let Some(lane) = self.lane(topic) else {
            return false;
        };
        let mut newest_first = self.queues[lane].iter_mut().rev();
        match newest_first.find(|item| item.topic() == Some(topic)) {
            Some(Item::Dropped(gap)) => {
                gap.add(Some(outgoing.position), Some(1));
                true
            }
            _ => false,
        }
    }
}
