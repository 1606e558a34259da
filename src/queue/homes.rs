//! The partitions whose queues this node tells of: those whose home it is by the ring, held or not.
//!
//! In: the view, what is held, time. Out: what came and went, and which of them no node holds for longer
//! than a lease. All nodes have the same ring, so each partition is told by one, also one whose lease nobody
//! can have. A view that is not fresh any more stays what it was, and so does what is told. Owner: the
//! consumer. Bound: one entry a partition.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::view::View;

/// See the module.
#[derive(Debug)]
pub(super) struct Homes {
    lease: Duration,
    /// Of each partition, since when this node has not held it; `None`: it does.
    partitions: BTreeMap<u32, Option<Instant>>,
}

impl Homes {
    /// None yet. Leases last so long.
    pub(super) fn new(lease: Duration) -> Self {
        Self {
            lease,
            partitions: BTreeMap::new(),
        }
    }

    /// Takes what this node is the home of, and what it holds. Returns the partitions that came, and those
    /// that went.
    pub(super) fn note(
        &mut self,
        view: &View,
        is_held: impl Fn(u32) -> bool,
        now: Instant,
    ) -> (Vec<u32>, Vec<u32>) {
        let mut before = std::mem::take(&mut self.partitions);
        let mut came = Vec::new();
        // Before Redis has answered once, a view shows this node alone.
        let is_known = view.me.incarnation > 0;
        let mine = is_known.then(|| view.ring.partitions_of(&view.me.node));
        for partition in mine.into_iter().flatten() {
            let unheld = match before.remove(&partition) {
                Some(unheld) => unheld,
                None => {
                    came.push(partition);
                    None
                }
            };
            let unheld = (!is_held(partition)).then(|| unheld.unwrap_or(now));
            self.partitions.insert(partition, unheld);
        }
        (came, before.into_keys().collect())
    }

    /// All of them.
    pub(super) fn partitions(&self) -> impl Iterator<Item = u32> {
        self.partitions.keys().copied()
    }

    /// Whether this node is the home of a partition.
    pub(super) fn has(&self, partition: u32) -> bool {
        self.partitions.contains_key(&partition)
    }

    /// Whether it is, and has not held it for longer than a lease: whoever had it before has lost it by then.
    pub(super) fn lacks(&self, partition: u32, now: Instant) -> bool {
        let unheld = self.partitions.get(&partition).copied().flatten();
        unheld.is_some_and(|since| now > since + self.lease)
    }

    /// This node's part of a number that all partitions share: of all nodes together, the whole.
    pub(super) fn share(&self, whole: u64, partitions_count: u32) -> u64 {
        let shares = self.partitions();
        shares
            .map(|partition| share_of(whole, partition, partitions_count))
            .sum()
    }
}

/// The part of a whole that one of so many partitions has: of all of them together, the whole.
fn share_of(whole: u64, partition: u32, partitions_count: u32) -> u64 {
    let up_to = |count: u32| {
        let part = u128::from(whole) * u128::from(count) / u128::from(partitions_count.max(1));
        u64::try_from(part).unwrap_or(u64::MAX)
    };
    up_to(partition.saturating_add(1)) - up_to(partition)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cluster::ring::Ring;
    use crate::cluster::view::NodeDetails;
    use fanfare_protocol::ids::NodeId;

    const LEASE: Duration = Duration::from_secs(5);
    const COUNT: u32 = 64;

    /// What a node sees of these.
    fn view(me: &str, names: &[&str]) -> View {
        let names: Vec<NodeId> = names
            .iter()
            .map(|name| NodeId::new(name).unwrap())
            .collect();
        View {
            ring: Arc::new(Ring::new(&names, COUNT)),
            ..View::alone(me.parse().unwrap(), NodeDetails::default(), COUNT)
        }
    }

    #[test]
    fn each_partition_has_one_home_that_tells_of_it_held_or_not() {
        let now = Instant::now();
        let mut all = Vec::new();
        let mut capacity = 0;
        for me in ["a~5", "b~6", "c~7"] {
            let mut homes = Homes::new(LEASE);
            let (came, gone) = homes.note(&view(me, &["a", "b", "c"]), |_| false, now);
            assert_eq!(homes.partitions().collect::<Vec<_>>(), came);
            assert!(gone.is_empty());
            capacity += homes.share(1_001, COUNT);
            all.extend(came);
        }
        all.sort_unstable();
        assert_eq!(all, (0..COUNT).collect::<Vec<_>>());
        assert_eq!(capacity, 1_001);
    }

    #[test]
    fn what_goes_to_another_home_is_told_to_have_gone_and_what_stays_is_not() {
        let now = Instant::now();
        let mut homes = Homes::new(LEASE);
        // Nobody has answered yet.
        assert_eq!(
            homes.note(&view("a~0", &["a"]), |_| true, now),
            (vec![], vec![])
        );
        let (came, _) = homes.note(&view("a~5", &["a"]), |_| true, now);
        assert_eq!(came.len(), COUNT as usize);
        let (came, gone) = homes.note(&view("a~5", &["a", "b"]), |_| true, now);
        assert!(came.is_empty());
        assert!(!gone.is_empty() && gone.iter().all(|partition| !homes.has(*partition)));
        assert_eq!(gone.len() + homes.partitions().count(), COUNT as usize);
        // Stale, it stays what it was.
        let stale = View {
            fresh: false,
            ..view("a~5", &["a", "b"])
        };
        assert_eq!(homes.note(&stale, |_| false, now), (vec![], vec![]));
    }

    #[test]
    fn one_that_was_not_held_for_longer_than_a_lease_is_lacking() {
        let now = Instant::now();
        let at = |s: u64| now + Duration::from_secs(s);
        let mut homes = Homes::new(LEASE);
        let view = view("a~5", &["a"]);
        homes.note(&view, |partition| partition > 0, at(0));
        homes.note(&view, |partition| partition > 0, at(3));
        assert!(!homes.lacks(0, at(5)));
        assert!(homes.lacks(0, at(6)));
        assert!(!homes.lacks(1, at(6)) && !homes.lacks(COUNT, at(6)));
        // It was held meanwhile.
        homes.note(&view, |_| true, at(7));
        homes.note(&view, |partition| partition > 0, at(8));
        assert!(!homes.lacks(0, at(12)));
    }

    #[test]
    fn the_shares_of_partitions_are_the_whole_together() {
        for (whole, partitions) in [(1_000_000, 256), (100, 256), (7, 3), (u64::MAX, 8), (5, 1)] {
            let shares = (0..partitions).map(|partition| share_of(whole, partition, partitions));
            assert_eq!(shares.map(u128::from).sum::<u128>(), u128::from(whole));
        }
        // Half of them are half, to one.
        let half: u64 = (0..128)
            .map(|partition| share_of(1_001, partition, 256))
            .sum();
        assert_eq!(half, 500);
    }
}
