//! What a node without sessions asks of Redis, and what Redis keeps of a message to an inbox.
//!
//! Commands are counted twice: those that clients send, by MONITOR, and all that are carried out,
//! those inside scripts too, by `INFO commandstats`. Memory is Redis' `used_memory` after the
//! messages less that before, divided by their number.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::measure::DATA_BYTES;
use crate::process;
use crate::publisher::{Publisher, data};
use crate::report::{Bar, Report, WORSE_MAX};
use crate::scenario::Effort;
use crate::scenario::inbox::users_of_calls;
use crate::stage::{Engine, Stage};
use fanfare_testkit::redis_server::RedisServer;

/// Until a node has started in full, or Redis has put its tables in order.
const SETTLE: Duration = Duration::from_secs(5);
/// How long a resting node is looked at.
const WINDOW_MS: u64 = 20_000;
/// Commands by name that are told on stderr.
const NAMES_TOLD: usize = 8;
/// Inboxes with one message each.
const INBOXES_COUNT: u64 = 10_000;

/// Bars of issue 11.
const COMMANDS_PER_S_MAX: f64 = 40.0;
const CPU_PERCENT_MAX: f64 = 0.2;
const SMALL_NODE_BYTES_MAX: f64 = 1_000.0;

/// A node without sessions.
pub(crate) async fn resting(report: &mut Report, effort: &Effort) {
    if !effort.engines.contains(&Engine::Redis) {
        return;
    }
    report.scenario("resting redis");
    let window = Duration::from_millis(effort.count(WINDOW_MS, WINDOW_MS / 4));
    for _ in effort.runs.clone() {
        let stage = effort.stage(Engine::Redis).await;
        let redis = redis_of(&stage);
        tokio::time::sleep(SETTLE).await;
        let before = calls(redis);
        let sent = count_sent(redis).await;
        let cpu = process::cpu(stage.node.pid());
        tokio::time::sleep(window).await;
        let cpu = (process::cpu(stage.node.pid()) - cpu).as_secs_f64();
        let (sent, seconds) = (sent.get() as f64, window.as_secs_f64());
        let done = difference(&before, &calls(redis));
        let all: u64 = done.iter().map(|(_, count)| count).sum();
        for (name, count) in done.iter().take(NAMES_TOLD) {
            eprintln!("  {:>8.2} {name} a second", *count as f64 / seconds);
        }
        let most = Bar::AtMost(COMMANDS_PER_S_MAX);
        report
            .judge("commands that it sends", "1/s", sent / seconds, most)
            .beside_before(WORSE_MAX);
        let name = "commands, those inside scripts too";
        report.add(name, "1/s", all as f64 / seconds);
        let most = Bar::AtMost(CPU_PERCENT_MAX);
        report
            .judge("CPU of a core", "%", cpu * 100.0 / seconds, most)
            .beside_before(WORSE_MAX);
    }
}

/// One message in each of many inboxes, with Redis as it is and with small nodes of streams.
pub(crate) async fn stored(report: &mut Report, effort: &Effort) {
    if !effort.engines.contains(&Engine::Redis) {
        return;
    }
    report.scenario("stored redis");
    let inboxes = effort.count(INBOXES_COUNT, INBOXES_COUNT / 5);
    for _ in effort.runs.clone() {
        let bytes = bytes_of_inbox(effort, inboxes, &[]).await;
        report
            .add("an inbox with one message", "bytes", bytes)
            .beside_before(WORSE_MAX);
        let option = ["stream-node-max-bytes", "512"];
        let bytes = bytes_of_inbox(effort, inboxes, &option).await;
        let name = format!("an inbox with one message, {}", option.join(" "));
        report
            .judge(&name, "bytes", bytes, Bar::AtMost(SMALL_NODE_BYTES_MAX))
            .beside_before(WORSE_MAX);
    }
}

async fn bytes_of_inbox(effort: &Effort, inboxes: u64, option: &[&str]) -> f64 {
    let stage = effort.stage(Engine::Redis).await;
    let redis = redis_of(&stage);
    if !option.is_empty() {
        let set = redis.command(&[&["CONFIG", "SET"], option].concat());
        assert_eq!(set.as_deref(), Some("+OK"));
    }
    let mut publisher = Publisher::connect(stage.node.api).await;
    let mut publish = async |users: &str| {
        let data = data(1, DATA_BYTES);
        let body = format!(r#"{{"users":[{users}],"data":{data}}}"#);
        publisher.call(&body).await;
    };
    // Brings what is there once, however many inboxes follow.
    publish(r#""first""#).await;
    tokio::time::sleep(SETTLE).await;
    let empty = used_bytes(redis);
    for users in users_of_calls("inbox", inboxes) {
        publish(&users).await;
    }
    tokio::time::sleep(SETTLE).await;
    (used_bytes(redis) - empty) / inboxes as f64
}

fn redis_of(stage: &Stage) -> &RedisServer {
    stage.redis.as_ref().expect("this stage has a Redis")
}

/// Counts what clients send from now on, to the end of the connection.
async fn count_sent(redis: &RedisServer) -> Rc<Cell<u64>> {
    let stream = TcpStream::connect(redis.address()).await;
    let mut stream = stream.expect("Redis listens");
    let asked = stream.write_all(b"MONITOR\r\n").await;
    asked.expect("Redis takes commands");
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next_line().await.expect("Redis answers");
    assert_eq!(first.as_deref(), Some("+OK"));
    let count = Rc::new(Cell::new(0));
    let counted = Rc::clone(&count);
    tokio::task::spawn_local(async move {
        // A line is `+TIME [DATABASE ADDRESS] COMMAND`; inside a script the address is `lua`.
        while let Ok(Some(line)) = lines.next_line().await {
            if !line.contains(" lua] ") {
                counted.set(counted.get() + 1);
            }
        }
    });
    count
}

/// How often each command was carried out.
fn calls(redis: &RedisServer) -> BTreeMap<String, u64> {
    let told = info(redis, "commandstats");
    let read = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    };
    told.lines().filter_map(read).collect()
}

/// What came since, the most frequent first.
fn difference(before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>) -> Vec<(String, u64)> {
    let since = |(name, count): (&String, &u64)| {
        let count = count - before.get(name).copied().unwrap_or_default();
        (name.clone(), count)
    };
    let mut since: Vec<_> = now.iter().map(since).collect();
    since.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    since
}

fn used_bytes(redis: &RedisServer) -> f64 {
    let told = info(redis, "memory");
    let mut lines = told.lines();
    let bytes = lines.find_map(|line| line.strip_prefix("used_memory:"));
    let bytes = bytes.and_then(|bytes| bytes.trim().parse().ok());
    bytes.expect("Redis says how much it uses")
}

fn info(redis: &RedisServer, section: &str) -> String {
    let told = redis.ask(&["INFO", section]).expect("Redis answers");
    told.concat()
}
