//! Collectors that are absent, hang, are slow, refuse, speak another protocol or show a certificate that
//! nobody knows: none of them is noticed by a client, and what they do not get is counted.
//!
//! In: a node that tells more than any of them takes, and a good client beside. Out: counts, memory beside
//! that of a node without a collector, and how long the end takes.

use std::time::{Duration, Instant};

use fanfare_protocol::form::Encoding;
use fanfare_testkit::beside::Beside;
use fanfare_testkit::certificates::{Authority, Files};
use fanfare_testkit::collector::Collector;
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::talk::Talk;
use fanfare_testkit::{http, turns, wait};
use futures_util::future::join_all;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Sessions that have commands refused, and how many each: a line of the log for every one.
const PEERS: usize = 16;
const COMMANDS: usize = 400;
/// Publications of a request, each of a trace that its backend records.
const TRACED: usize = 100;
/// So many of these requests, in some seconds: more spans than a gate holds, of the thousand
/// publications that are traced in each.
const REQUESTS: usize = 60;
/// How much more memory a node may have for its collector.
const MORE_BYTES_MAX: u64 = 8 << 20;
/// How long the end of a node may take with any collector.
const END: Duration = Duration::from_secs(5);

fn items(signal: &str, result: &str) -> String {
    format!("fanfare_telemetry_items_total{{signal=\"{signal}\",result=\"{result}\"}}")
}

fn loud() -> Plan {
    Plan::dev().env("FANFARE_LOG__LEVEL", "info,fanfare=debug")
}

/// Commands that are refused, all at once, and then publications of recorded traces.
async fn load(node: &Node) {
    let peers = (0..PEERS).map(|number| async move {
        let url = node.connect_url(&format!("?user=peer-{number}"));
        let (mut talk, _) = Talk::welcomed(&url, Encoding::Json).await;
        for _ in 0..COMMANDS {
            let subscribe = json!({"type": "subscribe", "topic": "a b"});
            talk.refused(subscribe, "invalid_topic").await;
        }
    });
    join_all(peers).await;
    let items: Vec<_> = (0..TRACED)
        .map(|number| {
            let traceparent = format!("00-{:032x}-{:016x}-01", number + 1, number + 1);
            json!({"topic": "t", "data": number, "traceparent": traceparent})
        })
        .collect();
    let batch = json!(items);
    for _ in 0..REQUESTS {
        assert_eq!(http::post(node.api, "/v1/batch", &batch).await.status, 200);
        // The thousand of a second are dealt in slots.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// By how much the first node's memory is above the other's.
fn more_bytes(node: &Node, than: &Node) -> u64 {
    node.resident_bytes().saturating_sub(than.resident_bytes())
}

/// Goes through all that a node must bear with this collector. `takes`: it gets something.
async fn bears(what: &str, url: &str, protocol: &str, takes: bool) {
    let _turn = turns::heavy().await;
    let without = loud().start().await;
    load(&without).await;
    // A reading is tried until the next one.
    let (interval_ms, deadline_ms) = match takes {
        true => ("10000", "30000"),
        false => ("1000", "3000"),
    };
    let plan = loud()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "5000")
        .env("OTEL_BLRP_EXPORT_TIMEOUT", deadline_ms)
        .env("OTEL_BSP_EXPORT_TIMEOUT", deadline_ms)
        .env("OTEL_METRIC_EXPORT_INTERVAL", interval_ms);
    let mut node = plan.start().await;
    let good = Beside::start(&node, "?user=good").await;
    load(&node).await;
    let dropped = node.metric(&items("traces", "dropped")).await;
    assert!(dropped > 0, "{what}: nothing was dropped");
    let more = more_bytes(&node, &without);
    assert!(more <= MORE_BYTES_MAX, "{what}: {more} bytes more");
    let result = if takes { "sent" } else { "failed" };
    for signal in ["traces", "logs", "metrics"] {
        wait::until(what, async || node.metric(&items(signal, result)).await > 0).await;
    }
    if !takes {
        for signal in ["traces", "logs"] {
            assert_eq!(node.metric(&items(signal, "sent")).await, 0, "{what}");
        }
        let lines = node.until_told("telemetry_export_failed").await;
        // Of each signal once for each reason, and four reasons in a minute.
        assert!(lines.len() <= 3 * 4, "{what}: {lines:?}");
    }
    good.unharmed().await;
    let more = more_bytes(&node, &without);
    assert!(
        more <= MORE_BYTES_MAX,
        "{what}: {more} bytes more after all"
    );
    let asked = Instant::now();
    assert!(node.terminate().await.success(), "{what}");
    let took = asked.elapsed();
    assert!(took < END, "{what}: the end took {took:?}");
}

#[tokio::test]
async fn a_collector_that_is_absent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    drop(listener);
    bears("absent, http", &url, "http/protobuf", false).await;
}

/// Takes connections, and never says a word.
async fn hanging() -> (String, mpsc::UnboundedReceiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let (keep, kept) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if keep.send(stream).is_err() {
                return;
            }
        }
    });
    (url, kept)
}

#[tokio::test]
async fn a_collector_that_hangs() {
    let (url, mut kept) = hanging().await;
    bears("hanging, grpc", &url, "grpc", false).await;
    assert!(kept.try_recv().is_ok(), "it was spoken to");
}

async fn is_slow(protocol: &str, name: &str) {
    let collector = Collector::start(protocol, "slow").await;
    bears("slow", &collector.url(), name, true).await;
}

async fn is_busy(protocol: &str, name: &str) {
    let collector = Collector::start(protocol, "busy").await;
    bears("busy", &collector.url(), name, false).await;
    assert!(collector.refused("logs") >= 2, "{name}: it was tried again");
}

async fn is_other(protocol: &str, name: &str) {
    let collector = Collector::start(protocol, "take").await;
    bears("other protocol", &collector.url(), name, false).await;
}

#[tokio::test]
async fn a_collector_that_is_slow() {
    is_slow("http", "http/protobuf").await;
}

#[tokio::test]
async fn a_collector_that_answers_429_or_unavailable() {
    is_busy("grpc", "grpc").await;
}

#[tokio::test]
async fn a_collector_of_the_other_protocol() {
    is_other("http", "grpc").await;
}

#[tokio::test]
async fn a_collector_with_an_unknown_certificate() {
    let (files, authority) = (Files::new(), Authority::new());
    let (certificate, key) = authority.sign("localhost");
    let (certificate, key) = (
        files.write("c.pem", &certificate),
        files.write("k.pem", &key),
    );
    for (protocol, name) in [("http", "http/protobuf"), ("grpc", "grpc")] {
        let collector = Collector::encrypted(protocol, &certificate, &key).await;
        bears("unknown certificate", &collector.url(), name, false).await;
    }
}

#[tokio::test]
#[ignore = "takes a minute; the tests above have each of them by one protocol"]
async fn each_of_them_by_its_other_protocol() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    drop(listener);
    bears("absent, grpc", &url, "grpc", false).await;
    let (url, _kept) = hanging().await;
    bears("hanging, http", &url, "http/protobuf", false).await;
    is_slow("grpc", "grpc").await;
    is_busy("http", "http/protobuf").await;
    is_other("grpc", "http/protobuf").await;
}
