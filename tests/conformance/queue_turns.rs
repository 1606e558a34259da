//! Fetches of several partitions of the queue: priorities, shares, turns and bounds.

use std::collections::{BTreeMap, BTreeSet};

use fanfare::broker::queue::{
    FETCH_BYTES_MAX, FETCH_MAX, FETCH_OF_STREAM_MAX, FETCH_SHARE, Fetched, PARTITIONS_PER_CALL,
    PRIORITIES, rank,
};
use fanfare_protocol::ids::{Priority, Topic};

use crate::queue_rig::{bytes_of, depths_of, partition, queued, queued_count, topics_apart};
use crate::rig::{HISTORY, Rig, message, positions};

fn partitions(topics: &[Topic]) -> Vec<u32> {
    topics.iter().map(partition).collect()
}

/// How many entries of each priority a fetch brought.
fn counts(fetched: &Fetched) -> [usize; 4] {
    let of = |priority| {
        fetched
            .entries
            .iter()
            .filter(move |e| e.priority == priority)
    };
    PRIORITIES.map(|priority| of(priority).count())
}

/// What holds for each fetch, whatever it is of.
fn assert_in_bounds(fetched: &Fetched) {
    let entries = &fetched.entries;
    assert!(entries.len() <= FETCH_MAX, "{}", entries.len());
    assert!(entries.is_sorted_by_key(|entry| rank(entry.priority)));
    let mut streams = BTreeMap::<_, Vec<_>>::new();
    for entry in entries {
        let stream = (entry.partition, entry.priority);
        streams.entry(stream).or_default().push(entry.id);
    }
    for (stream, ids) in streams {
        assert!(ids.len() <= FETCH_OF_STREAM_MAX, "{stream:?}");
        assert!(ids.is_sorted_by(|one, next| one < next), "{stream:?}");
    }
    // The first of each priority comes whatever its bytes.
    let firsts = entries.iter().zip(entries.iter().skip(1));
    let others = firsts.filter(|(before, entry)| before.priority == entry.priority);
    let bytes: usize = others.map(|(_, entry)| bytes_of(entry)).sum();
    assert!(bytes <= FETCH_BYTES_MAX, "{bytes}");
}

pub(crate) async fn critical_comes_first_and_leaves_the_lower_ones_their_share(rig: Rig) {
    let topics = topics_apart(8);
    let held = rig.hold(&partitions(&topics)).await;
    let mut requests = Vec::new();
    for topic in &topics {
        for (priority, count) in PRIORITIES.into_iter().zip([25, 0, 2, 5]) {
            requests.extend(queued_count(topic, priority, count));
        }
    }
    rig.enqueue(requests).await;
    for fetched in rig.fetch(&held, 0).await {
        assert_in_bounds(&fetched);
        let mut due = [0; 4];
        for state in &fetched.partitions {
            let depths = depths_of(state).due;
            due = std::array::from_fn(|rank| due[rank] + depths[rank]);
        }
        let counts = counts(&fetched);
        let due = due.map(|due| usize::try_from(due).expect("a small number"));
        for (count, due) in counts.into_iter().zip(due) {
            assert!(count >= due.min(FETCH_SHARE), "{counts:?} of {due}");
        }
        let critical_min = due[0].min(FETCH_MAX - 3 * FETCH_SHARE);
        assert!(counts[0] >= critical_min, "{counts:?} of {due:?}");
    }
}

pub(crate) async fn streams_take_turns(rig: Rig) {
    let topics = topics_apart(8);
    let held = rig.hold(&partitions(&topics)).await;
    let requests = topics.iter();
    let requests = requests.flat_map(|topic| queued_count(topic, Priority::Normal, 30));
    rig.enqueue(requests.collect()).await;
    let mut served = BTreeSet::new();
    for from in 0..8 {
        for fetched in rig.fetch(&held, from).await {
            assert_in_bounds(&fetched);
            let first = fetched.entries.first().expect("many wait");
            served.insert(first.partition);
        }
    }
    // Each was the first in its turn.
    assert_eq!(served, partitions(&topics).into_iter().collect());
}

