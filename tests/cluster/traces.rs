//! A trace goes through the cluster: from the caller of one node to the sessions of others.
//!
//! In: publications with a `traceparent`, directly and by the queue. Out: what sessions are told of it,
//! and the spans that a collector gets, made of PyPI `opentelemetry-proto`.

use fanfare_protocol::form::Encoding;
use fanfare_testkit::collector::{Collector, Rotel, attribute};
use fanfare_testkit::http::{self, Answer};
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::wait;
use http_body_util::Full;
use hyper::Request;
use serde_json::{Value, json};

use crate::rig;

const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const OTHER: &str = "00-11111111111111112222222222222222-3333333333333333-01";
/// Topics of this namespace tell clients of traces; others do not.
const TELLING: &str = "[namespaces.told]\ntrace = true\nhistory_entries_max = 10\n";
const IGNORED: &str = "fanfare_traceparents_ignored_total";

/// The flag by which a node has these namespaces, as long as the directory is there.
fn telling() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("fanfare.toml");
    std::fs::write(&file, TELLING).expect("a file");
    let flag = format!("--config={}", file.display());
    (directory, flag)
}

/// Three nodes that see each other, and what they read.
async fn three_nodes(redis: &RedisServer) -> ([Node; 3], tempfile::TempDir) {
    let (directory, config) = telling();
    let url = redis.url();
    let start = |name: &'static str| Plan::clustered(name, &url).flag(&config).start();
    let (a, b, c) = tokio::join!(start("a"), start("b"), start("c"));
    let nodes = [a, b, c];
    for node in &nodes {
        sees(node, 3).await;
    }
    (nodes, directory)
}

async fn sees(node: &Node, count: usize) {
    wait::until("all nodes to be seen", async || {
        let seen = http::get(node.api, "/v1/nodes").await.json();
        (seen["nodes"].as_array()?.len() == count).then_some(())
    })
    .await;
}

async fn post(node: &Node, path: &str, headers: &[&str], body: &Value) -> Answer {
    let mut request = Request::post(path)
        .header("host", "api")
        .header("authorization", "Bearer dev")
        .header("content-type", "application/json");
    for header in headers {
        request = request.header("traceparent", *header);
    }
    let request = request.body(Full::from(body.to_string())).unwrap();
    http::send(node.api, request).await.expect("an answer")
}

async fn joined(node: &Node, topics: &[&str], wire: Encoding) -> Talk {
    let mut talk = Talk::welcomed(&node.connect_url("?user=ada"), wire).await.0;
    for topic in topics {
        talk.ok(json!({"type": "subscribe", "topic": topic})).await;
    }
    talk
}

/// Publishes by each of these nodes until the contexts are there: every node has to have said that it
/// reads them, and each waits for that by itself.
async fn until_told(nodes: &[&Node], talks: &mut [&mut Talk]) {
    for node in nodes {
        until_one_tells(node, talks).await;
    }
}

