//! The lane of one master: memberships that wait for a call, and those whose call failed.
//!
//! In: keys for which something is due, and what became of calls. Out: the next key, at most
//! [`CALLS_IN_FLIGHT_MAX`] at once. A master that does not answer fills its own lane only: what
//! fails goes to a list with one timer, which grows from [`REST_MIN`] to [`REST_MAX`] with jitter,
//! and tries a lane's width each time; the first call that is done brings the whole list back.
//! What a master refuses, though it is well, has a list of its own, so that one bad topic holds up
//! itself alone. Pure. Bounds: each list has a key once, so at most the memberships of the node.

use std::collections::VecDeque;
use std::time::Duration;

use rustc_hash::FxHashSet;

use super::Key;

/// Calls of one lane that wait for the broker at the same time.
pub(super) const CALLS_IN_FLIGHT_MAX: usize = 64;
/// How long a list of failed calls rests at first.
const REST_MIN: Duration = Duration::from_millis(200);
/// The longest that it rests.
const REST_MAX: Duration = Duration::from_secs(10);

/// Keys in order, each once.
#[derive(Debug, Default)]
pub(super) struct Keys {
    order: VecDeque<Key>,
    known: FxHashSet<Key>,
}

impl Keys {
    pub(super) fn push(&mut self, key: Key) {
        if self.known.insert(key.clone()) {
            self.order.push_back(key);
        }
    }

    pub(super) fn pop(&mut self) -> Option<Key> {
        let key = self.order.pop_front()?;
        self.known.remove(&key);
        Some(key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }
}

/// How a call ended, for its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Done,
    /// The master is away.
    Away,
    /// The master answers, and refuses this one.
    Refused,
}

/// Failed calls, with one timer for all.
#[derive(Debug, Default)]
struct Failed {
    keys: Keys,
    /// When some are tried.
    at: Option<Duration>,
    /// Some are being tried, and the others wait for what becomes of them.
    is_tried: bool,
    /// How often in a row that was in vain.
    tries: u32,
}

