//! Occupancy: which topics have sessions where, as every node tells it.

use std::sync::Arc;
use std::time::Duration;

use fanfare::cluster::membership::Membership;
use fanfare::cluster::occupancy::{Occupancy, Occupied};
use fanfare::redis::keyspace::Keyspace;
use fanfare::redis::{Keys, RedisLink};
use fanfare_protocol::ids::{App, Topic};

use crate::rig::{
    Node, PARTITIONS, config, link, link_by, names, occupied_by, settings, settled, topic,
};
use crate::scripts::answering;
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::wait::until_equal;

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
    let left = [
        "{ff:nodes}",
        "{ff:nodes}:c",
        "{ff:nodes}:d",
        "{ff:nodes}:i",
        "{ff:nodes}:t",
    ]
    .map(String::from);
    until_equal(Some(left.to_vec()), || async {
        let keys = link.command("KEYS", "*", &[]).await.ok()?;
        let mut keys: Vec<String> = keys.convert().unwrap();
        keys.retain(|key| !key.starts_with("ff:part:"));
        keys.sort_unstable();
        Some(keys)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_node_left_is_not_shown() {
    let redis = RedisServer::start().await;
    let a = Node::joined(redis.port(), "a").await;
    let b = Node::joined(redis.port(), "b").await;
    a.sees("both", |view| names(view) == ["a", "b"]).await;
    a.occupancy.set(topic("both"), 2);
    b.occupancy.set(topic("both"), 3);
    b.occupancy.set(topic("of-b"), 4);
    settled(&[&a, &b]).await;
    occupied_by(&a, "both", &[(a.me(), 2), (b.me(), 3)]).await;
    b.kill();
    occupied_by(&a, "both", &[(a.me(), 2)]).await;
    let topics = pages(&a, 10)
        .await
        .into_iter()
        .map(|occupied| occupied.topic);
    assert_eq!(topics.collect::<Vec<_>>(), [topic("both")]);
    // It stands there still: nobody here is a reaper.
    let names = Keys::new("ff", PARTITIONS);
    let counts = link(redis.port());
    until_equal(true, || async {
        let counts = counts
            .command("HKEYS", &names.occupancy(&topic("of-b")), &[])
            .await;
        counts.is_ok_and(|counts| {
            counts.convert::<Vec<String>>().ok() == Some(vec![b.me().to_string()])
        })
    })
    .await;
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
    let page = tokio::spawn(async move { occupancy.topics(&App::default_app(), None, 10).await });
    let page = page.await.unwrap().unwrap();
    assert_eq!((page.topics.len(), page.next), (1, None));
}

/// So many topics of some partitions.
fn topics_of(partitions: std::ops::Range<u32>, count: usize) -> Vec<Topic> {
    let all = (0..).map(|n| topic(&format!("t{n}")));
    let fitting = all.filter(|topic| partitions.contains(&topic.partition(PARTITIONS)));
    fitting.take(count).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_hangs_holds_up_its_own_topics_alone() {
    /// From here on.
    const HANGING: u32 = 128;
    let (well, hanging) = (RedisServer::start().await, RedisServer::start().await);
    let a = Node::joined(well.port(), "a").await;
    // Nobody gives up while the test runs.
    let patient = |server: &RedisServer| {
        let timeout = Duration::from_secs(3_600);
        let mut config = config(server.port());
        config.command_timeout = timeout;
        link_by(&config)
    };
    let (first, second) = (patient(&well), patient(&hanging));
    until_equal(true, || async {
        let ask = async |link: &Arc<RedisLink>| link.command("EXISTS", "x", &[]).await.is_ok();
        ask(&first).await && ask(&second).await
    })
    .await;
    let keys = Keys::new("ff", PARTITIONS);
    let names = keys.clone();
    let keyspace = Keyspace::new(move |key| match names.partition_of_key(key) {
        Some(HANGING..) => Ok(Arc::clone(&second)),
        _ => Ok(Arc::clone(&first)),
    });
    let view = a.membership.view();
    let (occupancy, writer) = Occupancy::clustered(view, keyspace, keys);
    tokio::spawn(writer.run());
    hanging.signal("STOP");
    let near = topics_of(0..HANGING, 1_000);
    let far = topics_of(HANGING..PARTITIONS, 1_000);
    for (near, far) in near.iter().zip(&far) {
        occupancy.set(far.clone(), 1);
        occupancy.set(near.clone(), 1);
    }
    until_equal(0, || async {
        let is_missing = |topic: &&Topic| !occupancy.is_indexed(topic, &a.me());
        near.iter().filter(is_missing).count()
    })
    .await;
    assert!(!occupancy.is_indexed(&far[0], &a.me()));
    hanging.signal("CONT");
    occupancy.settled().await;
    assert!(occupancy.is_indexed(&far[0], &a.me()));
}

/// Bytes that a server has sent.
fn sent_bytes(server: &RedisServer) -> u64 {
    let stats = server.ask(&["INFO", "stats"]).expect("it runs").join("\n");
    let mut lines = stats.lines();
    let line = lines.find_map(|line| line.strip_prefix("total_net_output_bytes:"));
    line.expect("Redis counts").trim().parse().expect("a count")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_topics_costs_what_it_shows() {
    let redis = RedisServer::start().await;
    let a = Node::joined(redis.port(), "a").await;
    let all = topics_of(0..8, 4_000);
    for topic in &all {
        a.occupancy.set(topic.clone(), 1);
    }
    settled(&[&a]).await;
    let before = sent_bytes(&redis);
    let page = a
        .occupancy
        .topics(&App::default_app(), None, 1)
        .await
        .unwrap();
    assert_eq!((page.topics.len(), page.next.is_some()), (1, true));
    let sent = sent_bytes(&redis) - before;
    assert!(sent < 20_000, "{sent} bytes");
    assert_eq!(pages(&a, 1_000).await.len(), 4_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_passes_over_so_much_of_the_dead_and_no_more() {
    const INDEX: &str =
        "for i = 2, #ARGV do redis.call('ZADD', KEYS[1], 0, ARGV[i] .. ' ' .. ARGV[1]) end";
    let redis = RedisServer::start().await;
    let a = Node::joined(redis.port(), "a").await;
    let (link, dead) = (answering(&redis).await, topics_of(3..4, 5_000));
    for part in dead.chunks(1_000) {
        let mut args = vec![b"1".to_vec(), b"ff:ti:{3}".to_vec(), b"0ghost~1".to_vec()];
        args.extend(part.iter().map(|t| t.qualified().as_bytes().to_vec()));
        link.command("EVAL", INDEX, &args).await.unwrap();
    }
    let mut in_order = dead.clone();
    in_order.sort();
    // A page passes over 4,096 entries. The last of them is that of a dead node, and that of a
    // living one stands right behind it.
    let (at_the_end, last) = (in_order[4_095].clone(), in_order[4_999].clone());
    a.occupancy.set(at_the_end.clone(), 1);
    a.occupancy.set(last.clone(), 1);
    settled(&[&a]).await;
    let page = a
        .occupancy
        .topics(&App::default_app(), None, 10)
        .await
        .unwrap();
    let topics: Vec<_> = page.topics.into_iter().map(|o| o.topic).collect();
    assert_eq!(topics.as_slice(), std::slice::from_ref(&at_the_end));
    assert_eq!(page.next, Some(at_the_end.clone()));
    let topics = pages(&a, 10).await.into_iter().map(|o| o.topic);
    assert_eq!(topics.collect::<Vec<_>>(), [at_the_end, last]);
}

/// All occupied topics, read page by page.
async fn pages(node: &Node, limit: usize) -> Vec<Occupied> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = node
            .occupancy
            .topics(&App::default_app(), after.as_ref(), limit)
            .await
            .unwrap();
        assert!(page.topics.len() <= limit);
        all.extend(page.topics);
        after = page.next;
        if after.is_none() {
            return all;
        }
    }
}
