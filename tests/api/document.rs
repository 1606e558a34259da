//! The OpenAPI document against the router: the same calls, and every status really given.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, Request};
use fanfare::api::body_budget::BODIES_AT_ONCE;
use fanfare::api::openapi;
use fanfare::api::state::Revoked;
use serde_json::{Value, json};

use crate::fixture::{BARE_KEY, BODY_BYTES_MAX, Mood, Node, request, state};

/// Where the document is kept for people and tools that have no node at hand.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");

/// A call, and two requests of it: a good one and one that is refused with 400.
struct Call {
    method: &'static str,
    path: &'static str,
    good: (&'static str, &'static str),
    bad: Option<(&'static str, &'static str)>,
}

/// A call without a body.
fn get(path: &'static str, good: &'static str, bad: Option<&'static str>) -> Call {
    Call {
        method: "get",
        path,
        good: (good, ""),
        bad: bad.map(|bad| (bad, "")),
    }
}

fn post(
    path: &'static str,
    good: (&'static str, &'static str),
    bad: (&'static str, &'static str),
) -> Call {
    Call {
        method: "post",
        path,
        good,
        bad: Some(bad),
    }
}

/// Those of the durable queue.
fn queue_calls() -> Vec<Call> {
    let publication = r#"{"topic":"t","data":1}"#;
    vec![
        post("/v1/queue", ("/v1/queue", publication), ("/v1/queue", "[]")),
        get("/v1/queue", "/v1/queue", Some("/v1/queue?partitions=1")),
        get(
            "/v1/queue/dead",
            "/v1/queue/dead",
            Some("/v1/queue/dead?limit=0"),
        ),
        Call {
            method: "delete",
            ..get(
                "/v1/queue/dead",
                "/v1/queue/dead?why=failed",
                Some("/v1/queue/dead"),
            )
        },
        post(
            "/v1/queue/dead/redrive",
            ("/v1/queue/dead/redrive", r#"{"why":"failed"}"#),
            ("/v1/queue/dead/redrive", "{}"),
        ),
    ]
}

fn calls() -> Vec<Call> {
    let mut calls = queue_calls();
    calls.extend(other_calls());
    calls.extend(app_calls());
    calls
}

fn other_calls() -> Vec<Call> {
    let publication = r#"{"topic":"t","data":1}"#;
    let batch = r#"[{"topic":"t","data":1}]"#;
    vec![
        post(
            "/v1/publish",
            ("/v1/publish", publication),
            ("/v1/publish", "{}"),
        ),
        post("/v1/batch", ("/v1/batch", batch), ("/v1/batch", "{}")),
        post(
            "/v1/users/{user}/disconnect",
            ("/v1/users/u/disconnect", ""),
            ("/v1/users/%20/disconnect", ""),
        ),
        post(
            "/v1/users/{user}/revoke",
            ("/v1/users/u/revoke", "{}"),
            ("/v1/users/%20/revoke", ""),
        ),
        post(
            "/v1/revoke",
            ("/v1/revoke", r#"{"all":true}"#),
            ("/v1/revoke", "{}"),
        ),
        get("/v1/topics", "/v1/topics", Some("/v1/topics?limit=0")),
        get("/v1/topics/{topic}", "/v1/topics/t", Some("/v1/topics/%20")),
        get(
            "/v1/topics/{topic}/history",
            "/v1/topics/t/history",
            Some("/v1/topics/t/history?since=x"),
        ),
        get(
            "/v1/topics/{topic}/presence",
            "/v1/topics/t/presence",
            Some("/v1/topics/t/presence?limit=0"),
        ),
        get("/v1/users/{user}", "/v1/users/u", Some("/v1/users/%20")),
        get(
            "/v1/users/{user}/inbox",
            "/v1/users/u/inbox",
            Some("/v1/users/u/inbox?limit=0"),
        ),
        get("/v1/nodes", "/v1/nodes", Some("/v1/nodes?x=1")),
        post(
            "/v1/nodes/{node}/drain",
            ("/v1/nodes/node-a/drain", ""),
            ("/v1/nodes/%20/drain", ""),
        ),
        get(
            "/v1/performance",
            "/v1/performance?window=24h",
            Some("/v1/performance?window=1h"),
        ),
        get("/v1/audit", "/v1/audit", Some("/v1/audit?limit=0")),
        get("/v1/route", "/v1/route?user=u", Some("/v1/route")),
        get("/health", "/health", None),
        get("/health/live", "/health/live", None),
        get("/health/ready", "/health/ready", None),
        get("/health/detailed", "/health/detailed", None),
        get("/metrics", "/metrics", None),
        get("/openapi.json", "/openapi.json", None),
    ]
}

/// Those of apps.
fn app_calls() -> Vec<Call> {
    let path = "/v1/apps/{app}";
    let bad = Some("/v1/apps/Shop");
    vec![
        get("/v1/apps", "/v1/apps", Some("/v1/apps?limit=0")),
        get(path, "/v1/apps/default", bad),
        Call {
            method: "put",
            ..post(path, (A_STORED_APP, "{}"), (A_STORED_APP, "[]"))
        },
        Call {
            method: "delete",
            ..get(path, A_STORED_APP, bad)
        },
    ]
}

const A_STORED_APP: &str = "/v1/apps/stored";

fn document() -> Value {
    serde_json::from_slice(&openapi::text()).unwrap()
}

/// Everything documented: method, path, status.
fn documented() -> BTreeSet<(String, String, String)> {
    let document = document();
    let mut documented = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            for status in operation["responses"].as_object().unwrap().keys() {
                documented.insert((method.clone(), path.clone(), status.clone()));
            }
        }
    }
    documented
}

