//! What the API counts of its own calls, and in which forms it tells all that is counted.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::Method;
use fanfare::telemetry::family::Label as _;
use fanfare::telemetry::labels::{Route, Status};

use crate::fixture::{Answered, Node, request};

async fn metrics(node: &Node, accept: &str) -> (String, String) {
    let mut scrape = request(Method::GET, "/metrics", Body::empty());
    let headers = scrape.headers_mut();
    headers.insert("accept", accept.parse().expect("a header's value"));
    let Answered { headers, bytes, .. } = node.send(scrape).await;
    let kind = headers["content-type"].to_str().expect("text").to_owned();
    (kind, String::from_utf8(bytes.to_vec()).expect("UTF-8"))
}

/// The names of all series, without their values.
fn names(text: &str) -> BTreeSet<&str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let names = lines.map(|line| line.rsplit_once(' ').expect("a value").0);
    names.collect()
}

#[tokio::test]
async fn the_routes_that_are_counted_are_those_of_the_document() {
    let node = Node::start();
    let document = node.get("/openapi.json").await.value();
    let paths = document["paths"].as_object().expect("paths").keys();
    let documented: BTreeSet<_> = paths.map(String::as_str).collect();
    let counted = Route::ALL.iter().map(|route| route.word());
    let counted: BTreeSet<_> = counted.filter(|word| *word != "other").collect();
    assert_eq!(counted, documented);
}

#[tokio::test]
async fn a_path_is_counted_by_its_template_and_strange_ones_together() {
    let node = Node::start();
    for n in 0..50 {
        assert_eq!(node.get(&format!("/v1/topics/t{n}")).await.status, 200);
        assert_eq!(node.get(&format!("/strange/{n}")).await.status, 404);
    }
    let wrong = request(Method::PUT, "/v1/topics/t", Body::empty());
    assert_eq!(node.send(wrong).await.status, 405);
    let count = |route, status| node.metrics.api.requests(route, status);
    assert_eq!(count(Route::Topic, Status::Ok), 50);
    assert_eq!(count(Route::Other, Status::NotFound), 50);
    assert_eq!(count(Route::Topic, Status::MethodNotAllowed), 1);
    let (_, text) = metrics(&node, "text/plain").await;
    let took = r#"fanfare_api_request_seconds_count{route="/v1/topics/{topic}"} 51"#;
    assert!(text.lines().any(|line| line == took), "{text}");
    assert!(!text.contains("strange"), "{text}");
}

#[tokio::test]
async fn ten_thousand_topics_make_no_series() {
    let node = Node::start();
    let publish = async |from: usize| {
        let items =
            (from..from + 1_000).map(|n| serde_json::json!({"topic": format!("t:{n}"), "data": n}));
        let items = serde_json::Value::Array(items.collect());
        assert_eq!(node.post("/v1/batch", &items).await.status, 200);
    };
    publish(0).await;
    // The first scrape makes the series of scrapes.
    metrics(&node, "text/plain").await;
    let (_, before) = metrics(&node, "text/plain").await;
    for thousand in 1..10 {
        publish(thousand * 1_000).await;
    }
    let (_, after) = metrics(&node, "text/plain").await;
    assert!(after.contains("fanfare_published_total 10000\n"), "{after}");
    assert_eq!(names(&before), names(&after));
}

#[tokio::test]
async fn open_metrics_are_told_to_whom_asks_for_them() {
    const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
    const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let node = Node::start();
    for (accept, expected) in [
        ("*/*", TEXT),
        ("text/plain", TEXT),
        ("application/json", TEXT),
        ("application/openmetrics-text", OPEN),
        ("Application/OpenMetrics-Text; Version=\"1.0.0\"", OPEN),
        ("application/openmetrics-text; version=0.0.1", TEXT),
        ("application/openmetrics-text; version=2.0.0", TEXT),
        ("application/openmetrics-text;q=0", TEXT),
        ("application/openmetrics-text;q=x", TEXT),
        ("application/openmetrics-text;q=0.1, text/*;q=0.9", TEXT),
        ("application/openmetrics-text;q=0.1,*/*;q=0.9", TEXT),
        (
            "application/openmetrics-text;q=0.9,text/plain;q=0.2,*/*",
            OPEN,
        ),
        (
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.6",
            TEXT,
        ),
        // As Prometheus asks.
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            OPEN,
        ),
    ] {
        assert_eq!(metrics(&node, accept).await.0, expected, "{accept}");
    }
}

#[tokio::test]
async fn both_forms_tell_the_same_series() {
    let node = Node::start();
    metrics(&node, "*/*").await;
    let (_, text) = metrics(&node, "*/*").await;
    let (_, open) = metrics(&node, "application/openmetrics-text").await;
    assert_eq!(names(&text), names(&open));
    assert!(open.ends_with("\n# EOF\n") && !text.contains("# EOF"));
    for line in [
        "# TYPE fanfare_commands counter",
        "# TYPE fanfare_bytes_read counter",
        "# UNIT fanfare_delivery_backlog_bytes bytes",
        "# UNIT fanfare_publish_seconds seconds",
        "# TYPE process_cpu_seconds counter",
    ] {
        assert!(open.lines().any(|told| told == line), "{line}: {open}");
    }
}
