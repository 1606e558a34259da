//! How a node did, as its API tells it.

use fanfare_protocol::error::ErrorCode;
use serde_json::{Value, json};

use crate::fixture::{Mood, Node};

async fn performance(node: &Node, query: &str) -> Value {
    let answer = node.get(&format!("/v1/performance{query}")).await;
    assert_eq!(answer.status, 200, "{query}");
    answer.value()
}

#[tokio::test]
async fn each_window_tells_measures_errors_and_whether_memory_grows() {
    let node = Node::start();
    for (query, window) in [
        ("", "15m"),
        ("?window=15m", "15m"),
        ("?window=24h", "24h"),
        ("?window=7d", "7d"),
    ] {
        let told = performance(&node, query).await;
        assert_eq!(told["window"], window);
        assert_eq!(told["covered_s"], 3.0, "{told}");
        let sessions = json!({"min": 0.0, "mean": 1.0, "max": 2.0, "latest": 2.0});
        assert_eq!(told["measures"]["sessions"], sessions);
        // The newest second had no request.
        let requests = json!({"min": 2.5, "mean": 2.5, "max": 2.5});
        assert_eq!(told["measures"]["request_ms"], requests);
        // What was not measured is not there, and is not 0.
        let names = told["measures"].as_object().expect("measures").len();
        assert_eq!(names, 2, "{told}");
        assert_eq!(told["errors"], json!({"unavailable": 7}));
        assert_eq!(told["alerts"], json!([]));
        assert_eq!(told["memory_growth"]["verdict"], "too_short");
        assert!(told["newest"].as_u64() > Some(0) && told["age_ms"].is_u64());
    }
}

#[tokio::test]
async fn a_window_that_there_is_not_is_refused_with_those_that_there_are() {
    let node = Node::start();
    for query in [
        "window=1h",
        "window=",
        "window=15M",
        "window=%00",
        "window=15m,24h",
    ] {
        let answer = node.get(&format!("/v1/performance?{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
        let error = answer.value();
        assert_eq!(error["error"]["code"], "bad_request", "{query}");
        let message = error["error"]["message"].as_str().expect("a message");
        let said = "the parameter `window` must be 15m, 24h or 7d";
        assert_eq!(message, said, "{query}");
    }
    let twice = node.get("/v1/performance?window=15m&window=24h").await;
    assert_eq!(twice.status, 400);
}

#[tokio::test]
async fn errors_of_calls_are_counted_by_code_also_where_the_answer_has_results() {
    let node = Node::start();
    let count = |code| node.metrics.api.errors.of(code).get();
    // Its answer has the results of all items, and the status of the first.
    let items = json!([{"topic": "t"}, {"topic": "t"}]);
    let batch = node.post("/v1/batch", &items).await;
    assert_eq!(batch.status, 400);
    assert_eq!(batch.value()["failed"], 2);
    assert_eq!(count(ErrorCode::BadRequest), 1);
    assert_eq!(node.get("/v1/topics?limit=0").await.status, 400);
    assert_eq!(count(ErrorCode::BadRequest), 2);
    // What is no call is not counted, nor is a health check that says no.
    assert_eq!(node.get("/nowhere").await.status, 404);
    assert_eq!(count(ErrorCode::NotFound), 0);
    node.set(Mood::Starting);
    assert_eq!(node.get("/health/ready").await.status, 503);
    assert_eq!(count(ErrorCode::Unavailable), 0);
    assert_eq!(node.get("/v1/nodes").await.status, 503);
    assert_eq!(count(ErrorCode::Unavailable), 1);
}
