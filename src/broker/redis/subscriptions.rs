//! Which topics the feed subscribes, in what order, and what it still owes: a pure state machine.
//!
//! In: wishes, new connections, confirmations, the time. Out: chunks to subscribe, topics to
//! unsubscribe, topics to confirm, and when everything stands again after a break. Owner: the
//! feed's loop. Bound: one entry per wished topic; one chunk is with Redis at a time.
//!
//! ```text
//!            want                 sent with a chunk           confirmed
//!  (unknown) ────▶ Queued ───────────────────────▶ Sent ────────────────▶ Standing
//!                     ▲ new connection, or the chunk failed │                 │
//!                     └──────────────────────────────────────────────┴─────────────────┘
//!  unwanted for a second: unknown again
//! ```
//!
//! On a master of a cluster (`is_sharded`) a subscription ends in silence when its slot leaves. So
//! there a wish for what stands is no more than a wish to subscribe again, and a topic whose slot
//! is elsewhere is refused by itself: it is queued anew, and its confirmation is awaited.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::broker::interest::WishNumber;
use crate::protocol::ids::Topic;

pub mod channels;

/// Topics of one SUBSCRIBE. Measured: 50,000 channels in chunks of 500 stand after 63 ms.
pub const CHUNK_TOPICS_MAX: usize = 500;
/// How long a topic that nobody wants stays subscribed, for those who come right back.
pub const LINGER: Duration = Duration::from_secs(1);

/// Topics to be subscribed together.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// The first on a new connection; it carries the channels that are always subscribed.
    pub is_first: bool,
    /// With it everything stands again that stood before the break.
    pub is_last: bool,
    /// Which.
    pub topics: Vec<Topic>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Queued,
    Sent,
    Standing,
}

#[derive(Debug)]
struct Subscription {
    topic: Topic,
    is_wanted: bool,
    state: State,
    /// The newest wish.
    wish: WishNumber,
    /// Somebody waits for the confirmation of this wish.
    awaited: Option<WishNumber>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Subscriptions {
    /// By `app:topic`.
    topics: FxHashMap<Box<str>, Subscription>,
    queue: VecDeque<Topic>,
    leaving: VecDeque<(Instant, Topic)>,
    /// How many at the head of the queue stood before the break.
    before_break: usize,
    is_first_due: bool,
    is_sharded: bool,
}

impl Subscriptions {
    /// Nothing is wished for. `is_sharded`: see the module.
    #[must_use]
    pub fn new(is_sharded: bool) -> Self {
        Self {
            is_sharded,
            ..Self::default()
        }
    }

    /// Takes a wish, or that there is none any more. `true`: it is fulfilled already, confirm it.
    pub fn wish(&mut self, topic: Topic, wish: Option<WishNumber>, now: Instant) -> bool {
        let known = self.topics.get_mut(topic.qualified());
        match (known, wish) {
            (Some(known), Some(number)) => {
                known.is_wanted = true;
                known.wish = number;
                let stands = known.state == State::Standing && !self.is_sharded;
                known.awaited = wish.filter(|_| !stands);
                if self.is_sharded && known.state != State::Queued {
                    known.state = State::Queued;
                    self.queue.push_back(topic);
                }
                stands
            }
            (Some(known), None) => {
                known.is_wanted = false;
                known.awaited = None;
                self.leaving.push_back((now + LINGER, topic));
                false
            }
            (None, Some(number)) => {
                self.queue.push_back(topic.clone());
                self.topics.insert(
                    topic.qualified().into(),
                    Subscription {
                        topic,
                        is_wanted: true,
                        state: State::Queued,
                        wish: number,
                        awaited: wish,
                    },
                );
                false
            }
            (None, None) => false,
        }
    }

    /// The topic of this name, if it is wanted.
    #[must_use]
    pub fn wanted(&self, qualified: &str) -> Option<&Topic> {
        let known = self.topics.get(qualified)?;
        known.is_wanted.then_some(&known.topic)
    }

    /// A new connection: everything wanted is queued again, nothing stands.
    pub fn reset(&mut self) {
        self.topics.retain(|_, known| known.is_wanted);
        self.leaving.clear();
        self.queue.clear();
        for known in self.topics.values_mut() {
            known.state = State::Queued;
            self.queue.push_back(known.topic.clone());
        }
        self.before_break = self.queue.len();
        self.is_first_due = true;
    }

    /// What to subscribe next; `None` when nothing waits.
    pub fn next_chunk(&mut self) -> Option<Chunk> {
        if self.queue.is_empty() && !self.is_first_due {
            return None;
        }
        let mut chunk = Chunk {
            is_first: std::mem::take(&mut self.is_first_due),
            ..Chunk::default()
        };
        let had_before_break = self.before_break > 0;
        while chunk.topics.len() < CHUNK_TOPICS_MAX
            && let Some(topic) = self.queue.pop_front()
        {
            self.before_break = self.before_break.saturating_sub(1);
            if let Some(known) = self.topics.get_mut(topic.qualified())
                && known.state == State::Queued
            {
                known.state = State::Sent;
                chunk.topics.push(topic);
            }
        }
        chunk.is_last = self.before_break == 0 && (chunk.is_first || had_before_break);
        Some(chunk)
    }

