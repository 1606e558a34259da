//! What is measured, in order: memory of idle sessions of three kinds, then one node with 9,000
//! idle sessions, storms of connects, and fan-outs to 1,000 more beside the bare loop.
//!
//! In: which engine. Out: [`Figures`]. Each part has a node of its own, which ends with it.

use std::time::{Duration, Instant};

use crate::crowd::{Crowd, Plan, Who};
use crate::fanout::{self, Cost, Pace};
use crate::process;
use crate::report::{Figures, middle};
use crate::support::node::{self, Node};
use crate::support::redis_server::RedisServer;
use crate::support::tokens;

/// Sessions that do nothing.
const IDLE_COUNT: usize = 9_000;
/// How many of them connect at once.
const AT_ONCE: usize = 100;
/// From the last connect to the reading of memory: every session has been pinged by then.
const SETTLE: Duration = Duration::from_secs(35);
/// One interval of pings (`session.ping_ms`), so that each session has exactly one in it.
const IDLE_WINDOW: Duration = Duration::from_secs(25);
/// Connects of one storm (requirement R4), and storms.
const STORM_COUNT: usize = 100;
const STORMS_COUNT: usize = 20;
/// Longest time for opening a crowd.
const OPEN_PATIENCE: Duration = Duration::from_secs(120);

/// A node on the measured core, with a preset for 10,000 connections.
async fn start(redis: Option<&RedisServer>) -> Node {
    let mut plan = node::Plan::default()
        .flag("--dev")
        .flag("--workers=1")
        .flag("--size=enterprise")
        .env("FANFARE_AUTH__HMAC_SECRET", tokens::SECRET)
        .env("FANFARE_SESSION__PER_USER_MAX", "20000");
    if let Some(redis) = redis {
        plan = plan.flag(&format!("--redis={}", redis.url()));
    }
    let node = plan.start().await;
    process::pin(node.pid(), process::MEASURED_CORE);
    node
}

async fn open(node: &Node, who: Who, topic: Option<&'static str>, sessions: usize) -> Crowd {
    let plan = Plan {
        to: node.public,
        sessions_count: sessions,
        at_once: AT_ONCE,
        who,
        topic,
    };
    let opened = tokio::time::timeout(OPEN_PATIENCE, plan.open()).await;
    opened.expect("all sessions are welcome in time")
}

/// Bytes of an idle session that has no inbox, and of one that shares it and is subscribed.
pub(crate) async fn memory(figures: &mut Figures) {
    let shapes = [
        ("idle anonymous session", Who::Anonymous, None),
        (
            "idle session of one user, token, subscribed",
            Who::Same("ada"),
            Some("idle"),
        ),
    ];
    for (name, who, topic) in shapes {
        let node = start(None).await;
        let before = process::resident_bytes(node.pid());
        let crowd = open(&node, who, topic, IDLE_COUNT).await;
        tokio::time::sleep(SETTLE).await;
        let after = process::resident_bytes(node.pid());
        let each = (after - before) as f64 / crowd.len() as f64;
        figures.add(name, "bytes", each);
        crowd.close().await;
    }
}

/// Everything else, over one engine.
pub(crate) async fn whole(figures: &mut Figures, redis: Option<&RedisServer>) {
    let node = start(redis).await;
    let idle = idle(figures, &node).await;
    storms(figures, &node).await;
    fan_out(figures, &node, redis).await;
    figures.add(
        "sessions ended by the node",
        "",
        idle.counts.ended.get() as f64,
    );
    idle.close().await;
}

/// 9,000 users of their own, each with a token and an inbox.
async fn idle(figures: &mut Figures, node: &Node) -> Crowd {
    let pid = node.pid();
    let (memory, cpu) = (process::resident_bytes(pid), process::cpu(pid));
    let from = Instant::now();
    let crowd = open(node, Who::Each("idle"), None, IDLE_COUNT).await;
    let each = 1.0 / crowd.len() as f64;
    let opening = (process::cpu(pid) - cpu).as_secs_f64();
    figures.add("node without sessions", "MiB", mib(memory));
    figures.add("opening 9,000 sessions", "s", from.elapsed().as_secs_f64());
    figures.add("CPU per connect", "µs", opening * 1e6 * each);
    tokio::time::sleep(SETTLE).await;
    let grown = process::resident_bytes(pid) - memory;
    figures.add("idle session with an inbox", "bytes", grown as f64 * each);
    let cpu = process::cpu(pid);
    tokio::time::sleep(IDLE_WINDOW).await;
    let used = (process::cpu(pid) - cpu).as_secs_f64() / IDLE_WINDOW.as_secs_f64();
    figures.add("CPU per idle session per second", "µs", used * 1e6 * each);
    crowd
}

