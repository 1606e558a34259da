//! The lives of a node: restarted under its name, replaced by another process of that name, paused
//! for longer than its lease.

use serde_json::{Value, json};

use crate::processes::{
    Members, REAPED_WITHIN, SOME_BEATS, Watcher, listed, nothing_left, owner_of, plan, sees,
};
use crate::rig::link;
use fanfare_protocol::form::Encoding;
use fanfare_testkit::http;
use fanfare_testkit::node::Node;
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::wait;

/// Waits until the node of this name lives another life than that, and returns it.
async fn next_life(name: &str, before: &str, by: &Node) -> String {
    let mut newer = String::new();
    let renewed = wait::until_within(SOME_BEATS, "the next life of a node", async || {
        let answer = http::get(by.api, "/v1/nodes").await.json();
        let mut nodes = answer["nodes"].as_array()?.iter();
        let node = nodes.find(|node| node["node"] == name)?;
        newer = format!("{name}~{}", node["incarnation"]);
        (newer != before).then_some(())
    });
    renewed.await;
    assert!(newer.as_str() > before, "{newer} after {before}");
    newer
}

/// Publishes through one node to a topic that sessions of another have joined.
async fn publish(node: &Node, topic: &str, data: &Value) {
    let body = json!({"topic": topic, "data": data});
    let answer = http::post(node.api, "/v1/publish", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn a_node_that_was_killed_and_restarted_under_its_name_is_another_life_of_it() {
    let redis = RedisServer::start().await;
    let link = link(redis.port());
    let (one, mut two) = tokio::join!(plan(&redis, "one").start(), plan(&redis, "two").start());
    sees(&one, &["one", "two"]).await;
    let mut watcher = Watcher::start(&one, Encoding::Json, "room").await;
    let lost = Members::enter(&two, "room", 3).await;
    watcher.meets(&lost).await;
    let before = owner_of("two", &one).await;
    two.kill();
    // At once: its lease still lasts.
    let two = plan(&redis, "two").start().await;
    let back = Members::enter(&two, "room", 2).await;
    next_life("two", &before, &one).await;
    watcher
        .until(REAPED_WITHIN, "the first life's members to leave", |seen| {
            seen.left.len() >= 3
        })
        .await;
    nothing_left(&link, &before).await;
    let last = Members::enter(&one, "room", 1).await;
    let (joined, left) = watcher.up_to(&last).await;
    assert_eq!(joined, Vec::from_iter(back.sessions.clone()));
    assert_eq!(left, Vec::from_iter(lost.sessions), "each once");
    assert!(listed(&two, "room").await.is_superset(&back.sessions));
}

#[tokio::test]
async fn a_paused_node_whose_name_was_taken_drains_and_exits_69() {
    let redis = RedisServer::start().await;
    let link = link(redis.port());
    let (one, mut older) = tokio::join!(plan(&redis, "one").start(), plan(&redis, "two").start());
    sees(&one, &["one", "two"]).await;
    let mut watcher = Watcher::start(&one, Encoding::MsgPack, "room").await;
    let mut sent = Members::enter(&older, "room", 3).await;
    watcher.meets(&sent).await;
    let before = owner_of("two", &one).await;
    // One that shows itself alive would keep its name.
    older.signal("STOP");
    let newer = plan(&redis, "two").start().await;
    let stayed = Members::enter(&newer, "room", 2).await;
    older.signal("CONT");
    for talk in &mut sent.talks {
        let drain = talk.event_of("drain").await;
        assert!(drain["reconnect_after_ms"].is_u64(), "{drain}");
        assert_eq!(talk.close_code().await, Some(4100));
    }
    assert_eq!(older.ended().await.code(), Some(69));
    nothing_left(&link, &before).await;
    let last = Members::enter(&one, "room", 1).await;
    let (joined, left) = watcher.up_to(&last).await;
    assert_eq!(joined, Vec::from_iter(stayed.sessions.clone()));
    assert_eq!(left, Vec::from_iter(sent.sessions), "each once");
    // The older one's end took nothing from the newer one.
    newer.until_ready().await;
    sees(&one, &["one", "two"]).await;
    assert!(listed(&one, "room").await.is_superset(&stayed.sessions));
}

#[tokio::test]
async fn a_node_that_was_paused_for_longer_than_its_lease_comes_back_as_another_life() {
    let redis = RedisServer::start().await;
    let link = link(redis.port());
    let (one, two) = tokio::join!(plan(&redis, "one").start(), plan(&redis, "two").start());
    sees(&one, &["one", "two"]).await;
    let mut watcher = Watcher::start(&one, Encoding::Json, "room").await;
    let mut paused = Members::enter(&two, "room", 3).await;
    watcher.meets(&paused).await;
    let before = owner_of("two", &one).await;
    two.signal("STOP");
    watcher
        .until(REAPED_WITHIN, "the members to leave", |seen| {
            seen.left.len() >= 3
        })
        .await;
    assert!(listed(&one, "room").await.is_disjoint(&paused.sessions));
    publish(&one, "room", &json!("missed meanwhile")).await;
    two.signal("CONT");
    next_life("two", &before, &one).await;
    watcher
        .until(SOME_BEATS, "the members to be back", |seen| {
            seen.joined.len() >= 3
        })
        .await;
    nothing_left(&link, &before).await;
    for talk in &mut paused.talks {
        talk.be_patient(SOME_BEATS);
        assert_eq!(talk.message("room").await["data"], "missed meanwhile");
    }
    let last = Members::enter(&one, "room", 1).await;
    let (joined, left) = watcher.up_to(&last).await;
    assert_eq!(joined, Vec::from_iter(paused.sessions.clone()), "each once");
    assert_eq!(left, joined);
    assert!(listed(&one, "room").await.is_superset(&paused.sessions));
}

#[tokio::test]
async fn a_node_that_was_replaced_while_it_was_paused_drains_and_exits_69() {
    let redis = RedisServer::start().await;
    let link = link(redis.port());
    let (one, mut older) = tokio::join!(plan(&redis, "one").start(), plan(&redis, "two").start());
    sees(&one, &["one", "two"]).await;
    let mut sent = Members::enter(&older, "room", 1).await;
    let before = owner_of("two", &one).await;
    older.signal("STOP");
    sees(&one, &["one"]).await;
    let newer = plan(&redis, "two").start().await;
    let life = next_life("two", &before, &one).await;
    older.signal("CONT");
    assert_eq!(sent.talks[0].close_code().await, Some(4100));
    assert_eq!(older.ended().await.code(), Some(69));
    newer.until_ready().await;
    assert_eq!(
        owner_of("two", &one).await,
        life,
        "the newer one never lost its lease"
    );
    nothing_left(&link, &before).await;
}

/// Nobody loses the lease, and nobody a member.
#[tokio::test]
async fn members_stay_where_redis_was_away_for_longer_than_the_lease() {
    let mut redis = RedisServer::start().await;
    let (one, two) = tokio::join!(plan(&redis, "one").start(), plan(&redis, "two").start());
    sees(&one, &["one", "two"]).await;
    let mut watcher = Watcher::start(&one, Encoding::Json, "room").await;
    // On both: whichever comes back later would be taken for dead by the other.
    let stayed = [
        Members::enter(&one, "room", 20).await,
        Members::enter(&two, "room", 20).await,
    ];
    for members in &stayed {
        watcher.meets(members).await;
    }
    let before = [owner_of("one", &one).await, owner_of("two", &one).await];
    redis.kill();
    for node in [&one, &two] {
        node.until_unready().await;
        wait::until_within(SOME_BEATS, "the lease to be over", async || {
            let health = http::get(node.api, "/health/detailed").await.text();
            health.contains("heartbeats are not answered").then_some(())
        })
        .await;
    }
    redis.restart().await;
    for node in [&one, &two] {
        node.until_ready().await;
    }
    let last = Members::enter(&one, "room", 1).await;
    assert_eq!(watcher.up_to(&last).await, (Vec::new(), Vec::new()));
    let listed = listed(&two, "room").await;
    for members in &stayed {
        assert!(listed.is_superset(&members.sessions));
    }
    sees(&one, &["one", "two"]).await;
    let after = [owner_of("one", &one).await, owner_of("two", &one).await];
    assert_eq!(after, before, "the same lives");
}