    /// The chunk stands. Returns the topics whose confirmation is awaited, and of which wish.
    pub fn confirm(&mut self, chunk: &Chunk) -> Vec<(Topic, WishNumber)> {
        let mut awaited = Vec::new();
        for topic in &chunk.topics {
            if let Some(known) = self.topics.get_mut(topic.qualified())
                && known.state == State::Sent
            {
                known.state = State::Standing;
                if let Some(number) = known.awaited.take() {
                    awaited.push((topic.clone(), number));
                }
            }
        }
        awaited
    }

    /// These of a chunk were refused, because their slot is elsewhere. To be called before
    /// [`Self::confirm`].
    pub fn refuse(&mut self, topics: &[Topic]) {
        for topic in topics {
            if let Some(known) = self.topics.get_mut(topic.qualified())
                && known.state == State::Sent
            {
                known.state = State::Queued;
                known.awaited = known.is_wanted.then_some(known.wish);
                self.queue.push_back(topic.clone());
            }
        }
    }

    /// Whether all that stood before the connection was lost stands again.
    #[must_use]
    pub fn stands(&self) -> bool {
        self.before_break == 0 && !self.is_first_due
    }

    /// The chunk failed on a connection that stands: it comes again, before all others.
    pub fn put_back(&mut self, chunk: Chunk) {
        self.is_first_due |= chunk.is_first;
        if chunk.is_last || self.before_break > 0 {
            self.before_break += chunk.topics.len();
        }
        for topic in chunk.topics.into_iter().rev() {
            if let Some(known) = self.topics.get_mut(topic.qualified())
                && known.state == State::Sent
            {
                known.state = State::Queued;
            }
            self.queue.push_front(topic);
        }
    }

    /// When to ask [`Self::due`] again; `None` while nothing is about to leave.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.leaving.front().map(|(due, _)| *due)
    }

