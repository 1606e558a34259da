//! Two nodes over a real Redis that do some of everything, as Prometheus sees them: every query of
//! every panel has a series with a value, and the rules see what is wrong and nothing else.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use fanfare_protocol::form::Encoding;
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::{http, program, wait};
use serde_json::{Value, json};

use super::files::{filled, panels, read};
use super::prometheus::Prometheus;

/// Over so many scrapes of a second each go the rates.
const RATE_INTERVAL: &str = "20s";
/// It takes some ten seconds.
const PATIENCE: Duration = Duration::from_secs(120);
const TOPIC: &str = "chat:lobby";
const PRIORITIES: [&str; 4] = ["critical", "high", "normal", "low"];

async fn start(name: &str, redis: &RedisServer) -> Node {
    let plan = Plan::clustered(name, &redis.url());
    let plan = plan.env("FANFARE_METRICS__LISTEN", "127.0.0.1:0");
    plan.start().await
}

async fn accepted(api: SocketAddr, path: &str, body: &Value) {
    let answer = http::post(api, path, body).await;
    let is_done = [200, 202].contains(&answer.status.as_u16());
    assert!(is_done, "{path} {body}: {}", answer.text());
}

/// A session that comes, asks for some of everything and goes.
async fn visit(node: &Node, api: SocketAddr, user: &str) {
    let url = node.connect_url(&format!("?user={user}"));
    let (mut talk, _) = Talk::welcomed(&url, Encoding::Json).await;
    talk.subscribe(TOPIC, json!({"presence": true, "rewind": 2}))
        .await;
    let inbox = format!("@{user}");
    for priority in PRIORITIES {
        let to_topic = json!({"topic": TOPIC, "data": 1, "priority": priority});
        accepted(api, "/v1/publish", &to_topic).await;
        let to_user = json!({"user": user, "data": 2, "priority": priority});
        accepted(api, "/v1/queue", &to_user).await;
        talk.message(&inbox).await;
    }
    let position = talk.publish(&format!("news:{user}"), json!(3)).await;
    assert!(!position.is_empty());
    for command in [
        json!({"type": "history", "topic": TOPIC, "limit": 5}),
        json!({"type": "presence", "topic": TOPIC}),
        json!({"type": "unsubscribe", "topic": TOPIC}),
        json!({"type": "ping"}),
    ] {
        talk.ask(command).await;
    }
    talk.close().await;
}

/// What is in the queue for later, and what will be too late.
async fn hand_over(api: SocketAddr) {
    let now_ms = wait::unix_ms();
    let (later, soon) = (now_ms + 3_600_000, now_ms + 500);
    let delayed = json!({"topic": "later:t", "data": 1, "not_before": later});
    accepted(api, "/v1/queue", &delayed).await;
    let too_late =
        json!({"topic": "late:t", "data": 1, "not_before": soon, "expires_at": soon + 1});
    accepted(api, "/v1/queue", &too_late).await;
}

/// Some of everything that the API is asked for.
async fn ask(api: SocketAddr) {
    for path in [
        "/v1/nodes",
        "/v1/topics",
        "/v1/queue",
        "/v1/queue/dead",
        "/v1/topics/chat%3Alobby",
        "/v1/users/ada",
        "/health/ready",
    ] {
        assert_eq!(http::get(api, path).await.status, 200, "{path}");
    }
    assert_eq!(http::get(api, "/nowhere").await.status, 404);
}

/// The queries of all panels that nodes can answer, each with its panel.
fn queries() -> BTreeSet<(String, String)> {
    let all = panels().into_iter().flat_map(|panel| {
        let named = move |query: String| (panel.name.clone(), filled(&query, RATE_INTERVAL));
        panel.queries.into_iter().map(named)
    });
    all.collect()
}

#[tokio::test]
async fn every_panel_has_a_value_every_command_works_and_the_rules_see_the_dead_letters_alone() {
    let redis = RedisServer::start().await;
    let nodes = [start("a", &redis).await, start("b", &redis).await];
    let [a, b] = [&nodes[0], &nodes[1]];
    let scraped = [a, b].map(|node| node.metrics.expect("a listener of its own"));
    let prometheus = Prometheus::start(&scraped).await;
    let mut open = queries();
    assert!(open.len() > 80, "{} queries", open.len());
    // One letter before the first scrape would be no rise.
    wait::until("both nodes to be scraped", async || {
        let values = prometheus.values("sum(fanfare_ready) == 2").await;
        (values.len() == 1).then_some(())
    })
    .await;
    let round = async || {
        visit(a, b.api, "ada").await;
        visit(b, a.api, "bob").await;
        hand_over(a.api).await;
        ask(b.api).await;
        let mut left = BTreeSet::new();
        for (panel, query) in std::mem::take(&mut open) {
            let values = prometheus.values(&query).await;
            if !values.into_iter().any(f64::is_finite) {
                left.insert((panel, query));
            }
        }
        open.clone_from(&left);
        if left.is_empty() { Ok(()) } else { Err(left) }
    };
    wait::until_within(PATIENCE, "every query to have a value", round).await;
    let judged = async || {
        let rules = prometheus.rules().await;
        let firing = rules.iter().filter(|rule| rule["state"] == "firing");
        let firing: Vec<_> = firing.filter_map(|rule| rule["name"].as_str()).collect();
        let is_well = rules.iter().all(|rule| rule["health"] == "ok");
        match is_well && firing == ["FanfareDeadLettersRising"] {
            true => Ok(()),
            false => Err(format!("{rules:#?}")),
        }
    };
    wait::until("the rules to see the dead letters alone", judged).await;
    commands_run(a, &redis, &prometheus).await;
    for address in scraped {
        check(&http::get(address, "/metrics").await.text());
    }
}

/// Every command that the pages show is typed, as they show it.
async fn commands_run(node: &Node, redis: &RedisServer, prometheus: &Prometheus) {
    for target in [json!({"topic": "orders:7"}), json!({"user": "alice"})] {
        let mut publication = target;
        publication["data"] = json!("paid");
        accepted(node.api, "/v1/publish", &publication).await;
    }
    let program = program::fanfare();
    let folder = program.parent().expect("a folder").display();
    let path = std::env::var("PATH").unwrap_or_default();
    let seconds = PATIENCE.as_secs().to_string();
    let mut count = 0;
    for page in ["docs/monitoring.md", "docs/oncall.md"] {
        for block in read(page).split("\n```sh\n").skip(1) {
            let block = block.split("\n```").next().expect("its lines");
            let output = Command::new("timeout")
                .args([&*seconds, "bash", "-e", "-o", "pipefail", "-c", block])
                .env("PATH", format!("{folder}:{path}"))
                .env("FANFARE_API_URL", format!("http://{}", node.api))
                .env("FANFARE_API_KEY", http::DEV_KEY)
                .env("FANFARE_URL", node.connect_url(""))
                .env("PROMETHEUS_URL", prometheus.url())
                .env("REDIS_URL", redis.url())
                .stdin(Stdio::null())
                .output()
                .expect("a shell");
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert!(output.status.success(), "{page}:\n{block}\n{said}");
            count += 1;
        }
    }
    assert!(count > 30, "{count} blocks of commands");
}

/// What promtool says of a scrape: nothing.
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
