//! What users were promised, row by row, against the node that is shipped.
//!
//! In: the binary, clients and backends as they come. Out: a pass, and a figure for whoever reads
//! the output (`--nocapture`). Each test names its row (R4, R6, …) and asserts the promise itself;
//! where a row has a time, ten times the figure is the deadline, because the machine that tests is
//! not the one that serves. Rows about speed and size at full load belong to the bench.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fanfare_protocol::form::Encoding;
use fanfare_testkit::http;
use fanfare_testkit::node::{Node, Plan, log_field};
use fanfare_testkit::talk::Talk;
use fanfare_testkit::tokens::{self, seconds_from_now};
use fanfare_testkit::turns;
use fanfare_testkit::wait;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

async fn session(node: &Node, user: &str, wire: Encoding) -> Talk {
    Talk::welcomed(&node.connect_url(&format!("?user={user}")), wire)
        .await
        .0
}

/// So many sessions, in both wire forms by turns.
async fn sessions(node: &Node, count: usize) -> Vec<Talk> {
    let one = |number: usize| async move {
        session(
            node,
            &format!("user-{number}"),
            Encoding::ALL[number % Encoding::ALL.len()],
        )
        .await
    };
    join_all((0..count).map(one)).await
}

async fn publish(node: &Node, body: Value) -> Value {
    let answer = http::post(node.api, "/v1/publish", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["results"][0]["position"].clone()
}

/// One thing that a client or a backend does; it panics when it fails.
type Operation = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Begins all at the same moment, waits until all have succeeded, and returns how long each took.
async fn at_once(operations: Vec<Operation>) -> Vec<Duration> {
    let start = Arc::new(Barrier::new(operations.len()));
    let mut tasks = JoinSet::new();
    for operation in operations {
        let start = Arc::clone(&start);
        tasks.spawn(async move {
            start.wait().await;
            let began = Instant::now();
            operation.await;
            began.elapsed()
        });
    }
    let mut took = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        took.push(ended.expect("the operation succeeds"));
    }
    took
}

fn slowest(took: &[Duration]) -> Duration {
    took.iter().copied().max().unwrap_or_default()
}

/// R4: of 100 clients that connect concurrently, 95 % within 1 s; here all are welcomed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r4_a_hundred_clients_that_connect_at_the_same_moment_are_all_welcomed() {
    const CLIENTS: usize = 100;
    let node = Plan::dev().start().await;
    let connect = |number: usize| -> Operation {
        let url = node.connect_url(&format!("?user=user-{number}"));
        Box::pin(async move {
            let (mut talk, welcome) = Talk::welcomed(&url, Encoding::ALL[number % 2]).await;
            assert_eq!(welcome["user"], format!("user-{number}"));
            talk.ok(json!({"type": "ping"})).await;
        })
    };
    let took = at_once((0..CLIENTS).map(connect).collect()).await;
    assert_eq!(took.len(), CLIENTS);
    println!(
        "R4: the slowest of {CLIENTS} connects took {:?}",
        slowest(&took)
    );
}

