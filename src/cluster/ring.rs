//! The ring: which node is the home of a partition, and so of a topic or user.
//!
//! In: the names of the live nodes, in any order, and the number of partitions. Out: one home per
//! partition. Pure and immutable: every node that sees the same names computes the same homes,
//! in every process and release, because the hash ([`FixedHash`]) is taken over bytes that this
//! file lays down; golden vectors in the tests hold it. Names are hashed, never incarnations, so
//! that a restarted node gets its partitions back.
//! Bounds: [`VNODES_COUNT`] points per node; no node holds more than ceil(1.25 × P / n)
//! partitions: each partition, in ascending order, goes to its first candidate with room.
//!
//! The crate `consistent_hash` sorts the points and walks them. What was checked in its source:
//! the search key `(hash, 0)` never equals a point's `(hash, 1)`, so its `err().unwrap()` cannot
//! panic, also on an empty ring; points with equal hashes are ordered by node name, so a
//! collision changes nothing.

use std::hash::{Hash, Hasher};

use consistent_hash::{Node, StaticHashRing};

use crate::fixed_hash::FixedHash;
use fanfare_protocol::ids::{NodeId, Topic};

/// Points of one node on the ring. Source: with 160, a simulation of up to 10 nodes and 256
/// partitions moved at most 1.41 times the ideal on a join or leave.
pub const VNODES_COUNT: usize = 160;

/// Homes of all partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    /// Sorted by name, without duplicates.
    nodes: Vec<NodeId>,
    /// The index into `nodes` of each partition's home; empty when there is no node.
    homes: Vec<usize>,
    partitions_count: u32,
}

impl Ring {
    /// The ring of these nodes. Their order and repetitions are irrelevant.
    #[must_use]
    pub fn new(nodes: &[NodeId], partitions_count: u32) -> Self {
        let mut nodes = nodes.to_vec();
        nodes.sort_unstable();
        nodes.dedup();
        let homes = deal(&nodes, partitions_count);
        Self {
            nodes,
            homes,
            partitions_count,
        }
    }

    /// The home of a topic; `None` when the ring has no node.
    #[must_use]
    pub fn home(&self, topic: &Topic) -> Option<&NodeId> {
        self.home_of_partition(topic.partition(self.partitions_count))
    }

    /// The home of a partition; `None` when the ring has no node or no such partition.
    #[must_use]
    pub fn home_of_partition(&self, partition: u32) -> Option<&NodeId> {
        let home = *self.homes.get(usize::try_from(partition).ok()?)?;
        self.nodes.get(home)
    }

    /// The partitions whose home is this node, ascending.
    pub fn partitions_of(&self, node: &NodeId) -> impl Iterator<Item = u32> {
        let wanted = self.nodes.binary_search(node).ok();
        (0..self.partitions_count)
            .zip(&self.homes)
            .filter(move |(_, home)| Some(**home) == wanted)
            .map(|(partition, _)| partition)
    }

    /// The part of all partitions whose home is this node, from 0 to 1.
    #[must_use]
    pub fn share(&self, node: &NodeId) -> f64 {
        let count = u32::try_from(self.partitions_of(node).count()).unwrap_or(u32::MAX);
        f64::from(count) / f64::from(self.partitions_count.max(1))
    }

    /// The number of partitions, the same on every node of a cluster.
    #[must_use]
    pub fn partitions_count(&self) -> u32 {
        self.partitions_count
    }
}

/// Deals the partitions in ascending order, each to its first candidate that has room.
fn deal(nodes: &[NodeId], partitions_count: u32) -> Vec<usize> {
    if nodes.is_empty() {
        return Vec::new();
    }
    let points = StaticHashRing::new(
        FixedHash,
        nodes.iter().enumerate().map(|(index, node)| Node {
            key: Name(node.as_str()),
            value: index,
            quantity: VNODES_COUNT,
        }),
    );
    // ceil(1.25 × P / n) in whole numbers. All rooms together hold at least 1.25 × P.
    let room = (5 * partitions_count as usize).div_ceil(4 * nodes.len());
    let mut taken = vec![0_usize; nodes.len()];
    (0..partitions_count)
        .map(|partition| {
            let home = points
                .calc_candidates(&Partition(partition))
                .map(|candidate| candidate.value)
                .find(|&index| taken[index] < room)
                .expect("the rooms of all nodes hold more than all partitions");
            taken[home] += 1;
            home
        })
        .collect()
}

/// A node's name as the ring hashes it: `node:NAME:`, followed by the point's number in decimal.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name<'a>(&'a str);

impl Hash for Name<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(b"node:");
        state.write(self.0.as_bytes());
        state.write(b":");
    }
}

/// A partition as the ring hashes it: `partition:` and its number in decimal.
struct Partition(u32);