/// 100 sessions connect at once, again and again.
async fn storms(figures: &mut Figures, node: &Node) {
    let (mut waits, mut slowest) = (Vec::new(), Vec::new());
    for _ in 0..STORMS_COUNT {
        let crowd = open(node, Who::Each("storm"), None, STORM_COUNT).await;
        let mut of_one: Vec<_> = crowd.waits.iter().map(Duration::as_secs_f64).collect();
        of_one.sort_by(f64::total_cmp);
        slowest.extend(of_one.last().map(|s| s * 1e3));
        waits.extend(of_one.into_iter().map(|s| s * 1e3));
        crowd.close().await;
        // The next storm finds the same number of sessions.
        let gone = IDLE_COUNT as u64;
        while node.metric("fanfare_sessions").await > gone {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    waits.sort_by(f64::total_cmp);
    figures.add(
        "100 connects at once: welcome, median",
        "ms",
        middle(&waits),
    );
    let p95 = waits[waits.len() * 95 / 100];
    figures.add("100 connects at once: welcome, p95", "ms", p95);
    slowest.sort_by(f64::total_cmp);
    let all = middle(&slowest);
    figures.add("100 connects at once: all welcome, median of 20", "ms", all);
}

async fn fan_out(figures: &mut Figures, node: &Node, redis: Option<&RedisServer>) {
    let topic = Some(fanout::TOPIC);
    let crowd = open(node, Who::Each("fan"), topic, fanout::SESSIONS_COUNT).await;
    let memory = process::resident_bytes(node.pid());
    figures.add("node with 10,000 sessions", "MiB", mib(memory));
    let mut first = 1;
    for (pace, name) in [(Pace::Awaited, "awaited"), (Pace::Lockstep, "lockstep")] {
        let redis_cpu = || redis.map(|r| process::cpu(r.pid()));
        let (redis_before, written) = (redis_cpu(), node.metric(WRITES).await);
        let ours = fanout::of_node(node.pid(), node.api, &crowd, pace, first).await;
        let writes = node.metric(WRITES).await - written;
        let bare = fanout::of_bare(pace, ours.message_bytes).await;
        first += fanout::NUMBERS_COUNT;
        let deliveries = (fanout::NUMBERS_COUNT * crowd.len() as u64) as f64;
        let add = |figures: &mut Figures, what: &str, unit, value| {
            figures.add(&format!("{name}: {what}"), unit, value);
        };
        add(figures, "CPU per delivery, node", "µs", ours.cpu_us);
        add(figures, "CPU per delivery, bare send()", "µs", bare.cpu_us);
        add(figures, "ratio", "", ours.cpu_us / bare.cpu_us);
        add(figures, "deliveries, node", "1/s", ours.per_s);
        add(figures, "deliveries, bare send()", "1/s", bare.per_s);
        add(
            figures,
            "messages per write, node",
            "",
            deliveries / writes as f64,
        );
        add(
            figures,
            "missing, doubled, reordered",
            "",
            faults(&ours) + faults(&bare),
        );
        if let (Some(before), Some(after)) = (redis_before, redis_cpu()) {
            let each = (after - before).as_secs_f64() / fanout::NUMBERS_COUNT as f64;
            add(figures, "CPU of Redis per publication", "µs", each * 1e6);
        }
    }
    figures.add(
        "length of a message",
        "bytes",
        crowd.counts.message_bytes.get() as f64,
    );
    crowd.close().await;
}

/// The node's count of write calls.
const WRITES: &str = "fanfare_socket_writes_total";

fn faults(cost: &Cost) -> f64 {
    (cost.missing + cost.again) as f64
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1_024.0 * 1_024.0)
}
