//! Alerts of a real node: raised while something is wrong, told once, and cleared when it is well.
//!
//! In: a node over a Redis that stands still for a while, of which a part hangs for a while, and which
//! has a place for one session. Out: gauge, log, details of health; that readiness is not touched.

use std::time::Duration;

use fanfare_protocol::form::Encoding;
use fanfare_testkit::node::{Node, Plan, log_field};
use fanfare_testkit::raw::{Handshake, Raw};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::turns;
use fanfare_testkit::{http, wait};
use futures_util::future::join_all;
use serde_json::{Value, json};

/// Ten times what the longest of these takes: a part that hangs for 20 s.
const PATIENCE: Duration = Duration::from_secs(230);
/// More than an alert needs to say anything.
const MANY: usize = 25;
const RAISED: [&str; 4] = [
    "connections_refused",
    "error_rate",
    "mean_response",
    "processing_slow",
];

fn plan(redis: &RedisServer) -> Plan {
    Plan::clustered("one", &redis.url())
        .env("FANFARE_HEALTH__INTERVAL_S", "1")
        .env("FANFARE_SERVER__CONNECTIONS_MAX", "1")
        .env("FANFARE_ALERTS__ERROR_PERCENT", "50")
        .env("FANFARE_ALERTS__REFUSED_PERCENT", "50")
        .env("FANFARE_ALERTS__RESPONSE_MS", "200")
        .env("FANFARE_ALERTS__PROCESSING_S", "8")
        // What a machine with other work does is no matter here.
        .env("FANFARE_ALERTS__CPU_PERCENT", "0")
        .env("FANFARE_ALERTS__MEMORY_PERCENT", "0")
        .env("PLANTED_HANG", "presence@3000+20000")
}

/// The status of one more handshake.
async fn knock(node: &Node) -> u16 {
    let mut raw = Raw::open(node.public).await;
    raw.send(&Handshake::to("/v1/connect?user=late").bytes())
        .await;
    raw.head().await.expect("an answer").status
}

async fn publish(node: &Node) -> u16 {
    let body = json!({"topic": "t", "data": 1});
    http::post(node.api, "/v1/publish", &body)
        .await
        .status
        .as_u16()
}

async fn gauge(node: &Node, alert: &str) -> u64 {
    node.metric(&format!("fanfare_alert{{alert=\"{alert}\"}}"))
        .await
}

async fn until(node: &Node, alert: &str, raised: u64, mut meanwhile: impl AsyncFnMut()) {
    let what = format!("{alert} to be {raised}");
    wait::until_within(PATIENCE, &what, async || {
        meanwhile().await;
        (gauge(node, alert).await == raised).then_some(())
    })
    .await;
}

/// Waits until the log tells of an alert.
async fn until_raised(node: &Node, alert: &str) {
    let line = wait::until_within(PATIENCE, alert, async || {
        let mut lines = node.log_lines("alert_raised").into_iter();
        lines.find(|line| log_field(line, "alert") == Some(&json!(alert)))
    })
    .await;
    let number = |field| log_field(&line, field).and_then(Value::as_f64);
    assert!(number("value") > number("threshold"), "{line}");
    assert!(number("threshold") > Some(0.0), "{line}");
}

/// What the details of health say of alerts.
async fn details(node: &Node) -> Value {
    let detailed = http::get(node.api, "/health/detailed").await.json();
    let components = detailed["components"].as_array().expect("a list");
    let found = components.iter().find(|part| part["name"] == "alerts");
    found.expect("alerts are told").clone()
}

/// How often the log told this of an alert.
fn told(node: &Node, event: &str, alert: &str) -> usize {
    let lines = node.log_lines(event);
    let is_it = |line: &&Value| log_field(line, "alert") == Some(&json!(alert));
    lines.iter().filter(is_it).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_alerts_are_raised_once_told_everywhere_and_cleared_once() {
    let _turn = turns::heavy().await;
    let redis = RedisServer::start().await;
    let mut node = plan(&redis).start().await;
    let part = details(&node).await;
    assert_eq!(part["state"], "ok", "{part}");
    let url = node.connect_url("?user=ada");
    let (talk, _) = Talk::welcomed(&url, Encoding::Json).await;
    for _ in 0..MANY {
        assert_eq!(knock(&node).await, 503);
    }
    redis.signal("STOP");
    // Each waits as long as a command to Redis may.
    let statuses = join_all((0..MANY).map(|_| publish(&node))).await;
    assert_eq!(statuses, [503; MANY]);
    for alert in RAISED {
        until_raised(&node, alert).await;
    }
    redis.signal("CONT");
    let part = details(&node).await;
    assert_eq!(part["state"], "degraded", "{part}");
    let reason = part["reason"].as_str().expect("it has one");
    // The part may turn again by now.
    for alert in &RAISED[..3] {
        assert!(reason.contains(alert), "{part}");
        assert_eq!(gauge(&node, alert).await, 1);
    }
    let silent = ["memory_high", "cpu_high", "queue_age", "memory_growing"];
    for alert in silent {
        assert_eq!(gauge(&node, alert).await, 0, "{alert}");
    }

    // The part turns again and Redis answers: the node is ready, though it remembers.
    until(&node, "processing_slow", 0, async || ()).await;
    node.until_ready().await;
    assert_eq!(gauge(&node, "error_rate").await, 1);
    let performance = http::get(node.api, "/v1/performance").await.json();
    assert!(performance["errors"]["unavailable"].as_u64() >= Some(MANY as u64));
    let alerts = performance["alerts"].as_array().expect("a list");
    assert!(alerts.contains(&json!("error_rate")), "{performance}");

    // What is well outweighs what was not.
    drop(talk);
    for alert in ["connections_refused", "error_rate", "mean_response"] {
        until(&node, alert, 0, async || {
            for _ in 0..MANY {
                assert_eq!(http::get(node.api, "/v1/route?user=ada").await.status, 200);
                // Of publications alone it is judged, too.
                assert_eq!(publish(&node).await, 200);
            }
            // The place of the one before may not be free yet.
            if knock(&node).await != 101 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    let part = details(&node).await;
    assert_eq!(
        (&part["state"], &part["reason"]),
        (&json!("ok"), &Value::Null)
    );
    node.terminate().await;
    for alert in RAISED {
        let counts = ["alert_raised", "alert_cleared"].map(|event| told(&node, event, alert));
        assert_eq!(counts, [1, 1], "{alert}");
    }
}

#[tokio::test]
async fn one_request_of_two_that_fails_raises_nothing() {
    let redis = RedisServer::start().await;
    let node = Plan::clustered("one", &redis.url())
        .env("FANFARE_HEALTH__INTERVAL_S", "1")
        .env("FANFARE_ALERTS__ERROR_PERCENT", "1")
        .start()
        .await;
    assert_eq!(publish(&node).await, 200);
    redis.signal("STOP");
    assert_eq!(publish(&node).await, 503);
    redis.signal("CONT");
    // It is judged for some looks more. What is asked of health is no request that counts.
    let uptime = async || {
        let detailed = http::get(node.api, "/health/detailed").await.json();
        detailed["uptime_s"].as_u64().expect("seconds")
    };
    let failed_at = uptime().await;
    wait::until("some looks", async || {
        (uptime().await >= failed_at + 5).then_some(())
    })
    .await;
    let performance = http::get(node.api, "/v1/performance").await.json();
    assert_eq!(performance["errors"]["unavailable"], 1, "{performance}");
    let judged = details(&node).await;
    assert_eq!(gauge(&node, "error_rate").await, 0, "{judged}");
    assert!(node.log_lines("alert_raised").is_empty());
}
