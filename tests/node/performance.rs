//! The performance history of real nodes: read by many while it is written, and the load that nodes
//! tell each other.

use std::time::{Duration, Instant};

use fanfare_protocol::form::Encoding;
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::turns;
use fanfare_testkit::{http, wait};
use futures_util::future::join_all;
use serde_json::{Value, json};

const READERS: usize = 50;
const READ_FOR: Duration = Duration::from_secs(10);
/// The newest second is never older than this.
const AGE_MAX_MS: u64 = 2_000;

async fn performance(node: &Node, window: &str) -> Value {
    let answer = http::get(node.api, &format!("/v1/performance?window={window}")).await;
    assert_eq!(answer.status, 200);
    answer.json()
}

/// What one reader saw: how many answers, and the ages of their newest seconds.
async fn read(node: &Node, window: &str, until: Instant) -> Vec<u64> {
    let (mut ages, mut covered) = (Vec::new(), 0.0);
    while Instant::now() < until {
        let told = performance(node, window).await;
        ages.push(told["age_ms"].as_u64().expect("an age"));
        let newly = told["covered_s"].as_f64().expect("seconds");
        assert!(newly >= covered, "{newly} s after {covered}");
        covered = newly;
        for (name, range) in told["measures"].as_object().expect("measures") {
            let [min, mean, max] = ["min", "mean", "max"].map(|key| range[key].as_f64());
            // Means are rounded, each by itself.
            let (min, mean, max) = (
                min.expect("a least"),
                mean.expect("a mean"),
                max.expect("a most"),
            );
            assert!(min <= mean + 0.01 && mean <= max + 0.01, "{name}: {range}");
            assert!(min >= 0.0 && max < 1e13, "{name}: {range}");
        }
    }
    ages
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_who_read_for_ten_seconds_find_the_newest_second_and_hold_nothing_up() {
    let _turn = turns::heavy().await;
    let node = Plan::dev().start().await;
    let url = node.connect_url("?user=ada");
    let (mut talk, _) = Talk::welcomed(&url, Encoding::Json).await;
    wait::until("the first second", async || {
        let told = performance(&node, "15m").await;
        (told["covered_s"].as_f64() > Some(0.0)).then_some(())
    })
    .await;
    let until = Instant::now() + READ_FOR;
    let windows = ["15m", "24h", "7d"].into_iter().cycle().take(READERS);
    let readers = join_all(windows.map(|window| read(&node, window, until)));
    let publisher = async {
        let mut count = 0_u64;
        while Instant::now() < until {
            talk.publish("chat:t", json!(count)).await;
            count += 1;
        }
        count
    };
    let (ages, published) = tokio::join!(readers, publisher);
    assert!(ages.iter().all(|ages| !ages.is_empty()), "one never read");
    let ages: Vec<u64> = ages.into_iter().flatten().collect();
    // A machine that is busy with something else may give a thread no time for a second.
    let late = ages.iter().filter(|age| **age > AGE_MAX_MS).count();
    assert!(
        late * 100 <= ages.len(),
        "{late} of {} are late",
        ages.len()
    );
    assert!(ages.iter().all(|age| *age < 10 * AGE_MAX_MS));
    assert!(published > 0);
    let told = wait::until("all publications to be told", async || {
        let told = performance(&node, "15m").await;
        let paces = &told["measures"]["publications_per_s"];
        let seen = paces["mean"].as_f64()? * told["covered_s"].as_f64()?;
        // Means are rounded to a thousandth.
        ((seen - published as f64).abs() <= 1.0).then_some(told)
    })
    .await;
    assert_eq!(told["measures"]["sessions"]["max"], 1.0, "{told}");
    assert!(told["measures"]["memory_bytes"]["min"].as_f64() > Some(1e6));
    assert!(told["measures"]["request_ms"]["max"].as_f64() > Some(0.0));
    assert_eq!(told["errors"], json!({}));
    assert_eq!(told["memory_growth"]["verdict"], "too_short");
}

#[tokio::test]
async fn each_node_tells_the_load_of_all() {
    let redis = RedisServer::start().await;
    let plan = |name| Plan::clustered(name, &redis.url());
    let (one, two) = tokio::join!(plan("one").start(), plan("two").start());
    for node in [&one, &two] {
        wait::until("the load of both", async || {
            let listed = http::get(node.api, "/v1/nodes").await.json();
            let nodes = listed["nodes"].as_array().expect("a list").clone();
            let is_told = |node: &Value| {
                let load = &node["load"];
                load["memory_bytes"].as_u64() > Some(1 << 20)
                    && load["cpu_percent"].is_u64()
                    && load["alerts"].is_array()
            };
            match nodes.len() == 2 && nodes.iter().all(is_told) {
                true => Ok(()),
                false => Err(listed),
            }
        })
        .await;
    }
}
