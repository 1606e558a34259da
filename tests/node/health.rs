//! Health of a node of which a part hangs: not ready, then not live, and answered all the same.
//!
//! In: nodes of which a part keeps its thread to itself (`PLANTED_HANG`), and one that is stopped. Out:
//! what both listeners say, and the log.

use std::time::Duration;

use fanfare_testkit::http::{self, Answer};
use fanfare_testkit::node::{Node, Plan, log_field};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::turns;
use fanfare_testkit::wait;
use futures_util::future::join_all;
use serde_json::{Value, json};

/// Longer than any test waits.
const FOR_EVER: &str = "+3600000";

/// A node of which a part hangs a second after it began.
async fn hanging(plan: Plan, part: &str, lasts: &str, stuck_s: &str) -> Node {
    plan.env("PLANTED_HANG", &format!("{part}@1000{lasts}"))
        .env("FANFARE_HEALTH__STUCK_S", stuck_s)
        .start_unready()
        .await
}

/// What the API says as soon as it is 503 for this. A node that has just begun to start is not ready for
/// another reason.
async fn until(node: &Node, path: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    wait::until(path, async || {
        let answer = http::get(node.api, path).await;
        match answer.status.as_u16() == 503 && is_it(&answer.json()) {
            true => Ok(answer.json()),
            false => Err(answer.text()),
        }
    })
    .await
}

fn reasons(answer: &Value) -> Vec<&str> {
    let reasons = answer["reasons"].as_array().expect("a list");
    reasons.iter().filter_map(Value::as_str).collect()
}

/// Whether one of the reasons is that this part hangs.
fn name(answer: &Value, part: &str) -> bool {
    let begin = format!("{part} has not turned for ");
    reasons(answer).iter().any(|why| why.starts_with(&begin))
}

/// What the public listener says, by a worker that turns.
async fn public(node: &Node, path: &str) -> Answer {
    wait::until(path, async || {
        // The system gives a connection to any of the workers, and one that hangs does not answer.
        let asked = http::try_get(node.public, path);
        let answer = tokio::time::timeout(Duration::from_secs(1), asked).await;
        answer.ok().flatten()
    })
    .await
}

fn turns_of<'a>(detailed: &'a Value, part: &str) -> &'a Value {
    let components = detailed["components"].as_array().expect("a list");
    let is_it = |c: &&Value| c["name"] == "turns" && c["part"] == part;
    components.iter().find(is_it).expect("it is told")
}

#[tokio::test]
async fn a_worker_that_hangs_makes_the_node_not_ready_and_then_not_live_on_both_listeners() {
    let node = hanging(Plan::dev(), "worker-0", FOR_EVER, "6").await;
    let hangs = |answer: &Value| name(answer, "worker 0");
    until(&node, "/health/ready", hangs).await;
    let live = until(&node, "/health/live", hangs).await;
    assert_eq!(live["live"], false);
    assert!(!name(&live, "worker 1"), "{live}");

    for (path, said) in [("/health/live", "live"), ("/health/ready", "ready")] {
        let answer = public(&node, path).await;
        assert_eq!(answer.status, 503, "{path}");
        // Why is told on the API's listener alone.
        assert_eq!(answer.json(), json!({said: false}));
    }
    assert_eq!(http::get(node.api, "/health").await.status, 503);
    let detailed = http::get(node.api, "/health/detailed").await.json();
    assert_eq!(detailed["status"], "unavailable");
    assert!(name(&detailed, "worker 0"), "{detailed}");
    let hangs = turns_of(&detailed, "worker 0");
    assert_eq!(
        (&hangs["state"], &hangs["healthy"]),
        (&json!("down"), &json!(false))
    );
    assert!(hangs["reason"].is_string(), "{hangs}");
    let figure = &hangs["figures"][0];
    assert_eq!(
        (&figure["name"], &figure["limit"]),
        (&json!("silent_ms"), &json!(5_000))
    );
    assert!(figure["value"].as_u64() >= Some(6_000), "{hangs}");
    let turns = turns_of(&detailed, "worker 1");
    assert_eq!(turns["state"], "ok");
    // Since the node began, and since the other stopped to turn.
    assert!(
        turns["since"].as_u64() < hangs["since"].as_u64(),
        "{detailed}"
    );

    assert_eq!(node.metric("fanfare_ready").await, 0);
    for event in ["turns_missed", "liveness_lost"] {
        let lines = node.until_told(event).await;
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(log_field(&lines[0], "part"), Some(&json!("worker 0")));
    }
}

#[tokio::test]
async fn while_every_worker_hangs_fifty_checks_at_once_are_answered() {
    let _turn = turns::heavy().await;
    // Each worker accepts by itself.
    let node = hanging(Plan::dev(), "accept", FOR_EVER, "5").await;
    let live = wait::until("both workers to be told", async || {
        let live = http::get(node.api, "/health/live").await.json();
        (live["live"] == false && reasons(&live).len() == 2).then_some(live)
    })
    .await;
    assert!(name(&live, "worker 0") && name(&live, "worker 1"), "{live}");
    let paths = [
        ("/health/live", 503),
        ("/health/ready", 503),
        ("/health", 503),
        ("/health/detailed", 200),
        ("/metrics", 200),
    ];
    let api = node.api;
    let checks = paths.into_iter().cycle().take(50);
    let checks = checks.map(|(path, status)| async move {
        let answer = http::get(api, path).await;
        assert_eq!(answer.status, status, "{path}");
    });
    join_all(checks).await;
}