async fn until_one_tells(node: &Node, talks: &mut [&mut Talk]) {
    wait::until("contexts to be carried", async || {
        let body = json!({"topic": "told:first", "data": 0});
        post(node, "/v1/publish", &[GOOD], &body).await;
        let mut are_told = true;
        for talk in talks.iter_mut() {
            let message = talk.message("told:first").await;
            let told = message.get("traceparent").and_then(Value::as_str);
            are_told &= told.is_some_and(|told| told[..35] == GOOD[..35]);
        }
        are_told.then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_trace_reaches_the_sessions_of_other_nodes_where_the_namespace_tells_it() {
    let redis = RedisServer::start().await;
    let ([a, b, c], _directory) = three_nodes(&redis).await;
    let topics = ["told:first", "told:7", "silent:7"];
    let mut talks = [
        joined(&b, &topics, Encoding::Json).await,
        joined(&c, &topics, Encoding::MsgPack).await,
    ];
    until_told(&[&a, &b, &c], &mut talks.each_mut()).await;

    let told = json!({"topic": "told:7", "data": 1});
    let with_field = json!({"topic": "told:7", "data": 2, "traceparent": OTHER});
    let unsampled =
        json!({"topic": "told:7", "data": 3, "traceparent": OTHER.replace("-01", "-00")});
    let silent = json!({"topics": ["silent:7", "told:7"], "data": 4});
    let batch = json!([told, with_field]);
    let queued = json!({"topic": "told:7", "data": 5, "traceparent": OTHER});
    for (path, headers, body, expected) in [
        ("/v1/publish", &[GOOD][..], &told, vec![Some(GOOD)]),
        ("/v1/publish", &[], &told, vec![None]),
        ("/v1/publish", &[GOOD], &with_field, vec![Some(OTHER)]),
        ("/v1/publish", &[GOOD], &unsampled, vec![None]),
        ("/v1/publish", &[GOOD], &silent, vec![Some(GOOD)]),
        ("/v1/batch", &[GOOD], &batch, vec![Some(GOOD), Some(OTHER)]),
        ("/v1/queue", &[], &queued, vec![Some(OTHER)]),
        ("/v1/queue", &[GOOD], &told, vec![Some(GOOD)]),
    ] {
        let answer = post(&a, path, headers, body).await;
        assert!(answer.status.is_success(), "{}", answer.text());
        for talk in &mut talks {
            for expected in &expected {
                let message = talk.message("told:7").await;
                let context = message.get("traceparent").and_then(Value::as_str);
                assert_eq!(context, *expected, "{path} {body}");
            }
        }
    }
    for talk in &mut talks {
        let message = talk.message("silent:7").await;
        assert_eq!(
            (&message["data"], message.get("traceparent")),
            (&json!(4), None)
        );
    }

    // A client of the WebSocket begins one too; what is stored says nothing of it.
    let publish = json!({"type": "publish", "topic": "told:7", "data": 6, "traceparent": OTHER});
    talks[0].ok(publish).await;
    assert_eq!(talks[1].message("told:7").await["traceparent"], OTHER);
    let history = http::get(a.api, "/v1/topics/told%3A7/history").await.json();
    let history = history["publications"].as_array().unwrap();
    assert_eq!(history.len(), 10);
    assert!(history.iter().all(|one| one.get("traceparent").is_none()));
}

#[tokio::test]
async fn while_a_node_of_the_release_before_is_there_no_context_is_sent_and_nothing_is_lost() {
    let redis = RedisServer::start().await;
    let ([a, b, c], _directory) = three_nodes(&redis).await;
    let mut talk = joined(&b, &["told:first"], Encoding::Json).await;
    until_told(&[&a, &b, &c], &mut [&mut talk]).await;

    // It says nothing of contexts with its heartbeats.
    let before = rig::Node::joined(redis.port(), "before").await;
    for node in [&a, &b, &c] {
        sees(node, 4).await;
    }
    for number in 1..=20 {
        let body = json!({"topic": "told:first", "data": number});
        post(&a, "/v1/publish", &[GOOD], &body).await;
        let message = talk.message("told:first").await;
        let told = (&message["data"], message.get("traceparent"));
        assert_eq!(told, (&json!(number), None));
    }
    before.leave().await;
    until_told(&[&a, &b, &c], &mut [&mut talk]).await;

    // Redis comes back empty: whoever is there first is alone for a while, as far as it is told.
    let _before = rig::Node::joined(redis.port(), "before").await;
    sees(&a, 4).await;
    redis.command(&["FLUSHALL"]).expect("it is up");
    let mut number = 100;
    wait::until("all nodes to be there again", async || {
        number += 1;
        let body = json!({"topic": "told:first", "data": number});
        let answer = post(&a, "/v1/publish", &[GOOD], &body).await;
        assert!(answer.status.is_success(), "{}", answer.text());
        // That the stream was lost is told as a gap before it.
        let is_it = |event: &Value| event["type"] == "message" && event["data"] == number;
        assert_eq!(talk.event(is_it).await.get("traceparent"), None);
        let began_anew = a.metric("fanfare_incarnation_changes_total").await > 0;
        let seen = http::get(a.api, "/v1/nodes").await.json();
        let all = seen["nodes"].as_array()?.len() == 4;
        (began_anew && all).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_no_traceparent_is_ignored_and_counted_and_the_request_succeeds() {
    let node = Plan::dev().start().await;
    let ignored = async |reason: &str| {
        let name = format!("{IGNORED}{{reason=\"{reason}\"}}");
        node.metric(&name).await
    };
    let zeros = GOOD.replace("b7ad6b7169203331", "0000000000000000");
    let (capitals, long) = (GOOD.to_uppercase(), "0".repeat(4_000));
    let bad = [
        "",
        "00-1-2-01",
        &GOOD.replacen("00", "ff", 1),
        &capitals,
        &long,
    ];
    let mut malformed = 0;
    let number = json!({"topic": "t", "data": 1, "traceparent": 5});
    for (path, body) in [
        ("/v1/publish", number.clone()),
        ("/v1/queue", number.clone()),
        ("/v1/batch", json!([number])),
    ] {
        let answer = post(&node, path, &[], &body).await;
        assert!(answer.status.is_success(), "{path}: {}", answer.text());
        malformed += 1;
    }
    for text in bad {
        let field = json!({"topic": "t", "data": 1, "traceparent": text});
        for (path, headers, body) in [
            ("/v1/publish", &[][..], field.clone()),
            ("/v1/batch", &[], json!([field])),
            ("/v1/queue", &[], field.clone()),
            ("/v1/publish", &[text], json!({"topic": "t", "data": 1})),
            ("/v1/queue", &[text], json!({"topic": "t", "data": 1})),
        ] {
            let answer = post(&node, path, headers, &body).await;
            assert!(
                answer.status.is_success(),
                "{path} {text}: {}",
                answer.text()
            );
            malformed += 1;
        }
    }
    assert_eq!(ignored("malformed").await, malformed);
    let body = json!({"topic": "t", "data": 1});
    for headers in [&[zeros.as_str()][..], &[GOOD, GOOD]] {
        let answer = post(&node, "/v1/publish", headers, &body).await;
        assert_eq!(answer.status.as_u16(), 200);
    }
    assert_eq!((ignored("zero_id").await, ignored("doubled").await), (1, 1));
    let mut talk = Talk::welcomed(&node.connect_url("?user=ada"), Encoding::Json)
        .await
        .0;
    talk.ok(json!({"type": "publish", "topic": "t", "data": 1, "traceparent": "no"}))
        .await;
    talk.ok(json!({"type": "publish", "topic": "t", "data": 1, "traceparent": 5}))
        .await;
    assert_eq!(ignored("malformed").await, malformed + 2);
}

/// Sessions on B and on C, and what each is told of a trace.
struct Sockets {
    on_b: [Talk; 2],
    on_c: Talk,
}

impl Sockets {
    /// What each got next: position and span, which are the same on one node.
    async fn next(&mut self, trace: &str) -> (Value, [String; 2]) {
        let [one, two] = &mut self.on_b;
        let mut told = Vec::new();
        for talk in [one, two, &mut self.on_c] {
            let message = talk.message("told:7").await;
            let context = message["traceparent"].as_str().expect("it is traced");
            let parts: Vec<_> = context.split('-').collect();
            assert_eq!((parts[0], parts[1], parts[3]), ("00", trace, "01"));
            told.push((message["position"].clone(), parts[2].to_owned()));
        }
        assert_eq!(told[0], told[1], "one frame for all sessions of a node");
        assert_eq!(told[0].0, told[2].0);
        assert_ne!(told[0].1, told[2].1);
        let (position, of_c) = told.remove(2);
        let (_, of_b) = told.remove(1);
        (position, [of_b, of_c])
    }
}

/// All spans of a trace, when there are so many.
async fn spans_of(collector: &Collector, trace: &str, count: usize) -> Vec<Value> {
    wait::until("all spans of the trace", async || {
        let mut spans = collector.spans();
        spans.retain(|span| span["trace_id"] == trace);
        (spans.len() >= count).then_some(spans)
    })
    .await
}

/// The only span of this name.
fn named<'a>(spans: &'a [Value], name: &str) -> &'a Value {
    let mut found = spans.iter().filter(|span| span["name"] == name);
    let span = found
        .next()
        .unwrap_or_else(|| panic!("no `{name}` in {spans:#?}"));
    assert!(found.next().is_none(), "`{name}` is there twice");
    span
}

fn is_below(span: &Value, parent: &Value, kind: &str) {
    assert_eq!(span["parent_span_id"], parent["span_id"], "{span:#}");
    assert_eq!(span["kind"], format!("SPAN_KIND_{kind}"));
    let at = |name: &str| span[name].as_str().unwrap().parse::<u64>().unwrap();
    assert!(at("start_time_unix_nano") <= at("end_time_unix_nano"));
}

/// The ways of a publication to the sockets of B and C, below what published it.
fn check_ways(spans: &[Value], from: &Value, told: &[String; 2], position: &Value) {
    for (id, reached) in told.iter().zip(["2", "1"]) {
        let way = spans.iter().find(|span| span["span_id"] == *id);
        let way = way.expect("clients go on from the span of their node");
        is_below(way, from, "CONSUMER");
        assert_eq!(way["name"], "process told");
        let links = way["links"].as_array().expect("a list");
        assert_eq!(links.len(), 1);
        assert_eq!(links[0]["span_id"], from["span_id"]);
        assert_eq!(attribute(way, "fanfare.sessions.reached"), reached);
        for none in ["slow", "dropped"] {
            assert_eq!(attribute(way, &format!("fanfare.sessions.{none}")), "0");
        }
        assert_eq!(attribute(way, "fanfare.repaired"), false);
        assert_eq!(attribute(way, "messaging.message.id"), position);
        assert_eq!(attribute(way, "messaging.operation.type"), "process");
        let writes = spans.iter().filter(|span| span["parent_span_id"] == *id);
        let writes: Vec<_> = writes.cloned().collect();
        assert_eq!(writes.len(), 2);
        for name in ["write first", "write last"] {
            is_below(named(&writes, name), way, "INTERNAL");
        }
    }
    let text = serde_json::to_string(spans).unwrap();
    assert!(!text.contains("told:7"), "no span names a topic");
}

/// Three nodes that send spans, and sessions on two of them.
struct Scene {
    a: Node,
    sockets: Sockets,
    _others: [Node; 2],
    _redis: RedisServer,
    _directory: tempfile::TempDir,
}

/// Starts one whose spans go to `url` by this protocol.
async fn scene(url: &str, protocol: &str) -> Scene {
    let redis = RedisServer::start().await;
    let (directory, flag) = telling();
    let start = |name: &'static str| {
        Plan::clustered(name, &redis.url())
            .flag(&flag)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", url)
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            .env("OTEL_LOGS_EXPORTER", "none")
            .env("OTEL_METRICS_EXPORTER", "none")
            .env("OTEL_TRACES_SAMPLER", "parentbased_always_off")
            .env("OTEL_BSP_SCHEDULE_DELAY", "20")
            .start()
    };
    let (a, b, c) = tokio::join!(start("a"), start("b"), start("c"));
    for node in [&a, &b, &c] {
        sees(node, 3).await;
    }
    let topics = ["told:first", "told:7"];
    let mut sockets = Sockets {
        on_b: [
            joined(&b, &topics, Encoding::Json).await,
            joined(&b, &topics, Encoding::Json).await,
        ],
        on_c: joined(&c, &topics, Encoding::MsgPack).await,
    };
    let [first, second] = &mut sockets.on_b;
    until_told(&[&a, &b, &c], &mut [first, second, &mut sockets.on_c]).await;
    Scene {
        a,
        sockets,
        _others: [b, c],
        _redis: redis,
        _directory: directory,
    }
}

/// OpenMetrics lead to the trace.
async fn has_exemplar(node: &Node, trace: &str) {
    let request = Request::get("/metrics")
        .header("host", "api")
        .header("accept", "application/openmetrics-text")
        .body(Full::default())
        .unwrap();
    let text = http::send(node.api, request)
        .await
        .expect("an answer")
        .text();
    let lines = text.lines();
    let mut buckets = lines.filter(|line| line.starts_with("fanfare_publish_seconds_bucket{"));
    let told = format!(" # {{trace_id=\"{trace}\",span_id=\"");
    assert!(buckets.any(|line| line.contains(&told)), "{text}");
}

/// Published on A, to sockets of B and C: directly, and by the queue.
async fn one_trace(protocol: &str, word: &str) {
    let collector = Collector::start(protocol, "take").await;
    let mut scene = scene(&collector.url(), word).await;
    let body = json!({"topic": "told:7", "data": 1});
    let traces = ["a", "b"].map(|digit| digit.repeat(32));
    let caller = "c".repeat(16);
    for (trace, path) in traces.iter().zip(["/v1/publish", "/v1/queue"]) {
        let header = format!("00-{trace}-{caller}-01");
        let answer = post(&scene.a, path, &[&header], &body).await;
        assert!(answer.status.is_success(), "{}", answer.text());
        let (position, told) = scene.sockets.next(trace).await;
        let is_queued = path == "/v1/queue";
        if !is_queued {
            has_exemplar(&scene.a, trace).await;
        }
        let spans = spans_of(&collector, trace, if is_queued { 9 } else { 8 }).await;
        assert_eq!(spans.len(), if is_queued { 9 } else { 8 }, "{spans:#?}");
        let server = named(&spans, &format!("POST {path}"));
        is_below(server, &json!({"span_id": caller}), "SERVER");
        assert_eq!(attribute(server, "http.route"), path);
        let status = answer.status.as_str();
        assert_eq!(attribute(server, "http.response.status_code"), status);
        let operation = if is_queued { "move" } else { "publish" };
        let from = named(&spans, &format!("{operation} told"));
        is_below(from, server, "PRODUCER");
        assert_eq!(attribute(from, "messaging.operation.name"), operation);
        assert_eq!(attribute(from, "messaging.message.id"), &position);
        if is_queued {
            is_below(named(&spans, "wait told"), server, "INTERNAL");
        }
        check_ways(&spans, from, &told, &position);
    }
}

#[tokio::test]
async fn one_trace_shows_the_whole_way_by_http() {
    one_trace("http", "http/protobuf").await;
}

#[tokio::test]
async fn one_trace_shows_the_whole_way_by_grpc() {
    one_trace("grpc", "grpc").await;
}

#[tokio::test]
async fn rotel_takes_the_whole_way_too() {
    let rotel = Rotel::start().await;
    for (url, protocol, digit) in [
        (&rotel.grpc, "grpc", "a"),
        (&rotel.http, "http/protobuf", "b"),
    ] {
        let mut scene = scene(url, protocol).await;
        let trace = digit.repeat(32);
        let header = format!("00-{trace}-{}-01", "c".repeat(16));
        let body = json!({"topic": "told:7", "data": 1});
        post(&scene.a, "/v1/publish", &[&header], &body).await;
        let (_, told) = scene.sockets.next(&trace).await;
        wait::until("rotel to have all spans of the trace", async || {
            let log = rotel.log_text();
            let of_trace = log.matches(&trace).count();
            let has_both = told.iter().all(|span| log.contains(span));
            if has_both && of_trace >= 8 {
                Ok(())
            } else {
                Err(log)
            }
        })
        .await;
    }
}
