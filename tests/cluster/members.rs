//! Members of a node: never where nobody would find them, and back where Redis lost them.

use std::sync::Arc;

use fanfare::broker::redis::RedisBroker;
use fanfare::broker::{Broker, BrokerError, Page};
use fanfare::cluster::lease_store::LeaseStore;
use fanfare::cluster::membership::Membership;
use fanfare::cluster::occupancy::Occupancy;
use fanfare::cluster::settled::Settled;
use fanfare::presence::Presence;
use fanfare::redis::{Keys, RedisLink};
use fanfare::telemetry::metrics::Metrics;
use fanfare_protocol::event::Member;
use fanfare_protocol::ids::SessionId;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::processes::{Members, SOME_BEATS, listed, plan};
use crate::rig::{PARTITIONS, config, link, settings, topic};
use fanfare_protocol::form::Encoding;
use fanfare_testkit::http;
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::wait::{PATIENCE, until_equal};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_written_only_while_its_topic_stands_in_the_index() {
    let redis = RedisServer::start().await;
    let (link, keys) = (link(redis.port()), Keys::new("ff", PARTITIONS));
    let store = LeaseStore::new(Arc::clone(&link), &keys);
    let (membership, task) = Membership::new(settings("a", PARTITIONS), Some(store));
    tokio::spawn(task.run());
    let mut view = membership.view();
    let joined = timeout(PATIENCE, view.wait_for(|view| view.fresh)).await;
    let me = joined.unwrap().unwrap().me.clone();
    let metrics = Arc::new(Metrics::new(1));
    let started = RedisBroker::start(&config(redis.port()), Arc::clone(&metrics));
    let (broker, _feed) = started.unwrap();
    let broker = Arc::new(Broker::Redis(broker));
    let (occupancy, writer) = Occupancy::clustered(membership.view(), Arc::clone(&link), keys);
    let view = membership.view();
    let presence = Presence::new(Arc::clone(&broker), view, Arc::new(occupancy), metrics);
    let presence = Arc::new(presence);
    let runs = Arc::clone(&presence);
    tokio::spawn(async move { runs.run(&Settled::default()).await });
    let page = Page {
        entries_max: 10,
        bytes_max: 1 << 20,
    };
    let members = async |broker: &Broker| broker.members(&topic("room"), None, page).await;
    let room = topic("room");
    let member = Member {
        user: None,
        session: SessionId(7),
        info: None,
    };

    // The index is not written: nobody does it yet.
    until_equal(true, || async { members(&broker).await.is_ok() }).await;
    let refused = presence.enter(&room, member.clone()).await;
    assert!(
        matches!(refused, Err(BrokerError::Unavailable(_))),
        "{refused:?}"
    );
    assert_eq!(members(&broker).await.unwrap().entries, []);
    tokio::spawn(writer.run());
    assert_eq!(presence.enter(&room, member.clone()).await, Ok(1));
    let entry = format!("{} {me}", room.qualified());
    assert_eq!(indexed(&link).await, Some(vec![entry]));
    presence.leave(room.clone(), member.session);
    until_equal(Some(Vec::new()), || indexed(&link)).await;
    assert_eq!(members(&broker).await.unwrap().entries, []);
}

/// Everything in the index of the room's partition; `None` when Redis does not answer.
async fn indexed(link: &RedisLink) -> Option<Vec<String>> {
    let index = Keys::new("ff", PARTITIONS).topics_index(topic("room").partition(PARTITIONS));
    let entries = link
        .command("ZRANGE", &index, &[b"0".to_vec(), b"-1".to_vec()])
        .await
        .ok()?;
    Some(entries.convert().unwrap())
}

#[tokio::test]
async fn what_redis_lost_while_it_was_away_for_less_than_a_lease_is_written_again() {
    let mut redis = RedisServer::start().await;
    let link = link(redis.port());
    let node = plan(&redis, "one").env("FANFARE_REDIS__LEASE_MS", "20000");
    let node = node.start().await;
    let members = Members::enter(&node, "room", 3).await;
    let (room, keys) = (topic("room"), Keys::new("ff", PARTITIONS));
    let index = keys.topics_index(room.partition(PARTITIONS));
    // As after a failover to a replica that was behind: the lease is there, these are not.
    let changes = room.presence();
    for key in [
        keys.hash(&changes),
        keys.member_names(&changes),
        keys.member_counts(&changes),
        keys.occupancy(&room),
        index,
    ] {
        link.command("DEL", &key, &[]).await.unwrap();
    }
    assert!(listed(&node, "room").await.is_empty());
    redis.kill();
    node.until_unready().await;
    redis.restart().await;
    node.until_ready().await;
    until_equal(members.sessions.clone(), || listed(&node, "room")).await;
    until_equal(Some(1), || async { Some(indexed(&link).await?.len()) }).await;
    let count = http::get(node.api, "/v1/topics/room").await.json();
    assert_eq!(count["sessions"], 3);
}

