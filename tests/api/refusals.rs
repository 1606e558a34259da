//! Bad requests, row by row: what is sent, and the exact status and code that come back.

use axum::body::Body;
use axum::http::{Method, Request};
use fanfare::api::body_budget::BODIES_AT_ONCE;
use fanfare::telemetry::labels::{Route, Status};
use serde_json::{Value, json};

use crate::fixture::{BODY_BYTES_MAX, DATA_BYTES_MAX, KEY, Mood, Node, request};

/// Publishes each body and compares status and code; nothing of it may be retained.
async fn assert_refused(rows: &[(Value, u16, &str)]) {
    let node = Node::start();
    for (body, status, code) in rows {
        let error = node.post("/v1/publish", body).await.error();
        assert_eq!(error, (*status, (*code).to_owned()), "{body}");
    }
    let history = node.get("/v1/topics/t/history").await.value();
    assert_eq!(history["publications"], json!([]));
}

#[tokio::test]
async fn a_publication_needs_one_valid_target_and_data() {
    let many: Vec<_> = (0..1_001).map(|n| format!("t{n}")).collect();
    let mut rows = vec![
        (json!({"data": 1}), 400, "bad_request"),
        (json!({"topic": "t"}), 400, "bad_request"),
        (
            json!({"topic": "t", "user": "u", "data": 1}),
            400,
            "bad_request",
        ),
        (
            json!({"topic": "t", "everyone": true, "data": 1}),
            400,
            "bad_request",
        ),
        (json!({"everyone": false, "data": 1}), 400, "bad_request"),
        (json!({"topics": [], "data": 1}), 400, "bad_request"),
        (json!({"topic": 7, "data": 1}), 400, "bad_request"),
        (json!({"topics": many, "data": 1}), 400, "limit_exceeded"),
        (json!({"users": many, "data": 1}), 400, "limit_exceeded"),
        (json!(["t"]), 400, "bad_request"),
        (json!("t"), 400, "bad_request"),
    ];
    let long = "x".repeat(201);
    for topic in ["", "a b", "a{b", "a}b", "a\nb", "%room", "\u{e4}", &long] {
        rows.push((json!({"topic": topic, "data": 1}), 400, "invalid_topic"));
    }
    for user in ["", "a b", "a{b", &long[1..]] {
        rows.push((json!({"user": user, "data": 1}), 400, "invalid_topic"));
    }
    assert_refused(&rows).await;
}

#[tokio::test]
async fn a_publications_fields_have_their_types_and_limits() {
    let long_key = "k".repeat(129);
    let long_data = "x".repeat(DATA_BYTES_MAX);
    let rows = [
        ("priority", json!("urgent"), 400, "bad_request"),
        ("ttl_ms", json!(-1), 400, "bad_request"),
        ("conflate", json!("yes"), 400, "bad_request"),
        ("exclude_session", json!("x"), 400, "bad_request"),
        ("key", json!(""), 400, "bad_request"),
        ("key", json!(long_key), 413, "too_large"),
        ("idempotency_key", json!(""), 400, "bad_request"),
        ("idempotency_key", json!(long_key), 413, "too_large"),
        ("data", json!(long_data), 413, "too_large"),
        ("remove", json!(true), 400, "bad_request"),
        ("if_position", json!("0-0"), 400, "bad_request"),
        ("idempotencyKey", json!("k"), 400, "bad_request"),
        ("ttl", json!(5), 400, "bad_request"),
    ];
    let with = |(field, value, status, code)| {
        let mut body = json!({"topic": "t", "data": 1});
        body[field] = value;
        (body, status, code)
    };
    assert_refused(&rows.map(with)).await;
}