/// R6: of 50 concurrent operations of mixed kinds 90 % succeed; here all do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r6_fifty_concurrent_operations_of_mixed_kinds_all_succeed() {
    let _turn = turns::heavy().await;
    const OPERATIONS: usize = 50;
    const OVER_HTTP: usize = 14;
    let node = Plan::dev().start().await;
    publish(&node, json!({"topic": "mixed", "data": "before"})).await;
    let to_first = publish(
        &node,
        json!({"user": "user-4", "data": "to be acknowledged"}),
    )
    .await;
    let mut operations: Vec<Operation> = Vec::new();
    let talks = sessions(&node, OPERATIONS - OVER_HTTP).await;
    for (number, mut talk) in talks.into_iter().enumerate() {
        let command = match number % 6 {
            0 => json!({"type": "subscribe", "topic": "mixed", "presence": true}),
            1 => json!({"type": "publish", "topic": "mixed", "data": number}),
            2 => json!({"type": "history", "topic": "mixed"}),
            3 => json!({"type": "presence", "topic": "mixed"}),
            // One inbox has a message; the others acknowledge where they begin.
            4 if number == 4 => json!({"type": "ack", "position": to_first}),
            4 => json!({"type": "ack", "position": "0-0"}),
            _ => json!({"type": "ping"}),
        };
        operations.push(Box::pin(async move {
            talk.ok(command).await;
        }));
    }
    let api = node.api;
    for number in 0..OVER_HTTP {
        operations.push(Box::pin(async move {
            let answer = match number % 3 {
                0 => {
                    let body = json!({"topic": "mixed", "data": number});
                    http::post(api, "/v1/publish", &body).await
                }
                1 => http::get(api, "/v1/topics").await,
                _ => http::get(api, "/v1/nodes").await,
            };
            assert_eq!(answer.status, 200, "{}", answer.text());
        }));
    }
    let took = at_once(operations).await;
    assert_eq!(took.len(), OPERATIONS);
    println!(
        "R6: the slowest of {OPERATIONS} operations took {:?}",
        slowest(&took)
    );
}

/// R7: 200 connections with 1 KB messages grow memory by less than 100 MB; here that is all they
/// take, and nothing more is taken once a warm-up has filled what there is to fill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r7_two_hundred_connections_with_messages_of_1_kb_do_not_grow_the_node() {
    let _turn = turns::heavy().await;
    const CONNECTIONS: usize = 200;
    const WARM_UP: usize = 50;
    const ROUNDS: usize = 250;
    const TAKEN_BYTES_MAX: u64 = 100 * 1024 * 1024;
    const GROWN_BYTES_MAX: u64 = TAKEN_BYTES_MAX / 10;
    let node = Plan::dev().start().await;
    let alone = node.resident_bytes();
    let mut talks = sessions(&node, CONNECTIONS).await;
    for talk in &mut talks {
        talk.ok(json!({"type": "subscribe", "topic": "kb"})).await;
    }
    let data = json!("x".repeat(1024));
    let command = json!({"type": "publish", "topic": "kb", "data": data, "echo": true});
    let mut warm = 0;
    for round in 0..WARM_UP + ROUNDS {
        if round == WARM_UP {
            warm = node.resident_bytes();
        }
        talks[round % CONNECTIONS].ok(command.clone()).await;
        for message in join_all(talks.iter_mut().map(|talk| talk.message("kb"))).await {
            assert_eq!(message["data"], data);
        }
    }
    let end = node.resident_bytes();
    println!(
        "R7: {CONNECTIONS} connections, {ROUNDS} messages to each: {alone} bytes resident alone, \
         {warm} after the warm-up, {end} at the end"
    );
    assert!(end.saturating_sub(alone) < TAKEN_BYTES_MAX, "took too much");
    assert!(end.saturating_sub(warm) < GROWN_BYTES_MAX, "grew on");
}

/// Sessions that keep the workers of a node busy with fan-out until they are dropped.
async fn flood(node: &Node, listeners: usize, publishers: usize) -> JoinSet<()> {
    const IN_FLIGHT: usize = 16;
    let mut tasks = JoinSet::new();
    for mut talk in sessions(node, listeners).await {
        talk.ok(json!({"type": "subscribe", "topic": "flood"}))
            .await;
        tasks.spawn(async move { while talk.next().await.is_some() {} });
    }
    let data = "x".repeat(1024);
    let command = json!({"type": "publish", "topic": "flood", "data": data});
    for mut talk in sessions(node, publishers).await {
        let command = command.clone();
        tasks.spawn(async move {
            let mut waiting = Vec::new();
            loop {
                waiting.push(talk.command(command.clone()).await);
                if waiting.len() >= IN_FLIGHT {
                    talk.answer(waiting.remove(0)).await;
                }
            }
        });
    }
    tasks
}

