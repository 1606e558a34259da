//! What collectors answer, and what a node makes of it: waits, counts, and what it tells of it.
//!
//! In: a node, and collectors that ask for patience, refuse, warn, answer too late or not at all, deny what they
//! took, or are none. Out: how often they were asked, counts, lines of the log.

use fanfare_protocol::form::Encoding;
use fanfare_testkit::collector::Collector;
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::talk::Talk;
use fanfare_testkit::{http, wait};
use serde_json::{Value, json};
use tokio::net::TcpListener;

fn items(signal: &str, result: &str) -> String {
    format!("fanfare_telemetry_items_total{{signal=\"{signal}\",result=\"{result}\"}}")
}

/// A node whose lines of the log alone are sent, in small batches.
fn of_lines(collector: &Collector) -> Plan {
    Plan::dev()
        .env("FANFARE_LOG__LEVEL", "info,fanfare=debug")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())
        .env("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20secret")
        .env("OTEL_METRICS_EXPORTER", "none")
        .env("OTEL_TRACES_EXPORTER", "none")
        .env("OTEL_BLRP_SCHEDULE_DELAY", "50")
        .env("OTEL_BLRP_EXPORT_TIMEOUT", "1000")
        .env("OTEL_BLRP_MAX_QUEUE_SIZE", "16")
        .env("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "8")
}

/// Has commands refused, for each of which there is a line, until lines are dropped.
async fn overflow(node: &Node) {
    let url = node.connect_url("?user=peer");
    let (mut talk, _) = Talk::welcomed(&url, Encoding::Json).await;
    wait::until("lines to be dropped", async || {
        for _ in 0..10 {
            let subscribe = json!({"type": "subscribe", "topic": "a b"});
            talk.refused(subscribe, "invalid_topic").await;
        }
        node.metric(&items("logs", "dropped")).await > 0
    })
    .await;
}

#[tokio::test]
async fn what_a_collector_asks_for_beyond_the_deadline_is_kept_to_and_holds_up_no_end() {
    let collector = Collector::start("http", "later").await;
    let mut node = of_lines(&collector).start().await;
    wait::until("a batch to fail", async || {
        node.metric(&items("logs", "failed")).await > 0
    })
    .await;
    overflow(&node).await;
    assert_eq!(collector.refused("logs"), 1, "it asked for a minute");
    assert!(node.terminate().await.success());
    assert!(node.log_lines("telemetry_stuck").is_empty());
}

#[tokio::test]
async fn the_reason_has_what_the_collector_says_and_no_header_of_ours() {
    for (behaviour, said) in [
        ("deny", "401 Unauthorized: no such key: a ***"),
        (
            "page",
            "what answered 200 OK (\"text/html\") is no collector",
        ),
    ] {
        let collector = Collector::start("http", behaviour).await;
        let node = of_lines(&collector).start().await;
        let lines = node.until_told("telemetry_export_failed").await;
        let reason = lines[0]["reason"].as_str().expect("a reason");
        assert!(reason.contains(said), "{behaviour}: {reason}");
        let message = lines[0]["message"].as_str().expect("a message");
        assert!(
            message.contains("not tried again"),
            "{behaviour}: {message}"
        );
        assert!(!node.log_text().contains("secret"), "{behaviour}");
        assert_eq!(node.metric(&items("logs", "sent")).await, 0, "{behaviour}");
    }
}

#[tokio::test]
async fn a_collector_that_takes_all_and_warns_is_heard_once() {
    for (protocol, name) in [("http", "http/protobuf"), ("grpc", "grpc")] {
        let collector = Collector::start(protocol, "warn").await;
        let plan = of_lines(&collector).env("OTEL_EXPORTER_OTLP_PROTOCOL", name);
        let node = plan.start().await;
        let _ = node.until_told("telemetry_export_warned").await;
        several(&node, &collector).await;
        let lines = node.log_lines("telemetry_export_warned");
        assert_eq!(lines.len(), 1, "{protocol}");
        assert_eq!(lines[0]["reason"], "better use another name");
        let headers = &collector.taken("logs")[0]["headers"];
        // What is packed is not read.
        let expected = (protocol == "http").then_some("identity");
        assert_eq!(headers["accept-encoding"].as_str(), expected, "{headers}");
        assert_eq!(node.metric(&items("logs", "failed")).await, 0);
        assert!(node.log_lines("telemetry_export_failed").is_empty());
    }
}