fn made(call: &Call, (path, body): (&str, &str)) -> Request<Body> {
    let method = call.method.to_uppercase().parse().unwrap();
    request(method, path, Body::from(body.to_owned()))
}

fn endless() -> Body {
    Body::from_stream(futures_util::stream::pending::<Result<&str, std::io::Error>>())
}

/// All statuses that can be got out of one call.
async fn statuses(call: &Call) -> BTreeSet<u16> {
    let node = Node::start();
    let good = || made(call, call.good);
    let mut requests = vec![good()];
    if matches!(call.method, "put" | "delete") && call.path == "/v1/apps/{app}" {
        let put = request(Method::PUT, A_STORED_APP, Body::from("{}"));
        requests.insert(0, put);
        requests.push(made(call, ("/v1/apps/default", "{}")));
    }
    requests.extend(call.bad.map(|bad| made(call, bad)));
    let mut without_key = good();
    without_key.headers_mut().remove("authorization");
    requests.push(without_key);
    if call.path.starts_with("/v1/") {
        let mut without_scope = good();
        let bare = format!("Bearer {BARE_KEY}").parse().unwrap();
        without_scope.headers_mut().insert("authorization", bare);
        requests.push(without_scope);
        let mut of_no_app = good();
        let unknown = "shop".parse().unwrap();
        of_no_app.headers_mut().insert("fanfare-app", unknown);
        requests.push(of_no_app);
    }
    let has_body = matches!(call.method, "post" | "put");
    if has_body {
        let mut as_text = good();
        let text = "text/plain".parse().unwrap();
        as_text.headers_mut().insert("content-type", text);
        requests.push(as_text);
        let too_long = " ".repeat(BODY_BYTES_MAX + 1);
        requests.push(made(call, (call.good.0, &too_long)));
    }
    let mut seen = BTreeSet::new();
    for request in requests {
        seen.insert(node.send(request).await.status.as_u16());
    }
    for mood in [Mood::Starting, Mood::Hangs, Mood::Panics] {
        node.set(mood);
        seen.insert(node.send(good()).await.status.as_u16());
    }
    node.set(Mood::Well);
    if call.path.ends_with("/revoke") {
        *node.directory.revoked_as.lock().unwrap() = Revoked::Stored {
            issued_before: 1,
            waiting: vec!["node-b".into()],
        };
        seen.insert(node.send(good()).await.status.as_u16());
    }
    if has_body {
        let mut held: Vec<_> = (0..BODIES_AT_ONCE)
            .map(|_| Box::pin(node.post_text("/v1/publish", endless())))
            .collect();
        for waiting in &mut held {
            assert!(futures_util::poll!(waiting).is_pending());
        }
        let method = call.method.to_uppercase().parse().unwrap();
        let one_more = node.send(request(method, call.good.0, endless()));
        seen.insert(one_more.await.status.as_u16());
    }
    if call.path.starts_with("/v1/") {
        for _ in 0..21 {
            let mut guess = good();
            let wrong = "Bearer wrong".parse().unwrap();
            guess.headers_mut().insert("authorization", wrong);
            seen.insert(node.send(guess).await.status.as_u16());
        }
    }
    seen
}

#[tokio::test]
async fn every_documented_status_is_given_and_no_other() {
    let mut given = BTreeSet::new();
    for call in calls() {
        for status in statuses(&call).await {
            // A fault is a fault everywhere; only calls with a contract document it.
            if status == 500 && !call.path.starts_with("/v1/") {
                continue;
            }
            given.insert((call.method.into(), call.path.into(), status.to_string()));
        }
    }
    assert_eq!(given, documented());
}

#[tokio::test]
async fn the_routers_paths_equal_the_documents() {
    let (state, _) = state();
    // The router names its paths nowhere but in its debug form.
    let debug = format!("{:?}", fanfare::api::router(Arc::new(state)));
    let (paths, _) = debug.split_once("fallback_router").unwrap();
    let quoted = paths.split('"').skip(1).step_by(2);
    let routed: BTreeSet<_> = quoted.filter(|text| text.starts_with('/')).collect();
    let document = document();
    let documented: BTreeSet<_> = document["paths"].as_object().unwrap().keys().collect();
    let documented: BTreeSet<_> = documented.into_iter().map(String::as_str).collect();
    assert_eq!(routed, documented);
}

