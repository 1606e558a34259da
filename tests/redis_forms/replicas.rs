//! Publications that wait for replicas, behind sentinels and in a cluster: each master for itself.

use fanfare::broker::BrokerError;
use fanfare_protocol::ids::Topic;

use crate::cluster::topic_at;
use crate::rig::{Peer, REPLICAS_PATIENCE, topic, wanting};
use fanfare_testkit::redis_cluster::RedisCluster;
use fanfare_testkit::redis_sentinels::RedisSentinels;
use fanfare_testkit::wait::{self, PATIENCE};

async fn is_confirmed(peer: &Peer, topic: &Topic) {
    let answer = peer.broker.publish(wanting(topic, 1, 1)).await;
    answer.expect("its replica confirms");
}

async fn is_unconfirmed(peer: &Peer, topic: &Topic) {
    let answer = peer.broker.publish(wanting(topic, 2, 1)).await;
    let why = format!("0 of 1 replicas confirmed within {REPLICAS_PATIENCE:?}");
    assert_eq!(answer, Err(BrokerError::Unconfirmed(why)));
}

/// Waits until a replica that goes on has caught up.
async fn is_confirmed_again(peer: &Peer, topic: &Topic) {
    wait::until_within(PATIENCE, "the replica to confirm", async || {
        peer.broker.publish(wanting(topic, 3, 1)).await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_sentinels_a_publication_waits_for_the_replica_of_the_master() {
    let sentinels = RedisSentinels::start().await;
    let (peer, room) = (Peer::replicated(sentinels.url(), 1).await, topic("room"));
    is_confirmed(&peer, &room).await;
    sentinels.servers[1].signal("STOP");
    is_unconfirmed(&peer, &room).await;
    sentinels.servers[1].signal("CONT");
    is_confirmed_again(&peer, &room).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_a_publication_waits_for_the_replica_of_its_own_master_alone() {
    let cluster = RedisCluster::start().await;
    let peer = Peer::replicated(cluster.url(), 3).await;
    let rooms = [0, 1, 2].map(|at| topic_at(&cluster, at));
    for room in &rooms {
        is_confirmed(&peer, room).await;
    }
    cluster.servers[3].signal("STOP");
    is_unconfirmed(&peer, &rooms[0]).await;
    for room in &rooms[1..] {
        is_confirmed(&peer, room).await;
    }
    cluster.servers[3].signal("CONT");
    is_confirmed_again(&peer, &rooms[0]).await;
}
