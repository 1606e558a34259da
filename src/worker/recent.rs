//! The window of recent publications: what a session that fell behind is caught up from first.
//!
//! In: every delivery of a topic with history and local members. Out: what came after a position,
//! as long as the window reaches back that far without a hole; otherwise the caller reads the
//! broker, which alone judges gaps. Owned by one worker; what it holds is shared with outboxes and
//! other workers, frames included, so a page from here costs no encoding. Bounds: bytes of all
//! topics together (a worker's part of `cache.memory_bytes`), bodies and the frames of both forms
//! whether they were made yet or not, and [`AGE`]; past either, the oldest goes. A topic's part ends with its last local member.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::hub::{Hub, HubTopic, TopicKey};
use super::outgoing::Outgoing;
use fanfare_protocol::ids::Position;

/// How long a publication is kept: who was away for longer reads the broker.
pub const AGE: Duration = Duration::from_secs(60);
/// The least that an entry counts, so that the number of entries is bounded too.
const ENTRY_BYTES_MIN: usize = 256;

/// One entry's place in the order in which entries go.
#[derive(Debug)]
struct Kept {
    topic: TopicKey,
    bytes: usize,
    at: Instant,
}

/// What bounds the windows of all topics of a worker.
#[derive(Debug)]
pub struct Recent {
    bytes_max: usize,
    bytes: usize,
    /// Oldest first, one for each entry of each topic; a topic that is gone leaves its own behind.
    order: VecDeque<Kept>,
    /// How many of a topic's in `order` stand for entries that were forgotten: its first ones.
    forgotten: FxHashMap<TopicKey, usize>,
}

impl Recent {
    /// An empty window. With no bytes it keeps nothing.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            order: VecDeque::new(),
            forgotten: FxHashMap::default(),
        }
    }

    /// What it holds, as [`Outgoing::bytes_count`] has it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps a delivery of this topic, and lets go of the oldest of all where there is no room.
    pub fn keep(&mut self, hub: &mut Hub, topic: TopicKey, outgoing: &Arc<Outgoing>, at: Instant) {
        let bytes = bytes_of(outgoing);
        let Some(kept_by) = hub.get_mut(topic).filter(|_| bytes <= self.bytes_max) else {
            return;
        };
        kept_by.recent.push_back(Arc::clone(outgoing));
        self.order.push_back(Kept { topic, bytes, at });
        self.bytes += bytes;
        let order_max = 2 * self.bytes_max / ENTRY_BYTES_MIN;
        while self.bytes > self.bytes_max || self.order.len() > order_max {
            self.let_go(hub);
        }
    }

    /// Lets go of what is over [`AGE`] at `now`.
    pub fn age(&mut self, hub: &mut Hub, now: Instant) {
        while self.order.front().is_some_and(|k| k.at + AGE <= now) {
            self.let_go(hub);
        }
    }

    /// Lets go of everything of this topic. It costs as much as the topic has: the order is not
    /// searched, and what it has of the topic is passed over when it is its turn.
    pub fn forget(&mut self, key: TopicKey, topic: &mut HubTopic) {
        let entries = std::mem::take(&mut topic.recent);
        if entries.is_empty() {
            return;
        }
        self.bytes -= entries.iter().map(bytes_of).sum::<usize>();
        *self.forgotten.entry(key).or_default() += entries.len();
    }

    fn let_go(&mut self, hub: &mut Hub) {
        let Some(oldest) = self.order.pop_front() else {
            return;
        };
        if let Some(forgotten) = self.forgotten.get_mut(&oldest.topic) {
            *forgotten -= 1;
            if *forgotten == 0 {
                self.forgotten.remove(&oldest.topic);
            }
            return;
        }
        self.bytes -= oldest.bytes;
        if let Some(topic) = hub.get_mut(oldest.topic) {
            topic.recent.pop_front();
            if topic.recent.is_empty() {
                topic.recent = VecDeque::new();
            }
        }
    }
}

/// What an entry counts. It never changes, so that it can be taken off again.
fn bytes_of(outgoing: &Arc<Outgoing>) -> usize {
    outgoing.bytes_count().max(ENTRY_BYTES_MIN)
}

/// What the window has above a position, oldest first: nothing, unless its first entry follows the
/// position, and each of the others the one before it.
pub fn after(topic: &HubTopic, at: Position) -> impl Iterator<Item = &Arc<Outgoing>> {
    let begins = topic.recent.partition_point(|o| o.position <= at);
    let mut reached = at;
    topic
        .recent
        .iter()
        .skip(begins)
        .take_while(move |outgoing| {
            let follows = outgoing.prev == reached;
            reached = outgoing.position;
            follows
        })
}
