//! Publishing, alone and in batches, in both forms.

use axum::body::Body;
use axum::http::Method;
use serde_json::{Value, json};

use crate::fixture::{Node, request};

/// The `data` of everything that the topic retains, oldest first.
async fn retained(node: &Node, topic: &str) -> Vec<Value> {
    let page = node.get(&format!("/v1/topics/{topic}/history")).await;
    let publications = page.value()["publications"].clone();
    let publications = publications.as_array().unwrap().iter();
    publications
        .map(|message| message["data"].clone())
        .collect()
}

#[tokio::test]
async fn each_kind_of_target_is_published_to_its_topic() {
    let node = Node::start();
    let cases = [
        (json!({"topic": "orders:7", "data": 1}), vec!["orders:7"]),
        (json!({"topics": ["a", "b"], "data": 1}), vec!["a", "b"]),
        (json!({"user": "auth0|x", "data": 1}), vec!["@auth0|x"]),
        (
            json!({"users": ["u", "v@example.org"], "data": 1}),
            vec!["@u", "@v@example.org"],
        ),
        (json!({"everyone": true, "data": 1}), vec!["@"]),
        (
            json!({"everyone": false, "topic": "c", "data": null}),
            vec!["c"],
        ),
    ];
    for (body, topics) in cases {
        let answer = node.post("/v1/publish", &body).await;
        assert_eq!(answer.status, 200, "{body}");
        let answer = answer.value();
        let results = answer["results"].as_array().unwrap();
        let named: Vec<_> = results
            .iter()
            .map(|r| r["topic"].as_str().unwrap())
            .collect();
        assert_eq!(named, topics);
        assert!(
            results.iter().all(|r| r["position"].is_string()),
            "{answer}"
        );
        assert_eq!(
            (&answer["failed"], &answer["error"]),
            (&Value::Null, &Value::Null)
        );
    }
}

#[tokio::test]
async fn a_publication_without_history_has_a_position_all_the_same() {
    let node = Node::start();
    let body = json!({"topic": "live:x", "data": "x"});
    let answer = node.post("/v1/publish", &body).await.value();
    assert!(answer["results"][0]["position"].is_string(), "{answer}");
    assert!(retained(&node, "live:x").await.is_empty());
}

#[tokio::test]
async fn a_message_carries_every_field_that_was_given() {
    let node = Node::start();
    let body = json!({
        "topic": "t", "data": {"n": [1, 2.50, "é"]}, "priority": "high", "key": "k",
        "conflate": true, "ttl_ms": 60_000, "exclude_session": "0".repeat(32),
    });
    assert_eq!(node.post("/v1/publish", &body).await.status, 200);
    let page = node.get("/v1/topics/t/history").await;
    // The bytes of `data` come back as they went in.
    let text = String::from_utf8(page.bytes.to_vec()).unwrap();
    let message = page.value()["publications"][0].clone();
    assert_eq!(message["topic"], "t");
    assert_eq!(message["data"], json!({"n": [1, 2.5, "é"]}));
    assert_eq!(
        (&message["priority"], &message["key"]),
        (&json!("high"), &json!("k"))
    );
    assert!(message["position"].is_string() && message["time"].is_u64());
    assert!(text.contains(r#""é"#), "{text}");
}

#[tokio::test]
async fn a_repeat_answers_with_the_first_position_and_says_so() {
    let node = Node::start();
    let body = json!({"topics": ["t", "u"], "data": 1, "idempotency_key": "once"});
    let first = node.post("/v1/publish", &body).await.value();
    assert_eq!(first["results"][0]["duplicate"], Value::Null);
    let again = node.post("/v1/publish", &body).await.value();
    for at in [0, 1] {
        assert_eq!(again["results"][at]["duplicate"], true);
        assert_eq!(
            again["results"][at]["position"],
            first["results"][at]["position"]
        );
    }
    assert_eq!(retained(&node, "t").await.len(), 1);
}

#[tokio::test]
async fn targets_fail_alone_and_results_keep_the_order_of_the_request() {
    let node = Node::start();
    let body = json!({"topics": ["a", "b b", "", "d"], "data": 1});
    let answer = node.post("/v1/publish", &body).await;
    assert_eq!(answer.status, 200);
    let answer = answer.value();
    assert_eq!(answer["failed"], 2);
    let results = answer["results"].as_array().unwrap();
    let named: Vec<_> = results
        .iter()
        .map(|r| r["topic"].as_str().unwrap())
        .collect();
    assert_eq!(named, ["a", "b b", "", "d"]);
    for at in [1, 2] {
        assert_eq!(results[at]["error"]["code"], "invalid_topic");
        assert_eq!(results[at]["position"], Value::Null);
    }
    for at in [0, 3] {
        assert!(results[at]["position"].is_string());
    }
}

#[tokio::test]
async fn when_no_target_succeeds_the_status_is_the_first_ones() {
    let node = Node::start();
    let answer = node
        .post("/v1/publish", &json!({"users": ["", "a b"], "data": 1}))
        .await;
    assert_eq!(answer.error(), (400, "invalid_topic".into()));
    assert_eq!(answer.value()["failed"], 2);
    assert_eq!(answer.value()["results"][1]["topic"], "@a b");
}

#[tokio::test]
async fn a_batch_answers_item_by_item_and_keeps_the_order_within_a_topic() {
    let node = Node::start();
    let mut items: Vec<_> = (0..200)
        .map(|n| json!({"topic": if n % 2 == 0 { "even" } else { "odd" }, "data": n}))
        .collect();
    items[50] = json!({"topic": "even"});
    items[51] = json!("no map");
    let answer = node.post("/v1/batch", &json!(items)).await;
    assert_eq!(answer.status, 200);
    let answer = answer.value();
    assert_eq!(answer["failed"], 2);
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), 200);
    for at in [50, 51] {
        assert_eq!(results[at]["error"]["code"], "bad_request");
    }
    assert_eq!(results[49]["results"][0]["topic"], "odd");
    let wanted: Vec<_> = (0..200)
        .step_by(2)
        .filter(|n| *n != 50)
        .map(Value::from)
        .collect();
    assert_eq!(retained(&node, "even").await, wanted);
}

