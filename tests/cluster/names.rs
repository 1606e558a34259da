//! Two processes of one name: the one that lives keeps it.

use crate::processes::{SOME_BEATS, owner_of, plan, sees};
use crate::support::redis_server::RedisServer;
use crate::support::wait;

#[tokio::test(flavor = "multi_thread")]
async fn a_running_node_keeps_its_name_and_the_second_exits_69() {
    let redis = RedisServer::start().await;
    let first = plan(&redis, "a").start().await;
    let watcher = plan(&redis, "b").start().await;
    sees(&watcher, &["a", "b"]).await;
    let before = owner_of("a", &watcher).await;
    let mut second = plan(&redis, "a").start_unready().await;
    let status = second.ended_within(SOME_BEATS).await;
    assert_eq!(status.code(), Some(69), "{}", second.log_text());
    assert_eq!(second.log_lines("name_taken").len(), 1);
    wait::until_within(SOME_BEATS, "the first to be told", async || {
        (first.log_lines("name_contested").len() == 1).then_some(())
    })
    .await;
    assert!(first.is_ready().await);
    assert_eq!(owner_of("a", &watcher).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_of_a_killed_or_paused_node_is_taken() {
    let redis = RedisServer::start().await;
    let mut killed = plan(&redis, "a").start().await;
    killed.kill();
    let mut paused = plan(&redis, "a").start().await;
    assert!(paused.log_lines("name_taken").is_empty());
    paused.signal("STOP");
    let next = plan(&redis, "a").start().await;
    let before = owner_of("a", &next).await;
    paused.signal("CONT");
    let status = paused.ended_within(SOME_BEATS).await;
    assert_eq!(status.code(), Some(69), "{}", paused.log_text());
    assert_eq!(paused.log_lines("name_lost").len(), 1);
    assert!(next.is_ready().await);
    assert_eq!(owner_of("a", &next).await, before);
}

/// Redis takes no writes for a while, or none that need memory; a process of the name starts then.
async fn the_second_ends(option: &str, refusing: &str, fine: &str, ends_meanwhile: bool) {
    let redis = RedisServer::start().await;
    let set = |value: &str| {
        let done = redis.command(&["CONFIG", "SET", option, value]);
        assert_eq!(done.as_deref(), Some("+OK"));
    };
    let first = plan(&redis, "a").start().await;
    let before = owner_of("a", &first).await;
    set(refusing);
    let mut second = plan(&redis, "a").start_unready().await;
    if !ends_meanwhile {
        first.until_told("heartbeat_refused").await;
        second.until_told("heartbeat_refused").await;
        set(fine);
    }
    let status = second.ended_within(SOME_BEATS).await;
    assert_eq!(status.code(), Some(69), "{}", second.log_text());
    assert_eq!(second.log_lines("name_taken").len(), 1);
    set(fine);
    first.until_ready().await;
    assert_eq!(owner_of("a", &first).await, before);
    assert!(first.log_lines("name_lost").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_node_keeps_its_name_where_redis_was_read_only() {
    the_second_ends("min-replicas-to-write", "1", "0", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_ends_where_redis_is_out_of_memory() {
    the_second_ends("maxmemory", "1", "0", true).await;
}
