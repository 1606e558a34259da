//! The queue of a Redis Cluster: each partition where its slot is, and wherever that goes.

use std::collections::BTreeSet;

use fanfare::broker::queue::End;
use fanfare::broker::unavailable::Unavailable;
use fanfare_protocol::ids::Topic;
use tokio::time::timeout;

use crate::cluster::{slot, topic_at};
use crate::queue_rig::{TOKEN, batch, held, lease, numbers, partition_of};
use crate::rig::Peer;
use fanfare_testkit::redis_cluster::RedisCluster;
use fanfare_testkit::wait::{self, PATIENCE};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_follows_its_slot_and_its_bell_rings_where_it_is() {
    let cluster = RedisCluster::masters_only().await;
    let peer = Peer::up(cluster.url()).await;
    let topics: Vec<_> = (0..3).map(|at| topic_at(&cluster, at)).collect();
    let partitions: Vec<_> = topics.iter().map(partition_of).collect();
    let mut unheard: BTreeSet<u32> = partitions.iter().copied().collect();
    for (at, partition) in partitions.iter().enumerate() {
        let set = lease(*partition, TOKEN);
        let set: Vec<_> = set.iter().map(String::as_str).collect();
        assert_eq!(cluster.servers[at].command(&set).as_deref(), Some("+OK"));
        peer.broker.interest().want(Topic::bell(*partition));
        let call = peer.broker.queue_call_of(*partition).expect("a master");
        assert_eq!(call.alone, Some(*partition));
    }
    let heard = async || {
        timeout(PATIENCE, peer.broker.bells().heard())
            .await
            .expect("a ring")
            .into_keys()
            .collect::<BTreeSet<_>>()
    };
    while !unheard.is_empty() {
        for rung in heard().await {
            unheard.remove(&rung);
        }
    }
    // One request for all of them.
    let each = topics.iter().flat_map(|topic| numbers(topic, 1..4));
    peer.enqueued(each.collect()).await;
    let mut unheard: BTreeSet<u32> = partitions.iter().copied().collect();
    while !unheard.is_empty() {
        for rung in heard().await {
            assert!(unheard.remove(&rung), "{rung} again");
        }
    }
    for (topic, partition) in topics.iter().zip(&partitions) {
        let held = held(&[*partition], TOKEN);
        let ends = peer.drained(&held).await;
        assert!(
            ends.iter().all(|end| matches!(end, End::Published(_))),
            "{ends:?}"
        );
        assert_eq!(peer.retained_numbers(topic).await, [1, 2, 3]);
    }

    // A slot goes to another master, with what waits there, its lease and its bell.
    let (moving, held) = (&topics[0], held(&partitions[..1], TOKEN));
    peer.enqueued(numbers(moving, 4..6)).await;
    assert_eq!(heard().await, BTreeSet::from([partitions[0]]));
    let stale = batch(&peer.broker.fetch(&held, 0).await.expect("up"), &held);
    cluster.move_slot(slot(&cluster, moving), 0, 1);
    // Bells that are subscribed anew ring too.
    let rung = heard().await;
    assert!(rung.contains(&partitions[0]), "{rung:?}");
    wait::until_within(PATIENCE, "the queue to be there", async || {
        peer.broker.fetch(&held, 0).await.ok()
    })
    .await;
    let moved = peer.broker.move_entries(stale).await;
    assert_eq!(moved, Err(Unavailable::Elsewhere.into()));
    assert_eq!(peer.drained(&held).await.len(), 2);
    let soon = std::time::Duration::from_millis(500);
    while timeout(soon, peer.broker.bells().heard()).await.is_ok() {}
    peer.enqueued(numbers(moving, 6..7)).await;
    assert_eq!(heard().await, BTreeSet::from([partitions[0]]));
    assert_eq!(peer.drained(&held).await.len(), 1);
    assert_eq!(peer.retained_numbers(moving).await, [1, 2, 3, 4, 5, 6]);
}
