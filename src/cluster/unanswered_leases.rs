//! Reports which requests for leases of partitions nobody answers. Pure, time as a value.
//!
//! In: for which partitions this node is the home, for which of them it bids, which bids were
//! answered, and why others were not. Out: a line when some partition had no answer for a whole lease,
//! one when that is over, and a level for whoever asks how the node does. Owner: the task of
//! `partitions`. Bound: one entry a partition.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::partition_store::PartitionError;

/// See the module.
#[derive(Debug)]
pub(super) struct UnansweredLeases {
    lease: Duration,
    /// Since when each partition has been bid for without an answer.
    since: BTreeMap<u32, Instant>,
    /// Why the last was not answered.
    reason: String,
    shown: Arc<watch::Sender<Option<String>>>,
}

impl UnansweredLeases {
    pub(super) fn new(lease: Duration, shown: Arc<watch::Sender<Option<String>>>) -> Self {
        Self {
            lease,
            since: BTreeMap::new(),
            reason: "no answer came in time".to_owned(),
            shown,
        }
    }

    /// This node is the home of `mine`, and bids for those that are `wanted` now.
    pub(super) fn begin(&mut self, mine: &BTreeSet<u32>, wanted: &BTreeSet<u32>, now: Instant) {
        self.since.retain(|partition, _| mine.contains(partition));
        for partition in wanted {
            self.since.entry(*partition).or_insert(now);
        }
    }

    /// Redis has said whose a partition is.
    pub(super) fn answered(&mut self, partition: u32) {
        self.since.remove(&partition);
    }

    /// A round is over; `failed`: the last reason why a bid was not answered, where there was one.
    pub(super) fn end(&mut self, failed: Option<&PartitionError>, now: Instant) {
        match failed {
            Some(PartitionError::Redis(why)) => self.reason = why.to_string(),
            Some(why) => self.reason = why.to_string(),
            None => {}
        }
        let is_late = |since: &&Instant| now.saturating_duration_since(**since) >= self.lease;
        let count = self.since.values().filter(is_late).count();
        let text = (count > 0).then(|| format!("{count} not answered for: {}", self.reason));
        let before = self.shown.send_replace(text);
        let reason = self.reason.as_str();
        match (before, count) {
            (None, 1..) => warn!(
                event = "partition_leases_missed",
                count,
                reason,
                "Redis has not said for a lease who has some partitions; what dead nodes left there stays"
            ),
            (Some(_), 0) => info!(
                event = "partition_leases_answered",
                "Redis says again who has the partitions"
            ),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_without_an_answer_for_a_lease_is_told_until_it_has_one() {
        let (start, lease) = (Instant::now(), Duration::from_secs(5));
        let at = |seconds| start + Duration::from_secs(seconds);
        let shown = Arc::new(watch::Sender::new(None));
        let mut bids = UnansweredLeases::new(lease, Arc::clone(&shown));
        let mine = BTreeSet::from([3, 4]);
        let mut round = |seconds, wanted: &[u32], answered: &[u32]| {
            bids.begin(&mine, &wanted.iter().copied().collect(), at(seconds));
            answered.iter().for_each(|p| bids.answered(*p));
            bids.end(Some(&PartitionError::Unexpected), at(seconds));
            shown.borrow().clone()
        };
        assert_eq!(round(0, &[3, 4], &[3]), None);
        assert_eq!(round(4, &[3, 4], &[3]), None);
        // It counts since the first bid, whether one is made in each round or not.
        let told = round(5, &[], &[]).expect("it is told");
        assert!(told.starts_with("1 not answered for: "), "{told}");
        assert!(told.contains("unexpected"), "{told}");
        assert_eq!(round(6, &[3, 4], &[4]), None, "3 was bid for just now");
        assert!(round(11, &[3], &[]).is_some());
        bids.begin(&BTreeSet::from([4]), &BTreeSet::new(), at(12));
        bids.end(None, at(12));
        assert_eq!(*shown.borrow(), None, "it has another home");
    }
}
