//! The memberships that have left and are remembered for a while.
//!
//! In: a membership that has left, and until when it is remembered; the time. Out: the next one that
//! is remembered no longer, and at once the one that a new one takes the room of. Pure. Bounds:
//! [`LEFT_MAX`] together, at any time; where more than half of that is taken, [`LEFT_OF_SESSION_MAX`]
//! of one session, so that one which comes and goes in very many topics pushes out nobody else's. At
//! the bound the oldest is given up, at a session's share the new one. [`STAYING_MAX`] topics of those
//! that were given up stay in the index.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};

use fanfare_protocol::ids::{SessionId, Topic};

use super::Key;

/// Leaves that are remembered.
pub(super) const LEFT_MAX: usize = 16_384;
/// A session's share, where room is short.
pub(super) const LEFT_OF_SESSION_MAX: usize = 256;
/// Topics that stay in the index though nobody of this node is remembered in them.
const STAYING_MAX: usize = 16_384;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// By the end of their time. What does not agree with its slot is void.
    entries: VecDeque<(Duration, Key)>,
    /// How many of these each session has.
    counts: FxHashMap<SessionId, usize>,
    /// Topics in which one was given up whose entering may come late.
    staying: FxHashSet<Topic>,
}

impl Left {
    /// Remembers one that has left until then. The ends of those that come later are no earlier.
    /// Returns the one that is remembered no longer for want of room, with the end of its time.
    #[must_use]
    pub(super) fn push(&mut self, until: Duration, key: Key) -> Option<(Duration, Key)> {
        let count = self.counts.get(&key.1).copied().unwrap_or_default();
        if self.entries.len() >= LEFT_MAX / 2 && count >= LEFT_OF_SESSION_MAX {
            return Some((until, key));
        }
        let oldest = match self.entries.len() {
            LEFT_MAX.. => self.take_first(),
            _ => None,
        };
        *self.counts.entry(key.1).or_default() += 1;
        self.entries.push_back((until, key));
        oldest
    }

    /// Whether the topic of one that is given up while its entering may come late stays in the index
    /// for it, as long as the node lives: for one of each topic.
    pub(super) fn stays(&mut self, topic: &Topic) -> bool {
        self.staying.len() < STAYING_MAX && self.staying.insert(topic.clone())
    }

    /// The next that is remembered no longer at this time, and until when it was.
    pub(super) fn pop(&mut self, now: Duration) -> Option<(Duration, Key)> {
        let (until, _) = self.entries.front()?;
        if *until > now {
            return None;
        }
        self.take_first()
    }

    fn take_first(&mut self) -> Option<(Duration, Key)> {
        let (until, key) = self.entries.pop_front()?;
        if let Entry::Occupied(mut count) = self.counts.entry(key.1) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        Some((until, key))
    }

    /// When [`Self::pop`] is to be called next.
    pub(super) fn next_at(&self) -> Option<Duration> {
        self.entries.front().map(|(until, _)| *until)
    }
}
