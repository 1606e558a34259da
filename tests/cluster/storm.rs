//! The storm after a node's death: everybody comes back to another node at once, from one position.
//! They all get what they missed, in order, and Redis is asked for it a few times and not by each.

use fanfare_protocol::form::Encoding;
use fanfare_testkit::http;
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::{Talk, data_of};
use fanfare_testkit::turns;
use futures_util::future::join_all;
use serde_json::{Value, json};

const SESSIONS: usize = 200;
const MISSED: u64 = 130;
const HITS: &str = "fanfare_shared_reads_total{result=\"hit\"}";
const MISSES: &str = "fanfare_shared_reads_total{result=\"miss\"}";

async fn publish(node: &Node, data: u64) -> Value {
    let body = json!({"topic": "t", "data": data});
    let answer = http::post(node.api, "/v1/publish", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["results"][0]["position"].clone()
}

/// An anonymous session that belongs to the topic, from this position on.
async fn join(node: &Node, nth: usize, position: &Value) -> Talk {
    let mut talk = Talk::connected(&node.connect_url(""), Encoding::ALL[nth % 2]).await;
    let command = json!({"type": "connect", "positions": {"t": position}});
    let welcome = talk.ask(command).await;
    assert_eq!(welcome["topics"]["t"]["recovered"], true, "{welcome}");
    talk
}

#[tokio::test]
async fn when_a_node_dies_its_sessions_share_what_is_read_for_them_elsewhere() {
    let _turn = turns::heavy().await;
    let redis = RedisServer::start().await;
    let url = redis.url();
    let mut lost = Plan::clustered("lost", &url).start().await;
    let left = Plan::clustered("left", &url).start().await;
    let first = publish(&left, 0).await;
    let before = join_all((0..SESSIONS).map(|nth| join(&lost, nth, &first))).await;
    assert_eq!(left.metric(HITS).await + left.metric(MISSES).await, 0);
    lost.kill();
    drop(before);
    for number in 1..=MISSED {
        publish(&left, number).await;
    }

    let missed: Vec<_> = (1..=MISSED).map(Value::from).collect();
    let back = join_all((0..SESSIONS).map(|nth| join(&left, nth, &first))).await;
    let reading = back.into_iter().map(async |mut talk| {
        let messages = talk.messages("t", missed.len()).await;
        assert_eq!(data_of(&messages), missed);
        talk
    });
    let mut back = join_all(reading).await;

    let (hits, misses) = (left.metric(HITS).await, left.metric(MISSES).await);
    println!("{hits} of {} reads were shared", hits + misses);
    // The place and two pages each.
    assert!(hits + misses >= 3 * SESSIONS as u64, "{hits} and {misses}");
    assert!(hits >= 2 * misses, "{hits} and {misses}");
    publish(&left, MISSED + 1).await;
    for talk in &mut back {
        assert_eq!(talk.message("t").await["data"], MISSED + 1, "once and live");
    }
}
