//! Probes of a Redis Cluster: they go to nobody but the master that they probe, and find another slot
//! when theirs goes away.

use fanfare::broker::BrokerHealth;
use fanfare::config;

use crate::rig::{Peer, settings};
use fanfare_testkit::redis_cluster::RedisCluster;
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::wait::{self, PATIENCE};

/// A number that stands behind this name in an answer of many lines; 0 where there is none.
pub(crate) fn number(answer: &[String], name: &str) -> u64 {
    let text = answer.join("");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let digits = line.unwrap_or("0").split(|c: char| !c.is_ascii_digit());
    digits
        .into_iter()
        .next()
        .expect("some")
        .parse()
        .expect("a number")
}

/// How often a server was told to publish, in either way.
fn published(server: &RedisServer) -> u64 {
    let stats = server.ask(&["INFO", "commandstats"]).expect("it runs");
    number(&stats, "cmdstat_publish:calls=") + number(&stats, "cmdstat_spublish:calls=")
}

async fn is_probed(server: &RedisServer, times: u64) {
    let before = published(server);
    wait::until_within(PATIENCE, "probes", async || {
        (published(server) >= before + times).then_some(())
    })
    .await;
}

/// The channel on which a server's feed hears probes.
pub(crate) fn channel(server: &RedisServer) -> Option<String> {
    let channels = server.ask(&["PUBSUB", "SHARDCHANNELS", "ff:probe:*"]);
    let mut channels = channels.expect("it runs");
    assert!(channels.len() < 2, "{channels:?}");
    channels.pop()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_is_repeated_to_no_other_server() {
    let cluster = RedisCluster::masters_only().await;
    let _peer = Peer::up(cluster.url()).await;
    let sent = || -> u64 {
        let info = |server: &RedisServer| server.ask(&["CLUSTER", "INFO"]).expect("it runs");
        let sent = |server| number(&info(server), "cluster_stats_messages_publish_sent:");
        cluster.servers.iter().map(sent).sum()
    };
    let before = sent();
    for server in &cluster.servers {
        is_probed(server, 5).await;
    }
    assert_eq!(sent(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_whose_slot_goes_away_finds_another_and_nothing_is_told() {
    let cluster = RedisCluster::masters_only().await;
    let peer = Peer::start_with(&config::Redis {
        // Only what Redis answers can make it down.
        probe_fresh: 2 * PATIENCE,
        ..settings(cluster.url(), config::RedisAccess::default())
    });
    peer.is_up().await;
    let mut health = peer.broker.health();
    assert_eq!(*health.borrow_and_update(), BrokerHealth::Up);
    let [home, away] = [0, 1];
    let first = channel(&cluster.servers[home]).expect("it is heard");
    let slot = cluster.slot(&first);
    cluster.move_slot(slot, home, away);
    let second = wait::until("another channel", async || channel(&cluster.servers[home])).await;
    assert_ne!(cluster.slot(&second), slot);
    is_probed(&cluster.servers[home], 5).await;

    // Away, and back at once: the subscription is gone though the slot is where it was.
    let slot = cluster.slot(&second);
    cluster.move_slot(slot, home, away);
    cluster.move_slot(slot, away, home);
    wait::until("the channel", async || channel(&cluster.servers[home])).await;
    is_probed(&cluster.servers[home], 5).await;
    let is_changed = health.has_changed().expect("the broker runs");
    assert!(!is_changed, "{:?}", health.borrow());
}
