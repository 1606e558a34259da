//! Membership and occupancy over a real Redis: nodes see each other, die, pause, collide.
//!
//! Each test starts its own `redis-server` on a free port and stops it. Waits are on what is to
//! happen, with a deadline of about ten times what it should take; nothing sleeps to be in step.

// In a test an unwrap is an assertion; clippy sees that only inside test functions.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use fanfare::cluster::lease_store::{Beat, LeaseStore};
use fanfare::cluster::membership::{Membership, Settings};
use fanfare::cluster::occupancy::{Occupancy, Occupied};
use fanfare::cluster::standing::Standing;
use fanfare::cluster::view::{NodeDetails, View};
use fanfare::config;
use fanfare::protocol::ids::{App, NodeId, Owner, Topic};
use fanfare::redis::{Keys, RedisLink};
use fanfare::telemetry::metrics::Metrics;
use fred::interfaces::ClientLike;
use support::redis_server::RedisServer;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(30);
const LEASE: Duration = Duration::from_secs(1);
const PARTITIONS: u32 = 256;

fn link(port: u16) -> Arc<RedisLink> {
    let link = RedisLink::new(&config::Redis {
        url: Some(config::Secret(format!("redis://127.0.0.1:{port}"))),
        shards: Vec::new(),
        prefix: "ff".into(),
        command_timeout: Duration::from_secs(2),
        probe_interval: Duration::from_secs(1),
        probe_fresh: Duration::from_secs(5),
        lease: LEASE,
        partitions: PARTITIONS,
    })
    .unwrap();
    link.renew().unwrap().connect();
    Arc::new(link)
}

fn settings(name: &str, partitions_count: u32) -> Settings {
    let url = format!("wss://{name}.example");
    Settings {
        node: NodeId::new(name).unwrap(),
        lease: LEASE,
        partitions_count,
        details: Box::new(move || NodeDetails {
            url: Some(url.clone()),
            state: "ready".into(),
            ..NodeDetails::default()
        }),
        metrics: Arc::new(Metrics::new(1)),
    }
}

/// A node's membership and occupancy without the rest of the node.
struct Node {
    membership: Membership,
    occupancy: Occupancy,
    tasks: Vec<JoinHandle<()>>,
}

impl Node {
    fn start(port: u16, name: &str) -> Self {
        Self::start_with(port, name, PARTITIONS)
    }

    fn start_with(port: u16, name: &str, partitions_count: u32) -> Self {
        let link = link(port);
        let keys = Keys::new("ff");
        let store = LeaseStore::new(Arc::clone(&link), &keys);
        let settings = settings(name, partitions_count);
        let (membership, task) = Membership::new(settings, Some(store));
        let (occupancy, writer) = Occupancy::clustered(membership.view(), link, keys);
        let tasks = vec![tokio::spawn(task.run()), tokio::spawn(writer.run())];
        Self {
            membership,
            occupancy,
            tasks,
        }
    }

    /// A member whose view is fresh.
    async fn joined(port: u16, name: &str) -> Self {
        let node = Self::start(port, name);
        node.sees("itself", |view| view.fresh).await;
        node
    }

    async fn sees(&self, what: &str, test: impl FnMut(&View) -> bool) -> Arc<View> {
        let (mut view, mut test) = (self.membership.view(), test);
        let seen = timeout(DEADLINE, view.wait_for(|view| test(view))).await;
        Arc::clone(&seen.unwrap_or_else(|_| panic!("never saw {what}")).unwrap())
    }

    async fn stands(&self, test: impl FnMut(&Standing) -> bool) -> Standing {
        let mut standing = self.membership.standing();
        let reached = timeout(DEADLINE, standing.wait_for(test)).await;
        reached.expect("the standing is reached").unwrap().clone()
    }

    fn me(&self) -> Owner {
        self.membership.now().me.clone()
    }