#[tokio::test]
async fn a_batch_in_which_nothing_succeeds_has_the_first_items_status() {
    let node = Node::start();
    let items = json!([{"topic": "a b", "data": 1}, {"data": 1}]);
    let answer = node.post("/v1/batch", &items).await;
    assert_eq!(answer.error(), (400, "invalid_topic".into()));
    assert_eq!(answer.value()["failed"], 2);
}

#[tokio::test]
async fn messagepack_is_read_and_answered_and_its_bytes_survive() {
    let node = Node::start();
    // {"topic": "t", "data": {"b": bin ff fe}}
    let body = b"\x82\xa5topic\xa1t\xa4data\x81\xa1b\xc4\x02\xff\xfe".to_vec();
    let answer = node.post_msgpack("/v1/publish", body.clone()).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["content-type"]),
        (200, &"application/msgpack".parse().unwrap())
    );
    assert_eq!(answer.value()["results"][0]["topic"], "t");

    let mut batch = vec![0x92];
    batch.extend_from_slice(&body);
    batch.extend_from_slice(&body);
    let answer = node.post_msgpack("/v1/batch", batch).await.value();
    assert_eq!(answer["results"].as_array().unwrap().len(), 2, "{answer}");

    assert_eq!(retained(&node, "t").await, vec![json!({"b": "//4="}); 3]);
    let mut as_msgpack = request(Method::GET, "/v1/topics/t/history?limit=1", Body::empty());
    let accept = "text/html, application/msgpack;q=0.9".parse().unwrap();
    as_msgpack.headers_mut().insert("accept", accept);
    let page = node.send(as_msgpack).await;
    let bin = b"\xc4\x02\xff\xfe";
    assert!(
        page.bytes.windows(bin.len()).any(|w| w == bin),
        "{:x}",
        page.bytes
    );
}

#[tokio::test]
async fn the_answer_has_the_form_that_accept_names_else_that_of_the_request() {
    let node = Node::start();
    let mut as_json = request(
        Method::POST,
        "/v1/publish",
        Body::from(&b"\x82\xa5topic\xa1t\xa4data\x01"[..]),
    );
    let headers = as_json.headers_mut();
    headers.insert("content-type", "application/msgpack".parse().unwrap());
    headers.insert("accept", "application/json".parse().unwrap());
    let answer = node.send(as_json).await;
    assert_eq!(answer.headers["content-type"], "application/json");

    let error = node.post_msgpack("/v1/publish", b"\x80".to_vec()).await;
    assert_eq!(error.headers["content-type"], "application/msgpack");
    assert_eq!(error.error(), (400, "bad_request".into()));
}

#[tokio::test]
async fn an_answer_waits_once_for_all_its_targets_while_a_worker_is_behind() {
    let node = Node::start();
    node.metrics.workers[0].counters.queued.add(1_000);
    let body = json!({"topics": ["a", "b", "c"], "data": 1});
    let answer = node.post("/v1/publish", &body).await;
    assert_eq!(answer.status, 200, "held back, not refused");
    assert_eq!(node.metrics.control.publish_held.get(), 1);
}
