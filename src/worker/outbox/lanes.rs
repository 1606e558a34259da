//! The lanes of one outbox: what waits, in which order it leaves, and what may be taken back.
//!
//! In: items with their topic and priority. Out: items, one after the other. Six queues: answers
//! first, then four lanes by priority, then the close frame. Order within a topic is kept because
//! all that waits of a topic stands in one lane: when a message of a higher priority arrives, what
//! waits of its topic moves up with it, and a lower one queues behind a higher one of its topic.
//! Lower lanes keep an eighth of the bytes. Pure; the bound is the outbox's.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashSet;

use crate::worker::encode;
use crate::worker::hub::TopicKey;
use crate::worker::outgoing::{self, Outgoing};
use fanfare_protocol::event::{Event, Gap, GapReason};
use fanfare_protocol::form::WireForm;
use fanfare_protocol::ids::{Position, Priority};

use super::{TakenBack, Waiting};

mod shedding;

/// Answers and control frames.
pub(super) const FRONT: usize = 0;
/// The lane of the most urgent messages.
const FIRST: usize = 1;
/// What must come after everything else.
pub(super) const LAST: usize = 5;
pub(super) const LANES: usize = 6;
/// A higher lane sends so many bytes for each byte of the lanes below it: an eighth is theirs.
const BYTES_PER_LOWER_BYTE: usize = 7;

/// The priorities in the order of their lanes.
const PRIORITIES: [Priority; 4] = [
    Priority::Critical,
    Priority::High,
    Priority::Normal,
    Priority::Low,
];

/// The lane of a priority, as long as nothing of the topic waits in another.
pub(super) fn lane_of(priority: Priority) -> usize {
    match priority {
        Priority::Critical => FIRST,
        Priority::High => FIRST + 1,
        Priority::Normal => FIRST + 2,
        Priority::Low => FIRST + 3,
    }
}

/// What takes one place in an outbox.
#[derive(Debug)]
pub(super) enum Item {
    /// An answer, a control frame.
    Reply(Bytes),
    /// Where another session of the user moved the cursor. A newer one stands for it.
    Acked(Bytes),
    /// A message. Its frame is shared by everybody who gets it in the same form.
    Message {
        topic: TopicKey,
        outgoing: Arc<Outgoing>,
    },
    /// What is told in its topic's order.
    Notice { topic: TopicKey, frame: Bytes },
    /// Messages that were dropped here, told as one gap.
    Dropped(Box<Dropped>),
}

/// Messages of a topic without history that a slow session does not get.
#[derive(Debug)]
pub(super) struct Dropped {
    topic: TopicKey,
    pub(super) gap: Gap,
    /// Made when it is written, because until then more may be dropped.
    frame: OnceCell<Bytes>,
}

impl Dropped {
    fn new(topic: TopicKey, outgoing: &Outgoing) -> Self {
        Self {
            topic,
            gap: outgoing::gap(
                &outgoing.topic,
                (outgoing.prev, Some(outgoing.position)),
                GapReason::Slow,
                Some(1),
            ),
            frame: OnceCell::new(),
        }
    }

    fn add(&mut self, to: Option<Position>, dropped: Option<u64>) {
        self.gap.to = to;
        self.gap.dropped = Some(self.gap.dropped.unwrap_or(0) + dropped.unwrap_or(0));
        self.frame = OnceCell::new();
    }
}

impl Item {
    pub(super) fn dropped(topic: TopicKey, outgoing: &Outgoing) -> Self {
        Self::Dropped(Box::new(Dropped::new(topic, outgoing)))
    }

    pub(super) fn frame(&self, form: WireForm) -> &Bytes {
        match self {
            Self::Reply(frame) | Self::Acked(frame) | Self::Notice { frame, .. } => frame,
            Self::Message { outgoing, .. } => outgoing.frame(form),
            Self::Dropped(dropped) => dropped
                .frame
                .get_or_init(|| encode::frame(form, &Event::Gap(dropped.gap.clone()))),
        }
    }

    pub(super) fn topic(&self) -> Option<TopicKey> {
        match self {
            Self::Reply(_) | Self::Acked(_) => None,
            Self::Message { topic, .. } | Self::Notice { topic, .. } => Some(*topic),
            Self::Dropped(dropped) => Some(dropped.topic),
        }
    }

    /// For bounds, the same whether the frame of a gap is made yet or not.
    pub(super) fn bytes_count(&self, form: WireForm) -> usize {
        match self {
            Self::Dropped(_) => size_of::<Dropped>(),
            _ => self.frame(form).len(),
        }
    }

