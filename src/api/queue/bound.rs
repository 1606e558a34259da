//! Whether the queue takes one more entry of a priority.
//!
//! In: how full the queue of the cluster and Redis' memory are, as last told, and what this node has put
//! into the queue since ([`Taken`]). Out: nothing, or the refusal that says which bound it was and when
//! to come again. Bounds: `queue.capacity` and `maxmemory`, of which the lower priorities get the smaller
//! part, so that what matters most is taken last and still after everything else is refused.
//! Approximate: what other nodes took since their last heartbeats is not known.

use std::collections::HashSet;
use std::time::Instant;

use super::taken::Taken;
use crate::api::state::ApiState;
use crate::broker::BrokerError;
use crate::broker::queue::{Enqueued, rank};
use crate::broker::unavailable::Unavailable;
use crate::telemetry::queue_metrics::{EntryRefusal, QueueMetrics};
use fanfare_protocol::error::{ErrorCode, WireError};
use fanfare_protocol::ids::{Priority, Topic};

/// From so many percent of `queue.capacity` on a priority is refused, by its rank.
pub const CAPACITY_PERCENT: [u64; 4] = [100, 90, 80, 70];

/// The same of `maxmemory`. Less than all of it, because entries that are moved need room in their
/// topics before they leave the queue.
const MEMORY_PERCENT: [u8; 4] = [95, 90, 85, 80];

/// Whether the queue has nothing more after this answer.
pub(super) fn is_spared(answer: &Result<Enqueued, BrokerError>) -> bool {
    match answer {
        Ok(enqueued) => enqueued.duplicate,
        Err(error) => matches!(error, BrokerError::Unavailable(_) | BrokerError::Refused(_)),
    }
}

/// Why an entry is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// An earlier one of its topic and priority was refused.
    NotTried,
    /// `rate_limited`, with the bound in words.
    Full(WireError),
}