#[tokio::test]
async fn a_feed_that_breaks_makes_nobody_be_written_again() {
    let redis = RedisServer::start().await;
    let link = link(redis.port());
    let node = plan(&redis, "one").start().await;
    let members = Members::enter(&node, "room", 3).await;
    let breaks = "fanfare_feed_breaks_total";
    let (before, broken) = (calls_of(&link).await, node.metric(breaks).await);
    link.command("CLIENT", "KILL", &[b"TYPE".to_vec(), b"pubsub".to_vec()])
        .await
        .unwrap();
    until_equal(true, || async { node.metric(breaks).await > broken }).await;
    node.until_ready().await;
    // Whoever enters now comes behind what the break would have begun.
    let late = Members::enter(&node, "room", 1).await;
    assert_eq!(calls_of(&link).await - before, 1, "one entered");
    let all = members.sessions.union(&late.sessions).cloned().collect();
    until_equal(all, || listed(&node, "room")).await;
}

/// How often somebody entered, for the first time or again: that script alone reads the counts of
/// all owners, while nobody asks for a page.
async fn calls_of(link: &RedisLink) -> u64 {
    let stats = link.command("INFO", "commandstats", &[]).await.unwrap();
    let stats: String = stats.convert().unwrap();
    let reads = stats
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_hgetall:calls="));
    let count = reads.and_then(|rest| rest.split(',').next());
    count.map_or(0, |count| count.parse().unwrap())
}

/// Two commands in one write, as a view that is drawn anew sends them.
#[tokio::test]
async fn a_session_that_leaves_and_joins_at_once_stays_a_member() {
    let redis = RedisServer::start().await;
    let node = plan(&redis, "one").start().await;
    let mut members = Members::enter(&node, "room", 4).await;
    for round in 0..100 {
        let talks = members.talks.iter_mut().map(async |talk| {
            let leave = json!({"type": "unsubscribe", "topic": "room"});
            let join = json!({"type": "subscribe", "topic": "room", "presence": true});
            let left = talk.command(leave).await;
            let joined = talk.command(join).await;
            for id in [left, joined] {
                let answer = talk.answer(id).await;
                assert_eq!(answer["type"], "ok", "{answer}");
            }
        });
        futures_util::future::join_all(talks).await;
        assert_eq!(listed(&node, "room").await, members.sessions, "{round}");
    }
}

/// A client that obeys a gap throws away what it has above `from`: so each is told once, and says
/// what it is one of.
#[tokio::test]
async fn what_redis_lost_of_messages_and_of_members_is_told_once_each() {
    let redis = RedisServer::start().await;
    let link = link(redis.port());
    let node = plan(&redis, "one").start().await;
    let url = |user| node.connect_url(&format!("?user={user}"));
    let (mut member, _) = Talk::welcomed(&url("ada"), Encoding::Json).await;
    let (mut reader, _) = Talk::welcomed(&url("bob"), Encoding::Json).await;
    member.be_patient(SOME_BEATS);
    let join = json!({"type": "subscribe", "topic": "room", "presence": true});
    member.ok(join).await;
    reader
        .ok(json!({"type": "subscribe", "topic": "room"}))
        .await;
    let publish = async |data: &str| {
        let body = json!({"topic": "room", "data": data});
        let answer = http::post(node.api, "/v1/publish", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    publish("before").await;
    member.message("room").await;
    link.command("FLUSHALL", "SYNC", &[]).await.unwrap();
    publish("after").await;
    let mut gaps = Vec::new();
    while gaps.len() < 2 {
        gaps.push(member.event_of("gap").await["of"].clone());
    }
    gaps.sort_by_key(Value::is_null);
    assert_eq!(gaps, [json!("presence"), Value::Null]);
    // All that was to be told is told before this.
    publish("last").await;
    assert_eq!(gaps_until_last(&mut member).await, [] as [Value; 0]);
    let told = gaps_until_last(&mut reader).await;
    assert_eq!((told.len(), told[0].get("of")), (1, None), "{told:?}");
}

async fn gaps_until_last(talk: &mut Talk) -> Vec<Value> {
    let mut gaps = Vec::new();
    loop {
        let event = talk.next().await.expect("the session goes on");
        if event["type"] == "gap" {
            gaps.push(event);
        } else if event["data"] == "last" {
            return gaps;
        }
    }
}
