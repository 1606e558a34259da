//! A Redis Cluster: slots move, masters are replaced or die, and only their own topics notice.

use fanfare::broker::{BrokerError, FeedEvent};
use fanfare::redis::Keys;
use fanfare_protocol::ids::Topic;
use serde_json::json;

use crate::leases::PARTITIONS;
use crate::rig::{Peer, Reader, topic};
use crate::two_nodes;
use fanfare_protocol::form::Encoding;
use fanfare_testkit::http;
use fanfare_testkit::load::{Listening, Load};
use fanfare_testkit::node::Plan;
use fanfare_testkit::redis_cluster::RedisCluster;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::wait::{self, PATIENCE};

pub(crate) fn slot(cluster: &RedisCluster, topic: &Topic) -> usize {
    cluster.slot(&Keys::new("ff", PARTITIONS).channel(topic))
}

/// A topic on the server at this place.
pub(crate) fn topic_at(cluster: &RedisCluster, at: usize) -> Topic {
    let mut topics = (0..).map(|n| topic(&format!("t{n}")));
    let is_there = |topic: &Topic| cluster.owner(slot(cluster, topic)) == Some(at);
    topics.find(is_there).expect("some topic is there")
}

/// Publications are answered, and everybody hears them without a sweep.
async fn go_on(load: &Load, listening: &[Listening]) {
    load.goes_on(20).await;
    for listening in listening {
        listening.goes_on(20).await;
    }
}