/// R9: 50 concurrent health checks, each under 500 ms, also while the workers are saturated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r9_fifty_concurrent_health_checks_are_answered_while_the_worker_is_busy() {
    let _turn = turns::heavy().await;
    const CHECKS: usize = 50;
    // What waited for the worker would wait as long as the flood lasts.
    const DEADLINE: Duration = Duration::from_secs(60);
    let plan = Plan::default().flag("--dev").flag("--workers=1");
    let node = plan.start().await;
    let load = flood(&node, 30, 8).await;
    let deliveries = "fanfare_deliveries_total";
    wait::until("the flood to flow", async || {
        (node.metric(deliveries).await > 1_000).then_some(())
    })
    .await;
    let api = node.api;
    let paths = [
        "/health",
        "/health/live",
        "/health/ready",
        "/health/detailed",
    ];
    let check = |number: usize| -> Operation {
        Box::pin(async move {
            let answer = http::get(api, paths[number % paths.len()]).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        })
    };
    let before = node.metric(deliveries).await;
    let took = at_once((0..CHECKS).map(check).collect()).await;
    assert_eq!(took.len(), CHECKS);
    println!(
        "R9: the slowest of {CHECKS} checks took {:?}, with {} deliveries meanwhile",
        slowest(&took),
        node.metric(deliveries).await - before
    );
    assert!(slowest(&took) < DEADLINE, "{took:?}");
    wait::until("the worker to be busy still", async || {
        (node.metric(deliveries).await > before).then_some(())
    })
    .await;
    drop(load);
}

/// R20: `/health`, `/health/detailed` and `/metrics`, for probes, people and Prometheus.
#[tokio::test]
async fn r20_a_node_tells_its_health_in_one_line_in_detail_and_in_figures() {
    let node = Plan::dev().flag("--node-id=one").start().await;
    let _talk = session(&node, "ada", Encoding::Json).await;
    let health = http::get(node.api, "/health").await;
    assert_eq!(health.status, 200);
    let health = health.json();
    assert_eq!(health["status"], "ok", "{health}");
    assert_eq!(health["node"], "one", "{health}");
    let detailed = http::get(node.api, "/health/detailed").await.json();
    assert_eq!(detailed["status"], "ok", "{detailed}");
    assert_eq!(detailed["sessions"], 1, "{detailed}");
    assert!(detailed["memory_bytes"].as_u64() > Some(0), "{detailed}");
    let components = detailed["components"].as_array().expect("a list");
    let mut names: Vec<_> = components.iter().map(|part| &part["name"]).collect();
    names.dedup();
    let parts = [
        "broker",
        "membership",
        "workers",
        "turns",
        "sessions",
        "memory",
        "queue",
        "revocations",
        "apps",
        "alerts",
    ];
    assert_eq!(names, parts, "{detailed}");
    let is_well = |part: &Value| part["healthy"] == true && part["state"] == "ok";
    assert!(components.iter().all(is_well), "{detailed}");
    let metrics = http::get(node.api, "/metrics").await;
    let kind = metrics.headers["content-type"].to_str().expect("text");
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    for name in ["fanfare_sessions", "fanfare_ready"] {
        assert_eq!(node.metric(name).await, 1, "{name}");
    }
    publish(&node, json!({"topic": "t", "data": 1})).await;
    assert_eq!(node.metric("fanfare_published_total").await, 1);
    for path in ["/health/live", "/health/ready"] {
        for listener in [node.api, node.public] {
            assert_eq!(http::get(listener, path).await.status, 200, "{path}");
        }
    }
}