#[tokio::test]
async fn a_method_that_is_not_documented_is_refused() {
    let node = Node::start();
    let documented = documented();
    for call in calls() {
        for method in ["get", "post", "put", "patch", "delete"] {
            let is_documented = documented
                .iter()
                .any(|(m, path, _)| m == method && path == call.path);
            let wanted: Method = method.to_uppercase().parse().unwrap();
            let answer = node.send(request(wanted, call.good.0, Body::empty())).await;
            let is_refused = answer.status == 405;
            assert_eq!(is_refused, !is_documented, "{method} {}", call.path);
        }
    }
}

/// Without a key nothing is told of what else is wrong, and nothing is done.
#[tokio::test]
async fn the_key_is_asked_for_before_all_else() {
    let node = Node::start();
    for call in calls().iter().filter(|call| call.path.starts_with("/v1/")) {
        for (path, body) in [Some(call.good), call.bad].into_iter().flatten() {
            let mut request = made(call, (path, body));
            let headers = request.headers_mut();
            headers.remove("authorization");
            headers.remove("content-type");
            let answer = node.send(request).await;
            assert_eq!(answer.status, 401, "{} {path} {body}", call.method);
        }
    }
}

#[tokio::test]
async fn calls_whose_time_has_not_come_are_in_neither() {
    let node = Node::start();
    let absent = ["/v1/topics/t/state", "/v1/events"];
    for path in absent {
        for method in [Method::GET, Method::POST] {
            let answer = node.send(request(method, path, Body::from("{}"))).await;
            assert_eq!(answer.status, 404, "{path}");
        }
    }
    let text = String::from_utf8(openapi::text().to_vec()).unwrap();
    for word in ["if_position", "remove\""] {
        assert!(!text.contains(word), "{word}");
    }
}

#[tokio::test]
async fn the_document_is_openapi_3_1_and_served_as_it_stands_in_docs() {
    let node = Node::start();
    let request = Request::get("/openapi.json").body(Body::empty()).unwrap();
    let served = node.send(request).await;
    assert_eq!(served.headers["content-type"], "application/json");
    let version = served.value()["openapi"].as_str().unwrap().to_owned();
    assert!(version.starts_with("3.1."), "{version}");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(FILE, &served.bytes).unwrap();
    }
    let kept = std::fs::read(FILE).unwrap_or_default();
    assert!(
        kept == served.bytes,
        "docs/openapi.json is not what the code says; `BLESS=1 cargo test --test api` writes it"
    );
}

/// Generators take a property with a default for one that is always there, and one that may be
/// null for one that a caller must handle.
#[test]
fn optional_fields_have_no_default_and_are_never_null() {
    fn visit(place: &str, value: &Value) {
        if let Value::Object(map) = value {
            assert!(!map.contains_key("default"), "{place} has a default");
            let nulls = [json!("null"), json!({"type": "null"})];
            for key in ["type", "oneOf", "anyOf"] {
                let kinds = map.get(key).and_then(Value::as_array);
                let is_null = kinds.is_some_and(|kinds| nulls.iter().any(|n| kinds.contains(n)));
                assert!(!is_null, "{place} may be null");
            }
            for (key, value) in map.iter().filter(|(key, _)| *key != "example") {
                visit(&format!("{place}/{key}"), value);
            }
        }
        if let Value::Array(list) = value {
            list.iter().for_each(|value| visit(place, value));
        }
    }
    let document = document();
    visit("", &document);
    assert_eq!(document["servers"].as_array().map(Vec::len), Some(1));
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["PublishBody"]["required"], json!(["data"]));
    assert_eq!(schemas["PublishAnswer"]["required"], json!(["results"]));
}

#[tokio::test]
async fn every_reference_of_the_document_leads_somewhere() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn an_answer_has_no_field_that_its_schema_does_not_name() {
    let node = Node::start();
    let body = json!({"topics": ["t", " "], "data": 1, "priority": "low", "key": "k"});
    let published = node.post("/v1/publish", &body).await.value();
    let history = node.get("/v1/topics/t/history").await.value();
    let topic = node.get("/v1/topics/t").await.value();
    let nodes = node.get("/v1/nodes").await.value();
    let document = document();
    for (schema, answer) in [
        ("PublishAnswer", &published),
        ("HistoryAnswer", &history),
        ("Message", &history["publications"][0]),
        ("TopicAnswer", &topic),
        ("NodeStatus", &nodes["nodes"][0]),
    ] {
        let properties = &document["components"]["schemas"][schema]["properties"];
        for field in answer.as_object().unwrap().keys() {
            assert!(properties.get(field).is_some(), "{schema} has no {field}");
        }
    }
}