    /// Forgets and returns the topics to unsubscribe: nobody wanted them since their time began.
    pub fn due(&mut self, now: Instant) -> Vec<Topic> {
        let mut out = Vec::new();
        while let Some((due, _)) = self.leaving.front()
            && *due <= now
            && let Some((_, topic)) = self.leaving.pop_front()
        {
            let is_unwanted = |known: &Subscription| !known.is_wanted;
            if self.topics.get(topic.qualified()).is_some_and(is_unwanted) {
                self.topics.remove(topic.qualified());
                out.push(topic);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ids::App;

    fn topic(n: usize) -> Topic {
        Topic::new(&App::default_app(), &format!("t{n}")).unwrap()
    }

    fn wish(n: u64) -> Option<WishNumber> {
        Some(WishNumber(n))
    }

    /// Subscriptions on a first connection, with so many topics standing.
    fn standing(count: usize) -> (Subscriptions, Instant) {
        let now = Instant::now();
        let mut subscriptions = Subscriptions::default();
        subscriptions.reset();
        for n in 0..count {
            assert!(!subscriptions.wish(topic(n), wish(1), now));
        }
        while let Some(chunk) = subscriptions.next_chunk() {
            assert_eq!(subscriptions.confirm(&chunk).len(), chunk.topics.len());
        }
        (subscriptions, now)
    }

    #[test]
    fn a_new_connection_begins_with_the_fixed_channels_even_without_topics() {
        let (mut subscriptions, _) = standing(0);
        assert_eq!(subscriptions.next_chunk(), None);
        subscriptions.reset();
        let chunk = subscriptions.next_chunk().unwrap();
        assert!(chunk.is_first && chunk.is_last && chunk.topics.is_empty());
        assert_eq!(subscriptions.next_chunk(), None);
    }

    #[test]
    fn after_a_break_the_last_of_what_stood_before_is_told_and_new_wishes_come_behind() {
        let (mut subscriptions, now) = standing(CHUNK_TOPICS_MAX + 1);
        subscriptions.reset();
        assert!(!subscriptions.wish(topic(9_999), wish(2), now));
        let first = subscriptions.next_chunk().unwrap();
        assert!(first.is_first && !first.is_last);
        // Nobody waits for what stood before; only the new wish is confirmed.
        assert!(subscriptions.confirm(&first).is_empty());
        let second = subscriptions.next_chunk().unwrap();
        assert!(!second.is_first && second.is_last);
        assert_eq!(
            subscriptions.confirm(&second),
            [(topic(9_999), WishNumber(2))]
        );
        assert_eq!(subscriptions.next_chunk(), None);
    }

    #[test]
    fn a_failed_chunk_comes_again_as_it_was() {
        let (mut subscriptions, _) = standing(3);
        subscriptions.reset();
        let chunk = subscriptions.next_chunk().unwrap();
        let topics = chunk.topics.clone();
        subscriptions.put_back(chunk);
        let again = subscriptions.next_chunk().unwrap();
        assert!(again.is_first && again.is_last);
        assert_eq!(again.topics, topics);
        assert!(subscriptions.confirm(&again).is_empty());
        assert!(subscriptions.wish(topic(0), wish(2), Instant::now()));
    }

    #[test]
    fn an_unwanted_topic_is_silent_at_once_and_leaves_after_a_second_unless_wanted_again() {
        let (mut subscriptions, now) = standing(2);
        assert!(!subscriptions.wish(topic(0), None, now));
        assert!(!subscriptions.wish(topic(1), None, now));
        assert_eq!(subscriptions.wanted("default:t0"), None);
        assert!(subscriptions.wish(topic(1), wish(2), now));
        assert_eq!(subscriptions.next_due(), Some(now + LINGER));
        let early = now + LINGER.mul_f32(0.9);
        assert!(subscriptions.due(early).is_empty());
        assert_eq!(subscriptions.due(now + LINGER), [topic(0)]);
        assert_eq!(subscriptions.wanted("default:t1"), Some(&topic(1)));
        // Forgotten: a later wish needs a confirmation of its own.
        assert!(!subscriptions.wish(topic(0), wish(3), now));
        assert_eq!(subscriptions.next_chunk().unwrap().topics, [topic(0)]);
    }

    #[test]
    fn what_was_wished_for_anew_while_its_chunk_was_on_its_way_is_confirmed_as_the_later_wish() {
        let (mut subscriptions, now) = standing(0);
        subscriptions.wish(topic(0), wish(1), now);
        let chunk = subscriptions.next_chunk().unwrap();
        subscriptions.wish(topic(0), None, now);
        subscriptions.wish(topic(0), wish(2), now);
        let confirmed = subscriptions.confirm(&chunk);
        assert_eq!(confirmed, [(topic(0), WishNumber(2))]);
    }

    #[test]
    fn on_a_master_of_a_cluster_a_wish_for_what_stands_subscribes_again() {
        let now = Instant::now();
        let mut subscriptions = Subscriptions::new(true);
        subscriptions.reset();
        subscriptions.wish(topic(0), wish(1), now);
        let chunk = subscriptions.next_chunk().unwrap();
        // While it is on its way and when it stands: what was sent may be void already.
        assert!(!subscriptions.wish(topic(0), wish(1), now));
        assert!(subscriptions.confirm(&chunk).is_empty());
        let again = subscriptions.next_chunk().unwrap();
        assert_eq!(subscriptions.confirm(&again), [(topic(0), WishNumber(1))]);
        assert!(!subscriptions.wish(topic(0), wish(1), now));
        let again = subscriptions.next_chunk().unwrap();
        assert_eq!(subscriptions.confirm(&again), [(topic(0), WishNumber(1))]);
        assert_eq!(subscriptions.next_chunk(), None);
    }

    #[test]
    fn a_topic_that_was_refused_is_tried_again_and_confirmed_then_and_holds_up_no_other() {
        let now = Instant::now();
        let mut subscriptions = Subscriptions::new(true);
        subscriptions.reset();
        for n in 0..3 {
            subscriptions.wish(topic(n), wish(n as u64), now);
        }
        let chunk = subscriptions.next_chunk().unwrap();
        subscriptions.confirm(&chunk);
        // After a break nobody waits for it, but one that came late is to be looked after.
        subscriptions.reset();
        let chunk = subscriptions.next_chunk().unwrap();
        assert!(chunk.is_last);
        subscriptions.refuse(&[topic(1)]);
        assert!(subscriptions.confirm(&chunk).is_empty());
        assert!(subscriptions.stands());
        let again = subscriptions.next_chunk().unwrap();
        assert_eq!(again.topics, [topic(1)]);
        assert_eq!(subscriptions.confirm(&again), [(topic(1), WishNumber(1))]);
    }

    #[test]
    fn a_topic_that_left_while_its_chunk_was_on_its_way_is_not_confirmed_by_it() {
        let (mut subscriptions, now) = standing(0);
        subscriptions.wish(topic(0), wish(1), now);
        let chunk = subscriptions.next_chunk().unwrap();
        subscriptions.wish(topic(0), None, now);
        assert_eq!(subscriptions.due(now + LINGER), [topic(0)]);
        subscriptions.wish(topic(0), wish(2), now);
        assert!(subscriptions.confirm(&chunk).is_empty());
        let again = subscriptions.next_chunk().unwrap();
        assert_eq!(subscriptions.confirm(&again), [(topic(0), WishNumber(2))]);
    }
}
