//! Which lines of the log a collector gets: those that the log has, and no more of an event in a second than it.
//!
//! In: a node that logs more of one event than is written. Out: lines of its log beside what the collector got.

use std::collections::BTreeMap;
use std::time::Duration;

use fanfare_protocol::form::Encoding;
use fanfare_testkit::collector::{Collector, attribute};
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::talk::Talk;
use fanfare_testkit::wait;
use futures_util::future::join_all;
use serde_json::{Value, json};

/// What the limit is reached with.
const PEERS: usize = 16;
const COMMANDS: usize = 50;

/// For the end of a node.
const PATIENCE: Duration = Duration::from_secs(60);

async fn refusals(node: &Node) {
    let peers = (0..PEERS).map(|number| async move {
        let url = node.connect_url(&format!("?user=peer-{number}"));
        let (mut talk, _) = Talk::welcomed(&url, Encoding::Json).await;
        for _ in 0..COMMANDS {
            let subscribe = json!({"type": "subscribe", "topic": "a b"});
            talk.refused(subscribe, "invalid_topic").await;
        }
    });
    join_all(peers).await;
}

/// How many lines each event has.
fn counts<'a>(names: impl Iterator<Item = &'a Value>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for name in names.filter_map(Value::as_str) {
        *counts.entry(name.to_owned()).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn a_collector_gets_no_line_that_the_log_suppresses_and_learns_how_many_they_were() {
    let collector = Collector::start("http", "take").await;
    let mut node = Plan::dev()
        .env("FANFARE_LOG__LEVEL", "info,fanfare=debug")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())
        .env("OTEL_METRICS_EXPORTER", "none")
        .env("OTEL_TRACES_EXPORTER", "none")
        .env("OTEL_BLRP_SCHEDULE_DELAY", "50")
        .start()
        .await;
    wait::until("lines to be suppressed", async || {
        refusals(&node).await;
        !node.log_lines("lines_suppressed").is_empty()
    })
    .await;
    assert!(node.terminate().await.success());
    let dropped = node.log_lines("log_lines_dropped");
    assert!(
        dropped.is_empty(),
        "then nothing could be said: {dropped:?}"
    );
    let records = collector.records();
    let got = counts(records.iter().map(|record| &record["event_name"]));
    let mut suppressed = records.iter();
    let suppressed = suppressed.find(|record| record["event_name"] == "lines_suppressed");
    let suppressed = suppressed.expect("the collector learns of it");
    let event = attribute(suppressed, "suppressed")
        .as_str()
        .expect("an event");
    let count = attribute(suppressed, "count").as_str().expect("a number");
    assert!(count.parse::<u64>().expect("a number") > 0);
    assert_eq!(got[event], node.log_lines(event).len(), "{event}");
}

#[tokio::test]
async fn a_collector_gets_what_was_logged_before_it_was_known_and_why_a_node_dies() {
    let collector = Collector::start("http", "take").await;
    let mut node = Plan::dev()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())
        .env("OTEL_BSP_SCHEDULE_DELAY", "soon")
        .env("PLANTED_PANIC", "dispatcher@1000")
        .start_unready()
        .await;
    node.ended_within(PATIENCE).await;
    let records = collector.records();
    for event in ["configuration_questioned", "panic_reported", "node_failed"] {
        let count = records
            .iter()
            .filter(|it| it["event_name"] == event)
            .count();
        assert_eq!(count, node.log_lines(event).len(), "{event}: {records:?}");
        assert!(count > 0, "{event}");
    }
}