    /// Whether a newer message of this topic and key may stand for it.
    fn is_older(&self, of: TopicKey, key: &str) -> bool {
        matches!(self, Self::Message { topic, outgoing }
            if *topic == of && outgoing.conflation_key() == Some(key))
    }

    fn is_message_of(&self, of: TopicKey) -> bool {
        matches!(self, Self::Message { topic, .. } if *topic == of)
    }
}

/// In which lane a topic's items wait, and how many.
#[derive(Debug)]
struct Place {
    topic: TopicKey,
    lane: usize,
    count: usize,
}

/// What the lanes above owe to those below them, in bytes.
type Credit = [usize; LANES];

/// How far a write has been planned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    taken: [usize; LANES],
    credit: Credit,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    pub(super) queues: [VecDeque<Item>; LANES],
    places: Vec<Place>,
    credit: Credit,
    /// How much waits in each.
    waiting: [Waiting; LANES],
}

impl Lanes {
    pub(super) fn is_empty(&self) -> bool {
        self.queues.iter().all(VecDeque::is_empty)
    }

    /// Whether the memory is worth keeping for another session.
    pub(super) fn is_small(&self, items_max: usize) -> bool {
        let mut queues = self.queues.iter();
        queues.all(|q| q.capacity() <= items_max) && self.places.capacity() <= items_max
    }

    /// Answers and control frames that wait.
    pub(super) fn replies(&self) -> Waiting {
        [self.waiting[FRONT], self.waiting[LAST]].into_iter().sum()
    }

    /// Messages that wait, and what is told in their order.
    pub(super) fn messages(&self) -> Waiting {
        self.waiting_up_to(LAST - 1)
    }

    /// What waits in each lane.
    pub(super) fn waiting(&self) -> [Waiting; LANES] {
        self.waiting
    }

    /// Where the topic's items wait now.
    pub(super) fn lane(&self, topic: TopicKey) -> Option<usize> {
        let mut places = self.places.iter();
        places.find(|p| p.topic == topic).map(|p| p.lane)
    }

    pub(super) fn is_lane_empty(&self, lane: usize) -> bool {
        self.queues[lane].is_empty()
    }

    /// What waits in the lanes of messages up to and including this one.
    pub(super) fn waiting_up_to(&self, lane: usize) -> Waiting {
        self.waiting[FIRST..=lane].iter().copied().sum()
    }

    /// Of what waits in the lanes of messages, that which tells of others.
    pub(super) fn notices(&self, form: WireForm) -> Waiting {
        let mut notices = Waiting::default();
        for item in self.queues[FIRST..LAST].iter().flatten() {
            if !matches!(item, Item::Message { .. }) {
                notices.add(item.bytes_count(form));
            }
        }
        notices
    }

    /// Queues an item in its lane, or in that of its topic where that is higher; what waits of
    /// the topic in a lower lane moves up first.
    pub(super) fn push(&mut self, item: Item, lane: usize, form: WireForm) {
        let bytes = item.bytes_count(form);
        let Some(topic) = item.topic() else {
            if matches!(item, Item::Acked(_)) {
                self.drop_acked(form);
            }
            self.waiting[lane].add(bytes);
            self.queues[lane].push_back(item);
            return;
        };
        self.move_up(topic, lane, form);
        let lane = match self.places.iter_mut().find(|p| p.topic == topic) {
            Some(place) => {
                place.count += 1;
                place.lane
            }
            None => {
                let count = 1;
                self.places.push(Place { topic, lane, count });
                lane
            }
        };
        self.waiting[lane].add(bytes);
        self.queues[lane].push_back(item);
    }

    /// Moves what waits of a topic up to this lane, if it waits in a lower one.
    pub(super) fn move_up(&mut self, topic: TopicKey, to: usize, form: WireForm) {
        let mut places = self.places.iter_mut();
        let Some(place) = places.find(|p| p.topic == topic && p.lane > to) else {
            return;
        };
        let from = std::mem::replace(&mut place.lane, to);
        for item in std::mem::take(&mut self.queues[from]) {
            if item.topic() == Some(topic) {
                let bytes = item.bytes_count(form);
                self.waiting[from].remove(bytes);
                self.waiting[to].add(bytes);
                self.queues[to].push_back(item);
            } else {
                self.queues[from].push_back(item);
            }
        }
    }

    fn drop_acked(&mut self, form: WireForm) {
        let replies = &mut self.waiting[FRONT];
        self.queues[FRONT].retain(|item| {
            let is_older = matches!(item, Item::Acked(_));
            if is_older {
                replies.remove(item.bytes_count(form));
            }
            !is_older
        });
    }

    /// Begins to plan what leaves next.
    pub(super) fn plan(&self) -> Plan {
        Plan {
            taken: [0; LANES],
            credit: self.credit,
        }
    }

