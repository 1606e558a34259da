//! Two clusters on two databases of one server, with nodes of the same name: neither hears the
//! other.

use serde_json::json;

use crate::processes::{SOME_BEATS, sees};
use fanfare_protocol::form::Encoding;
use fanfare_testkit::http;
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::wait;

async fn start(redis: &RedisServer, database: &str) -> Node {
    Plan::clustered("same", &format!("{}{database}", redis.url()))
        .env("FANFARE_DRAIN__WINDOW_MS", "500")
        .start()
        .await
}

async fn publish(node: &Node, body: serde_json::Value) {
    let answer = http::post(node.api, "/v1/publish", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_on_two_databases_hear_nothing_of_each_other() {
    let redis = RedisServer::start().await;
    let names = ["", "/1", "/11"];
    let mut nodes = Vec::new();
    let mut talks = Vec::new();
    for name in names {
        let node = start(&redis, name).await;
        let mut talk = Talk::connected(&node.connect_url("?user=alice"), Encoding::Json).await;
        talk.ok(json!({"type": "subscribe", "topic": "t", "presence": true}))
            .await;
        nodes.push(node);
        talks.push(talk);
    }
    for node in &nodes {
        sees(node, &["same"]).await;
    }
    // Each says so much to its own, and the others one thing at the end.
    for (node, name) in nodes.iter().zip(names) {
        for n in 0..3 {
            publish(node, json!({"topic": "t", "data": [name, n]})).await;
            publish(node, json!({"user": "alice", "data": [name, n]})).await;
            publish(node, json!({"everyone": true, "data": [name, n]})).await;
        }
    }
    for (talk, name) in talks.iter_mut().zip(names) {
        for topic in ["t", "@alice", "@"] {
            for n in 0..3 {
                let event = talk
                    .event(|event| {
                        event["topic"] == topic
                            && (event["type"] == "message" || event["type"] == "gap")
                    })
                    .await;
                assert_eq!(event["data"], json!([name, n]), "{topic}: {event}");
            }
        }
    }
    // Orders to nodes: a disconnect of the same user, a drain of a node of the same name.
    let answer = http::post(nodes[1].api, "/v1/users/alice/disconnect", &json!({})).await;
    assert_eq!(answer.status.as_u16() / 100, 2, "{}", answer.text());
    assert_eq!(talks[1].close_code().await, Some(4002));
    let answer = http::post(nodes[2].api, "/v1/nodes/same/drain", &json!({})).await;
    assert_eq!(answer.status.as_u16() / 100, 2, "{}", answer.text());
    let mut leaving = nodes.remove(2);
    wait::until_within(SOME_BEATS, "it to leave", async || {
        (!leaving.log_lines("drain_started").is_empty()).then_some(())
    })
    .await;
    assert_eq!(leaving.ended_within(SOME_BEATS).await.code(), Some(0));
    // The first cluster has heard of none of it.
    publish(&nodes[0], json!({"topic": "t", "data": "last"})).await;
    let is_told = |event: &serde_json::Value| event["type"] == "message" || event["type"] == "gap";
    let event = talks[0].event(is_told).await;
    assert_eq!(event["data"], "last", "{event}");
    assert!(nodes[0].log_lines("publications_lost").is_empty());
    assert!(nodes[0].log_lines("drain_asked").is_empty());
    assert!(nodes[0].is_ready().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_the_server_has_not_is_named() {
    let redis = RedisServer::start().await;
    let node = Plan::clustered("one", &format!("{}/16", redis.url()))
        .start_unready()
        .await;
    wait::until_within(SOME_BEATS, "the reason", async || {
        let said = http::get(node.api, "/health/ready").await.text();
        said.contains("the server has no database of that number")
            .then_some(())
    })
    .await;
}
