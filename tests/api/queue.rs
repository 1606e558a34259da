//! The durable queue over the API: what is taken, and what is told of it.
//!
//! In: entries of the tests, over the in-process broker. Out: answers. Bad input of a whole node is in
//! `tests/node/queue_bad_input.rs`, dead letters in `tests/api/dead_letters.rs`.

use std::time::{SystemTime, UNIX_EPOCH};

use fanfare::api::state::QueueStatus;
use fanfare::cluster::queue_told::QueueTold;
use serde_json::json;

use crate::fixture::Node;

pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

#[tokio::test]
async fn each_target_is_an_entry_and_a_repeat_with_the_same_key_is_the_same_entry() {
    let node = Node::start();
    let body = json!({"topics": ["a", "b", "a b"], "data": 1, "idempotency_key": "k"});
    let first = node.post("/v1/queue", &body).await;
    assert_eq!(first.status, 202);
    let first = first.value();
    assert_eq!(
        (&first["durable"], &first["failed"]),
        (&json!(false), &json!(1))
    );
    let results = first["results"].as_array().unwrap();
    assert_eq!(results.len(), 3);
    assert_eq!(results[2]["error"]["code"], "invalid_topic");
    let again = node.post("/v1/queue", &body).await.value();
    for at in [0, 1] {
        assert!(results[at].get("duplicate").is_none());
        assert_eq!(again["results"][at]["duplicate"], true);
        assert_eq!(again["results"][at]["entry"], results[at]["entry"]);
        assert!(results[at]["entry"].as_str().unwrap().contains('-'));
    }
    // A publication's key is another one.
    let body = json!({"topic": "a", "data": 1, "idempotency_key": "k"});
    let published = node.post("/v1/publish", &body).await.value();
    assert!(published["results"][0].get("duplicate").is_none());
}

