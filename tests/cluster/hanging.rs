//! A master that hangs holds up what it has a part in, and nothing else.

use std::sync::Arc;

use fanfare::broker::publication::encode_member;
use fanfare::broker::redis::shards::Shards;
use fanfare::redis::{Keys, RedisLink};
use fanfare_protocol::event::Member;
use fanfare_protocol::ids::{SessionId, Topic};
use serde_json::json;

use crate::processes::{REAPED_WITHIN, sees};
use crate::rig::{PARTITIONS, topic};
use crate::scripts::answering;
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::wait;

/// A node whose owner this is has members nowhere else than in these topics.
const GHOST: &str = "ghost~1";

/// A node that notices very late that a deployment hangs.
async fn patient(east: &RedisServer, west: &RedisServer) -> Node {
    Plan::clustered("one", &format!("{}?name=east", east.url()))
        .env(
            "FANFARE_REDIS__SHARDS",
            &format!("{}?name=west", west.url()),
        )
        .env("FANFARE_REDIS__COMMAND_TIMEOUT_MS", "10000")
        .env("FANFARE_REDIS__LEASE_MS", "25000")
        .env("FANFARE_REDIS__PROBE_INTERVAL_MS", "60000")
        .env("FANFARE_REDIS__PROBE_FRESH_MS", "120000")
        .start()
        .await
}

/// So many topics of which this deployment has all.
fn rooms(at: usize, count: usize) -> Vec<Topic> {
    let shards = Shards::new(&["east", "west"].map(str::to_owned), PARTITIONS);
    let rooms = (0..).map(|number| topic(&format!("room:{number}")));
    let is_there = |room: &Topic| shards.of(room.partition(PARTITIONS)) == at;
    rooms.filter(is_there).take(count).collect()
}

/// One member of the dead in a topic.
async fn leave_behind(link: &RedisLink, room: &Topic) {
    let (keys, members) = (Keys::new("ff", PARTITIONS), room.presence());
    let session = format!("{:032x}", 1).into_bytes();
    let member = Member {
        user: None,
        session: SessionId(1),
        info: None,
    };
    let entry = [format!("{GHOST} 1 1 ").into_bytes(), encode_member(&member)].concat();
    let (owner, one, zero) = (GHOST.as_bytes().to_vec(), b"1".to_vec(), b"0".to_vec());
    let index = keys.topics_index(room.partition(PARTITIONS));
    let indexed = format!("{} {GHOST}", room.qualified()).into_bytes();
    let counted = [owner, one];
    for (name, key, args) in [
        ("ZADD", index, [zero.clone(), indexed]),
        ("HSET", keys.hash(&members), [session.clone(), entry]),
        ("ZADD", keys.member_names(&members), [zero, session]),
        ("HSET", keys.member_counts(&members), counted.clone()),
        ("HSET", keys.occupancy(room), counted),
    ] {
        link.command(name, &key, &args).await.unwrap();
    }
}

fn count(server: &RedisServer, words: &[&str]) -> Option<usize> {
    server.ask(words).map(|found| found.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_the_dead_leave_while_another_deployment_hangs() {
    let (east, west) = (RedisServer::start().await, RedisServer::start().await);
    let links: [Arc<RedisLink>; 2] = [answering(&east).await, answering(&west).await];
    let (well, hanging) = (rooms(0, 100), rooms(1, 200));
    for (link, rooms) in links.iter().zip([&well, &hanging]) {
        for room in rooms {
            leave_behind(link, room).await;
        }
    }
    // It lives for as long as the test says so.
    let details = json!({"settled": 1}).to_string();
    for words in [
        ["HSET", "{ff:nodes}:d", "ghost", &details],
        ["HSET", "{ff:nodes}:i", "ghost", "1 ab"],
        ["ZADD", "{ff:nodes}", "9999999999999", "ghost"],
    ] {
        east.ask(&words).unwrap();
    }
    let node = patient(&east, &west).await;
    sees(&node, &["ghost", "one"]).await;

    west.signal("STOP");
    east.ask(&["ZADD", "{ff:nodes}", "1", "ghost"]).unwrap();
    let reaped = "fanfare_reaped_total{kind=\"topic\"}";
    wait::until_within(
        REAPED_WITHIN,
        "the members of the other to leave",
        async || (node.metric(reaped).await == well.len() as u64).then_some(()),
    )
    .await;
    let hashes = |server: &RedisServer| count(server, &["KEYS", "ff:{*}{default:%room*}:h"]);
    assert_eq!(hashes(&east), Some(0));
    // Not because it was given up.
    for link in ["urgent", "bulk"] {
        let away = format!("fanfare_redis_links_away{{link=\"{link}\"}}");
        assert_eq!(node.metric(&away).await, 0, "{link}");
    }
    assert_eq!(node.metric("fanfare_reaping_failing").await, 0);

    west.signal("CONT");
    wait::until_within(REAPED_WITHIN, "all members to leave", async || {
        let indexes = |server: &RedisServer| count(server, &["KEYS", "ff:ti:*"]);
        let left = hashes(&west)? + indexes(&east)? + indexes(&west)?;
        (left == 0).then_some(())
    })
    .await;
}
