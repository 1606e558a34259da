//! Several deployments: partitions are spread over them, and each does for itself.

use std::collections::BTreeSet;

use fanfare::broker::redis::shards::Shards;
use fanfare::broker::{BrokerError, FeedEvent};
use fanfare::redis::Keys;
use fanfare_protocol::ids::Topic;
use serde_json::json;

use crate::leases::PARTITIONS;
use crate::rig::{Peer, number, topic};
use crate::two_nodes_by;
use fanfare_protocol::form::Encoding;
use fanfare_testkit::http;
use fanfare_testkit::node::Plan;
use fanfare_testkit::redis_cluster::RedisCluster;
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::wait;

fn topics() -> Vec<Topic> {
    (0..32).map(|n| topic(&format!("t{n}"))).collect()
}

fn has_stream(server: &RedisServer, topic: &Topic) -> bool {
    let key = Keys::new("ff", PARTITIONS).stream(topic);
    server.command(&["EXISTS", &key]).as_deref() == Some(":1")
}

/// The partitions of which this server has any key: leases, indexes, and all that topics have.
fn partitions_of(server: &RedisServer) -> BTreeSet<u32> {
    let keys = Keys::new("ff", PARTITIONS);
    let all = server.ask(&["KEYS", "*"]).expect("the server runs");
    all.iter()
        .filter_map(|key| keys.partition_of_key(key))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_spread_over_deployments_and_one_that_dies_takes_only_its_own() {
    let first = RedisServer::start().await;
    let mut second = RedisServer::start().await;
    let shards = [second.url()];
    let publisher = Peer::over(first.url(), &shards);
    publisher.is_up().await;
    let mut listener = Peer::over(first.url(), &shards);
    listener.is_up().await;
    let topics = topics();
    for topic in &topics {
        listener.hear(topic).await;
        publisher.publish(topic, 7).await.expect("up");
        let FeedEvent::Delivery {
            topic: heard,
            entry,
            ..
        } = listener.next().await
        else {
            panic!("expected a delivery");
        };
        assert_eq!((&heard, number(&entry)), (topic, 7));
    }
    let (at_second, at_first): (Vec<_>, Vec<_>) =
        topics.iter().partition(|topic| has_stream(&second, topic));
    assert!(at_first.iter().all(|topic| has_stream(&first, topic)));
    assert!(at_first.len() >= 4 && at_second.len() >= 4, "{at_first:?}");

    second.kill();
    let reason = publisher.is_partly_up().await;
    assert!(reason.contains(&second.port().to_string()), "{reason}");
    for topic in &at_first {
        publisher
            .publish(topic, 8)
            .await
            .expect("its deployment is well");
    }
    for topic in &at_second {
        publisher.is_refused(topic, 8).await;
    }
    second.restart().await;
    publisher.is_up().await;
    for topic in &at_second {
        publisher.publish(topic, 9).await.expect("up");
        let numbers: Vec<_> = publisher
            .retained(topic)
            .await
            .iter()
            .map(|(_, n)| *n)
            .collect();
        assert_eq!(numbers, [7, 9]);
    }
}

/// More than hang at once, each for as long as a command may take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaves_are_told_while_another_deployment_hangs() {
    let (first, second) = (RedisServer::start().await, RedisServer::start().await);
    let plan = Plan::clustered("one", &format!("{}?name=first", first.url()));
    let plan = plan.env(
        "FANFARE_REDIS__SHARDS",
        &format!("{}?name=second", second.url()),
    );
    let node = plan.start().await;
    let (mut guests, mut rooms) = (Vec::new(), Vec::new());
    for guest in 0..2 {
        let url = node.connect_url("?user=ada");
        let (mut talk, _) = Talk::welcomed(&url, Encoding::Json).await;
        for room in 0..120 {
            let room = topic(&format!("room-{guest}-{room}"));
            let join = json!({"type": "subscribe", "topic": room.name(), "presence": true});
            // On a loaded machine the index may not be written in time for one of so many.
            wait::until("to be a member", async || {
                let answer = talk.ask(join.clone()).await;
                if answer["type"] == "ok" {
                    Ok(())
                } else {
                    Err(answer)
                }
            })
            .await;
            rooms.push(room);
        }
        guests.push(talk);
    }
    let [of_first, of_second] = [&first, &second].map(partitions_of);
    let all: BTreeSet<_> = of_first.union(&of_second).copied().collect();
    assert_eq!(all, (0..PARTITIONS).collect(), "each has its lease");
    assert!(of_first.is_disjoint(&of_second), "no partition is at two");
    let (hanging, well): (Vec<_>, Vec<_>) = rooms
        .iter()
        .partition(|room| has_stream(&second, &room.presence()));
    assert!(well.len() >= 30 && hanging.len() >= 30, "{}", well.len());
    second.signal("STOP");
    drop(guests);
    let all_have_left = async |room: &Topic| {
        let path = format!("/v1/topics/{}/presence", room.name());
        wait::until("the member to leave", async || {
            let page = http::get(node.api, &path).await.json();
            (page["count"] == 0).then_some(())
        })
        .await;
    };
    for room in well {
        all_have_left(room).await;
    }
    second.signal("CONT");
    for room in hanging {
        all_have_left(room).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_whose_masters_nobody_knows_is_waited_for_and_named() {
    let first = RedisServer::start().await;
    let mut east = RedisCluster::masters_only().await;
    let url = format!("{}?name=east", east.url());
    let shards = [url];
    // The very first start needs all of them.
    let before = Peer::over(first.url(), &shards);
    before.is_up().await;
    east.servers.iter_mut().for_each(RedisServer::kill);
    let peer = Peer::over(first.url(), &shards);
    let first_at = first.address().to_string();
    peer.is_partly_up_where(|reason| {
        reason.contains("masters of Redis east are not known") && !reason.contains(&first_at)
    })
    .await;
    let topics = topics();
    let mut accepted = 0;
    for topic in &topics {
        match peer.publish(topic, 1).await {
            Ok(_) => accepted += 1,
            Err(BrokerError::Unavailable(why)) => {
                assert!(why.to_string().contains("east"), "{why}");
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(
        (4..=28).contains(&accepted),
        "{accepted} of 32 in the first"
    );
}

/// A server and a cluster side by side, as two whole nodes see them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_share_sessions_members_and_messages_over_deployments_of_different_forms() {
    let first = RedisServer::start().await;
    let second = RedisCluster::masters_only().await;
    let plan = |name: &str| {
        let shards = format!("{}?name=second", second.url());
        Plan::clustered(name, &format!("{}?name=first", first.url()))
            .env("FANFARE_REDIS__SHARDS", &shards)
    };
    let [one, two] = two_nodes_by(plan).await;
    let (mut ada, _) = Talk::welcomed(&two.connect_url("?user=ada"), Encoding::Json).await;
    for topic in topics() {
        let name = topic.name();
        ada.ok(json!({"type": "subscribe", "topic": name})).await;
        let publication = json!({"topic": name, "data": name});
        let answer = http::post(one.api, "/v1/publish", &publication).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(ada.message(name).await["data"], name);
        let path = format!("/v1/topics/{name}");
        wait::until("the session to be counted", async || {
            let seen = http::get(one.api, &path).await.json();
            (seen["sessions"] == 1).then_some(())
        })
        .await;
    }
    let of_cluster = |server: &RedisServer| server.command(&["EXISTS", "{ff:nodes}"]);
    assert_eq!(of_cluster(&first).as_deref(), Some(":1"));
    let spread = topics()
        .iter()
        .filter(|topic| has_stream(&first, topic))
        .count();
    assert!((4..=28).contains(&spread), "{spread} of 32 in the first");
}

/// Names of two deployments of which the first has `@ada` and the second `@` and `@bob`.
fn names() -> [String; 2] {
    let first = "first".to_owned();
    let candidates = (0..1_000).map(|n| [first.clone(), format!("second{n}")]);
    let fits = |names: &[String; 2]| {
        let shards = Shards::new(names, PARTITIONS);
        let of = |name| shards.of(topic(name).partition(PARTITIONS));
        ["@ada", "@", "@bob"].map(of) == [0, 1, 1]
    };
    candidates
        .into_iter()
        .find(fits)
        .expect("one of a thousand fits")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_that_is_away_keeps_nobody_out_whose_topics_are_elsewhere() {
    let (first, mut second) = (RedisServer::start().await, RedisServer::start().await);
    let names = names();
    let shards = &Shards::new(&names, PARTITIONS);
    let there = |at| {
        let all = (0..64).map(|n| format!("t{n}"));
        let mut of = all.filter(move |t| shards.of(topic(t).partition(PARTITIONS)) == at);
        of.next().expect("one of 64")
    };
    let (near, far) = (there(0), there(1));
    let url = format!("{}?name={}", first.url(), names[0]);
    let shard = format!("{}?name={}", second.url(), names[1]);
    let plan = Plan::clustered("one", &url).env("FANFARE_REDIS__SHARDS", &shard);
    let node = plan.start().await;
    second.kill();
    wait::until("the node to know", async || {
        let publication = json!({"everyone": true, "data": 1});
        let answer = http::post(node.api, "/v1/publish", &publication).await;
        (answer.status == 503).then_some(())
    })
    .await;
    let mut sessions = Vec::new();
    for positions in [json!({"@": "0-0"}), json!({}), json!({})] {
        let url = node.connect_url("?user=ada&wait=1");
        let mut talk = Talk::connected(&url, Encoding::Json).await;
        let topics = json!([{"topic": near}, {"topic": far}]);
        let begun = std::time::Instant::now();
        let connect = json!({"type": "connect", "topics": topics, "positions": positions});
        let welcome = talk.ask(connect).await;
        println!("welcome after {:?}", begun.elapsed());
        let topics = &welcome["topics"];
        assert_eq!(topics[&near]["recovered"], true);
        assert_eq!(topics[&far]["error"]["code"], "unavailable");
        let of_everyone = &topics["@"]["error"]["code"];
        let is_named = positions.get("@").is_some();
        assert_eq!(of_everyone == "unavailable", is_named, "{topics}");
        sessions.push(talk);
    }
    // Whose own inbox is away is told to come back later, and not let to wait.
    let mut bob = Talk::connected(&node.connect_url("?user=bob&wait=1"), Encoding::Json).await;
    let refused = bob.refused(json!({"type": "connect"}), "unavailable").await;
    assert!(
        refused["retry_after_ms"].as_u64() >= Some(1_000),
        "{refused}"
    );
    assert_eq!(bob.close_code().await, Some(4_105));

    second.restart().await;
    // Who said where it was has missed nothing: nothing was published.
    for talk in &mut sessions[1..] {
        let gap = talk.event_of("gap").await;
        assert_eq!(
            (&gap["topic"], &gap["reason"]),
            (&json!("@"), &json!("lost"))
        );
    }
    wait::until("everyone to be published", async || {
        let publication = json!({"everyone": true, "data": 2});
        let answer = http::post(node.api, "/v1/publish", &publication).await;
        (answer.status == 200).then_some(())
    })
    .await;
    for talk in &mut sessions {
        assert_eq!(talk.message("@").await["data"], 2);
    }
}
