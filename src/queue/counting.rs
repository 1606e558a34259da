//! Counts what waits in partitions that no pass has come to for a while.
//!
//! In: partitions with their masters, time. Out: calls of the broker, and what they found. Passes may have
//! more to do than they can, and how much that is decides how many nodes there are. Owner: the consumer.
//! Bounds: [`AT_ONCE`] calls, of which a master of Redis has an even share, so that one that is slow keeps
//! only its own partitions from being counted; a call is given up after [`PATIENCE`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::timeout;

use crate::broker::queue::Depths;
use crate::broker::{Broker, FeedNumber};

/// Partitions in which what waits is counted at once, beside passes.
const AT_ONCE: usize = 16;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where it was counted, whose partition that is, and what was found; `None`: there was no answer.
type Counted = (FeedNumber, u32, Option<Depths>);

/// See the module.
#[derive(Default)]
pub(super) struct Counting {
    running: FuturesUnordered<BoxFuture<'static, Counted>>,
    masters: BTreeMap<FeedNumber, Master>,
}

/// What is to be counted of one master.
#[derive(Debug, Default)]
struct Master {
    /// Calls on their way.
    count: usize,
    /// Partitions that come next; at most all that are held.
    waiting: Vec<u32>,
}

impl Counting {
    /// Counts these, but for those of masters whose last ones are still being counted.
    pub(super) fn add(&mut self, partitions: impl Iterator<Item = (FeedNumber, u32)>) {
        self.masters
            .retain(|_, master| master.count > 0 || !master.waiting.is_empty());
        let mut new: BTreeMap<FeedNumber, Vec<u32>> = BTreeMap::new();
        for (feed, partition) in partitions {
            new.entry(feed).or_default().push(partition);
        }
        for (feed, partitions) in new {
            let master = self.masters.entry(feed).or_default();
            if master.count == 0 && master.waiting.is_empty() {
                master.waiting = partitions;
            }
        }
    }

    /// Begins calls while there is room.
    pub(super) fn begin(&mut self, broker: &Arc<Broker>) {
        let share = (AT_ONCE / self.masters.len().max(1)).max(1);
        for (feed, master) in &mut self.masters {
            while master.count < share
                && let Some(partition) = master.waiting.pop()
            {
                let (feed, broker) = (*feed, Arc::clone(broker));
                let count = async move {
                    let counted = timeout(PATIENCE, broker.queue_depths(partition)).await;
                    (feed, partition, counted.ok().and_then(Result::ok))
                };
                master.count += 1;
                self.running.push(count.boxed());
            }
        }
    }

    /// The next one that ends; waits for ever where none is on its way. Cancel-safe.
    pub(super) async fn next(&mut self) -> (u32, Option<Depths>) {
        let Some((feed, partition, depths)) = self.running.next().await else {
            return std::future::pending().await;
        };
        if let Some(master) = self.masters.get_mut(&feed) {
            master.count -= 1;
        }
        (partition, depths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::memory::MemoryBroker;
    use crate::broker::memory::clock::Clock;
    use crate::telemetry::metrics::Metrics;

    const SLOW: FeedNumber = FeedNumber(1);
    const WELL: FeedNumber = FeedNumber(2);

    fn waiting(counting: &Counting, feed: FeedNumber) -> usize {
        counting
            .masters
            .get(&feed)
            .map_or(0, |one| one.waiting.len())
    }

    #[tokio::test]
    async fn a_master_that_does_not_answer_keeps_only_its_own_from_being_counted() {
        let (memory, _feed) = MemoryBroker::new(Clock::System, Arc::new(Metrics::new(1)));
        let broker = Arc::new(Broker::Memory(memory));
        let mut counting = Counting::default();
        let all = |count: u32| {
            let slow = (0..count).map(|partition| (SLOW, partition));
            slow.chain((count..2 * count).map(|partition| (WELL, partition)))
        };
        counting.add(all(100));
        counting.begin(&broker);
        assert_eq!(counting.running.len(), AT_ONCE);
        // What the slow one has on its way never comes back here.
        let of_slow = counting.masters[&SLOW].count;
        assert_eq!(of_slow, AT_ONCE / 2);
        let mut counted = 0;
        while counted < 100 {
            let (partition, depths) = counting.next().await;
            assert!(depths.is_some());
            if partition < 100 {
                counting.masters.get_mut(&SLOW).expect("it is there").count += 1;
                continue;
            }
            counted += 1;
            counting.begin(&broker);
        }
        assert_eq!(waiting(&counting, SLOW), 100 - of_slow);
        // A new round of the other begins meanwhile, and none of it.
        counting.add(all(100));
        assert_eq!(waiting(&counting, SLOW), 100 - of_slow);
        assert_eq!(waiting(&counting, WELL), 100);
    }
}
