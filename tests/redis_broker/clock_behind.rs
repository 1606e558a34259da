//! A failover to a master whose clock is behind: what it publishes gets no id that was lost.
//!
//! In: a topic whose last id lies a minute ahead, as a master leaves it whose clock was. Out: no id
//! is given twice, and whoever has a lost one is told.

use std::time::{SystemTime, UNIX_EPOCH};

use fanfare::broker::Page;
use fanfare_protocol::event::GapReason;
use serde_json::{Value, json};

use crate::replicas::{master_and_replica, until_followed};
use crate::rig::{HISTORY, Peer, topic};
use fanfare_protocol::form::Encoding;
use fanfare_testkit::node::Plan;
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::wait::{self, PATIENCE};

const STREAM: &str = "ff:{160}{default:room}:s";
const LAST: &str = "ff:{160}{default:room}:l";

/// Leaves the last id of a master whose clock is a minute ahead of every other one.
fn publish_ahead(server: &RedisServer) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let ahead_ms = now.expect("after 1970").as_millis() + 60_000;
    let last = format!("{ahead_ms}-77");
    let set = server.command(&["SET", LAST, &last, "PX", "7200000"]);
    assert_eq!(set.as_deref(), Some("+OK"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_id_is_not_given_again_by_a_clock_that_is_behind() {
    let redis = RedisServer::start().await;
    publish_ahead(&redis);
    let node = Plan::clustered("a", &redis.url()).start().await;
    let url = |user: &str| node.connect_url(&format!("?user={user}"));
    let (mut publisher, _) = Talk::welcomed(&url("publisher"), Encoding::Json).await;
    let (mut stayed, _) = Talk::welcomed(&url("stayed"), Encoding::Json).await;
    let subscribe = json!({"type": "subscribe", "topic": "room"});
    stayed.ok(subscribe.clone()).await;

    publisher.publish("room", json!("kept")).await;
    let copy = |from: &str, to: &str| {
        let copied = redis.command(&["COPY", from, to, "REPLACE"]);
        assert_eq!(copied.as_deref(), Some(":1"), "{from} to {to}");
    };
    copy(STREAM, "saved:s");
    copy(LAST, "saved:l");
    let lost = publisher.publish("room", json!("lost")).await;
    // A replica that never got the last one is the master now.
    copy("saved:s", STREAM);
    copy("saved:l", LAST);
    let new = publisher.publish("room", json!("new")).await;
    let newest = publisher.publish("room", json!("newest")).await;
    assert!(lost != new && lost != newest, "{lost} was given twice");

    let mut seen = Vec::new();
    while seen.last() != Some(&json!("newest")) {
        let event = stayed.event(|event| event["topic"] == "room").await;
        seen.push(match event["type"].as_str() {
            Some("message") => event["data"].clone(),
            _ => event["reason"].clone(),
        });
    }
    assert_eq!(seen, ["kept", "lost", "failover", "new", "newest"]);

    let (mut back, _) = Talk::welcomed(&url("back"), Encoding::Json).await;
    let mut resume = subscribe;
    resume["since"] = Value::from(lost);
    let ok = back.ok(resume).await;
    assert_eq!(ok["recovered"], false, "{ok}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_replica_with_a_clock_behind_gives_no_lost_id() {
    const PAGE: Page = Page {
        entries_max: 10,
        bytes_max: 1 << 20,
    };
    let (mut master, replica) = master_and_replica().await;
    publish_ahead(&master);
    let room = topic("room");
    let before = Peer::up(master.url()).await;
    before.publish(&room, 1).await.expect("up");
    until_followed(&master, &replica).await;
    replica.signal("STOP");
    // Without this what follows waits in the replica's socket and is not lost.
    let cut = master.command(&["CLIENT", "KILL", "TYPE", "replica"]);
    assert_eq!(cut.as_deref(), Some(":1"));
    let lost = before.publish(&room, 2).await.expect("up").position;
    master.kill();
    replica.signal("CONT");
    wait::until_within(PATIENCE, "the replica to be promoted", async || {
        (replica.command(&["REPLICAOF", "NO", "ONE"])? == "+OK").then_some(())
    })
    .await;
    let after = Peer::up(replica.url()).await;
    let new = after.publish(&room, 3).await.expect("up").position;
    assert_ne!(new, lost, "the id of 2 was given to 3");
    let page = after.broker.since(&room, lost, HISTORY, PAGE).await;
    assert_eq!(page.expect("up").gap, Some(GapReason::Failover));
}
