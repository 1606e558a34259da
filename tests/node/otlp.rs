//! What a collector gets: spans, metrics and lines of the log, by both protocols.
//!
//! In: spans handed to a gate in this process, and nodes; a collector made of PyPI `opentelemetry-proto`, and
//! PyPI `rotel`, a collector that nobody here wrote. Out: counts, ids, kinds, values, headers.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use fanfare::config::telemetry::{Compression, Protocol};
use fanfare::config::{Config, Secret, load};
use fanfare::telemetry::metrics::Metrics;
use fanfare::telemetry::otlp::{self, Otlp};
use fanfare::telemetry::otlp_metrics::{ItemResult, Signal};
use fanfare::telemetry::trace::context::TraceContext;
use fanfare::telemetry::trace::span::{Attribute, Span, SpanKind};
use fanfare_testkit::certificates::{Authority, Files};
use fanfare_testkit::collector::{Collector, Rotel, attribute};
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::{http, wait};
use serde_json::{Value, json};

/// More than one request has.
const SPANS: u64 = 1_200;
/// What moves though nobody does anything: the beginnings of its names.
const MOVING: [&str; 12] = [
    "process_",
    "fanfare_api_request",
    "fanfare_cluster_view_age_seconds",
    "fanfare_feed_lag_seconds",
    "fanfare_log_",
    "fanfare_memory_",
    "fanfare_telemetry_items_total",
    "fanfare_worker_busy_seconds_total",
    "fanfare_heartbeats_total",
    "fanfare_queue_workers",
    "fanfare_slow_sessions",
    "fanfare_stalled_seconds_total",
];

/// What sends spans in this process, as a node does.
struct Sending {
    otlp: Otlp,
    metrics: Arc<Metrics>,
    thread: JoinHandle<()>,
}

/// The configuration of a node that sends there.
fn config(url: &str, protocol: &str, compression: Compression) -> Config {
    let mut config = load::defaults();
    let telemetry = &mut config.telemetry;
    telemetry.general.endpoint = Some(url.to_owned());
    telemetry.general.protocol = match protocol {
        "grpc" => Protocol::Grpc,
        _ => Protocol::Http,
    };
    telemetry.general.compression = compression;
    telemetry.general.headers = vec![Secret("api-key=a%20key".to_owned())];
    telemetry.traces.batches.delay = Duration::from_millis(20);
    telemetry.metrics.interval = Duration::from_secs(3_600);
    config
}

fn sending(config: &Config) -> Sending {
    let metrics = Arc::new(Metrics::new(1));
    let read = Arc::clone(&metrics);
    let (otlp, work) =
        otlp::start(config, &metrics, Box::new(move || read.families())).expect("a poller");
    let work = work.expect("there is an endpoint");
    let thread = std::thread::spawn(move || work.run());
    Sending {
        otlp,
        metrics,
        thread,
    }
}

impl Sending {
    fn count(&self, result: ItemResult) -> u64 {
        self.metrics.telemetry.of(Signal::Traces, result).get()
    }

    async fn end(self) {
        self.otlp.stop().await;
        self.thread.join().expect("it ends without a panic");
    }
}

fn span(number: u64) -> Span {
    let mut context = TraceContext {
        trace: [7; 16],
        span: number.to_be_bytes(),
        flags: 1,
    };
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let of = context;
    context.span = (number + 1).to_be_bytes();
    let kinds = [
        SpanKind::Server,
        SpanKind::Producer,
        SpanKind::Consumer,
        SpanKind::Internal,
    ];
    Span {
        context,
        parent: (number > 0).then_some(of.span),
        is_parent_remote: number == 1,
        name: Cow::Borrowed("publish chat"),
        kind: kinds[usize::try_from(number % 4).expect("small")],
        start,
        end: start + Duration::from_millis(5),
        links: if number == 2 { vec![of] } else { Vec::new() },
        attributes: vec![
            ("messaging.system", Attribute::text("fanfare")),
            ("count", Attribute::Whole(3)),
            ("ratio", Attribute::Real(0.5)),
            ("repaired", Attribute::Flag(true)),
        ],
        error: (number == 3).then_some(Cow::Borrowed("it failed")),
    }
}