/// One that hangs for a while, of a node that is live all the same.
async fn is_missed_and_resumes(part: &str, called: &str) {
    let node = hanging(Plan::dev(), part, "+20000", "0").await;
    let ready = until(&node, "/health/ready", |answer| name(answer, called)).await;
    // It hangs still, and nothing else does, though others share its threads.
    assert!(node.log_lines("turns_resumed").is_empty());
    assert_eq!(reasons(&ready).len(), 1, "{part}: {ready}");
    assert_eq!(http::get(node.api, "/health/live").await.status, 200);
    node.until_ready().await;
    for event in ["turns_missed", "turns_resumed"] {
        let lines = node.until_told(event).await;
        assert_eq!(lines.len(), 1, "{event}: {lines:?}");
        assert_eq!(log_field(&lines[0], "part"), Some(&json!(called)));
    }
    assert!(node.log_lines("liveness_lost").is_empty());
}

#[tokio::test]
async fn parts_that_hang_are_noticed_until_they_turn_again() {
    let parts = [
        ("readiness", "readiness"),
        ("dispatcher", "dispatcher"),
        ("presence", "presence"),
        ("queue", "the queue"),
    ];
    join_all(parts.map(|(part, called)| is_missed_and_resumes(part, called))).await;
}

#[tokio::test]
async fn a_feed_that_hangs_is_noticed_and_named_by_its_server() {
    let redis = RedisServer::start().await;
    let plan = Plan::clustered("one", &redis.url());
    let node = hanging(plan, "feed", FOR_EVER, "5").await;
    let live = until(&node, "/health/live", |_| true).await;
    let [why] = reasons(&live)[..] else {
        panic!("{live}");
    };
    assert!(why.starts_with("the feed of Redis at 127.0.0.1:"), "{why}");
}

/// A feed that waits for Redis turns all the same: with a server that says nothing for long, the node is
/// not ready by that, and live.
#[tokio::test]
async fn a_node_whose_redis_hangs_is_live_and_none_of_its_parts_is_missed() {
    let redis = RedisServer::start().await;
    let plan = Plan::clustered("one", &redis.url())
        .env("FANFARE_HEALTH__STUCK_S", "5")
        .env("FANFARE_REDIS__PROBE_FRESH_MS", "60000")
        .env("FANFARE_REDIS__COMMAND_TIMEOUT_MS", "10000")
        .env("FANFARE_REDIS__LEASE_MS", "30000");
    let node = plan.start().await;
    redis.signal("STOP");
    // A fault may have a pace: longer than a part may be silent.
    for _ in 0..80 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let live = http::get(node.api, "/health/live").await;
        assert_eq!(live.status, 200, "{}", live.text());
    }
    let missed = node.log_lines("turns_missed");
    assert!(missed.is_empty(), "{missed:?}");
    redis.signal("CONT");
    node.until_ready().await;
}

#[tokio::test]
async fn a_process_that_was_stopped_is_live_when_it_goes_on() {
    let node = Plan::dev()
        .env("FANFARE_HEALTH__STUCK_S", "5")
        .start()
        .await;
    for _ in 0..2 {
        node.signal("STOP");
        // Longer than it may hang.
        tokio::time::sleep(Duration::from_secs(7)).await;
        node.signal("CONT");
        for _ in 0..100 {
            for path in ["/health/live", "/health/ready"] {
                let answer = http::get(node.api, path).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
        }
    }
    let missed = node.log_lines("turns_missed");
    assert!(missed.is_empty(), "{missed:?}");
}

#[tokio::test]
async fn an_api_that_hangs_is_told_by_the_public_listener() {
    let node = hanging(Plan::dev(), "api", FOR_EVER, "6").await;
    for path in ["/health/ready", "/health/live"] {
        wait::until(path, async || {
            let answer = public(&node, path).await;
            (answer.status == 503).then_some(())
        })
        .await;
    }
}

/// A lease that ends unseen: no heartbeat is missed, because none is sent.
#[tokio::test]
async fn a_membership_that_hangs_is_degraded_by_its_age() {
    let redis = RedisServer::start().await;
    let plan = Plan::clustered("one", &redis.url());
    // Behind its first heartbeat.
    let planted = format!("membership@10000{FOR_EVER}");
    let node = plan.env("PLANTED_HANG", &planted).start().await;
    wait::until("the age to be told", async || {
        let detailed = http::get(node.api, "/health/detailed").await.json();
        let components = detailed["components"].as_array()?.iter();
        let mut of_membership = components.filter(|c| c["name"] == "membership");
        (of_membership.next()?["state"] == "degraded").then_some(())
    })
    .await;
    // What it woke last may wait for its thread, and be told first.
    wait::until("membership to be missed", async || {
        let ready = http::get(node.api, "/health/ready").await.json();
        name(&ready, "membership").then_some(())
    })
    .await;
}
