//! The durable queue over real nodes: what backends hand to any of them is published once and in
//! order per target and priority, also where homes end in the middle of it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::processes::{SOME_BEATS, plan, sees};
use fanfare_protocol::form::Encoding;
use fanfare_testkit::http;
use fanfare_testkit::node::Node;
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::{Talk, data_of};
use fanfare_testkit::wait;

/// Starts nodes that see each other.
async fn start(redis: &RedisServer, names: &[&str]) -> Vec<Node> {
    let mut nodes = Vec::new();
    for name in names {
        nodes.push(plan(redis, name).start().await);
    }
    for node in &nodes {
        sees(node, names).await;
    }
    nodes
}

async fn enqueue(node: &Node, body: &Value) -> Value {
    let answer = http::post(node.api, "/v1/queue", body).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.json()
}

async fn listener(node: &Node, user: &str) -> Talk {
    let url = node.connect_url(&format!("?user={user}"));
    let (mut talk, _) = Talk::welcomed(&url, Encoding::Json).await;
    talk.be_patient(SOME_BEATS);
    talk
}

/// What `GET /v1/queue` says, when nothing waits any more.
async fn until_empty(node: &Node) -> Value {
    wait::until_within(SOME_BEATS, "the queue to be empty", async || {
        let depth = http::get(node.api, "/v1/queue?partitions=true")
            .await
            .json();
        let left = depth["partitions"].as_array()?;
        let is_empty = |of: &Value| of["depth"] == 0 && of["delayed"] == 0;
        left.iter().all(is_empty).then_some(depth)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_handed_to_any_node_reaches_its_user_on_any_other() {
    let redis = RedisServer::start().await;
    let nodes = start(&redis, &["a", "b", "c"]).await;
    let mut talks = Vec::new();
    for (node, user) in nodes.iter().zip(["ada", "bob", "eve"]) {
        talks.push(listener(node, user).await);
    }
    for number in 0..30_u64 {
        let node = &nodes[number as usize % 3];
        let body = json!({"users": ["ada", "bob", "eve"], "data": number, "idempotency_key": number.to_string()});
        let answer = enqueue(node, &body).await;
        assert_eq!(answer["results"].as_array().map(Vec::len), Some(3));
        assert!(answer["results"][0]["entry"].is_string(), "{answer}");
        // A repeat is none, whichever node has it.
        let again = enqueue(&nodes[(number as usize + 1) % 3], &body).await;
        assert_eq!(again["results"][0]["duplicate"], true, "{again}");
        assert_eq!(again["results"][0]["entry"], answer["results"][0]["entry"]);
    }
    let wanted: Vec<_> = (0..30).map(Value::from).collect();
    for (talk, user) in talks.iter_mut().zip(["ada", "bob", "eve"]) {
        let messages = talk.messages(&format!("@{user}"), 30).await;
        assert_eq!(data_of(&messages), wanted, "{user}");
    }
    let depth = until_empty(&nodes[0]).await;
    assert_eq!(depth["partitions"], json!([]), "no dead letters either");
    let mut published = 0;
    for node in &nodes {
        published += node.metric("fanfare_queue_published_total").await;
    }
    assert_eq!(published, 90);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_waits_for_its_time_and_not_longer() {
    let redis = RedisServer::start().await;
    let nodes = start(&redis, &["a", "b"]).await;
    let mut talk = listener(&nodes[0], "ada").await;
    let now_ms = wait::unix_ms();
    let due = |ms: u64| now_ms + ms;
    for (number, at) in [(3, 900), (1, 600), (2, 600)] {
        let body = json!({"user": "ada", "data": number, "not_before": due(at)});
        enqueue(&nodes[1], &body).await;
    }
    enqueue(&nodes[1], &json!({"user": "ada", "data": 0})).await;
    let messages = talk.messages("@ada", 4).await;
    assert_eq!(data_of(&messages), [0, 1, 2, 3].map(Value::from));
    assert!(wait::unix_ms() >= due(900), "too early");
    // Past its end it is put aside, not published.
    let late =
        json!({"user": "ada", "data": 9, "not_before": due(2_000), "expires_at": due(2_001)});
    enqueue(&nodes[0], &late).await;
    let letter = wait::until_within(SOME_BEATS, "a dead letter or the message", async || {
        let dead = http::get(nodes[0].api, "/v1/queue/dead").await.json();
        dead["letters"].as_array()?.first().cloned()
    })
    .await;
    assert_eq!(letter["why"], "expired", "{letter}");
    assert_eq!(letter["data"], 9, "{letter}");
}

/// Of each priority the numbers in the order in which they came.
fn by_priority(messages: &[Value]) -> BTreeMap<String, Vec<u64>> {
    let mut numbers = BTreeMap::<_, Vec<_>>::new();
    for message in messages {
        let priority = message["priority"].as_str().unwrap_or("normal").to_owned();
        let number = message["data"].as_u64().expect("a number");
        numbers.entry(priority).or_default().push(number);
    }
    numbers
}

#[tokio::test(flavor = "multi_thread")]
async fn homes_that_are_killed_in_the_middle_of_it_lose_double_and_reorder_nothing() {
    const EACH: u64 = 150;
    let redis = RedisServer::start().await;
    let mut nodes = start(&redis, &["a", "b", "c"]).await;
    let users: Vec<_> = (0..20).map(|number| format!("user-{number}")).collect();
    let mut talks = Vec::new();
    for user in &users {
        talks.push(listener(&nodes[0], user).await);
    }
    // The node of the sessions lives; both others are killed while entries come.
    for number in 0..EACH {
        let items: Vec<_> = ["critical", "low"]
            .map(|priority| json!({"users": users, "data": number, "priority": priority}))
            .into();
        let answer = enqueue(&nodes[0], &Value::from(items)).await;
        assert_eq!(answer["failed"], Value::Null, "{answer}");
        if number == EACH / 3 || number == EACH * 2 / 3 {
            nodes.pop().expect("one is left").kill();
        }
    }
    for (talk, user) in talks.iter_mut().zip(&users) {
        let count = usize::try_from(EACH * 2).expect("few");
        let messages = talk.messages(&format!("@{user}"), count).await;
        let wanted: Vec<_> = (0..EACH).collect();
        let numbers = by_priority(&messages);
        assert_eq!(numbers["critical"], wanted, "{user}");
        assert_eq!(numbers["low"], wanted, "{user}");
    }
    let depth = until_empty(&nodes[0]).await;
    assert_eq!(depth["partitions"], json!([]), "no dead letters either");
    for (talk, user) in talks.iter_mut().zip(&users) {
        tokio::time::timeout(Duration::from_millis(20), talk.message(&format!("@{user}")))
            .await
            .expect_err("nothing comes twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_leaves_hands_its_queues_over_at_once() {
    let redis = RedisServer::start().await;
    let mut nodes = start(&redis, &["a", "b"]).await;
    let mut talk = listener(&nodes[0], "ada").await;
    let body = |number: u64| {
        let users: Vec<_> = (0..50).map(|n| format!("other-{n}")).collect();
        json!([{"user": "ada", "data": number}, {"users": users, "data": number}])
    };
    for number in 0..20 {
        enqueue(&nodes[0], &body(number)).await;
    }
    let mut leaving = nodes.pop().expect("b");
    let (ended, ()) = tokio::join!(leaving.terminate(), async {
        for number in 20..60 {
            enqueue(&nodes[0], &body(number)).await;
        }
    });
    assert!(ended.success());
    let messages = talk.messages("@ada", 60).await;
    let wanted: Vec<_> = (0..60).map(Value::from).collect();
    assert_eq!(data_of(&messages), wanted);
    until_empty(&nodes[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_told_by_heartbeats_and_metrics_while_nobody_can_move_it() {
    let redis = RedisServer::start().await;
    let nodes = start(&redis, &["a", "b"]).await;
    let later = wait::unix_ms() + 3_600_000;
    let users: Vec<_> = (0..40).map(|number| format!("user-{number}")).collect();
    let body = json!({"users": users, "data": 1, "not_before": later});
    enqueue(&nodes[0], &body).await;
    for node in &nodes {
        wait::until_within(SOME_BEATS, "the delayed to be told", async || {
            let told = http::get(node.api, "/v1/queue").await.json();
            (told["delayed"] == 40 && told["depth"] == 0).then_some(())
        })
        .await;
    }
    let mut delayed = 0;
    for node in &nodes {
        delayed += node.metric("fanfare_queue_delayed").await;
    }
    assert_eq!(delayed, 40, "each is counted by one node");
    wait::until_within(
        SOME_BEATS,
        "the capacity of both nodes to add up",
        async || {
            let mut capacity = 0;
            for node in &nodes {
                capacity += node.metric("fanfare_queue_capacity").await;
            }
            // Each part is rounded down.
            (49_998..=50_000).contains(&capacity).then_some(())
        },
    )
    .await;
}