    /// The next item in the plan.
    pub(super) fn planned(&self, plan: &mut Plan, form: WireForm) -> Option<&Item> {
        let lane = self.next_lane(plan, form)?;
        let item = &self.queues[lane][plan.taken[lane]];
        plan.taken[lane] += 1;
        Some(item)
    }

    /// Takes the item that a fresh plan begins with.
    pub(super) fn pop(&mut self, form: WireForm) -> Option<(Item, usize)> {
        let mut plan = self.plan();
        let lane = self.next_lane(&mut plan, form)?;
        self.credit = plan.credit;
        let item = self.queues[lane].pop_front()?;
        self.uncount(&item, lane, form);
        Some((item, lane))
    }

    fn next_lane(&self, plan: &mut Plan, form: WireForm) -> Option<usize> {
        let has = |lane: usize, plan: &Plan| plan.taken[lane] < self.queues[lane].len();
        if has(FRONT, plan) {
            return Some(FRONT);
        }
        match (FIRST..LAST).find(|lane| has(*lane, plan)) {
            Some(highest) => Some(self.share(highest, plan, form)),
            None => has(LAST, plan).then_some(LAST),
        }
    }

    /// This lane, or one below it whose share has come.
    fn share(&self, lane: usize, plan: &mut Plan, form: WireForm) -> usize {
        let bytes = |lane: usize| self.queues[lane][plan.taken[lane]].frame(form).len();
        let Some(lower) = (lane + 1..LAST).find(|l| plan.taken[*l] < self.queues[*l].len()) else {
            // Nothing is saved up for who does not wait.
            plan.credit[lane] = 0;
            return lane;
        };
        let mut below = *plan;
        let chosen = self.share(lower, &mut below, form);
        let cost = bytes(chosen);
        if plan.credit[lane] < cost {
            plan.credit[lane] += bytes(lane).div_ceil(BYTES_PER_LOWER_BYTE);
            return lane;
        }
        *plan = below;
        plan.credit[lane] -= cost;
        chosen
    }

    fn uncount(&mut self, item: &Item, lane: usize, form: WireForm) {
        self.waiting[lane].remove(item.bytes_count(form));
        let Some(topic) = item.topic() else { return };
        if let Some(at) = self.places.iter().position(|p| p.topic == topic) {
            self.places[at].count -= 1;
            if self.places[at].count == 0 {
                self.places.swap_remove(at);
            }
        }
    }

    /// Removes everything of a topic that its session has left.
    pub(super) fn forget(&mut self, topic: TopicKey, form: WireForm) {
        if let Some(lane) = self.lane(topic) {
            self.remove(lane, form, |_, item| item.topic() == Some(topic));
        }
    }

    /// Removes what `is_gone` names, by place and item; returns how many.
    fn remove(
        &mut self,
        lane: usize,
        form: WireForm,
        is_gone: impl Fn(usize, &Item) -> bool,
    ) -> usize {
        let mut removed = 0;
        let items = std::mem::take(&mut self.queues[lane]);
        for (at, item) in items.into_iter().enumerate() {
            if is_gone(at, &item) {
                self.uncount(&item, lane, form);
                removed += 1;
            } else {
                self.queues[lane].push_back(item);
            }
        }
        removed
    }

    /// Of messages that a newer one of the same key may stand for, keeps the newest of each key.
    /// Returns how many went.
    pub(super) fn conflate(&mut self, form: WireForm) -> usize {
        let mut removed = 0;
        for lane in FIRST..LAST {
            let mut seen = FxHashSet::default();
            let mut gone = vec![false; self.queues[lane].len()];
            for (at, item) in self.queues[lane].iter().enumerate().rev() {
                if let Item::Message { topic, outgoing } = item
                    && let Some(key) = outgoing.conflation_key()
                {
                    gone[at] = !seen.insert((*topic, key));
                }
            }
            if gone.contains(&true) {
                removed += self.remove(lane, form, |at, _| gone[at]);
            }
        }
        removed
    }

    /// Where the message waits for which `newest` may stand, which is not queued yet: its lane, and
    /// its place there. After [`Self::conflate`] there is at most one.
    pub(super) fn older(&self, of: TopicKey, newest: &Outgoing) -> Option<(usize, usize)> {
        let (key, lane) = (newest.conflation_key()?, self.lane(of)?);
        let mut items = self.queues[lane].iter();
        Some((lane, items.position(|item| item.is_older(of, key))?))
    }

    /// Removes one item.
    pub(super) fn remove_at(&mut self, lane: usize, at: usize, form: WireForm) {
        if let Some(item) = self.queues[lane].remove(at) {
            self.uncount(&item, lane, form);
        }
    }
}
