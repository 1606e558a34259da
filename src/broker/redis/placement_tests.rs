//! A partition is a slot: all keys of it lie together, wherever Redis has that slot, and partitions
//! are spread over what there is.
//!
//! In: names of topics of every kind, and keys that users could choose. Out: slots, masters and
//! deployments of their keys, as the node and as Redis find them. Slots of vectors are those that
//! `CLUSTER KEYSLOT` gives.

use std::collections::{BTreeMap, BTreeSet};

use super::masters::Masters;
use super::topology::{SLOTS_COUNT, slot_of, slot_of_partition};
use crate::config::redis_url::RedisUrl;
use crate::redis::Keys;
use crate::redis::publication_keys::PublicationKeys;
use fanfare_protocol::ids::{App, Topic};

const PARTITIONS: u32 = 256;

fn topic(name: &str) -> Topic {
    Topic::new(&App::default_app(), name).expect("a name")
}

/// Keys of publishers, which may hold every byte.
const CHOSEN: [&str; 5] = ["once", "{}", "}{", "{7}{default:other}:s", "ключ-鍵-🔑{"];

/// Every key and channel of a topic and of its members, and those that its partition has for it.
fn keys_of(keys: &Keys, topic: &Topic) -> Vec<String> {
    let members = topic.presence();
    let partition = keys.partition_of(topic);
    let mut all = vec![keys.partition(partition), keys.topics_index(partition)];
    for of in [topic, &members] {
        all.extend([keys.channel(of), keys.stream(of), keys.last(of)]);
        all.extend([keys.cursor(of), keys.occupancy(of), keys.hash(of)]);
        all.extend([keys.member_names(of), keys.member_counts(of)]);
    }
    all.extend(CHOSEN.map(|chosen| keys.idempotency(topic, chosen)));
    let of_publication = PublicationKeys::new(keys, topic, partition, Some(CHOSEN[3]));
    all.extend(of_publication.as_slice().iter().map(|key| key.concat()));
    all
}

fn topics() -> Vec<Topic> {
    let mut names: Vec<_> = (0..1_500).map(|n| format!("room:{n}")).collect();
    names.extend((0..1_500).map(|n| format!("@user-{n}")));
    names.extend(
        [
            "@",
            "t",
            "7",
            "a:b:c/d=e,f~g#h",
            "@ada@example.com",
            "@7:~!%",
        ]
        .map(String::from),
    );
    names.extend((1..180).map(|length| "x".repeat(length)));
    names.iter().map(|name| topic(name)).collect()
}

#[test]
fn all_keys_of_a_partition_have_one_slot() {
    for (partitions, database) in [(1, 0), (PARTITIONS, 0), (PARTITIONS, 3), (16_384, 0)] {
        let keys = Keys::of_database("ff", partitions, database);
        for topic in topics() {
            let partition = topic.partition(partitions);
            let slot = slot_of_partition(partition);
            for key in keys_of(&keys, &topic) {
                assert_eq!(slot_of(&key), slot, "{key}");
                assert_eq!(keys.partition_of_key(&key), Some(partition), "{key}");
            }
        }
    }
}

#[test]
fn partitions_and_slots_are_the_same_in_every_release() {
    for (name, partition, slot) in [
        ("t", 45, 12_199),
        ("room", 160, 11_253),
        ("orders:7", 192, 7_049),
    ] {
        let topic = topic(name);
        assert_eq!(topic.partition(PARTITIONS), partition, "{name}");
        assert_eq!(topic.presence().partition(PARTITIONS), partition, "{name}");
        let key = Keys::new("ff", PARTITIONS).stream(&topic);
        assert_eq!(key, format!("ff:{{{partition}}}{{default:{name}}}:s"));
        assert_eq!(slot_of(&key), slot, "{key}");
    }
    let slots = [0, 7, 255, 1_023].map(slot_of_partition);
    assert_eq!(slots, [13_907, 1_716, 14_163, 14_911]);
}

/// How many of 100,000 topics each partition has.
fn counts(partitions: u32) -> Vec<usize> {
    let mut counts = vec![0; partitions as usize];
    for number in 0..100_000 {
        counts[topic(&format!("room:{number}")).partition(partitions) as usize] += 1;
    }
    counts
}

/// How much more than the mean the master has that has most of them, in thousandths; slots are dealt
/// as `redis-cli --cluster create` deals them.
fn most(counts: &[usize], masters: usize) -> usize {
    let share = SLOTS_COUNT as f64 / masters as f64;
    let last = |master: usize| ((master + 1) as f64 * share - 1.0).round() as usize;
    let mut of_masters = vec![0; masters];
    for (partition, count) in (0..).zip(counts) {
        let slot = slot_of_partition(partition);
        let at = (0..masters - 1).find(|master| slot <= last(*master));
        of_masters[at.unwrap_or(masters - 1)] += count;
    }
    of_masters.iter().max().expect("some") * masters / 100
}

#[test]
fn topics_are_spread_over_the_masters_of_a_cluster() {
    for partitions in [PARTITIONS, 1_024] {
        let slots: BTreeSet<_> = (0..partitions).map(slot_of_partition).collect();
        assert_eq!(slots.len(), partitions as usize, "no two share a slot");
    }
    let few = counts(PARTITIONS);
    for masters in 3..=8 {
        let most = most(&few, masters);
        assert!(most <= 1_270, "{most} at {masters} masters");
    }
    let many = counts(1_024);
    for masters in 3..=16 {
        let most = most(&many, masters);
        assert!(most <= 1_130, "{most} at {masters} masters");
    }
}

#[test]
fn all_keys_of_a_partition_are_in_one_deployment() {
    let urls = [
        "redis://h1?name=a",
        "redis://h2/4?name=b",
        "redis-cluster://h3?name=c",
    ];
    let urls = urls.map(|url| RedisUrl::parse(url).expect("a URL"));
    let masters = Masters::new("ff", PARTITIONS, urls.to_vec());
    // Nothing was compared yet, and who asks is told which deployment that holds for.
    let place = |key: &str| {
        masters
            .find(key)
            .expect_err("no master is known")
            .to_string()
    };
    let mut places = BTreeMap::new();
    for topic in topics() {
        let partition = topic.partition(PARTITIONS);
        for key in keys_of(masters.keys(), &topic) {
            let at = places.entry(partition).or_insert_with(|| place(&key));
            assert_eq!(place(&key), *at, "{key}");
        }
        let found = masters.find_topic(&topic).expect_err("nor here");
        assert_eq!(found.to_string(), places[&partition]);
    }
    assert_eq!(places.len(), PARTITIONS as usize);
    let distinct: BTreeSet<_> = places.into_values().collect();
    assert_eq!(distinct.len(), 3, "{distinct:?}");
    // What is the cluster's own is in the first.
    assert_eq!(place("{ff:nodes}"), place("ff:ctl"));
    assert!(distinct.contains(&place("{ff:nodes}")));
}
