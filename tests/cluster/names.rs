//! Two processes of one name: the one that lives keeps it.

use std::sync::Arc;
use std::time::Duration;

use fanfare::cluster::lease_store::LeaseStore;
use fanfare::cluster::membership::{Membership, Settings};
use fanfare::cluster::membership_machine::MembershipState;
use fanfare::redis::{Keys, RedisLink};
use tokio::time::timeout;

use crate::processes::{SOME_BEATS, owner_of, plan, sees};
use crate::rig::{PARTITIONS, settings};
use crate::scripts::answering;
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::wait;

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

/// Longer than usual here: what happens to one heartbeat must not happen to two.
const LEASE: Duration = Duration::from_secs(5);

fn member(link: &Arc<RedisLink>) -> Membership {
    let settings = Settings {
        lease: LEASE,
        ..settings("a", PARTITIONS)
    };
    let store = LeaseStore::new(Arc::clone(link), &Keys::new("ff", PARTITIONS));
    let (membership, task) = Membership::new(settings, Some(store));
    tokio::spawn(task.run());
    membership
}

/// While the second looks, Redis takes no writes for a moment in which the first sends the one heartbeat
/// that falls into the look, and in which the second asks nothing. Where the moment comes too late for
/// that, or lasts so long that the second notices it, that one looks for longer: it must end all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_moment_without_writes_that_nobody_else_notices_costs_no_name() {
    let redis = RedisServer::start().await;
    let set = |value: &str| {
        let done = redis.command(&["CONFIG", "SET", "min-replicas-to-write", value]);
        assert_eq!(done.as_deref(), Some("+OK"));
    };
    let links = [answering(&redis).await, answering(&redis).await];
    let first = member(&links[0]);
    let mut standing = first.standing();
    let is_member = |standing: &MembershipState| matches!(standing, MembershipState::Member(_));
    let joined = timeout(SOME_BEATS, standing.wait_for(is_member)).await;
    let me = joined.expect("it joins").expect("it runs").clone();
    let mut view = first.view();
    view.mark_unchanged();
    let beat = timeout(SOME_BEATS, view.changed()).await;
    beat.expect("a heartbeat").expect("it runs");
    tokio::time::sleep(LEASE / 50).await;
    let second = member(&links[1]);
    tokio::time::sleep(LEASE * 4 / 25).await;
    set("1");
    let mut trouble = first.trouble();
    let refused = timeout(SOME_BEATS, trouble.wait_for(Option::is_some)).await;
    assert!(refused.expect("a refusal").is_ok());
    set("0");
    let mut end = second.standing();
    let end = timeout(SOME_BEATS, end.wait_for(MembershipState::is_final)).await;
    let end = end.map(|end| end.expect("it runs").clone());
    assert_eq!(end.ok(), Some(MembershipState::NameTaken));
    assert_eq!(*first.standing().borrow(), me);
}
