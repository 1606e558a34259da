//! Three real nodes restarted one after the other under load: nothing is lost, and those who are
//! sent away come back at the pace that was planned.
//!
//! The histogram of returns is printed for each restart (`-- --nocapture` shows it).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fanfare_testkit::fleet::{Door, Fleet, Numbers, PATIENCE, locked, open_all};
use fanfare_testkit::node::{Node, Plan, log_field};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::turns;
use fanfare_testkit::wait;
use serde_json::Value;

/// The size of one run.
#[derive(Debug, Clone, Copy)]
struct Size {
    sessions: usize,
    topics: usize,
    window_ms: u64,
    /// Between two messages of one topic.
    every: Duration,
}

async fn start(name: &str, redis: &RedisServer, size: Size) -> Node {
    Plan::clustered(name, &redis.url())
        .env("FANFARE_DRAIN__WINDOW_MS", &size.window_ms.to_string())
        .env("FANFARE_REBALANCE__ENABLED", "false")
        .start()
        .await
}

/// What one restart looked like.
#[derive(Debug)]
struct Restart {
    sessions: u64,
    planned_per_s: f64,
    returns_by_second: Vec<u64>,
}

/// Stops one node in order, as an orchestrator does, waits until its sessions are back, and starts
/// it anew under its name.
async fn restart(fleet: &Fleet, node: &mut Node, start: impl Future<Output = Node>) -> Restart {
    let door = Door::of(node);
    locked(&fleet.doors).retain(|other| *other != door);
    locked(&fleet.returns).clear();
    node.signal("TERM");
    let status = node.ended_within(PATIENCE).await;
    assert_eq!(status.code(), Some(0), "{}", node.log_text());
    assert!(node.log_lines("drain_overran").is_empty());
    let told = node
        .log_lines("drain_started")
        .pop()
        .expect("it was logged");
    let number = |field| log_field(&told, field).and_then(Value::as_u64);
    let sessions = number("sessions").expect("a number");
    wait::until_within(PATIENCE, "everybody to be back", async || {
        (locked(&fleet.returns).len() as u64 >= sessions).then_some(())
    })
    .await;
    let returns_by_second = histogram(&locked(&fleet.returns));
    *node = start.await;
    locked(&fleet.doors).push(Door::of(node));
    Restart {
        sessions,
        planned_per_s: sessions as f64 * 1_000.0 / number("spread_ms").expect("a number") as f64,
        returns_by_second,
    }
}

/// Counts by second, from the first one on.
fn histogram(returns: &[Instant]) -> Vec<u64> {
    let Some(first) = returns.iter().min() else {
        return Vec::new();
    };
    let mut by_second = BTreeMap::new();
    for at in returns {
        *by_second
            .entry(at.duration_since(*first).as_secs())
            .or_default() += 1;
    }
    let last = by_second.keys().max().copied().unwrap_or_default();
    let of = |second| by_second.get(&second).copied().unwrap_or_default();
    (0..=last).map(of).collect()
}

/// Restarts three nodes under load. Nothing may be missing, doubled or out of order.
async fn roll(size: Size) -> Vec<Restart> {
    let redis = RedisServer::start().await;
    // This one is not killed, and the pace of a disk is not asked for here.
    redis.command(&["CONFIG", "SET", "appendfsync", "no"]);
    let names = ["one", "two", "three"];
    let mut nodes = Vec::new();
    for name in names {
        nodes.push(start(name, &redis, size).await);
    }
    let fleet = Fleet::new(&nodes);
    let readers = open_all(&fleet, size.sessions, size.topics).await;
    let load = Numbers::start(&fleet, size.topics, size.every);
    let mut restarts = Vec::new();
    for (node, name) in nodes.iter_mut().zip(names) {
        restarts.push(restart(&fleet, node, start(name, &redis, size)).await);
    }
    let numbers = load.end(&fleet, readers).await;
    let Size {
        sessions, topics, ..
    } = size;
    println!("{sessions} sessions read {numbers} messages on each of {topics} topics");
    for restart in &restarts {
        println!("{restart:?}");
    }
    let all_had_sessions = restarts.iter().all(|restart| restart.sessions > 0);
    assert!(numbers > 0 && all_had_sessions, "{restarts:?}");
    restarts
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_are_restarted_under_load_and_nothing_is_lost() {
    let _turn = turns::heavy().await;
    roll(Size {
        sessions: 600,
        topics: 20,
        window_ms: 6_000,
        every: Duration::from_millis(250),
    })
    .await;
}

/// Timed, and so not for a machine that does other things at the same time.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "two minutes on a machine of its own"]
async fn no_second_has_more_than_twice_the_planned_rate_of_returns() {
    let _turn = turns::heavy().await;
    let restarts = roll(Size {
        sessions: 5_000,
        topics: 50,
        window_ms: 30_000,
        every: Duration::from_secs(3),
    })
    .await;
    for restart in restarts {
        let most = restart.returns_by_second.iter().max().copied();
        let bar = 2.0 * restart.planned_per_s;
        assert!(most.unwrap_or_default() as f64 <= bar, "{restart:?}");
    }
}
