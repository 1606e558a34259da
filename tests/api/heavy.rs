//! Long bodies and long answers, and who goes on meanwhile.
//!
//! In: calls on a runtime of one thread, on which another task takes turns without end. Out: whether
//! that task had a turn between the begin of a call and its answer. Without another thread to go on
//! it has none, because nothing in these calls waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Method, Request};
use bytes::Bytes;
use fanfare::api::body_budget::BodyBudget;
use fanfare::api::state::NodeSessions;
use fanfare::config;
use fanfare_protocol::ids::{App, Topic};
use serde_json::json;

use crate::fixture::{DATA_BYTES_MAX, Node, request, state};

/// The longest body that this node takes.
const BODY_BYTES_MAX: usize = 8 << 20;
/// A call is made again for so long until the other task has a turn: a thread that is woken may come
/// late, and the call be over by then.
const PATIENCE: Duration = Duration::from_secs(60);

fn node() -> Node {
    let (mut state, directory) = state();
    let config = config::Config::clone(&state.config);
    let api = config::Api {
        body_bytes_max: BODY_BYTES_MAX,
        ..config.api.clone()
    };
    state.config = Arc::new(config::Config { api, ..config });
    state.bodies = BodyBudget::new(BODY_BYTES_MAX);
    Node::of((state, directory))
}

/// Calls that make much work, by name: what to send, and the status of the answer.
type Calls = Vec<(&'static str, Box<dyn Fn() -> Request<Body> + Send>, u16)>;

fn get(path: &'static str) -> Box<dyn Fn() -> Request<Body> + Send> {
    Box::new(move || request(Method::GET, path, Body::empty()))
}

fn post(
    path: &'static str,
    form: &'static str,
    body: impl Into<Bytes>,
) -> Box<dyn Fn() -> Request<Body> + Send> {
    let body = body.into();
    Box::new(move || {
        let mut request = request(Method::POST, path, Body::from(body.clone()));
        let headers = request.headers_mut();
        headers.insert("content-type", form.parse().unwrap());
        request
    })
}

fn calls() -> Calls {
    let (json, msgpack) = ("application/json", "application/msgpack");
    let items = format!("[{}0]", "0,".repeat(500_000));
    let nothing = [&b"\xdd\x00\x07\xa1\x20"[..], &b"\xc0".repeat(500_000)].concat();
    let names = vec!["t"; 100_000];
    let targets = json!({"topics": names, "data": 1}).to_string();
    let failing = json!([{"topics": vec!["no name"; 1_000], "data": 1}]).to_string();
    vec![
        ("many items", post("/v1/batch", json, items), 400),
        (
            "many items in MessagePack",
            post("/v1/batch", msgpack, nothing),
            400,
        ),
        ("many targets", post("/v1/publish", json, targets), 400),
        ("many results", post("/v1/batch", json, failing), 400),
        ("a page of topics", get("/v1/topics?limit=1000"), 200),
        (
            "a page of history",
            get("/v1/topics/t/history?limit=100"),
            200,
        ),
        (
            "a page of an inbox",
            get("/v1/users/u/inbox?limit=100"),
            200,
        ),
    ]
}

/// Topics with sessions, and a topic and an inbox with a long history.
async fn fill(node: &Node) {
    for n in 0..1_000 {
        let topic = Topic::new(&App::default_app(), &format!("room:{n}")).unwrap();
        let sessions = NodeSessions {
            node: "node-a".to_owned(),
            sessions: 1,
        };
        let mut all = node.directory.occupancy.lock().unwrap();
        all.insert(topic, vec![sessions]);
    }
    let data = "x".repeat(DATA_BYTES_MAX / 2);
    for target in ["topic", "user"] {
        for _ in 0..50 {
            let name = &target[..1];
            let body = json!({target: name, "data": data});
            let answered = node.post("/v1/publish", &body).await;
            assert_eq!(answered.status, 200);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn others_of_the_runtime_go_on_while_a_long_body_is_read_or_a_long_answer_written() {
    let turns = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&turns);
    tokio::spawn(async move {
        loop {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
        }
    });
    // On the one thread of the runtime, as the API is.
    let calling = tokio::spawn(async move {
        let node = node();
        fill(&node).await;
        for (name, make, status) in calls() {
            let begun = Instant::now();
            loop {
                let request = make();
                tokio::task::yield_now().await;
                let before = turns.load(Ordering::SeqCst);
                let answered = node.send(request).await;
                let after = turns.load(Ordering::SeqCst);
                assert_eq!(answered.status.as_u16(), status, "{name}: {answered:?}");
                if after > before {
                    break;
                }
                assert!(begun.elapsed() < PATIENCE, "nobody goes on beside {name}");
            }
        }
    });
    calling.await.unwrap();
}
