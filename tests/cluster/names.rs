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
