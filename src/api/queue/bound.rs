//! Whether the queue takes one more entry of a priority.
//!
//! In: how full the queue of the cluster and Redis' memory are, as last told, and what this request has
//! added itself. Out: nothing, or the refusal that says which bound it was. Pure. Bounds:
//! `queue.capacity` and `maxmemory`, of which the lower priorities get the smaller part, so that what
//! matters most is taken last and still after everything else is refused. Approximate: what other
//! requests added since the last heartbeat is not known.

use crate::api::state::ApiState;
use crate::broker::queue::rank;
use fanfare_protocol::error::{ErrorCode, WireError};
use fanfare_protocol::ids::Priority;

/// From so many percent of `queue.capacity` on a priority is refused, by its rank.
const CAPACITY_PERCENT: [u64; 4] = [100, 90, 80, 70];

/// The same of `maxmemory`. Less than all of it, because entries that are moved need room in their
/// topics before they leave the queue.
const MEMORY_PERCENT: [u8; 4] = [95, 90, 85, 80];

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    /// Entries of the cluster, due and delayed.
    waiting: u64,
    /// `queue.capacity`.
    capacity: u64,
    /// How much of its `maxmemory` the fullest master of Redis uses.
    memory_percent: Option<u8>,
}

impl Bound {
    /// As it stands now.
    pub(super) fn now(state: &ApiState) -> Self {
        let status = state.directory.queue();
        Self {
            waiting: status.told.depth().saturating_add(status.told.later),
            capacity: state.config.queue.capacity,
            memory_percent: status.redis_memory_percent,
        }
    }

    /// Takes one more entry.
    ///
    /// # Errors
    /// `rate_limited`, with the bound in words; then it is not counted.
    pub(super) fn take(&mut self, priority: Priority) -> Result<(), WireError> {
        self.judge(priority)?;
        self.waiting = self.waiting.saturating_add(1);
        Ok(())
    }

    fn judge(&self, priority: Priority) -> Result<(), WireError> {
        let (rank, name) = (rank(priority), name(priority));
        let percent = CAPACITY_PERCENT[rank];
        // In 128 bits no capacity overflows.
        let is_full =
            u128::from(self.waiting) * 100 >= u128::from(self.capacity) * u128::from(percent);
        if is_full {
            return Err(refused(format!(
                "the queue has {} of {} entries (queue.capacity); from {percent} % on entries of \
                 priority {name} are refused",
                self.waiting, self.capacity
            )));
        }
        let percent = MEMORY_PERCENT[rank];
        match self.memory_percent {
            Some(used) if used >= percent => Err(refused(format!(
                "Redis uses {used} % of its memory (maxmemory); from {percent} % on entries of \
                 priority {name} are refused"
            ))),
            _ => Ok(()),
        }
    }
}

fn refused(text: String) -> WireError {
    WireError::new(ErrorCode::RateLimited, text)
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
    use super::*;
    use crate::broker::queue::PRIORITIES;

    fn taken(waiting: u64, capacity: u64, memory_percent: Option<u8>) -> Vec<Priority> {
        let bound = Bound {
            waiting,
            capacity,
            memory_percent,
        };
        let is_taken = |priority: &Priority| bound.judge(*priority).is_ok();
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
    fn what_a_request_adds_counts_and_the_refusal_says_which_bound_it_was() {
        let mut bound = Bound {
            waiting: 69,
            capacity: 100,
            memory_percent: Some(82),
        };
        assert!(bound.take(Priority::Normal).is_ok());
        let refused = bound.take(Priority::Low).unwrap_err();
        assert_eq!(refused.code, ErrorCode::RateLimited);
        assert_eq!(
            refused.message,
            "the queue has 70 of 100 entries (queue.capacity); from 70 % on entries of priority \
             low are refused"
        );
        bound.waiting = 0;
        let refused = bound.take(Priority::Low).unwrap_err();
        assert_eq!(
            refused.message,
            "Redis uses 82 % of its memory (maxmemory); from 80 % on entries of priority low are \
             refused"
        );
        assert_eq!(bound.waiting, 0);
    }
}
