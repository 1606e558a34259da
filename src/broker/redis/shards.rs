//! The ring of deployments: which of several independent Redis deployments has a topic.
//!
//! In: the deployments' names, in the order in which they are listed. Out: the place in that list
//! for each topic. Pure and immutable; every node that lists the same names, in whatever order,
//! sends a topic to the same deployment, so neither an address nor the order moves a topic.
//! Bounds: [`POINTS_COUNT`] points per deployment.

use std::hash::{Hash, Hasher};

use consistent_hash::{Node, StaticHashRing};

use crate::fixed_hash::FixedHash;

/// Points of one deployment on the ring, as many as a node has on the ring of the cluster.
const POINTS_COUNT: usize = 160;

/// See the module.
#[derive(Debug)]
pub struct Shards {
    ring: StaticHashRing<'static, Name, usize, FixedHash>,
    /// With one there is nothing to choose, and nothing is hashed.
    is_one: bool,
}

impl Shards {
    /// The ring of these deployments. No name may be there twice, which the configuration checks.
    #[must_use]
    pub fn new(names: &[String]) -> Self {
        let points = names.iter().enumerate().map(|(at, name)| Node {
            key: Name(name.clone()),
            value: at,
            quantity: POINTS_COUNT,
        });
        Self {
            ring: StaticHashRing::new(FixedHash, points),
            is_one: names.len() < 2,
        }
    }

    /// The place of the deployment that has the topic `app:topic`.
    #[must_use]
    pub fn of(&self, qualified: &str) -> usize {
        if self.is_one {
            return 0;
        }
        let mut candidates = self.ring.calc_candidates(&Placed(qualified));
        candidates.next().map_or(0, |candidate| candidate.value)
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

/// A topic as the ring hashes it: `topic:` and its qualified name.
struct Placed<'a>(&'a str);

impl Hash for Placed<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(b"topic:");
        state.write(self.0.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shards(names: &[&str]) -> (Vec<String>, Shards) {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let shards = Shards::new(&names);
        (names, shards)
    }

    fn topics() -> impl Iterator<Item = String> {
        (0..10_000).map(|n| format!("default:t{n}"))
    }

    #[test]
    fn one_deployment_has_every_topic() {
        let (_, shards) = shards(&["a"]);
        assert!(topics().all(|topic| shards.of(&topic) == 0));
    }

    #[test]
    fn topics_are_spread_and_the_order_of_the_list_moves_none() {
        let (names, listed) = shards(&["a:6379", "b:6379", "c:6379"]);
        let (turned_names, turned) = shards(&["c:6379", "a:6379", "b:6379"]);
        let mut counts = [0_usize; 3];
        for topic in topics() {
            let at = listed.of(&topic);
            counts[at] += 1;
            assert_eq!(names[at], turned_names[turned.of(&topic)]);
        }
        assert!(counts.iter().all(|count| *count > 2_500), "{counts:?}");
    }

    #[test]
    fn a_new_deployment_only_takes_topics() {
        let (_, before) = shards(&["a", "b"]);
        let (_, after) = shards(&["a", "b", "c"]);
        let moved: Vec<_> = topics()
            .filter(|topic| before.of(topic) != after.of(topic))
            .collect();
        assert!(moved.iter().all(|topic| after.of(topic) == 2));
        assert!((2_000..5_000).contains(&moved.len()), "{}", moved.len());
    }

    #[test]
    fn places_are_the_same_in_every_release() {
        let (_, shards) = shards(&["east", "west"]);
        let places: String = topics()
            .take(32)
            .map(|topic| char::from(b'0' + u8::from(shards.of(&topic) == 1)))
            .collect();
        assert_eq!(places, "10000011101111011101101101010001");
    }
}