impl Hash for Partition {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(b"partition:");
        state.write(self.0.to_string().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use consistent_hash::RingHash as _;
    use proptest::prelude::*;

    use super::*;
    use fanfare_protocol::ids::App;

    const PARTITIONS: u32 = 256;

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn ring(names: &[&str]) -> Ring {
        let nodes: Vec<_> = names.iter().map(|n| node(n)).collect();
        Ring::new(&nodes, PARTITIONS)
    }

    fn moved(a: &Ring, b: &Ring) -> u32 {
        let differs = |p: &u32| a.home_of_partition(*p) != b.home_of_partition(*p);
        u32::try_from((0..PARTITIONS).filter(differs).count()).unwrap()
    }

    #[test]
    fn hashes_are_the_first_eight_bytes_of_sha1_over_the_documented_text() {
        // echo -n 'node:fanfare-0:0' | sha1sum; echo -n 'partition:7' | sha1sum
        assert_eq!(
            FixedHash.hash_vnode(&Name("fanfare-0"), 0),
            0xe311_6a22_e5ff_d3ef
        );
        assert_eq!(FixedHash.hash_item(&Partition(7)), 0xe08f_9d8d_56a7_ac32);
    }

    #[test]
    fn homes_are_the_same_in_every_release() {
        let ring = ring(&["fanfare-0", "fanfare-1", "fanfare-2"]);
        let homes: String = (0..64)
            .map(|p| ring.home_of_partition(p).unwrap().as_str())
            .map(|name| name.chars().last().unwrap())
            .collect();
        assert_eq!(
            homes,
            "1211210010202010202102211220021101020101211012100120211110111020"
        );
    }

    #[test]
    fn a_ring_without_nodes_has_no_homes() {
        let empty = ring(&[]);
        assert_eq!(empty.home_of_partition(0), None);
        assert_eq!(empty.home(&Topic::everyone(&App::default_app())), None);
        assert_eq!(empty.partitions_of(&node("a")).count(), 0);
        assert_eq!(empty.share(&node("a")), 0.0);
    }

    #[test]
    fn one_node_is_the_home_of_everything_and_of_nothing_beyond() {
        let alone = ring(&["a"]);
        assert_eq!(alone.share(&node("a")), 1.0);
        assert_eq!(alone.share(&node("b")), 0.0);
        assert_eq!(alone.home_of_partition(PARTITIONS), None);
    }

    #[test]
    fn a_topic_its_members_and_its_partition_share_a_home() {
        let ring = ring(&["a", "b", "c"]);
        let topic = Topic::new(&App::default_app(), "orders:7").unwrap();
        assert_eq!(ring.home(&topic), ring.home(&topic.presence()));
        let partition = topic.partition(PARTITIONS);
        assert_eq!(ring.home(&topic), ring.home_of_partition(partition));
        let home = ring.home(&topic).unwrap();
        assert!(ring.partitions_of(home).any(|p| p == partition));
    }

    fn names() -> impl Strategy<Value = BTreeSet<String>> {
        prop_oneof![
            proptest::collection::btree_set("[a-z0-9]{1,12}", 2..=10),
            // As a StatefulSet names them.
            ("[a-z]{1,8}", 2..=10_u32)
                .prop_map(|(set, n)| (0..n).map(|i| format!("{set}-{i}")).collect()),
        ]
    }

    proptest! {
        #[test]
        fn order_and_repetitions_of_the_input_change_nothing(
            names in names(), seed in any::<u64>()
        ) {
            let sorted: Vec<_> = names.iter().map(|n| node(n)).collect();
            let mut mixed = sorted.clone();
            mixed.extend_from_slice(&sorted[..2]);
            let turn = usize::try_from(seed % mixed.len() as u64).unwrap();
            mixed.rotate_left(turn);
            mixed.reverse();
            prop_assert_eq!(Ring::new(&sorted, PARTITIONS), Ring::new(&mixed, PARTITIONS));
        }

        #[test]
        fn shares_are_even_and_a_join_or_leave_moves_at_most_twice_the_ideal(
            names in names(), seed in any::<u64>()
        ) {
            // From the larger ring to the smaller is a leave, the other way a join.
            let larger: Vec<_> = names.iter().map(|n| node(n)).collect();
            let mut smaller = larger.clone();
            smaller.remove(usize::try_from(seed % larger.len() as u64).unwrap());
            let (after, before) = (Ring::new(&larger, PARTITIONS), Ring::new(&smaller, PARTITIONS));
            let ideal = f64::from(PARTITIONS) / larger.len() as f64;
            let moved = f64::from(moved(&after, &before));
            prop_assert!(moved <= 2.0 * ideal, "moved {moved}, ideal {ideal}");
            for (ring, nodes) in [(&after, &larger), (&before, &smaller)] {
                let total: usize = nodes.iter().map(|n| ring.partitions_of(n).count()).sum();
                prop_assert_eq!(total, PARTITIONS as usize);
                for node in nodes {
                    let relative = ring.share(node) * nodes.len() as f64;
                    prop_assert!(relative <= 1.3, "{node} has {relative} of its share");
                }
            }
        }
    }
}
