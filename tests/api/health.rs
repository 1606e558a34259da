//! Health and metrics, which need no key.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::fixture::{Answered, Mood, Node};

async fn probe(node: &Node, path: &str) -> Answered {
    node.send(Request::get(path).body(Body::empty()).unwrap())
        .await
}

#[tokio::test]
async fn a_node_that_is_not_ready_is_live_and_says_why() {
    let node = Node::start();
    let ready = probe(&node, "/health/ready").await;
    assert_eq!(
        (ready.status.as_u16(), ready.value()),
        (200, json!({"ready": true, "reasons": []}))
    );
    node.set(Mood::Starting);
    let reasons = json!(["the broker has not answered yet"]);
    let ready = probe(&node, "/health/ready").await;
    assert_eq!(ready.status, 503);
    assert_eq!(ready.value(), json!({"ready": false, "reasons": reasons}));
    let live = probe(&node, "/health/live").await;
    assert_eq!(
        (live.status.as_u16(), live.value()),
        (200, json!({"live": true}))
    );
}

#[tokio::test]
async fn a_node_of_which_a_part_hangs_is_not_live_and_says_which() {
    let node = Node::start();
    node.set(Mood::Hangs);
    let reasons = json!(["worker 0 has not turned for 31 s"]);
    let live = probe(&node, "/health/live").await;
    assert_eq!(
        (live.status.as_u16(), live.value()),
        (503, json!({"live": false, "reasons": reasons}))
    );
    let ready = probe(&node, "/health/ready").await;
    assert_eq!(ready.value(), json!({"ready": false, "reasons": reasons}));
}

#[tokio::test]
async fn the_summary_and_the_details_follow_the_node() {
    let node = Node::start();
    let health = probe(&node, "/health").await;
    assert_eq!(health.status, 200);
    let version = env!("CARGO_PKG_VERSION");
    let summary =
        json!({"status": "ok", "node": "node-a", "lifecycle": "ready", "version": version});
    assert_eq!(health.value(), summary);

    node.set(Mood::Starting);
    let health = probe(&node, "/health").await;
    assert_eq!(
        (health.status.as_u16(), &health.value()["status"]),
        (503, &json!("unavailable"))
    );
    let detailed = probe(&node, "/health/detailed").await;
    assert_eq!(detailed.status, 200);
    let detailed = detailed.value();
    assert_eq!(detailed["lifecycle"], "starting");
    assert_eq!(detailed["commit"], "0123abc");
    assert_eq!(detailed["components"][0]["name"], "broker");
    assert_eq!(
        detailed["warnings"],
        json!(["maxmemory_policy is not noeviction"])
    );
    assert_eq!(detailed["reasons"][0], "the broker has not answered yet");
    assert!(detailed["uptime_s"].is_u64() && detailed["sessions"].is_u64());
    if cfg!(target_os = "linux") {
        assert!(
            detailed["memory_bytes"].as_u64() > Some(1 << 20),
            "{detailed}"
        );
    }
}

/// Reads Prometheus text 0.0.4 as strictly as its description: every series once and with a
/// number, every family described once and in one piece.
fn series(text: &str) -> BTreeMap<String, f64> {
    let mut series = BTreeMap::new();
    let mut families = BTreeSet::new();
    let mut family = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(
                !help.is_empty() && families.insert(name.to_owned()),
                "{line}"
            );
            let kind = lines.next().unwrap().strip_prefix("# TYPE ").unwrap();
            let (typed, kind) = kind.split_once(' ').unwrap();
            assert_eq!(typed, name);
            assert!(matches!(kind, "counter" | "gauge" | "histogram"), "{kind}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            family = name.to_owned();
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        let (bare, labels) = name.split_once('{').unwrap_or((name, "a=\"\"}"));
        let of = ["_bucket", "_sum", "_count"];
        let of_histogram = of.iter().find_map(|end| bare.strip_suffix(end));
        assert!(bare == family || of_histogram == Some(&*family), "{line}");
        let labels = labels.strip_suffix("\"}").unwrap();
        for label in labels.split("\",") {
            let (label, _) = label.split_once("=\"").unwrap();
            assert!(!label.is_empty(), "{line}");
        }
        assert!(
            bare.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
            "{line}"
        );
        let value: f64 = value.parse().unwrap();
        assert_eq!(series.insert(name.to_owned(), value), None, "{name} twice");
    }
    assert!(text.ends_with('\n'));
    series
}

#[tokio::test]
async fn metrics_are_prometheus_text_with_the_process_in_it() {
    let node = Node::start();
    probe(&node, "/health/live").await;
    let answer = probe(&node, "/metrics").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let series = series(std::str::from_utf8(&answer.bytes).unwrap());
    let live = r#"fanfare_api_requests_total{route="/health/live",status="200"}"#;
    assert_eq!(series[live], 1.0);
    assert_eq!(
        series["fanfare_cluster_view_age_seconds"], 0.04,
        "as it is now"
    );
    assert!(series.contains_key(r#"fanfare_sessions_closed_total{reason="client"}"#));
    if cfg!(target_os = "linux") {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        let age = now - series["process_start_time_seconds"];
        assert!((-5.0..86_400.0).contains(&age), "started {age} s ago");
        for name in ["process_resident_memory_bytes", "process_open_fds"] {
            assert!(series[name] > 0.0, "{name}");
        }
        assert!(series.contains_key("process_cpu_seconds_total"));
    }
}

#[tokio::test]
async fn health_is_answered_without_a_key_and_in_the_wanted_form() {
    let node = Node::start();
    let request = Request::get("/health").header("accept", "application/msgpack");
    let answer = node.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.headers["content-type"], "application/msgpack");
    assert_eq!(answer.value()["status"], Value::from("ok"));
}