impl Failed {
    /// `jitter` is from 0 to 1.
    fn push(&mut self, key: Key, now: Duration, jitter: f64) {
        self.keys.push(key);
        if self.at.is_none() || self.is_tried {
            let rest = REST_MIN.saturating_mul(1 << self.tries).min(REST_MAX);
            self.at = Some(now + rest.mul_f64(0.5 + jitter / 2.0));
            self.is_tried = false;
            self.tries = (self.tries + 1).min(10);
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Somebody waits for these.
    asked: Keys,
    rest: Keys,
    away: Failed,
    refused: Failed,
    in_flight_count: usize,
}

impl Lane {
    pub(super) fn push(&mut self, key: Key, is_asked: bool) {
        if is_asked {
            self.asked.push(key);
        } else {
            self.rest.push(key);
        }
    }

    /// The next key, while the lane has room for another call.
    pub(super) fn pop(&mut self) -> Option<Key> {
        if self.in_flight_count >= CALLS_IN_FLIGHT_MAX {
            return None;
        }
        self.asked.pop().or_else(|| self.rest.pop())
    }

    /// A call has begun; [`Self::ended`] follows.
    pub(super) fn begun(&mut self) {
        self.in_flight_count += 1;
    }

    /// A call of this key has ended.
    pub(super) fn ended(&mut self, key: Key, end: End, now: Duration, jitter: f64) {
        self.in_flight_count -= 1;
        match end {
            End::Done => {
                if self.refused.keys.is_empty() && !self.refused.is_tried {
                    self.refused.tries = 0;
                }
                let away = std::mem::take(&mut self.away);
                let keys = away.keys.order;
                keys.into_iter().for_each(|key| self.rest.push(key));
                // It may be due once more.
                self.rest.push(key);
            }
            End::Away => self.away.push(key, now, jitter),
            End::Refused => self.refused.push(key, now, jitter),
        }
    }

    /// Tries some of what has failed, where its time has come.
    pub(super) fn wake(&mut self, now: Duration) {
        for failed in [&mut self.away, &mut self.refused] {
            if failed.at.is_none_or(|at| at > now) {
                continue;
            }
            for _ in 0..CALLS_IN_FLIGHT_MAX {
                let Some(key) = failed.keys.pop() else { break };
                self.rest.push(key);
            }
            failed.is_tried = true;
            // Those that are tried may need no call any more, and then have no end.
            failed.at = Some(now + REST_MAX).filter(|_| !failed.keys.is_empty());
        }
    }

    /// When [`Self::wake`] is to be called.
    pub(super) fn wakes_at(&self) -> Option<Duration> {
        let times = [self.away.at, self.refused.at];
        times.into_iter().flatten().min()
    }

    /// Nothing waits, and nothing is on its way.
    pub(super) fn is_idle(&self) -> bool {
        let lists = [&self.asked, &self.rest, &self.away.keys, &self.refused.keys];
        self.in_flight_count == 0 && lists.iter().all(|keys| keys.is_empty())
    }

    /// Everything that waits, for another lane: the topics may be elsewhere.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = (Key, bool)> {
        let asked = std::mem::take(&mut self.asked).order;
        let lists = [
            std::mem::take(&mut self.rest),
            std::mem::take(&mut self.away).keys,
            std::mem::take(&mut self.refused).keys,
        ];
        let rest = lists.into_iter().flat_map(|keys| keys.order);
        let asked = asked.into_iter().map(|key| (key, true));
        asked.chain(rest.map(|key| (key, false)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanfare_protocol::ids::{App, SessionId, Topic};

    const MS: Duration = Duration::from_millis(1);

    fn key(session: u128) -> Key {
        let topic = Topic::new(&App::default_app(), "t").expect("a name");
        (topic, SessionId(session))
    }

    fn begin(lane: &mut Lane) -> Vec<u128> {
        let mut begun = Vec::new();
        while let Some((_, session)) = lane.pop() {
            lane.begun();
            begun.push(session.0);
        }
        begun
    }

    #[test]
    fn so_many_are_on_their_way_and_who_is_waited_for_goes_first() {
        let mut lane = Lane::default();
        for session in 0..100 {
            lane.push(key(session), false);
            lane.push(key(session), false);
        }
        lane.push(key(1_000), true);
        let begun = begin(&mut lane);
        assert_eq!((begun.len(), begun[0], begun[1]), (64, 1_000, 0));
        lane.ended(key(1_000), End::Done, MS, 0.0);
        assert_eq!(begin(&mut lane), [63]);
    }

    #[test]
    fn while_a_master_is_away_a_few_are_tried_ever_more_seldom() {
        let mut lane = Lane::default();
        (0..1_000).for_each(|session| lane.push(key(session), false));
        let (mut now, mut rests) = (Duration::ZERO, Vec::new());
        let fail = |lane: &mut Lane, now| loop {
            let begun = begin(lane);
            if begun.is_empty() {
                break;
            }
            let keys = begun.into_iter().map(key);
            keys.for_each(|key| lane.ended(key, End::Away, now, 1.0));
        };
        fail(&mut lane, now);
        for _ in 0..8 {
            let at = lane.wakes_at().expect("something has failed");
            rests.push((at - now).as_millis());
            now = at;
            lane.wake(now);
            assert_eq!(lane.rest.len(), CALLS_IN_FLIGHT_MAX);
            fail(&mut lane, now);
        }
        assert_eq!(rests, [200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        // The first that is done brings all back at once.
        now = lane.wakes_at().expect("something has failed");
        lane.wake(now);
        let begun = begin(&mut lane);
        lane.ended(key(begun[0]), End::Done, now, 1.0);
        assert_eq!(lane.rest.len() + begun.len(), 1_000 + 1);
        assert_eq!(lane.wakes_at(), None);
    }

    #[test]
    fn one_that_is_refused_waits_alone() {
        let mut lane = Lane::default();
        lane.push(key(0), false);
        let mut now = Duration::ZERO;
        let mut rests = Vec::new();
        for _ in 0..5 {
            for session in 1..=3 {
                lane.push(key(session), false);
            }
            for session in begin(&mut lane) {
                let end = if session == 0 {
                    End::Refused
                } else {
                    End::Done
                };
                lane.ended(key(session), end, now, 0.0);
            }
            while lane.pop().is_some() {}
            let at = lane.wakes_at().expect("one waits");
            rests.push((at - now).as_millis());
            now = at;
            lane.wake(now);
        }
        assert_eq!(rests, [100, 200, 400, 800, 1_600]);
        assert_eq!(begin(&mut lane), [0]);
    }

    #[test]
    fn what_waits_can_be_taken_to_another_lane() {
        let mut lane = Lane::default();
        lane.push(key(0), false);
        lane.push(key(1), false);
        begin(&mut lane);
        lane.ended(key(0), End::Away, MS, 0.0);
        lane.ended(key(1), End::Refused, MS, 0.0);
        lane.push(key(2), false);
        lane.push(key(3), true);
        let drained: Vec<_> = lane.drain().map(|((_, s), asked)| (s.0, asked)).collect();
        assert_eq!(drained, [(3, true), (2, false), (0, false), (1, false)]);
        assert!(lane.is_idle());
    }
}
