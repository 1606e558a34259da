//! A log that cannot be written, or that nobody reads, keeps a real node from nothing.

use std::fs::File;
use std::process::{Command, Stdio};

use fanfare_protocol::form::Encoding;
use fanfare_testkit::load::{Listening, Load};
use fanfare_testkit::node::{LogReader, Node, Plan};
use fanfare_testkit::raw::{Handshake, Raw};
use fanfare_testkit::redis_server::{RedisServer, free_address};
use fanfare_testkit::talk::Talk;
use fanfare_testkit::{http, turns, wait};
use futures_util::future::join_all;
use serde_json::{Value, json};

const FAILED: &str = "fanfare_log_writes_failed_total";
const SUPPRESSED: &str = "fanfare_log_lines_suppressed_total";
/// Connections from which handshakes come.
const PEERS: usize = 16;
/// Handshakes that each of them tries: 10,000 together.
const TRIES: usize = 625;

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
    let mut child = Command::new(fanfare_testkit::program::unkept())
        .args(["serve", "--dev", "--workers=1"])
        .args([format!("--listen={public}"), format!("--api-listen={api}")])
        .env("FANFARE_DRAIN__WINDOW_MS", "0")
        .env_remove(fanfare_testkit::kept::KEEP)
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
    // Several times what the pipe holds, though only a hundred a second are written.
    refused(&mut talk, 500).await;
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

/// Handshakes that are refused, a line of the log each.
async fn refused_handshakes(node: &Node) {
    let handshake = Handshake::to("/v1/connect").with("Authorization", "Bearer a.b.c");
    let bytes = handshake.bytes();
    let mut raw = Raw::open(node.public).await;
    for _ in 0..TRIES {
        raw.send(&bytes).await;
        let head = match raw.answer().await {
            Some((head, _)) => head,
            None => {
                raw = Raw::open(node.public).await;
                raw.send(&bytes).await;
                raw.answer().await.expect("an answer").0
            }
        };
        assert_eq!(head.status, 401, "{head:?}");
    }
}

#[tokio::test]
async fn ten_thousand_refused_handshakes_in_a_log_that_nobody_reads_disturb_no_client() {
    let _turn = turns::heavy().await;
    let plan = loud(Plan::dev()).log_reader(LogReader::Sleeps);
    let mut node = plan.start().await;
    let listening = Listening::start(&node, "ada", Encoding::Json, "t").await;
    let load = Load::start(&node, "t").await;
    load.goes_on(10).await;
    let before = load.answered();
    join_all((0..PEERS).map(|_| refused_handshakes(&node))).await;
    assert!(load.answered() > before, "it went on meanwhile");
    load.goes_on(100).await;
    listening.goes_on(100).await;
    // Each handshake has two lines: why its token is refused, and that it is.
    let refused = "fanfare_tokens_refused_total{reason=\"not_jwt\"}";
    assert!(node.metric(refused).await >= (PEERS * TRIES) as u64);
    assert!(node.metric(SUPPRESSED).await > 0);
    assert!(node.is_ready().await);
    listening.heard_all(&load.end().await, 0).await;
    assert_eq!(node.terminate().await.code(), Some(0));
}

/// How many lines of this event were written, and how many were told not to have been.
fn told(node: &Node, event: &str) -> (usize, u64) {
    let suppressed = node.log_lines("lines_suppressed");
    let of = suppressed.iter().filter(|line| line["suppressed"] == event);
    let counts = of.map(|line| line["count"].as_u64().expect("a count"));
    (node.log_lines(event).len(), counts.sum())
}

#[tokio::test]
async fn what_is_told_too_often_in_a_second_is_told_by_its_number_and_nothing_else_is_lost() {
    let mut node = loud(Plan::dev()).start().await;
    let (mut talk, _) = Talk::welcomed(&node.connect_url("?user=ada"), Encoding::Json).await;
    let mut sent = 0;
    wait::until("a line that tells of others", async || {
        refused(&mut talk, 500).await;
        sent += 500;
        (!node.log_lines("lines_suppressed").is_empty()).then_some(())
    })
    .await;
    // The rest of it is told at the end.
    refused(&mut talk, 500).await;
    sent += 500;
    assert_eq!(node.terminate().await.code(), Some(0));
    let (written, counted) = told(&node, "command_refused");
    assert_eq!(written as u64 + counted, sent);
    assert!(written >= 100, "{written}");
    assert_eq!(told(&node, "session_closed"), (1, 0));
    assert_eq!(told(&node, "node_stopped"), (1, 0));
}

