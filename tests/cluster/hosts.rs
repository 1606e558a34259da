//! Nodes on machines that are all called alike.

use std::collections::BTreeSet;

use crate::processes::SOME_BEATS;
use fanfare_testkit::http;
use fanfare_testkit::node::Plan;
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::turns;
use fanfare_testkit::wait;

const NODES: usize = 10;

/// Without `--dev`, which makes up a name by itself.
fn plan(redis: &RedisServer) -> Plan {
    Plan::default()
        .flag(&format!("--redis={}", redis.url()))
        .flag("--workers=1")
        .env("FANFARE_AUTH__ANONYMOUS", "true")
        .env("FANFARE_API__KEYS", http::DEV_KEY)
        .host_name("localhost")
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_nodes_on_machines_called_localhost_all_stay() {
    let _turn = turns::heavy().await;
    let redis = RedisServer::start().await;
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        nodes.push(plan(&redis).start().await);
    }
    let names = wait::until_within(SOME_BEATS, "each to see all", async || {
        let mut seen = BTreeSet::new();
        for node in &nodes {
            let answer = http::get(node.api, "/v1/nodes").await.json();
            let names = answer["nodes"].as_array().ok_or(Vec::new())?.iter();
            let names: BTreeSet<_> = names
                .filter_map(|node| Some(node["node"].as_str()?.to_owned()))
                .collect();
            if names.len() != NODES {
                return Err(names.into_iter().collect::<Vec<_>>());
            }
            seen.extend(names);
        }
        Ok(seen)
    })
    .await;
    assert_eq!(names.len(), NODES, "all see the same: {names:?}");
    for name in &names {
        let end = name.strip_prefix("localhost-").unwrap_or_default();
        let is_hex = |text: &str| text.chars().all(|c| c.is_ascii_hexdigit());
        assert!(end.len() == 8 && is_hex(end), "{name}");
    }
    for node in &nodes {
        assert!(node.is_ready().await);
        for event in ["name_taken", "name_lost", "name_contested"] {
            assert!(node.log_lines(event).is_empty(), "{event}");
        }
    }
}
