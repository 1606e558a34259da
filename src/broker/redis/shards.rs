//! The ring of deployments: which of several independent Redis deployments has a partition, with
//! all its keys.
//!
//! In: the deployments' names, in the order in which they are listed, and how many partitions there
//! are. Out: the place in that list for each partition. Pure and immutable; every node that lists the
//! same names, in whatever order, sends a partition to the same deployment, so neither an address nor
//! the order moves any. Bounds: [`POINTS_COUNT`] points per deployment while partitions are dealt; one
//! number per partition afterwards.

use std::hash::{Hash, Hasher};

use consistent_hash::{Node, StaticHashRing};

use crate::fixed_hash::FixedHash;

/// Points of one deployment on the ring, as many as a node has on the ring of the cluster.
const POINTS_COUNT: usize = 160;

/// See the module.
#[derive(Debug)]
pub struct Shards {
    /// By partition.
    places: Vec<usize>,
}

impl Shards {
    /// Deals partitions in their order, each to the first deployment after it on the ring that has
    /// fewer than a quarter more than its share. No name may be there twice, which the configuration
    /// checks.
    #[must_use]
    pub fn new(names: &[String], partitions_count: u32) -> Self {
        let count = partitions_count as usize;
        if names.len() < 2 {
            return Self {
                places: vec![0; count],
            };
        }
        let points = names.iter().enumerate().map(|(at, name)| Node {
            key: Name(name.clone()),
            value: at,
            quantity: POINTS_COUNT,
        });
        let ring = StaticHashRing::new(FixedHash, points);
        let room = (5 * count).div_ceil(4 * names.len());
        let mut taken = vec![0; names.len()];
        let place = |partition| {
            let mut candidates = ring.calc_candidates(&Placed(partition));
            let at = candidates.find(|candidate| taken[candidate.value] < room);
            let at = at.map_or(0, |candidate| candidate.value);
            taken[at] += 1;
            at
        };
        Self {
            places: (0..partitions_count).map(place).collect(),
        }
    }

    /// The place of the deployment that has this partition.
    #[must_use]
    pub fn of(&self, partition: u32) -> usize {
        self.places.get(partition as usize).copied().unwrap_or(0)
    }
}

/// A deployment's name as the ring hashes it: `redis:NAME:`, then the point's number in decimal.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name(String);

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(b"redis:");
        state.write(self.0.as_bytes());
        state.write(b":");
    }
}

/// A partition as the ring hashes it: `partition:` and its number in decimal.
struct Placed(u32);

impl Hash for Placed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(b"partition:");
        state.write(self.0.to_string().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITIONS: u32 = 256;

    fn shards(names: &[&str]) -> (Vec<String>, Shards) {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let shards = Shards::new(&names, PARTITIONS);
        (names, shards)
    }

    #[test]
    fn one_deployment_has_every_partition() {
        let (_, shards) = shards(&["a"]);
        assert!((0..PARTITIONS).all(|partition| shards.of(partition) == 0));
    }

    #[test]
    fn partitions_are_spread_and_the_order_of_the_list_moves_none() {
        let (names, listed) = shards(&["a:6379", "b:6379", "c:6379"]);
        let (turned_names, turned) = shards(&["c:6379", "a:6379", "b:6379"]);
        for partition in 0..PARTITIONS {
            let at = listed.of(partition);
            assert_eq!(names[at], turned_names[turned.of(partition)]);
        }
        for count in 2..=12_usize {
            let names: Vec<_> = (0..count).map(|n| format!("redis-{n}:6379")).collect();
            for partitions in [PARTITIONS, 1_024] {
                let shards = Shards::new(&names, partitions);
                let mut counts = vec![0; count];
                (0..partitions).for_each(|partition| counts[shards.of(partition)] += 1);
                let most = (5 * partitions as usize).div_ceil(4 * count);
                assert!(counts.iter().all(|of| *of <= most), "{most}: {counts:?}");
                assert!(counts.iter().all(|of| 2 * of > most), "{most}: {counts:?}");
            }
        }
    }

    #[test]
    fn a_new_deployment_takes_its_share_and_little_else_moves() {
        for count in 1..8_usize {
            let mut names: Vec<_> = (0..count).map(|n| format!("redis-{n}:6379")).collect();
            let before = Shards::new(&names, PARTITIONS);
            names.push("new:6379".to_owned());
            let after = Shards::new(&names, PARTITIONS);
            let moved = (0..PARTITIONS).filter(|p| before.of(*p) != after.of(*p));
            let moved = moved.count();
            let share = PARTITIONS as usize / (count + 1);
            assert!(moved > share / 2 && moved < 2 * share, "{moved}, {share}");
        }
    }

    #[test]
    fn places_are_the_same_in_every_release() {
        let (_, shards) = shards(&["east", "west"]);
        let places: String = (0..32)
            .map(|partition| char::from(b'0' + u8::from(shards.of(partition) == 1)))
            .collect();
        assert_eq!(places, "00010000001100110010010011010000");
    }
}