    /// Ends as a killed process does: nothing is given back.
    fn kill(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn names(view: &View) -> Vec<String> {
    view.nodes
        .iter()
        .map(|node| node.owner.node.to_string())
        .collect()
}

fn topic(name: &str) -> Topic {
    Topic::new(&App::default_app(), name).unwrap()
}

/// Asks again until the answer is the expected one.
async fn eventually<T: PartialEq + std::fmt::Debug, F: Future<Output = T>>(
    expected: T,
    mut ask: impl FnMut() -> F,
) {
    let mut last = None;
    let asked = async {
        loop {
            let answer = ask().await;
            if answer == expected {
                return;
            }
            last = Some(answer);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let reached = timeout(DEADLINE, asked).await.is_ok();
    assert!(reached, "expected {expected:?}, last answer {last:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_see_each_other_with_the_same_homes_and_one_that_leaves_is_gone() {
    let redis = RedisServer::start().await;
    let [a, b, c] = ["a", "b", "c"].map(|name| Node::start(redis.port(), name));
    let all = |view: &View| names(view) == ["a", "b", "c"];
    let views = tokio::join!(a.sees("all", all), b.sees("all", all), c.sees("all", all));
    assert_eq!(views.0.ring, views.1.ring);
    assert_eq!(views.1.ring, views.2.ring);
    let home = views.0.home(&topic("orders:7"));
    assert_eq!(home, views.2.home(&topic("orders:7")));
    assert_eq!(home.url, Some(format!("wss://{}.example", home.node)));
    assert!(views.0.is_live(&b.me()), "its incarnation is known");

    timeout(DEADLINE, b.membership.leave()).await.unwrap();
    assert_eq!(b.stands(Standing::is_final).await, Standing::Left);
    a.sees("two", |view| names(view) == ["a", "c"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_vanishes_when_its_lease_ends() {
    let redis = RedisServer::start().await;
    let a = Node::joined(redis.port(), "a").await;
    let b = Node::joined(redis.port(), "b").await;
    a.sees("both", |view| names(view) == ["a", "b"]).await;
    b.kill();
    let view = a.sees("one", |view| names(view) == ["a"]).await;
    assert!(view.fresh && !view.is_live(&b.me()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_of_one_name_the_older_is_superseded() {
    let redis = RedisServer::start().await;
    let older = Node::joined(redis.port(), "a").await;
    let newer = Node::joined(redis.port(), "a").await;
    let newest = newer.me().incarnation;
    assert!(newest > older.me().incarnation);
    let end = older.stands(Standing::is_final).await;
    assert_eq!(end, Standing::Superseded { newest });
    assert!(!older.membership.now().fresh);
    // The older one's end takes nothing from the newer one.
    timeout(DEADLINE, older.membership.leave()).await.unwrap();
    let later = newer.membership.now().time_us + 1;
    newer
        .sees("itself again", |view| view.time_us > later)
        .await;
    assert_eq!(newer.me().incarnation, newest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_node_takes_a_new_incarnation_and_writes_its_occupancy_again() {
    let redis = RedisServer::start().await;
    let a = Node::joined(redis.port(), "a").await;
    // b lives on a thread of its own, which is held as a stopped process is.
    let port = redis.port();
    let (hold, held) = oneshot::channel::<mpsc::Receiver<()>>();
    let (tell, told) = oneshot::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let b = Node::joined(port, "b").await;
            b.occupancy.set(topic("t"), 2);
            tell.send((b.me(), b.membership.view())).unwrap();
            // Blocks the thread with everything on it: heartbeats, timers, the Redis client.
            held.await.unwrap().recv().unwrap();
            stopped.await.unwrap();
        });
    });
    let (before, mut view) = told.await.unwrap();
    occupied_by(&a, "t", &[(before.clone(), 2)]).await;

    let (release, released) = mpsc::channel();
    hold.send(released).unwrap();
    a.sees("b's end", |view| !view.is_live(&before)).await;
    occupied_by(&a, "t", &[]).await;
    release.send(()).unwrap();
    let renewed = timeout(DEADLINE, view.wait_for(|view| view.me != before)).await;
    let after = renewed.unwrap().unwrap().me.clone();
    assert!(after.incarnation > before.incarnation);
    occupied_by(&a, "t", &[(after, 2)]).await;
    stop.send(()).unwrap();
    thread.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_another_number_of_partitions_does_not_join() {
    let redis = RedisServer::start().await;
    let a = Node::joined(redis.port(), "a").await;
    let b = Node::start_with(redis.port(), "b", 64);
    let end = b.stands(Standing::is_final).await;
    assert_eq!(end, Standing::OtherPartitions { stored: PARTITIONS });
    let later = a.membership.now().time_us;
    let view = a.sees("a later view", |view| view.time_us > later).await;
    assert_eq!(names(&view), ["a"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_when_redis_appears_keeps_its_view_without_it_and_returns() {
    let mut redis = RedisServer::not_yet();
    let port = redis.port();
    let a = Node::start(port, "a");
    assert_eq!(*a.membership.standing().borrow(), Standing::Joining);
    assert_eq!(a.me().incarnation, 0);
    a.occupancy.set(topic("t"), 1);
    redis.restart().await;
    let first = a.sees("Redis", |view| view.fresh).await;
    timeout(DEADLINE, a.occupancy.settled()).await.unwrap();

    redis.kill_with_data();
    let kept = a.sees("nothing new", |view| !view.fresh).await;
    assert_eq!(kept.me, first.me);
    assert_eq!(names(&kept), ["a"]);
    a.occupancy.set(topic("t"), 0);
    a.occupancy.set(topic("u"), 5);

    redis.restart().await;
    let again = a.sees("Redis again", |view| view.fresh).await;
    assert!(
        again.me.incarnation > first.me.incarnation,
        "the lease was lost"
    );
    timeout(DEADLINE, a.occupancy.settled()).await.unwrap();
    let b = Node::joined(port, "b").await;
    occupied_by(&b, "t", &[]).await;
    occupied_by(&b, "u", &[(again.me.clone(), 5)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_of_all_nodes_are_paged_in_a_stable_order_and_vanish_with_their_sessions() {
    let redis = RedisServer::start().await;
    let a = Node::joined(redis.port(), "a").await;
    let b = Node::joined(redis.port(), "b").await;
    a.sees("both", |view| names(view) == ["a", "b"]).await;
    b.sees("both", |view| names(view) == ["a", "b"]).await;
    let all: Vec<_> = (0..1_000).map(|n| topic(&format!("room:{n}"))).collect();
    for (n, topic) in all.iter().enumerate() {
        a.occupancy.set(topic.clone(), 1);
        if n % 2 == 0 {
            b.occupancy.set(topic.clone(), 2);
        }
    }
    a.occupancy.set(topic("room:0").presence(), 1);
    settled(&[&a, &b]).await;
    a.occupancy.set(topic("room:1"), 3);
    settled(&[&a]).await;

    let pages = pages(&b, 64).await;
    let mut expected: Vec<_> = (0_u64..)
        .zip(&all)
        .map(|(n, topic)| Occupied {
            topic: topic.clone(),
            sessions: if n == 1 || n % 2 == 0 { 3 } else { 1 },
            nodes_count: if n % 2 == 0 { 2 } else { 1 },
        })
        .collect();
    expected.sort_by_key(|o| (o.topic.partition(PARTITIONS), o.topic.clone()));
    assert_eq!(pages, expected);
    let inbox = topic("@alice");
    b.occupancy.set(inbox.clone(), 4);
    settled(&[&b]).await;
    occupied_by(&a, "@alice", &[(b.me(), 4)]).await;

    for topic in all.into_iter().chain([inbox]) {
        a.occupancy.set(topic.clone(), 0);
        b.occupancy.set(topic, 0);
    }
    settled(&[&a, &b]).await;
    assert_eq!(self::pages(&a, 64).await, []);
    let link = link(redis.port());
    let left = ["ff:p", "{ff:nodes}", "{ff:nodes}:d", "{ff:nodes}:i"].map(String::from);
    eventually(Some(left.to_vec()), || async {
        let keys = link.command("KEYS", "*", &[]).await.ok()?;
        let mut keys: Vec<String> = keys.convert().unwrap();
        keys.sort_unstable();
        Some(keys)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_node_left_is_not_shown_and_removed_when_met() {
    let redis = RedisServer::start().await;
    let a = Node::joined(redis.port(), "a").await;
    let link = link(redis.port());
    let names = Keys::new("ff");
    let room = topic("room");
    // An incarnation of 1970, and one that is younger than a minute.
    let young = format!("ghost~{}", a.me().incarnation);
    for owner in ["ghost~1", &young] {
        let entry = format!("{owner} {}", room.qualified()).into_bytes();
        let index = names.node_presence(room.partition(PARTITIONS));
        let count = [owner.as_bytes().to_vec(), b"7".to_vec()];
        eventually(true, || async {
            link.command("SADD", &index, std::slice::from_ref(&entry))
                .await
                .is_ok()
        })
        .await;
        link.command("HSET", &names.occupancy(&room), &count)
            .await
            .unwrap();
    }
    assert_eq!(pages(&a, 10).await, []);
    let counts = link.command("HKEYS", &names.occupancy(&room), &[]).await;
    let counts: Vec<String> = counts.unwrap().convert().unwrap();
    assert_eq!(counts, std::slice::from_ref(&young));
    let index = names.node_presence(room.partition(PARTITIONS));
    let index = link.command("SMEMBERS", &index, &[]).await.unwrap();
    let index: Vec<String> = index.convert().unwrap();
    assert_eq!(index, [format!("{young} {}", room.qualified())]);
}

#[tokio::test]
async fn the_next_heartbeat_finds_what_one_whose_answer_was_lost_has_done() {
    let redis = RedisServer::start().await;
    let (link, keys) = (link(redis.port()), Keys::new("ff"));
    let store = LeaseStore::new(Arc::clone(&link), &keys);
    let (store, details) = (&store, NodeDetails::default());
    let me = NodeId::new("a").unwrap();
    let (me, details) = (&me, &details);
    let beat = |member: bool| async move {
        match store.heartbeat(me, member, LEASE * 60, details).await {
            Ok(Beat::Held { incarnation, .. }) => Some(incarnation),
            Ok(Beat::Superseded { .. }) => panic!("by itself"),
            Err(_) => None,
        }
    };
    eventually(true, || async { beat(false).await.is_some() }).await;
    // The first answer was lost: the process still believes that it never had the name.
    let first = beat(false).await.unwrap();
    assert_eq!(beat(true).await, Some(first));
    // The lease ended, and the answer that gave the new incarnation was lost.
    let ended = |name: &str| vec!["1".into(), name.into()];
    link.command("ZADD", &keys.nodes(), &ended("a"))
        .await
        .unwrap();
    let second = beat(true).await.unwrap();
    assert!(second > first);
    assert_eq!(beat(true).await, Some(second));

    // A lease that ended long ago is forgotten with all that belongs to it.
    link.command("ZADD", &keys.nodes(), &ended("ghost"))
        .await
        .unwrap();
    for key in [keys.node_incarnations(), keys.node_details()] {
        let field = ["ghost".into(), "1 f".into()];
        link.command("HSET", &key, &field).await.unwrap();
    }
    beat(true).await.unwrap();
    for key in [keys.node_incarnations(), keys.node_details()] {
        let known = link.command("HEXISTS", &key, &["ghost".into()]).await;
        assert_eq!(known.unwrap().convert::<u64>().unwrap(), 0);
    }
}

#[tokio::test]
async fn a_node_alone_answers_from_its_own_sessions() {
    let (membership, _task) = Membership::new(settings("a", PARTITIONS), None);
    let occupancy = Occupancy::alone(membership.view());
    occupancy.set(topic("t"), 2);
    occupancy.set(topic("u"), 1);
    occupancy.set(topic("u"), 0);
    occupancy.settled().await;
    let me = membership.now().me.clone();
    assert_eq!(occupancy.topic(&topic("t")).await.unwrap(), [(me, 2)]);
    assert_eq!(occupancy.topic(&topic("u")).await.unwrap(), []);
    // As a server would ask, from a task.
    let page = tokio::spawn(async move { occupancy.topics(None, 10).await });
    let page = page.await.unwrap().unwrap();
    assert_eq!((page.topics.len(), page.next), (1, None));
}

/// Waits until all that these nodes know stands in Redis.
async fn settled(nodes: &[&Node]) {
    for node in nodes {
        timeout(DEADLINE, node.occupancy.settled()).await.unwrap();
    }
}

/// Waits until a node sees a topic occupied like that.
async fn occupied_by(node: &Node, name: &str, expected: &[(Owner, u64)]) {
    eventually(expected.to_vec(), || async {
        node.occupancy.topic(&topic(name)).await.unwrap()
    })
    .await;
}

/// All occupied topics, read page by page.
async fn pages(node: &Node, limit: usize) -> Vec<Occupied> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = node.occupancy.topics(after.as_ref(), limit).await.unwrap();
        assert!(page.topics.len() <= limit);
        all.extend(page.topics);
        after = page.next;
        if after.is_none() {
            return all;
        }
    }
}
