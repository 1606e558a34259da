//! Slots of a Redis Cluster that leave their master and are back before anybody has looked: no layout
//! differs, and Redis has ended the subscriptions.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use fanfare::broker::{BrokerHealth, FeedEvent};
use fanfare::config;

use crate::cluster::{slot, topic_at};
use crate::probes::channel;
use crate::rig::{Peer, settings};
use fanfare_testkit::redis_cluster::RedisCluster;
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::wait::{self, PATIENCE};

/// Takes a slot away and gives it back, in one turn of the server.
fn blink(server: &RedisServer, slot: usize) {
    let mut stream = TcpStream::connect(server.address()).expect("the server runs");
    let commands = format!("CLUSTER DELSLOTS {slot}\r\nCLUSTER ADDSLOTS {slot}\r\n");
    stream.write_all(commands.as_bytes()).expect("it reads");
    let mut answers = [0; 10];
    stream.read_exact(&mut answers).expect("it answers");
    assert_eq!(&answers, b"+OK\r\n+OK\r\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_was_away_for_a_moment_deafens_nobody() {
    let cluster = RedisCluster::masters_only().await;
    let mut peer = Peer::start_with(&config::Redis {
        // Only what Redis answers can make it down.
        probe_fresh: 2 * PATIENCE,
        ..settings(cluster.url(), config::RedisAccess::default())
    });
    peer.is_up().await;
    let mut health = peer.broker.health();
    assert_eq!(*health.borrow_and_update(), BrokerHealth::Up);
    let home = &cluster.servers[0];
    let room = topic_at(&cluster, 0);
    peer.hear(&room).await;

    // Told a second time, upon which a node looks for what it missed.
    blink(home, slot(&cluster, &room));
    let is_told = |event: &FeedEvent| match event {
        FeedEvent::Subscribed(wishes) => wishes.iter().any(|(topic, _)| *topic == room),
        _ => false,
    };
    while !is_told(&peer.next().await) {}
    peer.publish(&room, 1).await.expect("it is well");
    while !matches!(peer.next().await, FeedEvent::Delivery { .. }) {}

    let probed = channel(home).expect("it is heard");
    blink(home, cluster.slot(&probed));
    wait::until_within(PATIENCE, "the channel of probes", async || channel(home)).await;
    let is_changed = health.has_changed().expect("the broker runs");
    assert!(!is_changed, "{:?}", health.borrow());
}
