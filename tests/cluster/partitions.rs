//! Leases of partitions: handed over, taken over, and never two holders at the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fanfare::cluster::partition_leases::Held;
use fanfare::cluster::partition_store::{LeaseAnswer, PartitionError, PartitionStore};
use fanfare::cluster::partitions::Partitions;
use fanfare::redis::Keys;
use fanfare_protocol::ids::Owner;
use fred::types::Value;
use tokio::task::JoinHandle;

use crate::processes::{SOME_BEATS, plan};
use crate::rig::{self, Node, PARTITIONS, link};
use fanfare_testkit::http;
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::wait;
use fanfare_testkit::wait::until_equal;

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3_600);

/// Looks all the while whether two nodes hold one partition at the same time, and whether each
/// token belongs to one node and is above those that came before.
struct Witness {
    enough: Arc<AtomicBool>,
    watching: JoinHandle<usize>,
}

impl Witness {
    fn start(nodes: &[(&'static str, &Node)]) -> Self {
        let nodes: Vec<_> = nodes
            .iter()
            .map(|(name, node)| (*name, node.partitions.clone()))
            .collect();
        let enough = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&enough);
        let watching = tokio::spawn(async move {
            let mut newest = BTreeMap::new();
            let mut looks_count = 0;
            while !until.load(Ordering::Relaxed) {
                look(&nodes, &mut newest);
                looks_count += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            looks_count
        });
        Self { enough, watching }
    }

    async fn saw_nothing_wrong(self) {
        self.enough.store(true, Ordering::Relaxed);
        let looks_count = self.watching.await.expect("never two holders");
        assert!(looks_count > 100, "it looked only {looks_count} times");
    }
}

fn look(nodes: &[(&'static str, Partitions)], newest: &mut BTreeMap<u32, (u64, &'static str)>) {
    let held = || -> Vec<Held> { nodes.iter().map(|(_, node)| node.now()).collect() };
    // Who holds it in both has held it between the two.
    let (before, after) = (held(), held());
    for partition in 0..PARTITIONS {
        let holders = nodes.iter().zip(before.iter().zip(&after));
        let holders: Vec<_> = holders
            .filter_map(|((name, _), (before, after))| {
                let token = before.token(partition)?;
                (after.token(partition)? == token).then_some((token, *name))
            })
            .collect();
        assert!(holders.len() <= 1, "partition {partition}: {holders:?}");
        for holder in holders {
            let newest = newest.entry(partition).or_insert(holder);
            assert!(
                holder.0 > newest.0 || holder == *newest,
                "partition {partition}: {holder:?} after {newest:?}"
            );
            *newest = holder;
        }
    }
}

/// Waits until these nodes hold all partitions, each those whose home it is.
async fn share(nodes: &[&Node]) {
    let names: BTreeSet<_> = nodes.iter().map(|node| node.me().node).collect();
    for node in nodes {
        let homes = |node: &Node| -> BTreeSet<u32> {
            let view = node.membership.now();
            let seen: BTreeSet<_> = view.nodes.iter().map(|n| n.owner.node.clone()).collect();
            let home = view.ring.partitions_of(&view.me.node);
            home.filter(|_| seen == names).collect()
        };
        until_equal(true, || async {
            let held = node.partitions.now().partitions();
            !held.is_empty() && held == homes(node)
        })
        .await;
    }
    let all = nodes.iter().map(|node| node.partitions.now().partitions());
    let all: Vec<_> = all.flatten().collect();
    assert_eq!(all.len(), PARTITIONS as usize, "each by one node");
    assert_eq!(BTreeSet::from_iter(all).len(), PARTITIONS as usize);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_handed_over_on_join_and_leave_and_taken_over_from_the_dead() {
    let redis = RedisServer::start().await;
    let [a, b, c] = ["a", "b", "c"];
    let a = Node::joined(redis.port(), a).await;
    share(&[&a]).await;
    let b = Node::joined(redis.port(), b).await;
    let c = Node::start(redis.port(), c);
    let witness = Witness::start(&[("a", &a), ("b", &b), ("c", &c)]);
    share(&[&a, &b, &c]).await;
    b.leave().await;
    assert_eq!(b.partitions.now(), Held::default(), "nothing is kept");
    share(&[&a, &c]).await;
    let lost = a.partitions.now().partitions();
    a.kill();
    share(&[&c]).await;
    assert!(
        lost.iter()
            .all(|lost| c.partitions.now().token(*lost).is_some())
    );
    witness.saw_nothing_wrong().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_cut_off_from_redis_holds_nothing_until_it_is_back() {
    let mut redis = RedisServer::start().await;
    let a = Node::joined(redis.port(), "a").await;
    share(&[&a]).await;
    let before = a.partitions.now().token(0).unwrap();
    redis.kill();
    until_equal(BTreeSet::new(), || async {
        a.partitions.now().partitions()
    })
    .await;
    redis.restart().await;
    share(&[&a]).await;
    let after = a.partitions.now().token(0);
    assert_eq!(after, Some(before), "nothing has changed hands");
}

#[tokio::test]
async fn who_was_replaced_is_refused_and_the_next_token_is_above_every_other() {
    let redis = RedisServer::start().await;
    let (link, keys) = (link(redis.port()), Keys::new("ff", PARTITIONS));
    let store = PartitionStore::new(Arc::clone(&link), keys.clone());
    let [a, b] = ["a~5", "b~6"].map(|owner| owner.parse::<Owner>().unwrap());
    let store = &store;
    let lead = |owner: Owner, lease: Duration| async move {
        rig::lead(store, 7, &owner, lease)
            .await
            .ok()
            .and_then(|bid| match bid {
                LeaseAnswer::Held { token } => Some(token),
                LeaseAnswer::Other { .. } => None,
            })
    };
    until_equal(true, || async { lead(a.clone(), LONG).await.is_some() }).await;
    let first = lead(a.clone(), LONG).await.unwrap();
    assert_eq!(lead(a.clone(), LONG).await, Some(first), "it is extended");
    assert!(
        matches!(rig::lead(store, 7, &b, LONG).await, Ok(LeaseAnswer::Other { left }) if left > LONG / 2)
    );
    // Given back: the next takes it at once, and the one before can undo nothing.
    let heads = keys.queue_heads(7);
    let in_hand = [b"2".to_vec(), b"1-0 5 1".to_vec()];
    let is_counted =
        || async { link.command("EXISTS", &heads, &[]).await.unwrap() == Value::from(1) };
    link.command("HSET", &heads, &in_hand).await.unwrap();
    store.release(7, first).await.unwrap();
    assert!(!is_counted().await, "it did not end with it in hand");
    link.command("HSET", &heads, &in_hand).await.unwrap();
    let second = lead(b.clone(), Duration::ZERO).await.unwrap();
    assert!(second > first);
    assert!(matches!(
        store.release(7, first).await,
        Err(PartitionError::Refused)
    ));
    assert!(is_counted().await, "that of another life");
    // Ended, and nobody took it: it goes on. Ended, and somebody did.
    assert_eq!(lead(b.clone(), Duration::ZERO).await, Some(second));
    let third = wait::until("the lease of no length to end", async || {
        lead(a.clone(), LONG).await
    })
    .await;
    assert!(third > second);
    assert_eq!(lead(b, LONG).await, None);
    // A later life of a node takes over from the earlier one at once, and not the reverse.
    let later: Owner = "a~9".parse().unwrap();
    let fourth = lead(later.clone(), LONG).await.unwrap();
    assert!(fourth > third);
    assert_eq!(lead(a.clone(), LONG).await, None);
    // The clock stepped back since the last token was given.
    let key = keys.partition(7);
    let ahead = b"z~1 8000000000000000 1".to_vec();
    link.command("SET", &key, &[ahead]).await.unwrap();
    let above = lead(a, LONG).await.unwrap();
    assert!(above > 8_000_000_000_000_000, "{above}");
}

/// How many scripts a server has run.
fn scripts_run(redis: &RedisServer) -> u64 {
    let stats = redis.ask(&["INFO", "commandstats"]).unwrap().join("");
    let calls = stats.split("cmdstat_evalsha:calls=").nth(1).unwrap();
    let digits = calls.split(',').next().unwrap();
    digits.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_are_extended_together_and_one_that_cannot_be_had_fails_alone() {
    const FOREIGN: u32 = 7;
    let redis = RedisServer::start().await;
    let foreign = Keys::new("ff", PARTITIONS).partition(FOREIGN);
    redis.ask(&["RPUSH", &foreign, "another program"]).unwrap();
    let a = Node::joined(redis.port(), "a").await;
    let others: BTreeSet<_> = (0..PARTITIONS).filter(|p| *p != FOREIGN).collect();
    until_equal(others.clone(), || async { a.partitions.now().partitions() }).await;

    let (before, mut extended) = (scripts_run(&redis), BTreeSet::new());
    wait::until_within(LONG, "some extensions", async || {
        extended.insert(redis.ask(&["GET", "ff:part:{0}"])?.remove(0));
        (extended.len() > 5).then_some(())
    })
    .await;
    // One each would be five times as many as there are partitions.
    let run = scripts_run(&redis) - before;
    assert!(run < u64::from(PARTITIONS), "{run} scripts");
    assert_eq!(a.partitions.now().partitions(), others);

    redis.ask(&["DEL", &foreign]).unwrap();
    share(&[&a]).await;
}

#[tokio::test]
async fn the_api_tells_who_holds_which_partitions() {
    let redis = RedisServer::start().await;
    let start = |name| plan(&redis, name).start();
    let (one, two, mut three) = tokio::join!(start("one"), start("two"), start("three"));
    let shared_by = async |names: &[&str]| {
        wait::until_within(SOME_BEATS, "all partitions to be held", async || {
            let answer = http::get(one.api, "/v1/nodes").await.json();
            let nodes = answer["nodes"].as_array()?;
            let by: Vec<_> = nodes
                .iter()
                .filter_map(|node| node["node"].as_str())
                .collect();
            let ranges = nodes.iter().map(|node| node["partition_ranges"].as_str());
            let counts = nodes.iter().map(|node| node["partitions"].as_u64());
            let held: Vec<u64> = ranges
                .flat_map(|text| numbers(text.unwrap_or_default()))
                .collect();
            let all = BTreeSet::from_iter(&held).len() == PARTITIONS as usize;
            let counted = counts.sum::<Option<u64>>()? == held.len() as u64;
            let once = held.len() == PARTITIONS as usize;
            (by == names && all && once && counted).then_some(())
        })
        .await;
    };
    shared_by(&["one", "three", "two"]).await;
    three.kill();
    shared_by(&["one", "two"]).await;
    assert_eq!(
        one.metric("fanfare_partitions").await + two.metric("fanfare_partitions").await,
        256
    );
}

/// The numbers that ranges name.
fn numbers(ranges: &str) -> Vec<u64> {
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        first.parse::<u64>().unwrap()..=last.parse().unwrap()
    };
    ranges
        .split(',')
        .filter(|text| !text.is_empty())
        .flat_map(range)
        .collect()
}