#[tokio::test]
async fn a_refused_name_or_value_is_told_in_our_words() {
    let node = Node::start();
    let priorities = "one of `critical`, `high`, `normal` and `low`";
    let bodies = [
        (
            r#"{"topic":"t","data":1,"idempotencyKey":"k"}"#,
            "did you mean `idempotency_key`?",
        ),
        (
            r#"{"topic":"t","data":1,"ttl":5}"#,
            "did you mean `ttl_ms`?",
        ),
        (
            r#"{"topic":"t","data":1,"x\n":5}"#,
            "there is no field \"x\\n\"",
        ),
        (
            r#"{"topic":"t","data":1,"data":2}"#,
            "the field `data` is there twice",
        ),
        (r#"{"topic":7,"data":1}"#, "the field `topic` must be text"),
        (
            r#"{"topics":["t",7],"data":1}"#,
            "the field `topics` must be a list of texts",
        ),
        (r#"{"topic":"t","data":1,"priority":"urgent"}"#, priorities),
        (
            r#"{"topic":"t","data":1,"ttl_ms":-1}"#,
            "`ttl_ms` must be an unsigned integer",
        ),
        (r#"{"topic":"t"}"#, "the field `data` is missing"),
        (r#"["t"]"#, "the message is not a map"),
    ];
    for (body, says) in bodies {
        let answer = node.post_text("/v1/publish", body).await;
        assert_eq!(answer.error(), (400, "bad_request".into()), "{body}");
        let message = answer.value()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(message.contains(says), "{body}: {message}");
    }
    let nulls = json!({"topic": "t", "data": null, "key": null, "priority": null, "users": null});
    assert_eq!(node.post("/v1/publish", &nulls).await.status, 200);
}

#[tokio::test]
async fn a_refused_parameter_is_told_in_our_words() {
    let node = Node::start();
    let queries = [
        ("/v1/topics?lmit=5", "did you mean `limit`?"),
        (
            "/v1/topics/t/history?limit=ten",
            "the parameter `limit` must be an integer above 0",
        ),
        (
            "/v1/topics/t/history?limit=-1",
            "the parameter `limit` must be an integer above 0",
        ),
        (
            "/v1/topics/t/history?limit=5&limit=6",
            "the parameter `limit` is there twice",
        ),
        (
            "/v1/topics/t/history?reverse=True",
            "the parameter `reverse` must be true or false",
        ),
        (
            "/v1/topics/t/history?since=x",
            "the parameter `since` must be a position",
        ),
        (
            "/v1/topics/t/presence?after=x",
            "the parameter `after` must be a session",
        ),
        ("/v1/topics/%FF", "the name in the path is not UTF-8"),
        ("/v1/nodes?limit=5", "this call has no parameters"),
    ];
    for (path, says) in queries {
        let answer = node.get(path).await;
        assert_eq!(answer.error(), (400, "bad_request".into()), "{path}");
        let message = answer.value()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(message.contains(says), "{path}: {message}");
    }
}

#[tokio::test]
async fn text_that_is_no_json_is_refused_with_the_place() {
    let node = Node::start();
    let rows = [
        (r#"{"topic":"t","data":1"#, "line 1"),
        ("{\"topic\":\"t\",\n\"data\":tru}", "line 2"),
        ("", "line 1"),
        (r#"{"topic":"t","data":1} x"#, "column 24"),
    ];
    for path in ["/v1/publish", "/v1/batch"] {
        for (text, place) in rows {
            let answer = node.post_text(path, text).await;
            assert_eq!(answer.error(), (400, "bad_request".into()), "{text}");
            let message = answer.value()["error"]["message"].to_string();
            let is_batch = path == "/v1/batch";
            assert!(message.contains(place) || is_batch, "{text}: {message}");
        }
    }
}

#[tokio::test]
async fn data_that_the_other_form_cannot_express_is_refused() {
    let node = Node::start();
    let deep = format!(
        r#"{{"topic":"t","data":{}1{}}}"#,
        "[".repeat(65),
        "]".repeat(65)
    );
    let rows = [
        r#"{"topic":"t","data":18446744073709551616}"#,
        r#"{"topic":"t","data":"\ud800"}"#,
        r#"{"topic":"t","data":1e999}"#,
        &deep,
    ];
    for text in rows {
        let answer = node.post_text("/v1/publish", text.to_owned()).await;
        assert_eq!(answer.error(), (400, "bad_request".into()), "{text}");
    }
    let map_with = |data: &[u8]| [b"\x82\xa5topic\xa1t\xa4data", data].concat();
    let rows: [&[u8]; 6] = [
        b"\xc1",
        b"\xd4\x05\x00",
        b"\x81\x01\x02",
        b"\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00",
        b"\xa2\xff\xfe",
        b"\x01\x01",
    ];
    for data in rows {
        let answer = node.post_msgpack("/v1/publish", map_with(data)).await;
        assert_eq!(answer.error(), (400, "bad_request".into()), "{data:x?}");
    }
}

#[tokio::test]
async fn a_batch_that_is_no_list_or_too_long_is_refused_as_a_whole() {
    let node = Node::start();
    let one = json!({"topic": "t", "data": 1});
    let rows = [
        (one.clone(), "bad_request"),
        (json!([]), "bad_request"),
        (json!(vec![one; 1_001]), "limit_exceeded"),
    ];
    for (body, code) in rows {
        assert_eq!(
            node.post("/v1/batch", &body).await.error(),
            (400, code.into())
        );
    }
    let history = node.get("/v1/topics/t/history").await.value();
    assert_eq!(history["publications"], json!([]));
}

#[tokio::test]
async fn a_call_without_the_right_key_is_refused_and_counted() {
    let node = Node::start();
    let keys = [
        (None, "Bearer"),
        (Some("Bearer wrong"), "Bearer error=\"invalid_token\""),
        (Some("Bearer "), "Bearer error=\"invalid_token\""),
        (Some("Basic secret-key"), "Bearer"),
    ];
    for (key, challenge) in keys {
        let mut request = request(Method::GET, "/v1/nodes", Body::empty());
        request.headers_mut().remove("authorization");
        if let Some(key) = key {
            request
                .headers_mut()
                .insert("authorization", key.parse().unwrap());
        }
        let answer = node.send(request).await;
        assert_eq!(answer.error(), (401, "unauthorized".into()), "{key:?}");
        let told = answer.headers["www-authenticate"].to_str().unwrap();
        assert!(told.starts_with(challenge), "{key:?}: {told}");
        assert_eq!(
            told.contains("error"),
            challenge.contains("error"),
            "{told}"
        );
    }
    assert_eq!(node.metrics.control.api_unauthorized.get(), 4);
    let refused = node
        .metrics
        .api
        .requests(Route::Nodes, Status::Unauthorized);
    assert_eq!(refused, 4);
}

#[tokio::test]
async fn a_body_of_another_type_or_none_is_refused() {
    let node = Node::start();
    for content_type in [
        None,
        Some("text/plain"),
        Some("application/jsonx"),
        Some(""),
    ] {
        let mut request = request(Method::POST, "/v1/publish", Body::from("{}"));
        request.headers_mut().remove("content-type");
        if let Some(content_type) = content_type {
            request
                .headers_mut()
                .insert("content-type", content_type.parse().unwrap());
        }
        let error = node.send(request).await.error();
        assert_eq!(
            error,
            (415, "unsupported_media_type".into()),
            "{content_type:?}"
        );
    }
    let mut request = request(
        Method::POST,
        "/v1/publish",
        Body::from(r#"{"topic":"t","data":1}"#),
    );
    let with_charset = "Application/JSON; charset=utf-8".parse().unwrap();
    request.headers_mut().insert("content-type", with_charset);
    assert_eq!(node.send(request).await.status, 200);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_announced_or_not() {
    let node = Node::start();
    let too_long = " ".repeat(BODY_BYTES_MAX + 1);
    let error = node
        .post_text("/v1/publish", too_long.clone())
        .await
        .error();
    assert_eq!(error, (413, "too_large".into()));
    let announced = Request::post("/v1/publish")
        .header("authorization", format!("Bearer {KEY}"))
        .header("content-type", "application/json")
        .header("content-length", BODY_BYTES_MAX + 1)
        .body(Body::from_stream(futures_util::stream::pending::<
            Result<&str, std::io::Error>,
        >()));
    let error = node.send(announced.unwrap()).await.error();
    assert_eq!(
        error,
        (413, "too_large".into()),
        "refused before it arrived"
    );
    let chunks = too_long
        .into_bytes()
        .chunks(1_000)
        .map(<[u8]>::to_vec)
        .collect::<Vec<_>>();
    let chunks = chunks.into_iter().map(Ok::<_, std::io::Error>);
    let chunked = Body::from_stream(futures_util::stream::iter(chunks));
    let error = node.post_text("/v1/batch", chunked).await.error();
    assert_eq!(error, (413, "too_large".into()));
}

#[tokio::test]
async fn bodies_beyond_the_budget_are_told_to_come_later_and_small_ones_pass() {
    let node = Node::start();
    // Bodies that never end hold their part of the budget for as long as they are waited for.
    let endless =
        || Body::from_stream(futures_util::stream::pending::<Result<&str, std::io::Error>>());
    let mut held: Vec<_> = (0..BODIES_AT_ONCE)
        .map(|_| Box::pin(node.post_text("/v1/publish", endless())))
        .collect();
    for waiting in &mut held {
        assert!(futures_util::poll!(waiting).is_pending());
    }
    for path in ["/v1/publish", "/v1/batch"] {
        let mut waits = std::collections::BTreeSet::new();
        for _ in 0..64 {
            let answer = node.post_text(path, endless()).await;
            assert_eq!(answer.error(), (429, "rate_limited".into()));
            let wait = answer.headers["retry-after"].to_str().unwrap();
            waits.insert(wait.parse::<u32>().unwrap());
        }
        // Not all come again at the same time.
        assert!(
            waits.len() > 1 && waits.iter().all(|wait| (1..=5).contains(wait)),
            "{waits:?}"
        );
    }
    // One that announces a short length has room beside them.
    let mut short = request(
        Method::POST,
        "/v1/publish",
        Body::from(r#"{"topic":"t","data":1}"#),
    );
    short
        .headers_mut()
        .insert("content-length", "22".parse().unwrap());
    assert_eq!(node.send(short).await.status, 200);
    held.pop();
    let body = json!({"topic": "t", "data": 1});
    assert_eq!(node.post("/v1/publish", &body).await.status, 200);
}

#[tokio::test]
async fn paths_and_queries_that_are_wrong_are_refused() {
    let node = Node::start();
    let rows = [
        ("/v1/topics/a%20b", 400, "invalid_topic"),
        ("/v1/topics/%25room/presence", 400, "invalid_topic"),
        ("/v1/topics/%FF/history", 400, "bad_request"),
        ("/v1/topics/t/history?since=1", 400, "bad_request"),
        ("/v1/topics/t/history?until=01-0", 400, "bad_request"),
        (
            "/v1/topics/t/history?since=18446744073709551616-0",
            400,
            "bad_request",
        ),
        ("/v1/topics/t/history?limit=0", 400, "bad_request"),
        ("/v1/topics/t/history?limit=1001", 400, "limit_exceeded"),
        (
            "/v1/topics/t/history?limit=99999999999999",
            400,
            "limit_exceeded",
        ),
        ("/v1/topics/t/history?limit=ten", 400, "bad_request"),
        ("/v1/topics/t/history?reverse=maybe", 400, "bad_request"),
        ("/v1/topics/live:t/presence", 400, "bad_request"),
        ("/v1/topics/t/presence?after=x", 400, "bad_request"),
        ("/v1/topics?after=a%20b", 400, "invalid_topic"),
        ("/v1/topics?limit=0", 400, "bad_request"),
        ("/v1/users/a%20b", 400, "invalid_topic"),
        ("/v1/users/u/inbox?since=x", 400, "bad_request"),
        ("/v1/route", 400, "bad_request"),
        ("/v1/route?user=u&topic=t", 400, "bad_request"),
        ("/v1/route?user=a%20b", 400, "invalid_topic"),
        ("/v1/route?topic=", 400, "invalid_topic"),
        ("/nothing", 404, "not_found"),
        ("/v1/topics/a/b/c", 404, "not_found"),
        ("/v1/publish", 405, "method_not_allowed"),
    ];
    for (path, status, code) in rows {
        assert_eq!(
            node.get(path).await.error(),
            (status, code.into()),
            "{path}"
        );
    }
    let answer = node.get("/v1/batch").await;
    assert_eq!(answer.headers["allow"], "POST");
}

#[tokio::test]
async fn a_node_that_is_starting_answers_503_and_a_fault_500() {
    let node = Node::start();
    node.set(Mood::Starting);
    assert_eq!(
        node.get("/v1/nodes").await.error(),
        (503, "unavailable".into())
    );
    node.set(Mood::Panics);
    let answer = node.get("/v1/nodes").await;
    assert_eq!(answer.error(), (500, "internal".into()));
    let text = String::from_utf8(answer.bytes.to_vec()).unwrap();
    assert!(
        !text.contains("out of order"),
        "the panic's text stays inside: {text}"
    );
    node.set(Mood::Well);
    assert_eq!(node.get("/v1/nodes").await.status, 200);
}