#[tokio::test]
async fn a_list_has_one_answer_for_each_body_and_nothing_is_published_yet() {
    let node = Node::start();
    let list = json!([
        {"topic": "a", "data": 1},
        {"topic": "a b", "data": 2},
        {"topic": "a"},
        {"everyone": true, "data": 4, "not_before": unix_ms() + 60_000, "traceparent": "00-1-2-01"},
    ]);
    for _ in ["json", "msgpack"] {
        let answer = node.post("/v1/queue", &list).await;
        assert_eq!(answer.status, 202);
        let answer = answer.value();
        assert_eq!(answer["durable"], false);
        assert_eq!(answer["failed"], 2);
        let codes = [1, 2].map(|at| answer["results"][at]["error"]["code"].clone());
        assert_eq!(codes, ["invalid_topic", "bad_request"]);
        assert!(answer["results"][0]["results"][0]["entry"].is_string());
        assert!(answer["results"][0].get("durable").is_none());
        assert_eq!(answer["results"][3]["results"][0]["topic"], "@");
    }
    let msgpack = rmp_serde::to_vec_named(&list).unwrap();
    let answer = node.post_msgpack("/v1/queue", msgpack).await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.value()["results"].as_array().unwrap().len(), 4);
    let history = node.get("/v1/topics/a/history").await.value();
    assert_eq!(history["publications"], json!([]));
    let depth = node.get("/v1/queue?partitions=true").await.value();
    let sum = |name: &str| -> u64 {
        let partitions = depth["partitions"].as_array().unwrap().iter();
        partitions.map(|one| one[name].as_u64().unwrap()).sum()
    };
    assert_eq!((sum("depth"), sum("delayed"), sum("dead")), (3, 3, 0));
    assert_eq!(depth["partitions"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_depth_is_what_all_nodes_said() {
    let node = Node::start();
    *node.directory.queue.lock().unwrap() = QueueStatus {
        told: QueueTold {
            due: [1, 2, 3, 4],
            oldest_ms: [5, 600, 0, 7],
            later: 8,
            dead: 9,
            pressure: 6,
        },
        redis_memory_percent: None,
    };
    let wanted = json!({
        "depth": 10, "due": {"critical": 1, "high": 2, "normal": 3, "low": 4}, "delayed": 8,
        "dead": 9, "oldest_ms": 600, "capacity": 50_000, "pressure": 6, "durable": false
    });
    assert_eq!(node.get("/v1/queue").await.value(), wanted);
    let partitions = node.get("/v1/queue?partitions=true").await.value();
    assert_eq!(partitions["partitions"], json!([]));
}

#[tokio::test]
async fn each_priority_is_refused_in_its_own_time_and_the_bound_is_told() {
    let node = Node::start();
    let tell = |due, later, redis_memory_percent| {
        let told = QueueTold {
            due: [0, 0, due, 0],
            later,
            ..QueueTold::default()
        };
        *node.directory.queue.lock().unwrap() = QueueStatus {
            told,
            redis_memory_percent,
        };
    };
    let body = |priority: &str| json!({"topic": "t", "data": 1, "priority": priority});
    let rows = [
        (34_999, 0, None, 0),
        (35_000, 0, None, 1),
        (20_000, 20_000, None, 2),
        (45_000, 0, None, 3),
        (0, 50_000, None, 4),
        (0, 0, Some(79), 0),
        (0, 0, Some(80), 1),
        (0, 0, Some(85), 2),
        (0, 0, Some(90), 3),
        (0, 0, Some(95), 4),
    ];
    for (due, later, memory, refused_count) in rows {
        let priorities = ["low", "normal", "high", "critical"]
            .into_iter()
            .enumerate();
        for (at, priority) in priorities {
            tell(due, later, memory);
            let answer = node.post("/v1/queue", &body(priority)).await;
            if at >= refused_count {
                assert_eq!(
                    answer.status, 202,
                    "{priority} of {due}, {later}, {memory:?}"
                );
                continue;
            }
            assert_eq!(answer.error(), (429, "rate_limited".into()));
            let message = answer.value()["error"]["message"].to_string();
            let bound = match memory {
                Some(_) => "maxmemory",
                None => "queue.capacity",
            };
            assert!(message.contains(bound), "{message}");
        }
    }
    // Each target by its own priority, and what a request takes itself counts.
    tell(34_999, 0, None);
    let list = json!([body("low"), body("low"), body("normal")]);
    let answer = node.post("/v1/queue", &list).await;
    assert_eq!(answer.status, 202);
    let answer = answer.value();
    assert_eq!(answer["failed"], 1);
    assert_eq!(answer["results"][1]["error"]["code"], "rate_limited");
    let wait_ms = &answer["results"][1]["results"][0]["error"]["retry_after_ms"];
    assert!(
        (1_000..=2_000).contains(&wait_ms.as_u64().unwrap()),
        "{answer}"
    );
}

#[tokio::test]
async fn a_request_of_which_nothing_is_taken_has_the_error_that_lasts_longest() {
    let node = Node::start();
    node.directory.queue.lock().unwrap().told.later = 50_000;
    let good = json!({"topic": "t", "data": 1});
    let bad = json!({"topic": "a b", "data": 1});
    for list in [
        json!([good, bad]),
        json!([bad, good]),
        json!([good, {}, good]),
    ] {
        let answer = node.post("/v1/queue", &list).await;
        assert_eq!(answer.error().0, 400, "{list}");
    }
    let answer = node
        .post("/v1/queue", &json!({"topics": ["t", "a b"], "data": 1}))
        .await;
    assert_eq!(answer.error(), (400, "invalid_topic".into()));
    let answer = node.post("/v1/queue", &good).await;
    assert_eq!(answer.error(), (429, "rate_limited".into()));
    // It is far above the bound.
    let wait: u64 = answer.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((2..=5).contains(&wait), "{wait}");
    let wait_ms = answer.value()["error"]["retry_after_ms"].as_u64().unwrap();
    assert_eq!(wait_ms.div_ceil(1_000), wait);
}

#[tokio::test]
async fn what_this_node_took_counts_before_any_figure_tells_it() {
    let node = Node::start();
    node.directory.queue.lock().unwrap().told.later = 49_000;
    let topics: Vec<_> = (0..700).map(|n| format!("t{n}")).collect();
    let body = |key: &str| json!({"topics": topics, "data": 1, "priority": "critical", "idempotency_key": key});
    let failed = async |key: &str| {
        let answer = node.post("/v1/queue", &body(key)).await.value();
        answer["failed"].as_u64().unwrap_or(0)
    };
    assert_eq!(failed("a").await, 0);
    // Repeats are no new entries, and take no room once they are known.
    let repeats =
        json!([{"topic": "t1", "data": 1, "priority": "critical", "idempotency_key": "a"}]);
    for _ in 0..400 {
        assert_eq!(node.post("/v1/queue", &repeats).await.status, 202);
    }
    assert_eq!(failed("b").await, 400);
    assert_eq!(failed("c").await, 700);
}

#[tokio::test]
async fn behind_a_refused_entry_none_of_its_target_is_tried() {
    let node = Node::start();
    let long = "x".repeat(20_000);
    let of = |topic: &str, data: &str| json!({"topic": topic, "data": data});
    let list = json!([
        of("t", "1"),
        of("t", &long),
        of("t", "3"),
        of("other", "4"),
        {"topics": ["t", "u"], "data": 5},
        {"user": "ada", "data": 6, "priority": "urgent"},
        {"user": "ada", "data": 7},
    ]);
    let answer = node.post("/v1/queue", &list).await;
    assert_eq!(answer.status, 202);
    let answer = answer.value();
    let of = |item: usize, at: usize| answer["results"][item]["results"][at].clone();
    assert_eq!(answer["results"][1]["error"]["code"], "too_large");
    assert_eq!(answer["results"][5]["error"]["code"], "bad_request");
    for (item, at) in [(2, 0), (4, 0), (6, 0)] {
        let error = of(item, at)["error"].clone();
        assert_eq!(
            (&error["code"], &error["not_tried"]),
            (&json!("unavailable"), &json!(true)),
            "{item}"
        );
    }
    for (item, at) in [(0, 0), (3, 0), (4, 1)] {
        assert!(of(item, at)["entry"].is_string(), "{item}");
    }
    // The same where there is no room: a later one is not taken though there is room again.
    node.directory.queue.lock().unwrap().told.later = 39_999;
    let full = json!([of_priority("low"), of_priority("low"), of_priority("high")]);
    let answer = node.post("/v1/queue", &full).await.value();
    let codes = [0, 1, 2].map(|at| {
        let result = &answer["results"][at]["results"][0];
        (
            result["error"]["code"].clone(),
            result["error"]["not_tried"] == true,
        )
    });
    let wanted = [
        (json!("rate_limited"), false),
        (json!("unavailable"), true),
        (json!(null), false),
    ];
    assert_eq!(codes, wanted, "{answer}");
}

fn of_priority(priority: &str) -> serde_json::Value {
    json!({"topic": "row", "data": 1, "priority": priority})
}