fn assert_spans(spans: &[Value]) {
    let mut by_id = BTreeMap::new();
    for span in spans {
        assert_eq!(span["trace_id"], "07".repeat(16));
        by_id.insert(span["span_id"].as_str().expect("an id").to_owned(), span);
    }
    assert_eq!((spans.len() as u64, by_id.len() as u64), (SPANS, SPANS));
    let of = |number: u64| by_id[&format!("{:016x}", number + 1)];
    for (number, kind) in ["SERVER", "PRODUCER", "CONSUMER", "INTERNAL"]
        .iter()
        .enumerate()
    {
        let number = number as u64;
        let span = of(number);
        assert_eq!(span["kind"], format!("SPAN_KIND_{kind}"));
        assert_eq!(span["name"], "publish chat");
        assert_eq!(span["start_time_unix_nano"], "1700000000000000000");
        assert_eq!(span["end_time_unix_nano"], "1700000000005000000");
        assert_eq!(attribute(span, "messaging.system"), "fanfare");
        assert_eq!(attribute(span, "count"), "3");
        assert_eq!(attribute(span, "ratio"), 0.5);
        assert_eq!(attribute(span, "repaired"), true);
        let parent = (number > 0).then(|| format!("{number:016x}"));
        assert_eq!(span["parent_span_id"].as_str(), parent.as_deref());
    }
    // Sampled; that it is known whether the parent is remote, and whether it is.
    let flags = [0, 1, 2].map(|number| of(number)["flags"].clone());
    assert_eq!(flags, [json!(0x101), json!(0x301), json!(0x101)]);
    assert_eq!(of(2)["links"][0]["span_id"], format!("{:016x}", 2));
    assert_eq!(
        of(3)["status"],
        json!({"message": "it failed", "code": "STATUS_CODE_ERROR"})
    );
    assert_eq!(of(2)["status"], json!({}));
}

#[tokio::test]
async fn each_span_arrives_once_with_all_that_it_says_by_both_protocols_packed_or_not() {
    for protocol in ["http", "grpc"] {
        for compression in [Compression::None, Compression::Gzip] {
            let collector = Collector::start(protocol, "take").await;
            let sending = sending(&config(&collector.url(), protocol, compression));
            let gate = sending.otlp.spans.clone().expect("traces are sent");
            for number in 0..SPANS {
                gate.send(span(number));
            }
            wait::until("all spans to arrive", async || {
                let count = collector.spans().len() as u64;
                if count >= SPANS { Ok(()) } else { Err(count) }
            })
            .await;
            let what = format!("{protocol} {compression:?}");
            assert_spans(&collector.spans());
            let requests = collector.taken("traces");
            assert!(requests.len() >= 3, "{what}: {} requests", requests.len());
            let headers = &requests[0]["headers"];
            assert_eq!(headers["api-key"], "a key", "{what}: {headers}");
            let resource = &requests[0]["message"]["resource_spans"][0]["resource"];
            assert_eq!(attribute(resource, "service.name"), "fanfare");
            assert_eq!(attribute(resource, "service.instance.id"), "alone");
            assert_eq!(
                attribute(resource, "service.version"),
                env!("CARGO_PKG_VERSION")
            );
            wait::until("them to be counted", async || {
                sending.count(ItemResult::Sent) == SPANS
            })
            .await;
            let lost = [ItemResult::Dropped, ItemResult::Failed].map(|it| sending.count(it));
            assert_eq!(lost, [0, 0], "{what}");
            // What came last is sent at the end.
            gate.send(span(SPANS));
            sending.end().await;
            assert_eq!(collector.spans().len() as u64, SPANS + 1, "{what}");
        }
    }
}

#[tokio::test]
async fn what_a_collector_refuses_for_now_is_sent_again_and_what_it_rejects_is_counted() {
    for protocol in ["http", "grpc"] {
        let collector = Collector::start(protocol, "once").await;
        let once = sending(&config(&collector.url(), protocol, Compression::None));
        let gate = once.otlp.spans.clone().expect("traces are sent");
        gate.send(span(0));
        wait::until("the span to arrive", async || {
            once.count(ItemResult::Sent) == 1
        })
        .await;
        assert_eq!(collector.refused("traces"), 1, "{protocol}");
        assert_eq!(collector.spans().len(), 1, "{protocol}");
        assert_eq!(once.count(ItemResult::Failed), 0, "{protocol}");
        once.end().await;

        let collector = Collector::start(protocol, "reject").await;
        let rejected = sending(&config(&collector.url(), protocol, Compression::None));
        let gate = rejected.otlp.spans.clone().expect("traces are sent");
        for number in 0..5 {
            gate.send(span(number));
        }
        wait::until("all to be counted", async || {
            let counts = [ItemResult::Sent, ItemResult::Failed].map(|it| rejected.count(it));
            if counts.iter().sum::<u64>() == 5 {
                Ok(())
            } else {
                Err(counts)
            }
        })
        .await;
        // All but one of each request.
        let requests = collector.taken("traces").len() as u64;
        assert_eq!(rejected.count(ItemResult::Sent), requests, "{protocol}");
        rejected.end().await;
    }
}