pub(crate) async fn a_fetch_of_many_partitions_is_bounded_and_brings_all_in_the_end(rig: Rig) {
    let topics = topics_apart(PARTITIONS_PER_CALL);
    let held = rig.hold(&partitions(&topics)).await;
    let json = |n: usize| format!("\"{n}{}\"", "x".repeat(20_000));
    let requests = topics.iter().enumerate().flat_map(|(n, topic)| {
        let priority = PRIORITIES[n % 4];
        [0, 1].map(|_| queued(topic, priority, &json(n)))
    });
    rig.enqueue(requests.collect()).await;
    let mut moved_count = 0;
    for from in 0.. {
        let mut is_over = true;
        for fetched in rig.fetch(&held, from).await {
            assert_in_bounds(&fetched);
            moved_count += rig.publish_all(&held, &fetched).await.len();
            is_over &= fetched.entries.is_empty();
        }
        if is_over {
            break;
        }
        assert!(from < 1_000, "each fetch brings something");
    }
    assert_eq!(moved_count, 2 * topics.len());
    for (n, topic) in topics.iter().enumerate() {
        let retained = rig.retained(topic, HISTORY).await;
        assert_eq!(positions(&retained).len(), 2, "{topic}");
        let expected = queued(topic, PRIORITIES[n % 4], &json(n));
        for entry in &retained {
            assert_eq!(message(entry), &expected.message.publication);
        }
    }
}

pub(crate) async fn an_entry_larger_than_a_fetch_is_fetched_alone(rig: Rig) {
    let topics = topics_apart(2);
    let held = rig.hold(&partitions(&topics)).await;
    let large = format!("\"{}\"", "x".repeat(FETCH_BYTES_MAX));
    let mut requests = vec![queued(&topics[0], Priority::Critical, &large)];
    requests.extend(queued_count(&topics[0], Priority::Critical, 2));
    rig.enqueue(requests).await;
    let fetched = rig.fetch(&held[..1], 0).await.remove(0);
    assert_eq!(fetched.entries.len(), 1);
    rig.publish_all(&held, &fetched).await;
    let fetched = rig.fetch(&held[..1], 1).await.remove(0);
    assert_eq!(fetched.entries.len(), 2);
}

pub(crate) async fn each_priority_brings_its_first_entry_however_long(rig: Rig) {
    let topics = topics_apart(1);
    let held = rig.hold(&partitions(&topics)).await;
    let long = format!("\"{}\"", "x".repeat(100_000));
    let of_each = PRIORITIES.map(|priority| [(); 3].map(|()| queued(&topics[0], priority, &long)));
    rig.enqueue(of_each.concat()).await;
    let fetched = rig.fetch(&held, 0).await.remove(0);
    assert_in_bounds(&fetched);
    assert_eq!(counts(&fetched), [2, 1, 1, 1]);
}

pub(crate) async fn many_entries_of_many_targets_are_answered_in_their_order(rig: Rig) {
    let topics = topics_apart(5);
    let held = rig.hold(&partitions(&topics)).await;
    let requests = (0..100).map(|n| {
        let topic: &Topic = &topics[n % topics.len()];
        queued(topic, Priority::Normal, &n.to_string())
    });
    let enqueued = rig.enqueue(requests.collect()).await;
    assert!(enqueued.iter().all(|one| !one.duplicate));
    let mut fetched = BTreeMap::<u32, Vec<String>>::new();
    for of in &held {
        let heads = rig.fetch(&[*of], 0).await.remove(0);
        let names = heads.entries.iter().map(|entry| entry.id.to_string());
        fetched.insert(of.partition, names.collect());
    }
    for (n, topic) in topics.iter().enumerate() {
        let answered = enqueued.iter().skip(n).step_by(topics.len());
        let answered: Vec<_> = answered.map(|one| one.entry.clone()).collect();
        assert_eq!(fetched[&partition(topic)], answered, "{topic}");
    }
}
