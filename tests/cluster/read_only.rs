//! Redis answers and refuses heartbeats: nodes serve what needs no write, keep their lives, and say why
//! they wait.

use serde_json::{Value, json};

use crate::processes::{PROCESS_LEASE, SOME_BEATS, owner_of, plan, plan_over, sees};
use fanfare_protocol::form::Encoding;
use fanfare_testkit::http;
use fanfare_testkit::node::Node;
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::wait;

/// What `/health/detailed` says of a node's membership.
async fn membership(node: &Node) -> Value {
    let answer = http::get(node.api, "/health/detailed").await.json();
    let components = answer["components"].as_array().expect("a list");
    let found = components.iter().find(|part| part["name"] == "membership");
    found.expect("it is told").clone()
}

/// Waits until a node is not ready and says all of this.
async fn says(node: &Node, words: &[&str]) {
    wait::until_within(SOME_BEATS, "the reasons", async || {
        let answer = http::get(node.api, "/health/ready").await;
        let (status, reasons) = (answer.status, answer.json()["reasons"].to_string());
        let are_told = words.iter().all(|word| reasons.contains(word));
        (status == 503 && are_told).then_some(())
    })
    .await;
    let detailed = http::get(node.api, "/health/detailed").await.text();
    for word in words {
        assert!(detailed.contains(word), "{word}: {detailed}");
    }
}

async fn reads(node: &Node) {
    let (mut talk, _) = Talk::welcomed(&node.connect_url("?user=ada"), Encoding::Json).await;
    talk.be_patient(SOME_BEATS);
    let page = talk.ok(json!({"type": "history", "topic": "t"})).await;
    let publications = page["publications"].as_array().map(Vec::len);
    assert_eq!(publications, Some(1), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_serve_where_an_outage_ends_read_only() {
    let mut redis = RedisServer::start().await;
    let [a, b] = ["a", "b"].map(|name| plan(&redis, name).start());
    let (a, b) = tokio::join!(a, b);
    let nodes = [&a, &b];
    sees(&a, &["a", "b"]).await;
    let before = [owner_of("a", &a).await, owner_of("b", &a).await];
    let publication = json!({"topic": "t", "data": 1});
    let publish = async || http::post(a.api, "/v1/publish", &publication).await;
    assert_eq!(publish().await.status, 200);

    redis.kill();
    for node in nodes {
        // So a lease has passed since its last heartbeat.
        wait::until_within(SOME_BEATS, "the view to be old", async || {
            (membership(node).await["healthy"] == false).then_some(())
        })
        .await;
    }
    redis.restart_with(&["--min-replicas-to-write", "1"]).await;
    for node in nodes {
        wait::until_within(SOME_BEATS, "the node to be ready", async || {
            node.is_ready().await.then_some(())
        })
        .await;
        assert_eq!(node.until_told("heartbeat_refused").await.len(), 1);
    }
    // One that starts meanwhile says why it has to wait.
    let c = plan(&redis, "c").start_unready().await;
    says(&c, &["the first heartbeat is refused", "NOREPLICAS"]).await;
    tokio::time::sleep(2 * PROCESS_LEASE).await;
    for node in nodes {
        assert!(node.is_ready().await, "{}", node.log_text());
        let shown = http::get(node.api, "/v1/nodes").await.json();
        let fresh = &shown["nodes"][0]["fresh"];
        assert_eq!(fresh, false, "nobody is told who died: {shown}");
        let told = membership(node).await["detail"].to_string();
        assert!(told.contains("heartbeats are refused"), "{told}");
        assert!(told.contains("NOREPLICAS"), "{told}");
        reads(node).await;
    }
    let refused = publish().await;
    assert!(refused.text().contains("NOREPLICAS"), "{}", refused.text());

    let set = redis.command(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    assert_eq!(set.as_deref(), Some("+OK"));
    for node in nodes {
        node.until_told("heartbeat_answered").await;
        assert!(node.log_lines("incarnation_changed").is_empty());
    }
    sees(&a, &["a", "b", "c"]).await;
    let after = [owner_of("a", &a).await, owner_of("b", &a).await];
    assert_eq!(after, before, "the same lives");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_on_a_read_only_redis_says_why_it_waits() {
    let mut redis = RedisServer::with(&["--min-replicas-to-write", "1"]);
    redis.restart().await;
    let node = plan(&redis, "a").start_unready().await;
    says(&node, &["cannot be written", "NOREPLICAS"]).await;
    let set = redis.command(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    assert_eq!(set.as_deref(), Some("+OK"));
    node.until_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_heartbeats_lack_is_told() {
    let redis = RedisServer::start().await;
    let url = redis.url_of_user();
    let node = plan_over(&url, "a").start().await;
    let taken = redis.command(&["ACL", "SETUSER", "fanfare", "resetkeys", "~ff:*"]);
    assert_eq!(taken.as_deref(), Some("+OK"));
    says(&node, &["heartbeats are refused", "NOPERM"]).await;
    let late = plan_over(&url, "b").start_unready().await;
    says(&late, &["NOPERM"]).await;
    let given = redis.command(&["ACL", "SETUSER", "fanfare", "~{ff:*"]);
    assert_eq!(given.as_deref(), Some("+OK"));
    for node in [&node, &late] {
        node.until_ready().await;
    }
}
