//! What a scraper finds: on a node that serves, and where many scrape and one hardly reads.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use fanfare_protocol::form::Encoding;
use fanfare_testkit::node::{Node, Plan, sample};
use fanfare_testkit::talk::Talk;
use fanfare_testkit::{http, wait};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// Most series of a node.
const SERIES_MAX: usize = 1_500;
/// How many scrape at once.
const SCRAPERS: usize = 50;
const SCRAPE: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
/// So many answers fill the buffers of both ends.
const UNREAD: usize = 400;

async fn session(node: &Node, user: &str) -> Talk {
    let url = node.connect_url(&format!("?user={user}"));
    Talk::welcomed(&url, Encoding::Json).await.0
}

/// A node that has done some of everything, and the sessions that it has.
async fn busy() -> (Node, Vec<Talk>) {
    let node = Plan::dev().start().await;
    let mut talks = Vec::new();
    for user in ["ada", "bob"] {
        let mut talk = session(&node, user).await;
        talk.subscribe("chat:t", json!({})).await;
        talks.push(talk);
    }
    talks[0].publish("chat:t", json!(1)).await;
    talks[1].message("chat:t").await;
    let path = "/v1/publish";
    for topic in ["chat:t", "orders:7"] {
        let answer = http::post(node.api, path, &json!({"topic": topic, "data": 1})).await;
        assert_eq!(answer.status, 200);
    }
    assert_eq!(http::get(node.api, "/v1/topics/chat:t").await.status, 200);
    assert_eq!(http::get(node.api, "/nowhere").await.status, 404);
    (node, talks)
}

fn series(text: &str) -> usize {
    text.lines().filter(|line| !line.starts_with('#')).count()
}

#[tokio::test]
async fn what_a_node_tells_is_what_it_did_and_promtool_has_nothing_to_say() {
    let (node, _talks) = busy().await;
    let told = async || {
        let text = http::get(node.api, "/metrics").await.text();
        let counted = [
            "fanfare_commands_total{type=\"subscribe\"}",
            "fanfare_command_seconds_count{type=\"subscribe\"}",
            "fanfare_command_seconds_count{type=\"publish\"}",
            "fanfare_connect_seconds_count",
            "fanfare_publish_seconds_count",
            "fanfare_api_requests_total{route=\"/v1/publish\",status=\"200\"}",
            "fanfare_api_requests_total{route=\"other\",status=\"404\"}",
        ];
        let counts = counted.map(|name| sample(&text, name).unwrap_or(0));
        let delivered = sample(&text, "fanfare_delivery_seconds_count{priority=\"normal\"}");
        let is_delivered = delivered.is_some_and(|count| (1..=4).contains(&count));
        let waiting = sample(&text, "fanfare_delivery_backlog_bytes");
        match counts == [2, 2, 1, 2, 3, 2, 1] && is_delivered && waiting == Some(0) {
            true => Ok(text),
            false => Err((counts, delivered, waiting)),
        }
    };
    // What a worker has done is counted a little later than it is seen.
    let text = wait::until("all to be counted", told).await;
    assert!(series(&text) <= SERIES_MAX, "{} series", series(&text));
    let build = format!(
        "fanfare_build_info{{version=\"{}\",",
        env!("CARGO_PKG_VERSION")
    );
    for begins in [
        &build,
        "fanfare_connections_limit ",
        "fanfare_memory_limit_bytes ",
        "fanfare_cpu_limit_cores ",
        "fanfare_worker_busy_seconds_total{worker=\"1\"} ",
        "fanfare_outbox_bytes{lane=\"critical\"} 0",
        "fanfare_slow_sessions 0",
    ] {
        let is_there = text.lines().any(|line| line.starts_with(begins));
        assert!(is_there, "{begins}: {text}");
    }
    let busy = node.measure("fanfare_worker_busy_seconds_total{worker=\"0\"}");
    assert!(busy.await > 0.0);
    check(&text);
}

#[tokio::test]
async fn how_long_a_node_stood_still_is_told_when_it_goes_on() {
    const STILL: Duration = Duration::from_secs(3);
    let node = Plan::dev().start().await;
    let before = node.measure("fanfare_stalled_seconds_total").await;
    node.signal("STOP");
    tokio::time::sleep(STILL).await;
    node.signal("CONT");
    wait::until("it to be told", async || {
        let told = node.measure("fanfare_stalled_seconds_total").await - before;
        // Of all of it a second does not count.
        if told >= 1.5 { Ok(()) } else { Err(told) }
    })
    .await;
}

