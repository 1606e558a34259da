//! What a page of topics costs Redis, and that a listing has every topic once.

use std::collections::BTreeMap;

use fanfare_protocol::ids::{App, Owner, Topic};

use crate::rig::{Node, PARTITIONS, names, topic};
use crate::scripts::answering;
use fanfare_testkit::redis_server::RedisServer;

/// Topics of one page.
const LIMIT: usize = 100;

/// Counts and index of topics that another node has, as its occupancy would write them.
const JOIN: &str = "for i = 3, #ARGV do \
    redis.call('ZADD', KEYS[1], 0, ARGV[i] .. ' ' .. ARGV[1]) \
    redis.call('HSET', ARGV[2] .. '{' .. ARGV[i] .. '}:o', ARGV[1], 1) end";

/// So many topics in all partitions, joined on `owner`, in the order of pages.
async fn joined(redis: &RedisServer, owner: &Owner, count: usize) -> Vec<Topic> {
    let link = answering(redis).await;
    let mut by_partition: BTreeMap<u32, Vec<Topic>> = BTreeMap::new();
    for n in 0..count {
        let topic = topic(&format!("room:{n}"));
        let partition = topic.partition(PARTITIONS);
        by_partition.entry(partition).or_default().push(topic);
    }
    for (partition, topics) in &mut by_partition {
        topics.sort();
        for part in topics.chunks(1_000) {
            let key = format!("ff:ti:{{{partition}}}").into_bytes();
            let begin = format!("ff:{{{partition}}}").into_bytes();
            let mut args = vec![b"1".to_vec(), key, owner.to_string().into_bytes(), begin];
            args.extend(part.iter().map(|t| t.qualified().as_bytes().to_vec()));
            link.command("EVAL", JOIN, &args).await.unwrap();
        }
    }
    by_partition.into_values().flatten().collect()
}

/// What Redis has done so far.
#[derive(Debug, Clone, Copy)]
struct Done {
    /// Parts of indexes that were read.
    parts: u64,
    /// Topics that were counted.
    counts: u64,
    /// Processor time of both, in microseconds.
    usec: u64,
    /// Bytes that were sent, of all commands.
    bytes: u64,
}

impl Done {
    fn by(redis: &RedisServer) -> Self {
        let stats = redis.ask(&["INFO", "all"]).expect("it runs").join("\n");
        let field = |line: &str, field: &str| -> u64 {
            let line = stats.lines().find_map(|l| l.trim().strip_prefix(line));
            let rest = line
                .and_then(|line| line.split_once(field))
                .map(|(_, rest)| rest);
            let digits = rest
                .unwrap_or("0")
                .split(|c: char| !c.is_ascii_digit())
                .next();
            digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
        };
        let (index, count) = ("cmdstat_zrangebylex:", "cmdstat_hgetall:");
        Self {
            parts: field(index, "calls="),
            counts: field(count, "calls="),
            usec: field(index, "usec=") + field(count, "usec="),
            bytes: field("total_net_output_bytes", ":"),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            parts: self.parts - before.parts,
            counts: self.counts - before.counts,
            usec: self.usec - before.usec,
            bytes: self.bytes - before.bytes,
        }
    }
}

/// A whole listing, and what its pages cost.
async fn listing(redis: &RedisServer, node: &Node) -> (Vec<Topic>, Vec<Done>) {
    let (mut topics, mut costs, mut after) = (Vec::new(), Vec::new(), None);
    loop {
        let before = Done::by(redis);
        let page = node
            .occupancy
            .topics(&App::default_app(), after.as_ref(), LIMIT)
            .await
            .unwrap();
        costs.push(Done::by(redis).since(before));
        topics.extend(page.topics.into_iter().map(|occupied| occupied.topic));
        after = page.next;
        if after.is_none() {
            return (topics, costs);
        }
    }
}

async fn two(redis: &RedisServer) -> (Node, Node) {
    let a = Node::joined(redis.port(), "a").await;
    let b = Node::joined(redis.port(), "b").await;
    a.sees("both", |view| names(view) == ["a", "b"]).await;
    (a, b)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_has_each_of_ten_thousand_topics_once_and_reads_little_else() {
    let redis = RedisServer::start().await;
    let (a, b) = two(&redis).await;
    let all = joined(&redis, &b.me(), 10_000).await;
    let (topics, costs) = listing(&redis, &a).await;
    assert_eq!(topics, all);
    // Some 39 topics are in a partition.
    for cost in &costs {
        assert!(cost.parts <= 9, "{cost:?}");
        assert!(cost.counts <= 100, "{cost:?}");
        assert!(cost.bytes < 60_000, "{cost:?}");
    }
    let pages = costs.len() as u64;
    let parts: u64 = costs.iter().map(|cost| cost.parts).sum();
    assert!(
        parts <= u64::from(PARTITIONS) + 3 * pages,
        "{parts} parts, {pages} pages"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_ends_at_a_topic_of_many_nodes_costs_no_more_than_at_one_of_few() {
    let redis = RedisServer::start().await;
    let (a, b) = two(&redis).await;
    let all = joined(&redis, &b.me(), 1_000).await;
    let (many, after) = (LIMIT - 1, LIMIT);
    let page_parts = async || {
        let before = Done::by(&redis);
        let page = a
            .occupancy
            .topics(&App::default_app(), None, LIMIT)
            .await
            .unwrap();
        let topics: Vec<_> = page.topics.into_iter().map(|one| one.topic).collect();
        assert_eq!(topics, all[..after]);
        assert_eq!(page.next.as_ref(), Some(&all[many]));
        Done::by(&redis).since(before).parts
    };
    let of_few = page_parts().await;
    // Younger than the view, so that they are shown as living: 500 more nodes.
    let topic = &all[many];
    let key = format!("ff:ti:{{{}}}", topic.partition(PARTITIONS));
    let mut args = Vec::new();
    for n in 0..500 {
        let entry = format!("{} x{n}~9000000000000000", topic.qualified());
        args.extend([b"0".to_vec(), entry.into_bytes()]);
    }
    let link = answering(&redis).await;
    link.command("ZADD", &key, &args).await.unwrap();
    let of_many = page_parts().await;
    assert!(of_many <= of_few + 1, "{of_many} parts, {of_few} before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: see docs/performance.md"]
async fn cost_of_a_page() {
    for count in [1_000, 10_000, 100_000] {
        let redis = RedisServer::start().await;
        let (a, b) = two(&redis).await;
        let all = joined(&redis, &b.me(), count).await;
        let begun = std::time::Instant::now();
        let (topics, costs) = listing(&redis, &a).await;
        let seconds = begun.elapsed().as_secs_f64();
        assert_eq!(topics.len(), all.len());
        let n = costs.len() as u64;
        let sum = |of: fn(&Done) -> u64| costs.iter().map(of).sum::<u64>() / n;
        let max = |of: fn(&Done) -> u64| costs.iter().map(of).max();
        println!(
            "{count} topics, {n} pages in {seconds:.1} s, each: {} parts (at most {:?}), {} counts, \
             {} us, {} bytes (at most {:?}), with the questions' own",
            sum(|c| c.parts),
            max(|c| c.parts),
            sum(|c| c.counts),
            sum(|c| c.usec),
            sum(|c| c.bytes),
            max(|c| c.bytes),
        );
    }
}
