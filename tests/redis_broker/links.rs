//! The links of one master: what is urgent waits for nothing else, and trouble stays where it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fanfare::broker::BrokerHealth;
use fanfare::config;

use crate::rig::{HISTORY, Peer, settings, topic};
use fanfare_testkit::node::{Plan, log_field};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::wait::{self, PATIENCE};

/// Calls that are made at once, each of which keeps so many questions in flight.
const CALLS_COUNT: usize = 40;
const QUESTIONS_COUNT: usize = 256;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_does_not_wait_behind_a_herd_of_questions() {
    let server = RedisServer::start().await;
    let peer = Peer::up(server.url()).await;
    let topics = (0..QUESTIONS_COUNT).map(|n| topic(&format!("t{n}")));
    let topics: Arc<Vec<_>> = Arc::new(topics.collect());
    let answered = Arc::new(AtomicUsize::new(0));
    // Redis stands still until everything is on its way to it.
    server.signal("STOP");
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..CALLS_COUNT {
        let broker = Arc::clone(&peer.broker);
        let (topics, answered) = (Arc::clone(&topics), Arc::clone(&answered));
        let mut call = Box::pin(async move {
            // Refused or too late is an answer too.
            let questions = topics.iter().map(|t| broker.last(t, HISTORY, false));
            let _ = futures_util::future::join_all(questions).await;
            answered.fetch_add(1, Ordering::Relaxed);
        });
        assert!(futures_util::poll!(call.as_mut()).is_pending());
        calls.spawn(call);
    }
    let room = topic("room");
    let mut publishing = Box::pin(peer.publish(&room, 1));
    assert!(futures_util::poll!(publishing.as_mut()).is_pending());
    server.signal("CONT");
    publishing.await.expect("Redis goes on");
    let before = answered.load(Ordering::Relaxed);
    assert!(before < CALLS_COUNT, "all questions were answered first");
    calls.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_break_of_the_bulk_link_leaves_the_broker_up() {
    let server = RedisServer::start().await;
    let peer = Peer::up(server.url()).await;
    let turns = || peer.metrics.control.circuits_closed_total.get();
    wait::until_within(PATIENCE, "all links", async || (turns() == 3).then_some(())).await;
    let mut health = peer.broker.health();
    assert_eq!(*health.borrow_and_update(), BrokerHealth::Up);
    // Its probe is a ROLE, so that is the last command of its connection.
    let bulk = wait::until_within(PATIENCE, "the bulk link to be probed", async || {
        let clients = server.ask(&["CLIENT", "LIST"])?;
        let line = clients[0]
            .lines()
            .find(|line| line.contains(" cmd=role "))?;
        let id = line.strip_prefix("id=")?.split(' ').next()?;
        Some(id.to_owned())
    })
    .await;
    let killed = server.command(&["CLIENT", "KILL", "ID", &bulk]);
    assert_eq!(killed.as_deref(), Some(":1"));
    wait::until("the link to be back", async || (turns() == 4).then_some(())).await;
    let is_changed = health.has_changed().expect("the broker runs");
    assert!(!is_changed, "{:?}", health.borrow());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_within_the_settings_is_told_to_nobody() {
    let server = RedisServer::start().await;
    let peer = Peer::start_with(&config::Redis {
        command_timeout: 2 * PATIENCE,
        probe_fresh: 4 * PATIENCE,
        ..settings(server.url(), config::RedisAccess::default())
    });
    peer.is_up().await;
    let mut health = peer.broker.health();
    assert_eq!(*health.borrow_and_update(), BrokerHealth::Up);
    server.signal("STOP");
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    server.signal("CONT");
    peer.publish(&topic("t"), 1).await.expect("Redis goes on");
    let is_changed = health.has_changed().expect("the broker runs");
    assert!(!is_changed, "{:?}", health.borrow());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_policy_of_full_memory_is_read_by_every_connection() {
    let server = RedisServer::start().await;
    let peer = Peer::up(server.url()).await;
    assert!(peer.broker.warnings().is_empty());
    for (policy, warnings_count) in [("allkeys-lru", 1), ("noeviction", 0)] {
        let set = server.command(&["CONFIG", "SET", "maxmemory-policy", policy]);
        assert_eq!(set.as_deref(), Some("+OK"));
        server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
        wait::until_within(PATIENCE, policy, async || {
            (peer.broker.maxmemory_policy()? == policy).then_some(())
        })
        .await;
        assert_eq!(peer.broker.warnings().len(), warnings_count);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_streams_take_up_much_is_told_once_and_not_where_they_do_not() {
    let server = RedisServer::start().await;
    let telling = Plan::clustered("telling", &server.url()).start().await;
    let told = telling.until_told("redis_streams_preallocated").await;
    assert_eq!(log_field(&told[0], "bytes"), Some(&"4096".into()));
    server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    let set = server.command(&["CONFIG", "SET", "stream-node-max-bytes", "512"]);
    assert_eq!(set.as_deref(), Some("+OK"));
    let silent = Plan::clustered("silent", &server.url()).start().await;
    // It looks at the settings before it is ready, and when it is connected anew.
    telling.until_ready().await;
    assert_eq!(telling.log_lines("redis_streams_preallocated").len(), 1);
    assert!(silent.log_lines("redis_streams_preallocated").is_empty());
}