#[tokio::test]
async fn sessions_are_told_of_at_info_where_that_is_asked_for() {
    for is_asked in [true, false] {
        let plan = Plan::dev()
            .env("FANFARE_LOG__LEVEL", "info")
            .env("FANFARE_LOG__SESSIONS", &is_asked.to_string());
        let mut node = plan.start().await;
        let (mut talk, welcome) =
            Talk::welcomed(&node.connect_url("?user=ada"), Encoding::Json).await;
        talk.publish("t", json!(1)).await;
        talk.close().await;
        if is_asked {
            node.until_told("session_closed").await;
        }
        assert_eq!(node.terminate().await.code(), Some(0));
        let opened = node.log_lines("session_opened");
        let closed = node.log_lines("session_closed");
        if !is_asked {
            assert_eq!((opened, closed), (vec![], vec![]));
            continue;
        }
        let ([opened], [closed]) = (&opened[..], &closed[..]) else {
            panic!("{}", node.log_text());
        };
        for line in [opened, closed] {
            assert_eq!(line["level"], "INFO");
            assert_eq!(line["session"], welcome["session"]);
            assert_eq!(
                (&line["user"], &line["app"]),
                (&json!("ada"), &json!("default"))
            );
            assert!(line["duration_ms"].is_u64(), "{line}");
        }
        assert_eq!(closed["reason"], "client");
        assert!(closed["bytes_read"].as_u64() > Some(0), "{closed}");
        assert!(closed["bytes_written"].as_u64() > Some(0), "{closed}");
    }
}

#[tokio::test]
async fn what_takes_long_is_told_with_its_command_or_route() {
    let redis = RedisServer::start().await;
    for slow_ms in ["20", "0"] {
        let plan = Plan::clustered("one", &redis.url()).env("FANFARE_LOG__SLOW_MS", slow_ms);
        let mut node = plan.start().await;
        let (mut talk, welcome) =
            Talk::welcomed(&node.connect_url("?user=ada"), Encoding::Json).await;
        talk.publish("t", json!(1)).await;
        redis.signal("STOP");
        let publish = json!({"type": "publish", "topic": "t", "data": 2});
        let body = json!({"topic": "t", "data": 3});
        let (answer, asked) = tokio::join!(
            talk.ask(publish),
            http::try_post(node.api, "/v1/publish", &body)
        );
        redis.signal("CONT");
        assert_eq!(answer["code"], "unavailable", "{answer}");
        assert_eq!(asked.expect("an answer").status, 503);
        assert_eq!(node.terminate().await.code(), Some(0));
        let of = |event: &str, field: &str, value: &str| {
            let mut lines = node.log_lines(event);
            lines.retain(|line| line[field] == value);
            lines
        };
        let commands = of("command_slowed", "command", "publish");
        let requests = of("request_slowed", "route", "/v1/publish");
        if slow_ms == "0" {
            assert_eq!((commands, requests), (vec![], vec![]));
            continue;
        }
        let (Some(command), Some(request)) = (commands.last(), requests.last()) else {
            panic!("{}", node.log_text());
        };
        assert_eq!(command["session"], welcome["session"]);
        assert_eq!(
            (&request["method"], &request["status"]),
            (&json!("POST"), &json!(503))
        );
        for line in [command, request] {
            assert!(line["duration_ms"].as_u64() >= Some(20), "{line}");
        }
    }
}

#[tokio::test]
async fn a_panic_is_one_line_with_its_place_and_its_backtrace() {
    let plan = Plan::dev().env("PLANTED_PANIC", "session@1");
    let node = plan.start().await;
    let mut talk = Talk::connected(&node.connect_url("?user=ada"), Encoding::Json).await;
    assert_eq!(talk.close_code().await, Some(4_104));
    let lines = node.until_told("panic_reported").await;
    let [line] = &lines[..] else {
        panic!("{lines:?}");
    };
    assert_eq!(line["text"], "planted");
    let text = |field: &str| line[field].as_str().expect("a text").to_owned();
    assert!(text("at").starts_with("src/tasks"), "{line}");
    let backtrace = text("backtrace");
    assert!(backtrace.lines().count() > 10, "{line}");
    assert!(backtrace.contains("fanfare::tasks"), "{line}");
}
