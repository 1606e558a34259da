//! Leases of partitions in a Redis Cluster: asked for together at each master, and what one slot or
//! one master fares is no matter of the others.

use std::collections::BTreeSet;

use fanfare::redis::Keys;

use crate::probes::number;
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::redis_cluster::RedisCluster;
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::wait::{self, PATIENCE};

pub(crate) const PARTITIONS: u32 = 256;

/// Which server has a partition.
fn owner(cluster: &RedisCluster, partition: u32) -> usize {
    let slot = cluster.slot(&Keys::new("ff", PARTITIONS).partition(partition));
    cluster.owner(slot).expect("all slots are dealt")
}

/// `OWNER TOKEN END` of a partition, by this server.
fn lease(cluster: &RedisCluster, server: usize, partition: u32) -> Option<String> {
    let key = Keys::new("ff", PARTITIONS).partition(partition);
    cluster.servers[server].ask(&["GET", &key])?.pop()
}

/// Waits until the leases of these partitions, each at its server, were extended some times.
async fn are_extended(cluster: &RedisCluster, partitions: &[(usize, u32)]) {
    for (server, partition) in partitions {
        let mut seen = BTreeSet::new();
        wait::until_within(PATIENCE, "some extensions", async || {
            seen.insert(lease(cluster, *server, *partition)?);
            (seen.len() > 3).then_some(())
        })
        .await;
    }
}

async fn holds(node: &Node, count: u64) {
    wait::until_within(PATIENCE, "the partitions to be held", async || {
        (node.metric("fanfare_partitions").await == count).then_some(())
    })
    .await;
}

/// How many scripts the masters have run, and how many leases these have written.
fn run_and_written(cluster: &RedisCluster) -> [u64; 2] {
    let counts = |server: &RedisServer| {
        let stats = server.ask(&["INFO", "commandstats"]).expect("it runs");
        ["cmdstat_evalsha:calls=", "cmdstat_set:calls="].map(|name| number(&stats, name))
    };
    let sum = |[a, b]: [u64; 2], [c, d]: [u64; 2]| [a + c, b + d];
    cluster.servers.iter().map(counts).fold([0, 0], sum)
}

/// The same leases, written by few scripts: some of these are heartbeats and probes.
async fn are_extended_by_few(cluster: &RedisCluster, partitions: &[(usize, u32)]) {
    let before = run_and_written(cluster);
    are_extended(cluster, partitions).await;
    let [run, written] = run_and_written(cluster);
    let [run, written] = [run - before[0], written - before[1]];
    assert!(2 * run < written, "{run} scripts have written {written}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_of_all_slots_of_a_master_are_extended_together_while_one_slot_moves() {
    let cluster = RedisCluster::masters_only().await;
    let node = Plan::clustered("one", &cluster.url()).start().await;
    holds(&node, PARTITIONS.into()).await;
    let from = owner(&cluster, 0);
    let to = (from + 1) % 3;
    let slot = cluster.slot(&Keys::new("ff", PARTITIONS).partition(0));
    let at = |server| {
        let mut others = 1..PARTITIONS;
        others
            .find(|p| owner(&cluster, *p) == server)
            .expect("some")
    };
    let witnesses: Vec<_> = (0..3).map(|server| (server, at(server))).collect();

    are_extended_by_few(&cluster, &witnesses).await;

    // Its keys are gone and the slot is not: nobody is asked for it in between.
    let taken = lease(&cluster, from, 0).expect("it is held");
    cluster.begin_to_move_slot(slot, from, to);
    holds(&node, u64::from(PARTITIONS) - 1).await;
    are_extended_by_few(&cluster, &witnesses).await;
    holds(&node, u64::from(PARTITIONS) - 1).await;

    cluster.end_move_of_slot(slot, from, to);
    holds(&node, PARTITIONS.into()).await;
    let moved = lease(&cluster, to, 0).expect("it is held");
    let token = |lease: &str| lease.split(' ').nth(1).map(str::to_owned);
    assert_eq!(token(&moved), token(&taken));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_hangs_holds_up_its_own_partitions_only() {
    let cluster = RedisCluster::masters_only().await;
    let node = Plan::clustered("one", &cluster.url()).start().await;
    holds(&node, PARTITIONS.into()).await;
    let nodes = cluster
        .owner(cluster.slot("{ff:nodes}"))
        .expect("it is there");
    let hanging = (nodes + 1) % 3;
    let all: Vec<_> = (0..PARTITIONS).map(|p| (owner(&cluster, p), p)).collect();
    let (lost, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(|(at, _)| *at == hanging);

    cluster.servers[hanging].signal("STOP");
    holds(&node, kept.len() as u64).await;
    are_extended(&cluster, &kept[..2]).await;
    holds(&node, kept.len() as u64).await;
    cluster.servers[hanging].signal("CONT");
    holds(&node, PARTITIONS.into()).await;
    are_extended(&cluster, &lost[..1]).await;
}