/// Asks Debian's promtool, which `scripts/test` installs.
fn check(text: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed: Debian's package prometheus");
    let mut stdin = promtool.stdin.take().expect("it is piped");
    stdin.write_all(text.as_bytes()).expect("promtool reads");
    drop(stdin);
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[tokio::test]
async fn a_session_that_does_not_read_is_told_with_what_waits_for_it() {
    let node = Plan::dev().start().await;
    let mut talk = session(&node, "ada").await;
    talk.subscribe("live:t", json!({})).await;
    let data = "x".repeat(50_000);
    let waits = async || {
        let publication = json!({"topic": "live:t", "data": data, "priority": "high"});
        http::post(node.api, "/v1/publish", &publication).await;
        let text = http::get(node.api, "/metrics").await.text();
        let names = [
            "fanfare_slow_sessions",
            "fanfare_outbox_messages{lane=\"high\"}",
        ];
        let bytes = sample(&text, "fanfare_outbox_bytes{lane=\"high\"}");
        let found = names.map(|name| sample(&text, name).unwrap_or(0));
        match found[0] == 1 && found[1] > 0 && bytes >= Some(50_000) {
            true => Ok(()),
            false => Err((found, bytes)),
        }
    };
    wait::until("its socket to be full", waits).await;
    drop(talk);
    wait::until("it to be gone", async || {
        let text = http::get(node.api, "/metrics").await.text();
        let names = [
            "fanfare_slow_sessions",
            "fanfare_outbox_bytes{lane=\"high\"}",
        ];
        let left = names.map(|name| sample(&text, name));
        if left == [Some(0), Some(0)] {
            Ok(())
        } else {
            Err(left)
        }
    })
    .await;
}

/// Asks again and again and takes nothing: both ends' buffers fill up.
async fn unread(to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("it may be small");
    let mut stream = socket.connect(to).await.expect("it listens");
    stream
        .write_all(&SCRAPE.repeat(UNREAD))
        .await
        .expect("taken");
    stream
}

#[tokio::test]
async fn fifty_scrapes_and_one_that_hardly_reads_hold_up_nobody() {
    let node = Plan::dev().env("FANFARE_METRICS__LISTEN", "127.0.0.1:0");
    let node = node.start().await;
    let metrics = node.metrics.expect("it has a listener of its own");
    let mut slow = unread(metrics).await;
    let scrapes = (0..SCRAPERS).map(|_| http::get(metrics, "/metrics"));
    for answer in futures_util::future::join_all(scrapes).await {
        assert_eq!(answer.status, 200);
        assert!(series(&answer.text()) > 100);
    }
    // A byte a second is too little: what it asked for is not kept for it.
    let cut_off = async || {
        // It has been reset, where this fails.
        let _ = slow.read_u8().await;
        let count = node.metric("fanfare_api_answers_cut_off_total").await;
        (count == 1).then_some(())
    };
    wait::until_within(Duration::from_secs(100), "its end", cut_off).await;
}

#[tokio::test]
async fn the_listener_of_metrics_serves_them_and_health_alone() {
    let node = Plan::dev().env("FANFARE_METRICS__LISTEN", "127.0.0.1:0");
    let mut node = node.start().await;
    let metrics = node.metrics.expect("it has a listener of its own");
    assert_ne!(metrics.port(), node.api.port());
    for path in [
        "/metrics",
        "/health",
        "/health/live",
        "/health/ready",
        "/health/detailed",
    ] {
        for listener in [metrics, node.api] {
            assert_eq!(http::get(listener, path).await.status, 200, "{path}");
        }
    }
    for path in ["/v1/nodes", "/v1/topics", "/openapi.json", "/"] {
        assert_eq!(http::get(metrics, path).await.status, 404, "{path}");
    }
    let publication = json!({"topic": "t", "data": 1});
    let refused = http::post(metrics, "/v1/publish", &publication).await;
    assert_eq!(refused.status, 404);
    assert_eq!(node.metric("fanfare_published_total").await, 0);
    assert!(node.terminate().await.success());
}