impl From<NotTaken> for WireError {
    fn from(not_taken: NotTaken) -> Self {
        match not_taken {
            NotTaken::NotTried => BrokerError::from(Unavailable::NotTried).told(),
            NotTaken::Full(refused) => refused,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Bound<'a> {
    taken: &'a Taken,
    metrics: &'a QueueMetrics,
    now: Instant,
    /// So many of what was taken are this request's.
    own: u64,
    /// Where an entry of this request was refused.
    stopped: HashSet<(Topic, Priority)>,
    /// `queue.capacity`.
    capacity: u64,
    /// How much of its `maxmemory` the fullest master of Redis uses.
    memory_percent: Option<u8>,
}

impl<'a> Bound<'a> {
    /// As it stands now.
    pub(super) fn now(state: &'a ApiState) -> Self {
        let status = state.directory.queue();
        let waiting = status.told.depth().saturating_add(status.told.later);
        let published = state.metrics.queue.published.get();
        let now = Instant::now();
        state.queue_taken.told(waiting, published, now);
        Self {
            taken: &state.queue_taken,
            metrics: &state.metrics.queue,
            now,
            own: 0,
            stopped: HashSet::new(),
            capacity: state.config.queue.capacity,
            memory_percent: status.redis_memory_percent,
        }
    }

    /// Takes one more entry, unless an earlier one of its topic and priority was refused: it is not tried
    /// then, so that repeating it keeps the order.
    ///
    /// # Errors
    /// [`NotTaken`]; then it is not counted.
    pub(super) fn take(&mut self, topic: &Topic, priority: Priority) -> Result<(), NotTaken> {
        if self.stopped.contains(&(topic.clone(), priority)) {
            return Err(NotTaken::NotTried);
        }
        self.room(priority).map_err(|refused| {
            self.stop(topic, priority);
            NotTaken::Full(refused)
        })
    }

    /// One of this topic and priority could not be taken, or not be stored: later ones of the request are
    /// not tried.
    pub(super) fn stop(&mut self, topic: &Topic, priority: Priority) {
        self.stopped.insert((topic.clone(), priority));
    }

    fn room(&mut self, priority: Priority) -> Result<(), WireError> {
        let mut taken = self.taken.lock();
        if let Err((why, refused)) = self.judge(priority, taken.waiting()) {
            self.metrics.count_refused(why, 1);
            return Err(refused);
        }
        taken.take(self.now);
        self.own += 1;
        Ok(())
    }

    /// So many of those that were taken are not in the queue, or were before.
    pub(super) fn give_back(&mut self, count: u64) {
        let count = count.min(self.own);
        self.own -= count;
        self.taken.lock().give_back(count);
    }

    /// The request as a whole is refused.
    pub(super) fn give_all_back(&mut self) {
        self.give_back(self.own);
    }

    fn judge(&self, priority: Priority, waiting: u64) -> Result<(), (EntryRefusal, WireError)> {
        let (rank, name) = (rank(priority), name(priority));
        let percent = CAPACITY_PERCENT[rank];
        // In 128 bits no capacity overflows.
        let of_all = |count: u64| u128::from(count) * 100;
        let limit = u128::from(self.capacity) * u128::from(percent);
        if of_all(waiting) >= limit {
            let text = format!(
                "the queue has {waiting} of {} entries (queue.capacity); from {percent} % on entries \
                 of priority {name} are refused",
                self.capacity
            );
            let refused = refused(text, of_all(waiting) - limit, limit / 4);
            return Err((EntryRefusal::Capacity, refused));
        }
        let percent = MEMORY_PERCENT[rank];
        match self.memory_percent {
            Some(used) if used >= percent => {
                let text = format!(
                    "Redis uses {used} % of its memory (maxmemory); from {percent} % on entries of \
                     priority {name} are refused"
                );
                let (over, rest) = (used - percent, 100 - percent);
                let refused = refused(text, over.into(), rest.into());
                Err((EntryRefusal::Memory, refused))
            }
            _ => Ok(()),
        }
    }
}

/// The longest that is told to wait.
const WAIT_MAX_MS: u64 = 5_000;

/// A refusal, to be tried again after 1 to 5 seconds: the longer the more is over the bound, and never
/// all callers at the same time.
fn refused(text: String, over: u128, much: u128) -> WireError {
    let over_ms = over.saturating_mul(3_000) / much.max(1);
    let base_ms = 1_000 + u64::try_from(over_ms).unwrap_or(u64::MAX).min(3_000);
    let mut error = WireError::new(ErrorCode::RateLimited, text);
    error.retry_after_ms = Some(rand::random_range(base_ms..=base_ms + 1_000).min(WAIT_MAX_MS));
    error
}

fn name(priority: Priority) -> &'static str {
    match priority {
        Priority::Critical => "critical",
        Priority::High => "high",
        Priority::Normal => "normal",
        Priority::Low => "low",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::broker::queue::PRIORITIES;
    use fanfare_protocol::ids::App;

    const HEARTBEATS: Duration = Duration::from_secs(1);

    fn bound(taken: &Taken, capacity: u64, memory_percent: Option<u8>) -> Bound<'_> {
        Bound {
            taken,
            metrics: Box::leak(Box::default()),
            now: Instant::now(),
            own: 0,
            stopped: HashSet::new(),
            capacity,
            memory_percent,
        }
    }

    fn taken(waiting: u64, capacity: u64, memory_percent: Option<u8>) -> Vec<Priority> {
        let none = Taken::told_by(HEARTBEATS);
        let bound = bound(&none, capacity, memory_percent);
        let is_taken = |priority: &Priority| bound.judge(*priority, waiting).is_ok();
        PRIORITIES.into_iter().filter(is_taken).collect()
    }

    #[test]
    fn each_priority_is_refused_from_its_own_part_of_the_capacity_on() {
        for (waiting, count) in [(0, 4), (699, 4), (700, 3), (799, 3), (800, 2), (899, 2)] {
            assert_eq!(
                taken(waiting, 1_000, None),
                PRIORITIES[..count],
                "{waiting}"
            );
        }
        for (waiting, count) in [(900, 1), (999, 1), (1_000, 0), (u64::MAX, 0)] {
            assert_eq!(
                taken(waiting, 1_000, None),
                PRIORITIES[..count],
                "{waiting}"
            );
        }
        assert_eq!(taken(0, 1, None), PRIORITIES);
        assert_eq!(taken(1, 1, None), []);
    }

    #[test]
    fn each_priority_is_refused_from_its_own_part_of_the_memory_on() {
        for (used, count) in [(0, 4), (79, 4), (80, 3), (84, 3), (85, 2), (89, 2), (90, 1)] {
            assert_eq!(taken(0, 1_000, Some(used)), PRIORITIES[..count], "{used}");
        }
        for (used, count) in [(94, 1), (95, 0), (100, 0), (255, 0)] {
            assert_eq!(taken(0, 1_000, Some(used)), PRIORITIES[..count], "{used}");
        }
    }

    #[test]
    fn what_was_taken_counts_and_the_refusal_says_which_bound_it_was() {
        let taken = Taken::told_by(HEARTBEATS);
        taken.told(69, 0, Instant::now());
        let mut bound = bound(&taken, 100, Some(82));
        assert!(bound.room(Priority::Normal).is_ok());
        let refused = bound.room(Priority::Low).unwrap_err();
        assert_eq!(refused.code, ErrorCode::RateLimited);
        assert_eq!(
            refused.message,
            "the queue has 70 of 100 entries (queue.capacity); from 70 % on entries of priority \
             low are refused"
        );
        // What was there before, or is not there, makes room again.
        bound.give_back(7);
        let refused = bound.room(Priority::Low).unwrap_err();
        assert_eq!(
            refused.message,
            "Redis uses 82 % of its memory (maxmemory); from 80 % on entries of priority low are \
             refused"
        );
        assert_eq!(taken.lock().waiting(), 69);
    }

    #[test]
    fn what_is_taken_between_two_figures_never_goes_beyond_the_capacity() {
        let (taken, begin) = (Taken::told_by(HEARTBEATS), Instant::now());
        let at = |ms| begin + Duration::from_millis(ms);
        let take = |ms: u64, told: u64, published: u64| {
            taken.told(told, published, at(ms));
            let mut bound = bound(&taken, 1_000, None);
            bound.now = at(ms);
            (0..600)
                .filter(|_| bound.room(Priority::Critical).is_ok())
                .count()
        };
        // Many requests before the first figure.
        assert_eq!(
            [take(0, 0, 0), take(100, 0, 0), take(300, 0, 0)],
            [600, 400, 0]
        );
        // Part of it is told, so it does not count twice.
        assert_eq!(take(1_000, 700, 0), 0);
        assert_eq!(taken.lock().waiting(), 1_000);
        // The figures know all; what leaves makes room.
        assert_eq!(take(2_000, 1_000, 0), 0);
        assert_eq!(take(3_000, 900, 0), 100);
        // What this node publishes at once is never told at all.
        taken.told(0, 0, at(10_000));
        assert_eq!(taken.lock().waiting(), 0, "old entries are told or gone");
        for second in 0..20_u64 {
            assert_eq!(take(11_000 + second * 1_000, 0, second * 600), 600);
        }
    }

    #[test]
    fn a_wait_is_one_to_five_seconds_by_how_full_it_is_and_differs() {
        let none = Taken::told_by(HEARTBEATS);
        let bound = bound(&none, 1_000, None);
        let wait = |waiting| {
            let (_, error) = bound.judge(Priority::Low, waiting).unwrap_err();
            error.retry_after_ms.unwrap()
        };
        let (light, heavy): (Vec<_>, Vec<_>) = (0..64).map(|_| (wait(700), wait(1_000))).unzip();
        assert!(
            light.iter().all(|ms| (1_000..=2_000).contains(ms)),
            "{light:?}"
        );
        assert!(
            heavy.iter().all(|ms| (4_000..=5_000).contains(ms)),
            "{heavy:?}"
        );
        assert!(light.iter().any(|ms| *ms != light[0]));
        assert!(wait(u64::MAX) <= WAIT_MAX_MS);
    }

    #[test]
    fn heartbeats_that_come_seldom_leave_what_was_taken_untold_for_longer() {
        let begin = Instant::now();
        let waiting = |heartbeats: u64, s: u64| {
            let taken = Taken::told_by(Duration::from_secs(heartbeats));
            taken.lock().take(begin);
            taken.told(0, 0, begin + Duration::from_secs(s));
            taken.lock().waiting()
        };
        assert_eq!([waiting(1, 3), waiting(1, 4)], [1, 0]);
        assert_eq!([waiting(12, 25), waiting(12, 26)], [1, 0]);
    }

    #[test]
    fn what_comes_behind_a_refused_entry_of_its_topic_and_priority_is_not_tried() {
        let taken = Taken::told_by(HEARTBEATS);
        taken.told(70, 0, Instant::now());
        let mut bound = bound(&taken, 100, None);
        let topic = |name: &str| Topic::new(&App::default_app(), name).unwrap();
        let mut code = |name: &str, priority| {
            let taken = bound.take(&topic(name), priority);
            taken.err().map(|why| WireError::from(why).code)
        };
        assert_eq!(code("a", Priority::Low), Some(ErrorCode::RateLimited));
        assert_eq!(code("a", Priority::High), None);
        assert_eq!(code("b", Priority::Normal), None);
        // There is room again.
        taken.told(0, 0, Instant::now());
        assert_eq!(code("a", Priority::Low), Some(ErrorCode::Unavailable));
        assert_eq!(code("b", Priority::Low), None);
        bound.stop(&topic("b"), Priority::Low);
        let taken = bound.take(&topic("b"), Priority::Low);
        assert_eq!(taken, Err(NotTaken::NotTried));
    }
}
