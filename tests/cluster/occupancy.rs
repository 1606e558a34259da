//! Occupancy: which topics have sessions where, as every node tells it.

use fanfare::cluster::membership::Membership;
use fanfare::cluster::occupancy::{Occupancy, Occupied};
use fanfare::redis::Keys;

use crate::rig::{
    Node, PARTITIONS, eventually, link, names, occupied_by, settings, settled, topic,
};
use crate::support::redis_server::RedisServer;

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
    let left = ["{ff:nodes}", "{ff:nodes}:d", "{ff:nodes}:i", "{ff:nodes}:t"].map(String::from);
    eventually(Some(left.to_vec()), || async {
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
    let names = Keys::new("ff");
    let counts = link(redis.port());
    eventually(true, || async {
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
    let page = tokio::spawn(async move { occupancy.topics(None, 10).await });
    let page = page.await.unwrap().unwrap();
    assert_eq!((page.topics.len(), page.next), (1, None));
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
