//! Members of a node: never where nobody would find them, and back where Redis lost them.

use std::sync::Arc;

use fanfare::broker::redis::RedisBroker;
use fanfare::broker::{Broker, BrokerError};
use fanfare::cluster::lease_store::LeaseStore;
use fanfare::cluster::membership::Membership;
use fanfare::cluster::occupancy::Occupancy;
use fanfare::cluster::settled::Settled;
use fanfare::presence::Presence;
use fanfare::protocol::event::Member;
use fanfare::protocol::ids::SessionId;
use fanfare::redis::{Keys, RedisLink};
use fanfare::telemetry::metrics::Metrics;
use tokio::time::timeout;

use crate::processes::{Members, listed, plan};
use crate::rig::{DEADLINE, PARTITIONS, config, eventually, link, settings, topic};
use crate::support::http;
use crate::support::redis_server::RedisServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_written_only_while_its_topic_stands_in_the_index() {
    let redis = RedisServer::start().await;
    let (link, keys) = (link(redis.port()), Keys::new("ff"));
    let store = LeaseStore::new(Arc::clone(&link), &keys);
    let (membership, task) = Membership::new(settings("a", PARTITIONS), Some(store));
    tokio::spawn(task.run());
    let mut view = membership.view();
    let joined = timeout(DEADLINE, view.wait_for(|view| view.fresh)).await;
    let me = joined.unwrap().unwrap().me.clone();
    let metrics = Arc::new(Metrics::new(1));
    let (broker, _feed) = RedisBroker::start(&config(redis.port()), metrics).unwrap();
    let broker = Arc::new(Broker::Redis(broker));
    let (occupancy, writer) = Occupancy::clustered(membership.view(), Arc::clone(&link), keys);
    let view = membership.view();
    let presence = Presence::new(Arc::clone(&broker), view, Arc::new(occupancy));
    let presence = Arc::new(presence);
    let room = topic("room");
    let member = Member {
        user: None,
        session: SessionId(7),
        info: None,
    };

    // The index is not written: nobody does it yet.
    eventually(true, || async { broker.members(&room).await.is_ok() }).await;
    let refused = presence.enter(&room, member.clone()).await;
    assert!(
        matches!(refused, Err(BrokerError::Unavailable(_))),
        "{refused:?}"
    );
    assert_eq!(broker.members(&room).await.unwrap().0, []);
    tokio::spawn(writer.run());
    assert_eq!(presence.enter(&room, member.clone()).await, Ok(1));
    let entry = format!("{me} {}", room.qualified());
    assert_eq!(indexed(&link).await, Some(vec![entry]));
    let runs = Arc::clone(&presence);
    tokio::spawn(async move { runs.run(&Settled::default()).await });
    presence.leave(room.clone(), member.session);
    eventually(Some(Vec::new()), || indexed(&link)).await;
    assert_eq!(broker.members(&room).await.unwrap().0, []);
}

/// Everything in the index of the room's partition; `None` when Redis does not answer.
async fn indexed(link: &RedisLink) -> Option<Vec<String>> {
    let index = Keys::new("ff").node_presence(topic("room").partition(PARTITIONS));
    let entries = link.command("SMEMBERS", &index, &[]).await.ok()?;
    Some(entries.convert().unwrap())
}

#[tokio::test]
async fn what_redis_lost_while_it_was_away_for_less_than_a_lease_is_written_again() {
    let mut redis = RedisServer::start().await;
    let link = link(redis.port());
    let node = plan(&redis, "one").env("FANFARE_REDIS__LEASE_MS", "20000");
    let node = node.start().await;
    let members = Members::enter(&node, "room", 3).await;
    let (room, keys) = (topic("room"), Keys::new("ff"));
    let index = keys.node_presence(room.partition(PARTITIONS));
    // As after a failover to a replica that was behind: the lease is there, these are not.
    for key in [keys.hash(&room.presence()), keys.occupancy(&room), index] {
        link.command("DEL", &key, &[]).await.unwrap();
    }
    assert!(listed(&node, "room").await.is_empty());
    redis.kill();
    node.until_unready().await;
    redis.restart().await;
    node.until_ready().await;
    eventually(members.sessions.clone(), || listed(&node, "room")).await;
    eventually(Some(1), || async { Some(indexed(&link).await?.len()) }).await;
    let count = http::get(node.api, "/v1/topics/room").await.json();
    assert_eq!(count["sessions"], 3);
}