/// Publishes until it is accepted; whatever is refused was surely not done.
async fn publish(peer: &Peer, topic: &Topic, n: u64) {
    wait::until_within(
        PATIENCE,
        "a publication to be accepted",
        async || match peer.publish(topic, n).await {
            Ok(_) => Some(()),
            Err(BrokerError::Unavailable(_)) => None,
            Err(other) => panic!("{other}"),
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_move_and_masters_that_change_are_followed_and_nothing_is_lost() {
    let cluster = RedisCluster::start().await;
    let [one, two] = two_nodes(&cluster.url()).await;
    let moving = topic("t");
    let slot = slot(&cluster, &moving);
    let home = cluster.owner(slot).expect("all slots are dealt");
    let load = Load::start(&one, "t").await;
    let listening = [
        Listening::start(&one, "ada", Encoding::Json, "t").await,
        Listening::start(&two, "bob", Encoding::MsgPack, "t").await,
    ];
    let first = load.answered();
    load.goes_on(20).await;

    // Away, and back at once: the subscription is gone though the slot is where it was.
    let away = (home + 1) % 3;
    cluster.move_slot(slot, home, away);
    cluster.is_at(slot, away).await;
    go_on(&load, &listening).await;
    cluster.move_slot(slot, away, home);
    cluster.is_at(slot, home).await;
    go_on(&load, &listening).await;
    cluster.move_slot(slot, home, away);
    cluster.move_slot(slot, away, home);
    go_on(&load, &listening).await;
    cluster.is_at(slot, home).await;

    // The replica takes over in order, and takes all slots with it.
    let replica = home + 3;
    cluster.servers[replica]
        .ask(&["CLUSTER", "FAILOVER"])
        .expect("the server runs");
    cluster.is_at(slot, replica).await;
    go_on(&load, &listening).await;

    let answered = load.end().await;
    for listening in listening {
        listening.heard_all(&answered, first).await;
    }
    for node in [&one, &two] {
        assert!(node.metric("fanfare_topics_moved_total").await > 0);
        assert_eq!(node.metric("fanfare_gaps_total").await, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_stalls_its_own_topics_and_no_others_until_its_replica_takes_over() {
    let mut cluster = RedisCluster::start().await;
    let publisher = Peer::up(cluster.url()).await;
    let mut listener = Peer::up(cluster.url()).await;
    let (stalled, healthy) = (topic_at(&cluster, 0), topic_at(&cluster, 1));
    let slot = slot(&cluster, &stalled);
    listener.hear(&stalled).await;
    publish(&publisher, &stalled, 1).await;
    let mut reader = Reader::new(&stalled);
    while reader.newest() < Some(1) {
        let event = listener.next().await;
        reader.take(&listener, event).await;
    }

    // What was answered stands at the replica: this is no test of what Redis loses.
    let answer = cluster.servers[0].command(&["CLIENT", "PAUSE", "5000", "WRITE"]);
    assert_eq!(answer.as_deref(), Some("+OK"));
    let address = cluster.servers[0].address().to_string();
    cluster.servers[0].kill();
    let reason = publisher.is_partly_up().await;
    assert!(reason.contains(&address), "{reason}");
    publisher.is_refused(&stalled, 2).await;
    for n in 1..=200 {
        publisher
            .publish(&healthy, n)
            .await
            .expect("this master is well");
    }

    cluster.is_at(slot, 3).await;
    publish(&publisher, &stalled, 3).await;
    publisher.is_up().await;
    while reader.newest() < Some(3) {
        let event = listener.next().await;
        reader.take(&listener, event).await;
    }
    let numbers: Vec<_> = reader.read.iter().map(|(_, n)| *n).collect();
    assert_eq!(numbers, [1, 3]);
    assert_eq!(publisher.retained(&healthy).await.len(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_misses_one_master_is_ready_for_all_that_the_others_have() {
    let mut cluster = RedisCluster::masters_only().await;
    let owner = |key: &str| {
        cluster
            .owner(cluster.slot(key))
            .expect("all slots are dealt")
    };
    let of_topic = |name: &str| owner(&Keys::new("ff", PARTITIONS).channel(&topic(name)));
    let needed = [owner("{ff:nodes}"), of_topic("@")];
    let away = (0..3)
        .find(|at| !needed.contains(at))
        .expect("two of three");
    let mut users = (0..).map(|n| format!("user-{n}"));
    let is_well = |user: &String| of_topic(&format!("@{user}")) != away;
    let user = users.find(is_well).expect("some inbox is elsewhere");
    let (stalled, healthy) = (topic_at(&cluster, away), topic_at(&cluster, needed[0]));
    let require_coverage = |word: &str| {
        for server in &cluster.servers {
            let words = ["CONFIG", "SET", "cluster-require-full-coverage", word];
            server.ask(&words).expect("the server runs");
        }
    };
    require_coverage("yes");
    let node = Plan::clustered("one", &cluster.url()).start().await;
    assert_eq!(
        node.until_told("redis_full_coverage_required").await.len(),
        1
    );
    require_coverage("no");
    let publish = async |topic: &Topic, data: u32| {
        let publication = json!({"topic": topic.name(), "data": data});
        http::post(node.api, "/v1/publish", &publication).await
    };
    assert_eq!(publish(&stalled, 1).await.status, 200);

    let address = cluster.servers[away].address().to_string();
    cluster.servers[away].kill();
    wait::until("the master to be missed", async || {
        let detailed = http::get(node.api, "/health/detailed").await.text();
        detailed.contains(&address).then_some(())
    })
    .await;
    wait::until("a publication to be refused", async || {
        (publish(&stalled, 2).await.status == 503).then_some(())
    })
    .await;
    assert!(node.is_ready().await);
    // Joined together: what one master does not answer keeps nobody from the others.
    let url = node.connect_url(&format!("?user={user}"));
    let (mut talk, _) = Talk::welcomed(&url, Encoding::Json).await;
    talk.send(&json!({"type": "subscribe", "topic": stalled.name(), "id": 7}))
        .await;
    talk.ok(json!({"type": "subscribe", "topic": healthy.name()}))
        .await;
    assert_eq!(publish(&healthy, 3).await.status, 200);
    assert_eq!(talk.message(healthy.name()).await["data"], 3);
}

/// An index lies with its partition, as the topics do that stand in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_an_index_on_a_lost_master_is_refused_and_nothing_looks_complete() {
    let mut cluster = RedisCluster::masters_only().await;
    let owner = |key: &str| cluster.owner(cluster.slot(key)).expect("all slots");
    let of_topic = |name: &str| owner(&Keys::new("ff", PARTITIONS).channel(&topic(name)));
    let away = (owner("{ff:nodes}") + 1) % 3;
    let (room, well) = (topic_at(&cluster, away), topic_at(&cluster, (away + 1) % 3));
    let mut users = (0..).map(|n| format!("user-{n}"));
    let is_well = |user: &String| of_topic(&format!("@{user}")) != away;
    let user = users.find(is_well).expect("some inbox is elsewhere");
    let node = Plan::clustered("one", &cluster.url()).start().await;
    let url = node.connect_url(&format!("?user={user}"));
    let (mut talk, _) = Talk::welcomed(&url, Encoding::Json).await;
    let topics = async || http::get(node.api, "/v1/topics?limit=1000").await;
    assert_eq!(topics().await.status, 200);

    cluster.servers[away].kill();
    let told = wait::until_within(PATIENCE, "the master to be missed", async || {
        let answer = topics().await;
        // At first an answer may be lost.
        let is_known = answer.text().contains("nothing was done");
        is_known.then_some(answer)
    })
    .await;
    assert_eq!(told.status, 503, "{}", told.text());
    talk.be_patient(PATIENCE);
    let join = |room: &Topic| json!({"type": "subscribe", "topic": room.name(), "presence": true});
    talk.refused(join(&room), "unavailable").await;
    // All that a topic needs is on one master.
    talk.ok(join(&well)).await;

    cluster.servers[away].restart().await;
    wait::until_within(PATIENCE, "all indexes", async || {
        (topics().await.status == 200).then_some(())
    })
    .await;
    wait::until_within(PATIENCE, "a member", async || {
        let joined = talk.ask(join(&room)).await;
        (joined["type"] == "ok").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_where_the_master_of_the_nodes_lives() {
    let mut cluster = RedisCluster::masters_only().await;
    let owner = |key: &str| cluster.owner(cluster.slot(key)).expect("all slots");
    let needed = owner("{ff:nodes}");
    let away: Vec<_> = (0..3).filter(|at| *at != needed).collect();
    // Among them the one that has what nodes of earlier releases agreed on.
    assert!(away.contains(&owner("ff:fp")));
    let one = Plan::clustered("one", &cluster.url()).start().await;
    for at in away {
        cluster.servers[at].kill();
        let name = format!("late-{at}");
        let late = Plan::clustered(&name, &cluster.url()).start_unready().await;
        late.until_ready().await;
        cluster.servers[at].restart().await;
        one.until_ready().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_given_as_one_server_is_refused_with_what_to_do() {
    let cluster = RedisCluster::masters_only().await;
    // What nodes must agree on lies in one slot; it is looked for at another server than it is at.
    let has_it = cluster
        .owner(cluster.slot("{ff:nodes}:fp"))
        .expect("all slots are there");
    let wrong = (has_it + 1) % cluster.servers.len();
    let peer = Peer::start(cluster.servers[wrong].url());
    peer.is_partly_up_where(|reason| reason.contains("redis-cluster://"))
        .await;
    let refused = peer.publish(&topic_at(&cluster, 1), 1).await;
    assert!(
        matches!(refused, Err(BrokerError::Unavailable(_))),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_message_is_heard_once_though_every_master_repeats_it() {
    let cluster = RedisCluster::masters_only().await;
    let mut peer = Peer::up(cluster.url()).await;
    let rooms: Vec<_> = (0..3).map(|at| topic_at(&cluster, at)).collect();
    for room in &rooms {
        peer.hear(room).await;
    }
    peer.broker.control("hello".into()).await.expect("up");
    assert_eq!(peer.next().await, FeedEvent::Control("hello".into()));
    for room in &rooms {
        publish(&peer, room, 1).await;
        let event = peer.next().await;
        assert!(matches!(event, FeedEvent::Delivery { .. }), "{event:?}");
    }
}
