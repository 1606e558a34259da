//! What the environment says to the exporters of `opentelemetry-otlp`, which read it by themselves, against
//! what the node was told: ours stands above it on the wire, and garbage stops nothing.
//!
//! In: a node whose variables of OpenTelemetry say something else than its own ones, or nothing that can be
//! read. Out: the headers of each signal's requests.

use fanfare_testkit::collector::Collector;
use fanfare_testkit::http;
use fanfare_testkit::node::Plan;
use fanfare_testkit::wait;
use serde_json::{Value, json};

const SIGNALS: [&str; 3] = ["traces", "logs", "metrics"];

/// The headers of the first request of each signal.
async fn headers(collector: &Collector, plan: Plan) -> Vec<Value> {
    let node = plan
        .env("OTEL_METRIC_EXPORT_INTERVAL", "1000")
        .env("OTEL_TRACES_SAMPLER", "always_on")
        .env("OTEL_BSP_SCHEDULE_DELAY", "20")
        .start()
        .await;
    let publication = json!({"topic": "news", "data": 1});
    assert_eq!(
        http::post(node.api, "/v1/publish", &publication)
            .await
            .status,
        200
    );
    wait::until("a request of each signal", async || {
        let first = SIGNALS.map(|signal| collector.taken(signal).into_iter().next());
        let first: Option<Vec<_>> = first.into_iter().collect();
        Some(first?.into_iter().map(|it| it["headers"].clone()).collect())
    })
    .await
}

#[tokio::test]
async fn what_the_node_was_told_stands_above_the_environment_in_all_that_is_sent() {
    for (protocol, name, other) in [
        ("http", "http/protobuf", "grpc"),
        ("grpc", "grpc", "http/protobuf"),
    ] {
        let collector = Collector::start(protocol, "take").await;
        let plan = Plan::dev()
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", other)
            .env("OTEL_EXPORTER_OTLP_HEADERS", "api-key=theirs,tenant=theirs")
            .env("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
            .env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
            .env("FANFARE_TELEMETRY__ENDPOINT", &collector.url())
            .env("FANFARE_TELEMETRY__PROTOCOL", name)
            .env("FANFARE_TELEMETRY__HEADERS", "api-key=ours")
            .env("FANFARE_TELEMETRY__TIMEOUT_MS", "10000")
            .env("FANFARE_TELEMETRY__COMPRESSION", "none");
        for headers in headers(&collector, plan).await {
            assert_eq!(headers["api-key"], "ours", "{headers}");
            assert_eq!(headers["tenant"], Value::Null, "{headers}");
            assert_eq!(headers["content-encoding"], Value::Null, "{headers}");
            let agent = headers["user-agent"].as_str().expect("text");
            assert!(agent.starts_with("fanfare/"), "{agent}");
        }
    }
}

#[tokio::test]
async fn garbage_in_the_environment_stops_no_exporter() {
    for protocol in ["http", "grpc"] {
        let collector = Collector::start(protocol, "take").await;
        let mut plan = Plan::dev()
            .env("FANFARE_TELEMETRY__ENDPOINT", &collector.url())
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", "nowhere at all");
        if protocol == "grpc" {
            plan = plan.env("FANFARE_TELEMETRY__PROTOCOL", "grpc");
        }
        for signal in ["TRACES", "LOGS", "METRICS"] {
            for (what, garbage) in [
                ("ENDPOINT", "://"),
                ("PROTOCOL", "pigeon"),
                ("HEADERS", "%zz=%z,=,a=%E2%28,b c=d"),
                ("TIMEOUT", "soon"),
                ("COMPRESSION", "brotli"),
            ] {
                plan = plan.env(&format!("OTEL_EXPORTER_OTLP_{signal}_{what}"), garbage);
            }
        }
        for headers in headers(&collector, plan).await {
            assert_eq!(headers["a"], Value::Null, "{headers}");
        }
    }
}