#[tokio::test]
async fn a_certificate_that_is_named_is_trusted_and_another_one_is_not() {
    let files = Files::new();
    let (authority, other) = (Authority::new(), Authority::new());
    let (certificate, key) = authority.sign("localhost");
    let (certificate, key) = (
        files.write("c.pem", &certificate),
        files.write("k.pem", &key),
    );
    let good = files.write("good.pem", &authority.pem);
    let bad = files.write("bad.pem", &other.pem);
    for protocol in ["http", "grpc"] {
        let collector = Collector::encrypted(protocol, &certificate, &key).await;
        for (file, result) in [(&good, ItemResult::Sent), (&bad, ItemResult::Failed)] {
            let mut config = config(&collector.url(), protocol, Compression::None);
            config.telemetry.general.tls_ca_file = Some(file.clone());
            config.telemetry.traces.batches.deadline = Duration::from_secs(2);
            let sending = sending(&config);
            sending
                .otlp
                .spans
                .clone()
                .expect("traces are sent")
                .send(span(0));
            let what = format!("{protocol} {file}");
            wait::until(&what, async || sending.count(result) == 1).await;
            sending.end().await;
        }
        assert_eq!(collector.spans().len(), 1, "{protocol}");
    }
}

#[tokio::test]
async fn rotel_takes_spans_and_metrics_by_both_protocols() {
    let rotel = Rotel::start().await;
    for (protocol, url) in [("grpc", &rotel.grpc), ("http", &rotel.http)] {
        let sending = sending(&config(url, protocol, Compression::Gzip));
        let name = format!("publish by-{protocol}");
        let span = Span {
            name: Cow::Owned(name.clone()),
            ..span(1)
        };
        sending
            .otlp
            .spans
            .clone()
            .expect("traces are sent")
            .send(span);
        wait::until("the span to be sent", async || {
            sending.count(ItemResult::Sent) == 1
        })
        .await;
        let metrics = Arc::clone(&sending.metrics);
        // The last reading is sent at the end.
        sending.end().await;
        let sent = metrics
            .telemetry
            .of(Signal::Metrics, ItemResult::Sent)
            .get();
        assert!(sent > 100, "{sent} points");
        wait::until("rotel to tell it", async || {
            let log = rotel.log_text();
            let has = [&*name, "fanfare_sessions_opened_total"].map(|what| log.contains(what));
            if has == [true; 2] { Ok(()) } else { Err(log) }
        })
        .await;
    }
}

/// A node that sends metrics and logs to a collector, every second.
async fn node(collector: &Collector, protocol: &str) -> Node {
    let protocol = if protocol == "http" {
        "http/protobuf"
    } else {
        "grpc"
    };
    Plan::dev()
        .flag("--node-id=node-7")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        .env("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20secret")
        .env("OTEL_METRIC_EXPORT_INTERVAL", "1000")
        .env(
            "OTEL_RESOURCE_ATTRIBUTES",
            "service.name=gateway,region=here",
        )
        .env("K8S_POD_NAME", "pod-7")
        .start()
        .await
}

/// A point as `/metrics` writes its lines: each name with its labels, and the value.
fn lines(metric: &Value, into: &mut BTreeMap<String, f64>) {
    let name = metric["name"].as_str().expect("a name");
    let number = |value: &Value| match value {
        Value::Null => 0.0,
        Value::String(text) => text.parse().expect("a number"),
        value => value.as_f64().expect("a number"),
    };
    let labelled = |end: &str, point: &Value, le: Option<String>| {
        let pairs = point["attributes"].as_array().map(Vec::as_slice);
        let mut labels: Vec<_> = pairs
            .unwrap_or_default()
            .iter()
            .map(|pair| {
                let value = pair["value"]["string_value"].as_str().expect("text");
                format!("{}=\"{value}\"", pair["key"].as_str().expect("a key"))
            })
            .collect();
        labels.extend(le.map(|le| format!("le=\"{le}\"")));
        match labels.is_empty() {
            true => format!("{name}{end}"),
            false => format!("{name}{end}{{{}}}", labels.join(",")),
        }
    };
    let points = |kind: &str| metric[kind]["data_points"].as_array().cloned();
    for point in points("sum")
        .or_else(|| points("gauge"))
        .unwrap_or_default()
    {
        let value = match &point["as_int"] {
            Value::Null => &point["as_double"],
            whole => whole,
        };
        into.insert(labelled("", &point, None), number(value));
    }
    for point in points("histogram").unwrap_or_default() {
        let bounds = point["explicit_bounds"].as_array().expect("bounds");
        let bounds = bounds.iter().map(|bound| number(bound).to_string());
        let counts = point["bucket_counts"].as_array().expect("counts");
        let mut sum = 0.0;
        for (le, count) in bounds.chain(["+Inf".to_owned()]).zip(counts) {
            sum += number(count);
            into.insert(labelled("_bucket", &point, Some(le)), sum);
        }
        into.insert(labelled("_sum", &point, None), number(&point["sum"]));
        into.insert(labelled("_count", &point, None), number(&point["count"]));
    }
}

