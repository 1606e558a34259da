//! Two real nodes with sessions, and a third that joins: the load evens out, and nothing is lost. Where a
//! balancer sends everybody back to the same node, that gives up.

use std::time::Duration;

use fanfare_testkit::fleet::{Door, Fleet, Numbers, PATIENCE, locked, open_all};
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::turns;
use fanfare_testkit::wait;

const SESSIONS: usize = 180;
const TOPICS: usize = 10;
/// Of two nodes with 90 sessions each and a third without, two are above it.
const TOLERANCE_PERCENT: u64 = 30;

async fn start(name: &str, redis: &RedisServer) -> Node {
    Plan::clustered(name, &redis.url())
        .env("FANFARE_REBALANCE__SETTLE_MS", "1000")
        .env("FANFARE_REBALANCE__SESSIONS_PER_S", "50")
        .env(
            "FANFARE_REBALANCE__TOLERANCE_PERCENT",
            &TOLERANCE_PERCENT.to_string(),
        )
        .env("FANFARE_DRAIN__WINDOW_MS", "2000")
        .start()
        .await
}

/// Sessions of each node, and whether none is being sent away.
async fn loads(nodes: &[Node]) -> (Vec<u64>, bool) {
    let (mut sessions, mut is_calm) = (Vec::new(), true);
    for node in nodes {
        sessions.push(node.metric("fanfare_sessions").await);
        let excess = node.metric("fanfare_rebalance_excess_sessions").await;
        let going = node.metric("fanfare_rebalancing_sessions").await;
        is_calm &= excess + going == 0;
    }
    (sessions, is_calm)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_joins_gets_its_share_and_nothing_is_lost() {
    let _turn = turns::heavy().await;
    let redis = RedisServer::start().await;
    let mut nodes = vec![start("one", &redis).await, start("two", &redis).await];
    let fleet = Fleet::new(&nodes);
    let readers = open_all(&fleet, SESSIONS, TOPICS).await;
    let load = Numbers::start(&fleet, TOPICS, Duration::from_millis(100));
    nodes.push(start("three", &redis).await);
    locked(&fleet.doors).push(Door::of(&nodes[2]));

    let mean = (SESSIONS / nodes.len()) as u64;
    let mut before = Vec::new();
    let even = wait::until_within(PATIENCE, "the load to be even", async || {
        let (sessions, is_calm) = loads(&nodes).await;
        if sessions != before {
            println!("{sessions:?}");
            before.clone_from(&sessions);
        }
        let all: u64 = sessions.iter().sum();
        let is_even = sessions
            .iter()
            .all(|count| *count <= mean + mean * TOLERANCE_PERCENT / 100);
        (is_even && is_calm && all == SESSIONS as u64).then_some(sessions)
    })
    .await;
    let mut told = 0;
    for node in &nodes {
        told += node.metric("fanfare_rebalanced_total").await;
    }
    println!("{even:?}, {told} were told to go");
    let returns = || locked(&fleet.returns).len() as u64;
    wait::until("each of them to have come back", async || {
        (returns() >= told).then_some(())
    })
    .await;
    assert_eq!(returns(), told, "and nobody else");
    assert!(load.end(&fleet, readers).await > 0);
}

/// More than twice the share of one of two nodes.
const HASHED: usize = 150;

#[tokio::test(flavor = "multi_thread")]
async fn where_those_who_are_sent_away_come_back_fifty_are_told_and_nobody_after_them() {
    let _turn = turns::heavy().await;
    let redis = RedisServer::start().await;
    let nodes = [start("one", &redis).await, start("two", &redis).await];
    // As by a hash of the user: whoever comes back finds the same node.
    let fleet = Fleet::new(&nodes[..1]);
    let readers = open_all(&fleet, HASHED, TOPICS).await;
    let load = Numbers::start(&fleet, TOPICS, Duration::from_millis(100));
    let found = nodes[0].until_told("rebalance_futile").await;
    println!("{}", found[0]);
    assert_eq!(nodes[0].metric("fanfare_rebalance_futile_total").await, 1);
    // Six times as long as the next order took to come before.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let told = nodes[0].metric("fanfare_rebalanced_total").await;
    assert!((1..=50).contains(&told), "{told}");
    assert!(nodes[0].metric("fanfare_rebalance_excess_sessions").await > 0);
    assert_eq!(nodes[0].metric("fanfare_sessions").await, HASHED as u64);
    assert!(load.end(&fleet, readers).await > 0);
}
