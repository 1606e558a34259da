//! A node for the API only beside one with sessions: what it serves, what it says of itself, and that nobody
//! is sent away for its sake.

use std::time::Duration;

use fanfare_protocol::form::Encoding;
use fanfare_testkit::http;
use fanfare_testkit::node::{Node, Plan, log_field};
use fanfare_testkit::raw::{Handshake, Raw};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::wait;
use serde_json::json;

use crate::processes::{plan, sees};

/// So many are above any tolerance where another node would take some of them.
const SESSIONS: usize = 40;

/// With everything that makes rebalancing begin soon.
fn eager(plan: Plan) -> Plan {
    plan.env("FANFARE_REBALANCE__SETTLE_MS", "1000")
        .env("FANFARE_REBALANCE__TOLERANCE_PERCENT", "10")
}

async fn with_sessions(redis: &RedisServer) -> (Node, Vec<Talk>) {
    let node = eager(plan(redis, "public")).start().await;
    let mut sessions = Vec::new();
    for nth in 0..SESSIONS {
        let url = node.connect_url(&format!("?user=u{nth}"));
        sessions.push(Talk::welcomed(&url, Encoding::Json).await.0);
    }
    (node, sessions)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_for_the_api_only_publishes_to_others_and_has_no_part_in_rebalancing() {
    let redis = RedisServer::start().await;
    let (public, mut sessions) = with_sessions(&redis).await;
    let api = plan(&redis, "api").without_sessions().start().await;
    sees(&public, &["api", "public"]).await;
    let started = &api.log_lines("node_started")[0];
    assert!(log_field(started, "public").is_none(), "{started}");

    let shown = http::get(public.api, "/v1/nodes").await.json();
    let nodes = shown["nodes"].as_array().expect("a list");
    let of = |name: &str| nodes.iter().find(|node| node["node"] == name);
    assert_eq!(of("api").expect("it is there")["api_only"], true);
    assert!(of("public").expect("it is there")["api_only"].is_null());

    sessions[0].subscribe("news", json!({})).await;
    let publication = json!({"topic": "news", "data": 7});
    let answer = http::post(api.api, "/v1/publish", &publication).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(sessions[0].message("news").await["data"], 7);

    // It would begin a second after the node came, and is looked at once a second.
    let seconds = Duration::from_secs(5);
    tokio::time::sleep(seconds).await;
    assert_eq!(public.metric("fanfare_rebalanced_total").await, 0);
    assert_eq!(public.metric("fanfare_rebalance_excess_sessions").await, 0);
    // Where a node comes that takes sessions, it does begin.
    let _third = eager(plan(&redis, "third")).start().await;
    wait::until("sessions to be sent away", async || {
        (public.metric("fanfare_rebalanced_total").await > 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_a_node_without_sessions_for_one_is_told_what_it_is() {
    let redis = RedisServer::start().await;
    let mut api = plan(&redis, "api").without_sessions().start().await;
    let asked = async |node: &Node| {
        let mut raw = Raw::open(node.api).await;
        raw.send(&Handshake::to("/v1/connect").bytes()).await;
        let (head, body) = raw.answer().await.expect("an answer");
        (head.status, String::from_utf8(body).expect("UTF-8"))
    };
    let (status, body) = asked(&api).await;
    assert_eq!(status, 404, "{body}");
    let text = "this node takes no sessions (server.listen is none); connect to one that does";
    assert!(body.contains(text), "{body}");
    let other = plan(&redis, "public").start().await;
    let (status, body) = asked(&other).await;
    assert_eq!(status, 404, "{body}");
    let text = "sessions connect to the public listener (server.listen), not to the API";
    assert!(body.contains(text), "{body}");
    assert_eq!(api.terminate().await.code(), Some(0));
}
