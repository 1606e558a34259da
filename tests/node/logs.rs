//! A log that cannot be written, or that nobody reads, keeps a real node from nothing.

use std::fs::File;
use std::process::{Command, Stdio};

use fanfare_protocol::form::Encoding;
use fanfare_testkit::http;
use fanfare_testkit::node::{LogReader, Node, Plan};
use fanfare_testkit::redis_server::free_address;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::wait;
use serde_json::{Value, json};

const FAILED: &str = "fanfare_log_writes_failed_total";

/// Commands that are refused, a line of the log each.
async fn refused(talk: &mut Talk, count: u32) {
    for _ in 0..count {
        let subscribe = json!({"type": "subscribe", "topic": "a b"});
        talk.refused(subscribe, "invalid_topic").await;
    }
}

fn loud(plan: Plan) -> Plan {
    plan.env("FANFARE_LOG__LEVEL", "info,fanfare=debug")
}

async fn serves(node: &Node) {
    let (mut talk, _) = Talk::welcomed(&node.connect_url("?user=bob"), Encoding::Json).await;
    talk.ok(json!({"type": "subscribe", "topic": "t"})).await;
}

#[tokio::test]
async fn a_node_outlives_the_reader_of_its_log() {
    let plan = loud(Plan::dev()).log_reader(LogReader::Goes);
    let mut node = plan.start().await;
    let (mut talk, _) = Talk::welcomed(&node.connect_url("?user=ada"), Encoding::Json).await;
    wait::until("a line that is not written", async || {
        refused(&mut talk, 1).await;
        (node.metric(FAILED).await > 0).then_some(())
    })
    .await;
    node.signal("HUP");
    serves(&node).await;
    assert_eq!(node.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn a_node_with_a_full_disk_below_its_log_serves_and_ends() {
    let (public, api) = (free_address(), free_address());
    let full = File::options().write(true).open("/dev/full");
    let mut child = Command::new(fanfare_testkit::program::fanfare())
        .args(["serve", "--dev", "--workers=1"])
        .args([format!("--listen={public}"), format!("--api-listen={api}")])
        .env("FANFARE_DRAIN__WINDOW_MS", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(full.expect("a device that is always full"))
        .spawn()
        .expect("the binary was built by cargo");
    wait::until("the node to be ready", async || {
        assert_eq!(child.try_wait().expect("a child"), None, "it has ended");
        let answer = http::try_get(api, "/health/ready").await;
        answer.filter(|answer| answer.status == 200)
    })
    .await;
    let text = http::get(api, "/metrics").await.text();
    let failed = text.lines().find_map(|line| line.strip_prefix(FAILED));
    assert_ne!(failed.map(str::trim), Some("0"), "{text}");
    let mut kill = Command::new("kill");
    let kill = kill.args(["-TERM", &child.id().to_string()]);
    assert!(kill.status().expect("kill").success());
    let status = wait::until("the end", async || child.try_wait().expect("a child")).await;
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_no_session() {
    let plan = loud(Plan::dev()).log_reader(LogReader::Sleeps);
    let mut node = plan.start().await;
    let (mut talk, _) = Talk::welcomed(&node.connect_url("?user=ada"), Encoding::Json).await;
    // Several times what the pipe holds.
    refused(&mut talk, 1_500).await;
    assert!(node.is_ready().await);
    serves(&node).await;
    // Nor does it hold up the end.
    assert_eq!(node.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn the_last_word_is_told_whatever_the_level_is() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an open socket").to_string();
    let plan = Plan::dev().env("FANFARE_LOG__LEVEL", "off");
    let (status, told) = plan.start_refused(&address).await;
    assert_eq!(status.code(), Some(69), "{told}");
    let line: Value = serde_json::from_str(&told).expect("one line of JSON");
    assert_eq!(line["event"], "node_failed");
    assert_eq!(line["level"], "ERROR");
    let text = line["message"].as_str().expect("a text");
    assert!(text.contains("cannot listen"), "{told}");
}