async fn scrape(node: &Node) -> BTreeMap<String, f64> {
    let text = http::get(node.api, "/metrics").await.text();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.map(|line| {
        let (name, value) = line.rsplit_once(' ').expect("a sample");
        (name.to_owned(), value.parse().expect("a number"))
    });
    pairs.collect()
}

#[tokio::test]
async fn the_metrics_of_an_idle_node_are_those_of_its_page_by_both_protocols() {
    for protocol in ["http", "grpc"] {
        let collector = Collector::start(protocol, "take").await;
        let node = node(&collector, protocol).await;
        let before = scrape(&node).await;
        let seen = collector.taken("metrics").len();
        // That after the next one was read after the scrape for certain.
        let request = wait::until("two readings", async || {
            collector.taken("metrics").into_iter().nth(seen + 1)
        });
        let request = request.await;
        let after = scrape(&node).await;
        let mut told = BTreeMap::new();
        for metric in Collector::metrics(&request) {
            lines(&metric, &mut told);
        }
        assert!(told.len() > 300, "{} series", told.len());
        let stays = |name: &&String| !MOVING.iter().any(|begin| name.starts_with(begin));
        let names =
            |of: &BTreeMap<String, f64>| of.keys().filter(stays).cloned().collect::<Vec<_>>();
        assert_eq!(names(&told), names(&before), "{protocol}");
        for name in names(&told) {
            let values = [before[&name], told[&name], after[&name]];
            assert_eq!(values, [values[0]; 3], "{protocol}: {name}");
        }
        // What moves is told too, and what only grows lies between.
        for (name, value) in &told {
            assert!(after.contains_key(name), "{protocol}: {name}");
            if name.ends_with("_total") && before.contains_key(name) {
                assert!((before[name]..=after[name]).contains(value), "{name}");
            }
        }
        let resource = &request["message"]["resource_metrics"][0]["resource"];
        for (name, value) in [
            ("service.name", "gateway"),
            ("service.instance.id", "node-7"),
            ("region", "here"),
            ("k8s.pod.name", "pod-7"),
        ] {
            assert_eq!(attribute(resource, name), value, "{protocol}");
        }
    }
}

#[tokio::test]
async fn lines_of_the_log_arrive_and_none_of_them_is_of_the_exporters() {
    for protocol in ["http", "grpc"] {
        let collector = Collector::start(protocol, "take").await;
        let mut node = node(&collector, protocol).await;
        let started = wait::until("the line to arrive", async || {
            let mut records = collector.records().into_iter();
            records.find(|record| record["event_name"] == "node_started")
        });
        let started = started.await;
        assert_eq!(started["body"], json!({"string_value": "listening"}));
        assert_eq!(started["severity_text"], "INFO");
        assert_eq!(attribute(&started, "api"), &node.api.to_string());
        let target = attribute(&started, "target");
        assert_eq!(target, "fanfare::node");
        assert_eq!(collector.taken("logs")[0]["headers"]["api-key"], "a secret");
        // What is told at the end is sent too.
        assert!(node.terminate().await.success());
        let records = collector.records();
        let is_last = |record: &Value| record["event_name"] == "node_stopped";
        assert!(records.iter().any(is_last), "{protocol}: {records:?}");
        for record in &records {
            let target = attribute(record, "target").as_str().expect("a target");
            assert!(!target.starts_with("fanfare::telemetry::otlp"), "{record}");
        }
        let log = node.log_text();
        assert!(log.contains("telemetry_export_started"), "{log}");
        assert!(
            !log.contains("a secret") && !log.contains("a%20secret"),
            "{log}"
        );
    }
}

#[tokio::test]
async fn a_node_without_an_endpoint_or_disabled_has_no_thread_for_it() {
    let collector = Collector::start("http", "take").await;
    let threads = |node: &Node| {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", node.pid())).unwrap();
        let names = tasks.map(|task| {
            std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default()
        });
        names.filter(|name| name.trim() == "telemetry").count()
    };
    let url = collector.url();
    let plan = || Plan::dev().env("OTEL_EXPORTER_OTLP_ENDPOINT", &url);
    let none = ["TRACES", "METRICS", "LOGS"].map(|it| format!("OTEL_{it}_EXPORTER"));
    let nothing = none
        .iter()
        .fold(plan(), |plan, name| plan.env(name, "none"));
    for (what, plan, count) in [
        ("no endpoint", Plan::dev(), 0),
        ("disabled", plan().env("OTEL_SDK_DISABLED", "true"), 0),
        ("no exporter", nothing, 0),
        ("an endpoint", plan(), 1),
    ] {
        let node = plan.start().await;
        assert_eq!(threads(&node), count, "{what}");
    }
}