/// Has the collector take several batches.
async fn several(node: &Node, collector: &Collector) {
    let url = node.connect_url("?user=peer");
    let (mut talk, _) = Talk::welcomed(&url, Encoding::Json).await;
    wait::until("several batches", async || {
        let subscribe = json!({"type": "subscribe", "topic": "a b"});
        talk.refused(subscribe, "invalid_topic").await;
        collector.taken("logs").len() >= 3
    })
    .await;
}

/// The window of a reading, and by how much what was published grew in it.
fn published(request: &Value) -> (u64, u64, u64) {
    let metrics = Collector::metrics(request);
    let mut all = metrics.iter();
    let metric = all.find(|metric| metric["name"] == "fanfare_published_total");
    let points = metric.expect("it is told")["sum"]["data_points"].clone();
    let points = points.as_array().expect("points");
    let whole = |value: &Value| {
        let text = value.as_str();
        text.map_or(0, |text| text.parse::<u64>().expect("a number"))
    };
    let of = |point: &Value, name: &str| whole(&point[name]);
    let count = points.iter().map(|point| of(point, "as_int")).sum();
    let window = |name| of(&points[0], name);
    (
        window("start_time_unix_nano"),
        window("time_unix_nano"),
        count,
    )
}

/// Has growth told to a collector that takes it and does not say so, and holds that it is told once.
async fn is_told_once(behaviour: &str) {
    for (protocol, name) in [("http", "http/protobuf"), ("grpc", "grpc")] {
        let collector = Collector::start(protocol, behaviour).await;
        let node = Plan::dev()
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", name)
            .env("OTEL_EXPORTER_OTLP_TIMEOUT", "1000")
            .env("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")
            .env("OTEL_METRIC_EXPORT_INTERVAL", "3000")
            .env("OTEL_LOGS_EXPORTER", "none")
            .env("OTEL_TRACES_EXPORTER", "none")
            .start()
            .await;
        for _ in 0..10 {
            let publication = json!({"topic": "t", "data": 1});
            http::post(node.api, "/v1/publish", &publication).await;
        }
        let readings = wait::until("four readings", async || {
            let taken = collector.taken("metrics");
            (taken.len() >= 4).then_some(taken)
        });
        let readings: Vec<_> = readings.await.iter().map(published).collect();
        assert!(node.metric(&items("metrics", "failed")).await > 0);
        let sum: u64 = readings.iter().map(|(.., count)| count).sum();
        assert_eq!(sum, 10, "{protocol}: {readings:?}");
        for pair in readings.windows(2) {
            assert!(pair[0].1 <= pair[1].0, "{protocol}: {readings:?}");
        }
    }
}

#[tokio::test]
async fn growth_that_a_slow_collector_took_is_not_told_twice() {
    is_told_once("slow").await;
}

#[tokio::test]
async fn growth_that_a_collector_took_and_denies_is_not_told_twice() {
    is_told_once("deny_taken").await;
}

#[tokio::test]
async fn what_is_rejected_without_a_reason_is_told_by_its_number() {
    let collector = Collector::start("http", "mute").await;
    let node = of_lines(&collector).start().await;
    several(&node, &collector).await;
    let lines = node.until_told("telemetry_export_failed").await;
    let reason = lines[0]["reason"].as_str().expect("a reason");
    let numbers = reason.split_once(" items were rejected without a reason");
    let (rejected, count) = numbers
        .and_then(|(numbers, _)| numbers.split_once(" of "))
        .expect("it has the numbers");
    let number = |text: &str| text.parse::<u64>().expect("a number");
    assert_eq!(number(rejected) + 1, number(count), "{reason}");
}

#[tokio::test]
async fn what_the_end_of_a_node_loses_is_counted_and_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    // It takes connections, by the system, and never says a word.
    let mut node = Plan::dev()
        .env("FANFARE_LOG__LEVEL", "info,fanfare=debug")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{address}"))
        .env("OTEL_METRICS_EXPORTER", "none")
        .env("OTEL_TRACES_EXPORTER", "none")
        .env("OTEL_BLRP_SCHEDULE_DELAY", "50")
        .env("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "8")
        .start()
        .await;
    let url = node.connect_url("?user=peer");
    let (mut talk, _) = Talk::welcomed(&url, Encoding::Json).await;
    for _ in 0..50 {
        let subscribe = json!({"type": "subscribe", "topic": "a b"});
        talk.refused(subscribe, "invalid_topic").await;
    }
    assert_eq!(node.metric(&items("logs", "dropped")).await, 0);
    assert!(node.terminate().await.success());
    let lines = node.log_lines("telemetry_cut_off");
    assert_eq!(lines.len(), 1, "{}", node.log_text());
    let lost = lines[0]["items"].as_u64().expect("a number");
    assert!(lost >= 50, "{lost}");
    drop(listener);
}