/// R32: the service runs without its optional parts, and says so.
#[tokio::test]
async fn r32_a_node_without_redis_serves_and_says_what_it_runs_on() {
    let node = Plan::dev().start().await;
    let detailed = http::get(node.api, "/health/detailed").await.json();
    let detail = detailed["components"][0]["detail"].as_str().expect("text");
    assert!(detail.contains("in-process broker"), "{detailed}");
    let listening = node.log_lines("node_started").pop().expect("told at start");
    let broker = log_field(&listening, "broker").and_then(Value::as_str);
    assert_eq!(broker, Some("in-process broker"), "{listening}");
    let mut talk = session(&node, "ada", Encoding::Json).await;
    talk.ok(json!({"type": "subscribe", "topic": "t"})).await;
    let position = publish(&node, json!({"topic": "t", "data": 1})).await;
    assert_eq!(talk.message("t").await["position"], position);
}

/// A node outside development with the example configuration.
async fn example() -> Node {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/fanfare.toml");
    Plan::with_config(path.as_ref())
        .env("FANFARE_AUTH__HMAC_SECRET", tokens::SECRET)
        .env("FANFARE_API__KEYS", http::DEV_KEY)
        .start()
        .await
}

/// The messages that a session was sent, so many of them: topic, priority and data of each. They
/// come in the order of their lanes where several wait.
async fn heard(talk: &mut Talk, count: usize) -> BTreeSet<(String, String, String)> {
    let mut heard = BTreeSet::new();
    while heard.len() < count {
        let event = talk.next().await.expect("the session lives");
        let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
        assert_eq!(event["type"], "message", "{event}");
        heard.insert((text("topic"), text("priority"), text("data")));
    }
    talk.command(json!({"type": "ping"})).await;
    let next = talk.next().await.expect("the session lives");
    assert_eq!(next["type"], "ok", "one message too many: {next}");
    heard
}

/// R34: messages to one user and to all, workflow updates and notifications, with the
/// configuration that ships as the example, outside development.
#[tokio::test]
async fn r34_messages_reach_one_user_all_users_workflows_and_notifications() {
    let node = example().await;
    let connect = async |claims: Value| {
        let url = node.connect_url(&format!("?token={}", tokens::signed(&claims)));
        Talk::welcomed(&url, Encoding::Json).await.0
    };
    let exp = seconds_from_now(600);
    let rights = json!({"subscribe": ["workflow:7", "notification:*"]});
    let mut ada = connect(json!({"sub": "ada", "exp": exp, "can": rights})).await;
    let mut bob = connect(json!({"sub": "bob", "exp": exp})).await;
    let workflow = json!({"type": "subscribe", "topic": "workflow:7"});
    ada.ok(workflow.clone()).await;
    bob.refused(workflow, "forbidden").await;
    for talk in [&mut ada, &mut bob] {
        talk.ok(json!({"type": "subscribe", "topic": "notification:release"}))
            .await;
        for topic in ["workflow:7", "notification:release", "@ada", "@"] {
            let publish = json!({"type": "publish", "topic": topic, "data": "mine"});
            talk.refused(publish, "forbidden").await;
        }
    }
    let step = json!({"topic": "workflow:7", "key": "step-1", "data": "half done"});
    publish(&node, step).await;
    publish(
        &node,
        json!({"user": "ada", "data": "your export is ready"}),
    )
    .await;
    publish(
        &node,
        json!({"topic": "notification:release", "data": "3.0"}),
    )
    .await;
    publish(
        &node,
        json!({"everyone": true, "data": "maintenance at six"}),
    )
    .await;
    let row = |topic: &str, priority: &str, data: &str| {
        (topic.to_owned(), priority.to_owned(), data.to_owned())
    };
    let to_both = [
        row("notification:release", "high", "3.0"),
        row("@", "high", "maintenance at six"),
    ];
    let mut to_ada = BTreeSet::from(to_both.clone());
    to_ada.insert(row("workflow:7", "", "half done"));
    to_ada.insert(row("@ada", "", "your export is ready"));
    assert_eq!(heard(&mut ada, to_ada.len()).await, to_ada);
    assert_eq!(
        heard(&mut bob, to_both.len()).await,
        BTreeSet::from(to_both)
    );
}
